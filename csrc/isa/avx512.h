/* AVX-512 (F, BW, DQ, VL): 32 registers of 64 bytes. */
#ifdef __clang__
#define TARGET_PUSHED
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
/* Tuned so, gcc spills to the stack and not to vector registers (tile.h). */
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,tune=haswell")
#endif
#include <immintrin.h>

#define ISA "avx512"
#define VECTOR_BYTES 64
#define TILE_ROWS_4V 6
#define TILE_ROWS_3V 8
#define TILE_ROWS_2V 12
#define UP_TO_TILE_ROWS_4V UP_TO_6
#define UP_TO_TILE_ROWS_3V UP_TO_8
#define UP_TO_TILE_ROWS_2V UP_TO_12

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
