/* What every machine of the architecture has; on x86-64 SSE2, 16 registers of 16 bytes, no FMA. */
#define ISA "baseline"
#define VBYTES 16
#define MR 2
#define MR_3 2
#define MR_2 4
#define UP_TO_MR UP_TO_2
#define UP_TO_MR_3 UP_TO_2
#define UP_TO_MR_2 UP_TO_4

typedef real V __attribute__((vector_size(VBYTES)));
#ifdef __SSE2__
#include <emmintrin.h>
#define HAS_MIN_MAX
#if REAL_BYTES == 4
INLINE V min_(V limit, V x) { return _mm_min_ps(limit, x); }
INLINE V max_(V limit, V x) { return _mm_max_ps(limit, x); }
#else
INLINE V min_(V limit, V x) { return _mm_min_pd(limit, x); }
INLINE V max_(V limit, V x) { return _mm_max_pd(limit, x); }
#endif
#endif
