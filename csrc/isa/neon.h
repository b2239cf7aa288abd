/* NEON of 64-bit Arm: 32 registers of 16 bytes. */
#include <arm_neon.h>

#define ISA "neon"
#define VBYTES 16
#define MR 6
#define MR_3 8
#define MR_2 12
#define UP_TO_MR UP_TO_6
#define UP_TO_MR_3 UP_TO_8
#define UP_TO_MR_2 UP_TO_12

#define HAS_FMA
#define HAS_MIN_MAX
typedef real V __attribute__((vector_size(VBYTES)));
#if REAL_BYTES == 4
INLINE V fma_(V a, V b, V c) { return vfmaq_f32(c, a, b); }
INLINE V min_(V limit, V x) { return vminq_f32(limit, x); }
INLINE V max_(V limit, V x) { return vmaxq_f32(limit, x); }
#else
INLINE V fma_(V a, V b, V c) { return vfmaq_f64(c, a, b); }
INLINE V min_(V limit, V x) { return vminq_f64(limit, x); }
INLINE V max_(V limit, V x) { return vmaxq_f64(limit, x); }
#endif
