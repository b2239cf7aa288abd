/* AVX-512 (F, BW, DQ, VL): 32 registers of 64 bytes. */
#include "isa.h"

#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
/* Tuned so, gcc spills to the stack and not to vector registers (tile.h). */
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,tune=haswell")
#endif
#include <immintrin.h>

#define ISA "avx512"
#define ISA_TABLE rnnfast_avx512
#define VBYTES 64
#define MR 6
#define MR_3 8
#define MR_2 12
#define UP_TO_MR UP_TO_6
#define UP_TO_MR_3 UP_TO_8
#define UP_TO_MR_2 UP_TO_12
#define FMA_f32 _mm512_fmadd_ps
#define FMA_f64 _mm512_fmadd_pd
#define MIN_f32 _mm512_min_ps
#define MIN_f64 _mm512_min_pd
#define MAX_f32 _mm512_max_ps
#define MAX_f64 _mm512_max_pd
#define RECIP_f32 _mm512_rcp14_ps
#define RECIP_f64 _mm512_rcp14_pd
#define PERMUTE_f32(a, i, b) _mm512_permutex2var_ps(a, (__m512i)(i), b)
#define PERMUTE_f64(a, i, b) _mm512_permutex2var_pd(a, (__m512i)(i), b)
#define LOAD_N_f32(p, n) _mm512_maskz_loadu_ps((__mmask16)((1u << (n)) - 1), p)
#define LOAD_N_f64(p, n) _mm512_maskz_loadu_pd((__mmask8)((1u << (n)) - 1), p)
#define STORE_N_f32(p, v, n) _mm512_mask_storeu_ps(p, (__mmask16)((1u << (n)) - 1), v)
#define STORE_N_f64(p, v, n) _mm512_mask_storeu_pd(p, (__mmask8)((1u << (n)) - 1), v)

#define DOUBLE 0
#include "kernels.inc"
#undef DOUBLE
#define DOUBLE 1
#include "kernels.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
