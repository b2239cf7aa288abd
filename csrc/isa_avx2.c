/* AVX2 and FMA: 16 registers of 32 bytes. */
#include "isa.h"

#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
/* Tuned so, gcc spills to the stack and not to vector registers (tile.h). */
#pragma GCC target("avx2,fma,tune=haswell")
#endif
#include <immintrin.h>

#define ISA "avx2"
#define ISA_TABLE rnnfast_avx2
#define VBYTES 32
#define MR 3
#define MR_3 4
#define MR_2 6
#define UP_TO_MR UP_TO_3
#define UP_TO_MR_3 UP_TO_4
#define UP_TO_MR_2 UP_TO_6
#define FMA_f32 _mm256_fmadd_ps
#define FMA_f64 _mm256_fmadd_pd
#define MIN_f32 _mm256_min_ps
#define MIN_f64 _mm256_min_pd
#define MAX_f32 _mm256_max_ps
#define MAX_f64 _mm256_max_pd

INLINE __m256i lanes_f32(ptrdiff_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE __m256i lanes_f64(ptrdiff_t n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
#define LOAD_N_f32(p, n) _mm256_maskload_ps(p, lanes_f32(n))
#define LOAD_N_f64(p, n) _mm256_maskload_pd(p, lanes_f64(n))
#define STORE_N_f32(p, v, n) _mm256_maskstore_ps(p, lanes_f32(n), v)
#define STORE_N_f64(p, v, n) _mm256_maskstore_pd(p, lanes_f64(n), v)

#define DOUBLE 0
#include "kernels.inc"
#undef DOUBLE
#define DOUBLE 1
#include "kernels.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
