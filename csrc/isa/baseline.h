/* What every machine of the architecture has; on x86-64 SSE2, 16 registers of 16 bytes, no FMA. */
#define ISA "baseline"
#define VECTOR_BYTES 16
#define TILE_ROWS_4V 2
#define TILE_ROWS_3V 2
#define TILE_ROWS_2V 4
#define UP_TO_TILE_ROWS_4V UP_TO_2
#define UP_TO_TILE_ROWS_3V UP_TO_2
#define UP_TO_TILE_ROWS_2V UP_TO_4

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
