/* What every machine of the architecture has; on x86-64 SSE2, 16 registers of 16 bytes, no FMA. */
#define ISA "baseline"
#define VECTOR_BYTES 16
#define VECTOR_REGISTERS 16
/* The tallest tile 4, 3 and up to 2 vectors wide, and F(rows, width) for all tiles of that width (tile.h). */
enum { TILE_ROWS_4V = 2, TILE_ROWS_3V = 2, TILE_ROWS_2V = 4 };
#define TILES_4V(F) F(1, 4) F(2, 4)
#define TILES_3V(F) F(1, 3) F(2, 3)
#define TILES_UP_TO_2V(F, NV) F(1, NV) F(2, NV) F(3, NV) F(4, NV)

typedef real V __attribute__((vector_size(VECTOR_BYTES)));
#ifdef __SSE2__
#include <emmintrin.h>
#define HAS_MIN_MAX
#if REAL_BYTES == 4
INLINE V vmin(V limit, V x) { return _mm_min_ps(limit, x); }
INLINE V vmax(V limit, V x) { return _mm_max_ps(limit, x); }
#else
INLINE V vmin(V limit, V x) { return _mm_min_pd(limit, x); }
INLINE V vmax(V limit, V x) { return _mm_max_pd(limit, x); }
#endif
#endif
