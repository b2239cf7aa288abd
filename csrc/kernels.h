/* All kernels of one instruction set and precision. A file of isa/ includes a real_*.h, the header of the instruction
 * set, and this. */
#include "vec.h"
#include "vmath.h"
#include "layout.h"
#include "cells.h"
#include "prefetch.h"
#include "tile.h"
#include "matmul.h"
#include "matmul_edges.h"
#include "pack.h"
#include "step.h"
#include "rnn.h"
#include "gru.h"
#include "gru_step.h"
#include "gru_reset_before.h"
#include "lstm.h"
#include "lstm_step.h"
#include "weight_grads.h"
#include "operations.h"
#include "program.h"
#include "product.h"

INLINE void activate_vectors(int act, ptrdiff_t n, const real *x, real *y, int vectors) {
  V a[4];
  UNROLL for (int i = 0; i < vectors; i++) a[i] = load_partial(x + i * L, n - i * L);
  apply_activation(act, vectors, a);
  UNROLL for (int i = 0; i < vectors; i++) store_partial(y + i * L, a[i], n - i * L);
}

/* y = act(x) for n reals, as the cells compute it. */
static void activate_array(int act, ptrdiff_t n, const void *from, void *to) {
  const real *x = from;
  real *y = to;
  for (; n > 3 * L; n -= 4 * L, x += 4 * L, y += 4 * L) activate_vectors(act, n, x, y, 4);
  for (; n > 0; n -= L, x += L, y += L) activate_vectors(act, n, x, y, 1);
}

/* 12 independent chains hide the latency of 4 cycles at 2 FMAs a cycle. */
static double fma_peak(long repeats) {
  V acc[12], sum = splat(0);
  UNROLL for (int i = 0; i < 12; i++) acc[i] = splat((real)i);
  const V a = splat((real)0.999), b = splat((real)0.001);
  for (long k = 0; k < repeats; k++)
    UNROLL for (int i = 0; i < 12; i++) acc[i] = vfma(acc[i], a, b);
  UNROLL for (int i = 0; i < 12; i++) sum += acc[i];
  OPAQUE(sum);
  return repeats * 12.0 * 2 * L;
}

const rnnfast_kernels KERNELS = {
  ISA, sizeof(real), L, TILE_ROWS_4V,
  packed_size, pack,
  {rnn_step, gru_step, gru_before_step, lstm_step},
  {rnn_dstep, gru_dstep, gru_before_dstep, lstm_dstep},
  one_step, project, dinput, wgrad_plan, bias_grads, wgrad_scratch, wgrad, activate_array, fma_peak,
  run_program, copy_rows, pack_weights, pack_weights_back, multiply,
};

#ifdef TARGET_PUSHED
#pragma clang attribute pop
#endif
