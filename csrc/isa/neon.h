/* NEON of 64-bit Arm: 32 registers of 16 bytes. */
#include <arm_neon.h>

#define ISA "neon"
#define VECTOR_BYTES 16
#define TILE_ROWS_4V 6
#define TILE_ROWS_3V 8
#define TILE_ROWS_2V 12
#define UP_TO_TILE_ROWS_4V UP_TO_6
#define UP_TO_TILE_ROWS_3V UP_TO_8
#define UP_TO_TILE_ROWS_2V UP_TO_12

#define HAS_FMA
#define HAS_MIN_MAX
typedef real V __attribute__((vector_size(VECTOR_BYTES)));
#if REAL_BYTES == 4
INLINE V vfma(V a, V b, V c) { return vfmaq_f32(c, a, b); }
INLINE V vmin(V limit, V x) { return vminq_f32(limit, x); }
INLINE V vmax(V limit, V x) { return vmaxq_f32(limit, x); }
#else
INLINE V vfma(V a, V b, V c) { return vfmaq_f64(c, a, b); }
INLINE V vmin(V limit, V x) { return vminq_f64(limit, x); }
INLINE V vmax(V limit, V x) { return vmaxq_f64(limit, x); }
#endif
