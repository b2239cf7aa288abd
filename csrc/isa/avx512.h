/* AVX-512 (F, BW, DQ, VL): 32 registers of 64 bytes. */
#ifdef __clang__
#define TARGET_PUSHED
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
/* With this tuning gcc spills to the stack and not to vector registers (tile.h). */
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,tune=haswell")
#endif
#include <immintrin.h>

#define ISA "avx512"
#define VECTOR_BYTES 64
#define VECTOR_REGISTERS 32
/* The tallest tile 4, 3 and up to 2 vectors wide, and F(rows, width) for all tiles of that width (tile.h). */
enum { TILE_ROWS_4V = 6, TILE_ROWS_3V = 8, TILE_ROWS_2V = 12 };
#define TILES_4V(F) F(1, 4) F(2, 4) F(3, 4) F(4, 4) F(5, 4) F(6, 4)
#define TILES_3V(F) F(1, 3) F(2, 3) F(3, 3) F(4, 3) F(5, 3) F(6, 3) F(7, 3) F(8, 3)
#define TILES_UP_TO_2V(F, NV) \
  F(1, NV) F(2, NV) F(3, NV) F(4, NV) F(5, NV) F(6, NV) F(7, NV) F(8, NV) F(9, NV) F(10, NV) F(11, NV) F(12, NV)

#define HAS_FMA
#define HAS_MIN_MAX
#define HAS_MASKED_LOADS
#define HAS_RECIP
#define HAS_PERMUTE
typedef real V __attribute__((vector_size(VECTOR_BYTES)));
typedef real_int VI __attribute__((vector_size(VECTOR_BYTES)));
#if REAL_BYTES == 4
INLINE V vfma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
INLINE V vmin(V limit, V x) { return _mm512_min_ps(limit, x); }
INLINE V vmax(V limit, V x) { return _mm512_max_ps(limit, x); }
INLINE V recip(V x) { return _mm512_rcp14_ps(x); }
INLINE V permute(V a, VI i, V b) { return _mm512_permutex2var_ps(a, (__m512i)i, b); }
INLINE V load_first(const real *p, ptrdiff_t n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
INLINE void store_first(real *p, V v, ptrdiff_t n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v); }
#else
INLINE V vfma(V a, V b, V c) { return _mm512_fmadd_pd(a, b, c); }
INLINE V vmin(V limit, V x) { return _mm512_min_pd(limit, x); }
INLINE V vmax(V limit, V x) { return _mm512_max_pd(limit, x); }
INLINE V recip(V x) { return _mm512_rcp14_pd(x); }
INLINE V permute(V a, VI i, V b) { return _mm512_permutex2var_pd(a, (__m512i)i, b); }
INLINE V load_first(const real *p, ptrdiff_t n) { return _mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p); }
INLINE void store_first(real *p, V v, ptrdiff_t n) { _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), v); }
#endif
