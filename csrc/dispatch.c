/* Which kernels this processor can run. */
#include <string.h>

#include "rnnfast.h"
#include "cells.h"

extern const rnnfast_kernels rnnfast_baseline_f32, rnnfast_baseline_f64;
#if defined(__x86_64__)
extern const rnnfast_kernels rnnfast_avx2_f32, rnnfast_avx2_f64, rnnfast_avx512_f32, rnnfast_avx512_f64;
#elif defined(__aarch64__)
extern const rnnfast_kernels rnnfast_neon_f32, rnnfast_neon_f64;
#endif

typedef struct { const rnnfast_kernels *f32, *f64; } pair;

static int pairs(pair *to) {
  int n = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    to[n++] = (pair){&rnnfast_avx512_f32, &rnnfast_avx512_f64};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    to[n++] = (pair){&rnnfast_avx2_f32, &rnnfast_avx2_f64};
#elif defined(__aarch64__)
  to[n++] = (pair){&rnnfast_neon_f32, &rnnfast_neon_f64};
#endif
  to[n++] = (pair){&rnnfast_baseline_f32, &rnnfast_baseline_f64};
  return n;
}

const rnnfast_cell *rnnfast_cell_of(int cell) { return &rnnfast_cells[cell]; }

const char *const *rnnfast_isas(void) {
  static const char *names[4];
  pair p[3];
  const int n = pairs(p);
  for (int i = 0; i < n; i++) names[i] = p[i].f32->isa;
  return names;
}

const rnnfast_kernels *rnnfast_table(const char *isa, int size) {
  pair p[3];
  const int n = pairs(p);
  for (int i = 0; i < n; i++)
    if (!strcmp(isa, p[i].f32->isa)) return size == 4 ? p[i].f32 : p[i].f64;
  return NULL;
}

const char *rnnfast_compiler(void) {
#ifdef __clang__
  return __VERSION__;
#else
  return "GCC " __VERSION__;
#endif
}
