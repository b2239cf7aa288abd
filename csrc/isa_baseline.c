/* What every machine of the architecture has; on x86-64 SSE2, 16 registers of 16 bytes, no FMA. */
#include "isa.h"

#define ISA "baseline"
#define ISA_TABLE rnnfast_baseline
#define VBYTES 16
#define MR 2
#define MR_3 2
#define MR_2 4
#define UP_TO_MR UP_TO_2
#define UP_TO_MR_3 UP_TO_2
#define UP_TO_MR_2 UP_TO_4
#ifdef __SSE2__
#include <emmintrin.h>
#define MIN_f32 _mm_min_ps
#define MIN_f64 _mm_min_pd
#define MAX_f32 _mm_max_ps
#define MAX_f64 _mm_max_pd
#endif

#define DOUBLE 0
#include "kernels.inc"
#undef DOUBLE
#define DOUBLE 1
#include "kernels.inc"
