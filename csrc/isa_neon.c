/* NEON of 64-bit Arm: 32 registers of 16 bytes. */
#include "isa.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#define ISA "neon"
#define ISA_TABLE rnnfast_neon
#define VBYTES 16
#define MR 6
#define MR_3 8
#define MR_2 12
#define UP_TO_MR UP_TO_6
#define UP_TO_MR_3 UP_TO_8
#define UP_TO_MR_2 UP_TO_12
#define FMA_f32(a, b, c) vfmaq_f32(c, a, b)
#define FMA_f64(a, b, c) vfmaq_f64(c, a, b)
#define MIN_f32 vminq_f32
#define MIN_f64 vminq_f64
#define MAX_f32 vmaxq_f32
#define MAX_f64 vmaxq_f64

#define DOUBLE 0
#include "kernels.inc"
#undef DOUBLE
#define DOUBLE 1
#include "kernels.inc"
#endif
