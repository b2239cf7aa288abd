/* AVX2 and FMA: 16 registers of 32 bytes. */
#ifdef __clang__
#define TARGET_PUSHED
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
/* With this tuning gcc spills to the stack and not to vector registers (tile.h). */
#pragma GCC target("avx2,fma,tune=haswell")
#endif
#include <immintrin.h>

#define ISA "avx2"
#define VECTOR_BYTES 32
#define VECTOR_REGISTERS 16
/* The tallest tile 4, 3 and up to 2 vectors wide, and F(rows, width) for all tiles of that width (tile.h). */
enum { TILE_ROWS_4V = 3, TILE_ROWS_3V = 4, TILE_ROWS_2V = 6 };
#define TILES_4V(F) F(1, 4) F(2, 4) F(3, 4)
#define TILES_3V(F) F(1, 3) F(2, 3) F(3, 3) F(4, 3)
#define TILES_UP_TO_2V(F, NV) F(1, NV) F(2, NV) F(3, NV) F(4, NV) F(5, NV) F(6, NV)

#define HAS_FMA
#define HAS_MIN_MAX
#define HAS_MASKED_LOADS
typedef real V __attribute__((vector_size(VECTOR_BYTES)));
#if REAL_BYTES == 4
INLINE __m256i first_lanes(ptrdiff_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE V vfma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
INLINE V vmin(V limit, V x) { return _mm256_min_ps(limit, x); }
INLINE V vmax(V limit, V x) { return _mm256_max_ps(limit, x); }
INLINE V load_first(const real *p, ptrdiff_t n) { return _mm256_maskload_ps(p, first_lanes(n)); }
INLINE void store_first(real *p, V v, ptrdiff_t n) { _mm256_maskstore_ps(p, first_lanes(n), v); }
#else
INLINE __m256i first_lanes(ptrdiff_t n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
INLINE V vfma(V a, V b, V c) { return _mm256_fmadd_pd(a, b, c); }
INLINE V vmin(V limit, V x) { return _mm256_min_pd(limit, x); }
INLINE V vmax(V limit, V x) { return _mm256_max_pd(limit, x); }
INLINE V load_first(const real *p, ptrdiff_t n) { return _mm256_maskload_pd(p, first_lanes(n)); }
INLINE void store_first(real *p, V v, ptrdiff_t n) { _mm256_maskstore_pd(p, first_lanes(n), v); }
#endif
