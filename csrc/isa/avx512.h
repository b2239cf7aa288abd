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
#define VBYTES 64
#define MR 6
#define MR_3 8
#define MR_2 12
#define UP_TO_MR UP_TO_6
#define UP_TO_MR_3 UP_TO_8
#define UP_TO_MR_2 UP_TO_12

#define HAS_FMA
#define HAS_MIN_MAX
#define HAS_MASKED_LOADS
#define HAS_RECIP
#define HAS_PERMUTE
typedef real V __attribute__((vector_size(VBYTES)));
typedef real_int VI __attribute__((vector_size(VBYTES)));
#if REAL_BYTES == 4
INLINE V fma_(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
INLINE V min_(V limit, V x) { return _mm512_min_ps(limit, x); }
INLINE V max_(V limit, V x) { return _mm512_max_ps(limit, x); }
INLINE V recip(V x) { return _mm512_rcp14_ps(x); }
INLINE V permute(V a, VI i, V b) { return _mm512_permutex2var_ps(a, (__m512i)i, b); }
INLINE V load_n(const real *p, ptrdiff_t n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
INLINE void store_n(real *p, V v, ptrdiff_t n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v); }
#else
INLINE V fma_(V a, V b, V c) { return _mm512_fmadd_pd(a, b, c); }
INLINE V min_(V limit, V x) { return _mm512_min_pd(limit, x); }
INLINE V max_(V limit, V x) { return _mm512_max_pd(limit, x); }
INLINE V recip(V x) { return _mm512_rcp14_pd(x); }
INLINE V permute(V a, VI i, V b) { return _mm512_permutex2var_pd(a, (__m512i)i, b); }
INLINE V load_n(const real *p, ptrdiff_t n) { return _mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p); }
INLINE void store_n(real *p, V v, ptrdiff_t n) { _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), v); }
#endif
