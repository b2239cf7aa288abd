/* NEON of 64-bit Arm: 32 registers of 16 bytes. */
#include <arm_neon.h>

#define ISA "neon"
#define VECTOR_BYTES 16
#define VECTOR_REGISTERS 32
/* The tallest tile 4, 3 and up to 2 vectors wide, and F(rows, width) for all tiles of that width (tile.h). */
enum { TILE_ROWS_4V = 6, TILE_ROWS_3V = 8, TILE_ROWS_2V = 12 };
#define TILES_4V(F) F(1, 4) F(2, 4) F(3, 4) F(4, 4) F(5, 4) F(6, 4)
#define TILES_3V(F) F(1, 3) F(2, 3) F(3, 3) F(4, 3) F(5, 3) F(6, 3) F(7, 3) F(8, 3)
#define TILES_UP_TO_2V(F, NV) \
  F(1, NV) F(2, NV) F(3, NV) F(4, NV) F(5, NV) F(6, NV) F(7, NV) F(8, NV) F(9, NV) F(10, NV) F(11, NV) F(12, NV)

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
