/* All kernels of one instruction set and precision: a file of isa/ includes a real_*.h, the header of the
 * instruction set and this. */
#define L ((int)(VECTOR_BYTES / sizeof(real)))
#define LANES (VECTOR_BYTES / REAL_BYTES) /* the same for the preprocessor */

/* F(m, ...) for every m from 1 on. The ISA's header defines MR, MR_3 and MR_2, the rows of the tallest tile 4, 3
 * and up to 2 vectors wide, and UP_TO_MR and so on for each. MR_2 is at least 4, a group of activations. */
#define UP_TO_2(F, ...) F(1, __VA_ARGS__) F(2, __VA_ARGS__)
#define UP_TO_3(F, ...) UP_TO_2(F, __VA_ARGS__) F(3, __VA_ARGS__)
#define UP_TO_4(F, ...) UP_TO_3(F, __VA_ARGS__) F(4, __VA_ARGS__)
#define UP_TO_6(F, ...) UP_TO_4(F, __VA_ARGS__) F(5, __VA_ARGS__) F(6, __VA_ARGS__)
#define UP_TO_8(F, ...) UP_TO_6(F, __VA_ARGS__) F(7, __VA_ARGS__) F(8, __VA_ARGS__)
#define UP_TO_12(F, ...)                                                                        \
  UP_TO_8(F, __VA_ARGS__) F(9, __VA_ARGS__) F(10, __VA_ARGS__) F(11, __VA_ARGS__) F(12, __VA_ARGS__)

/* A case of a switch over them. */
#define CASE(m, F, ...) case m: F(__VA_ARGS__, m); break;

#include "vec.h"
#include "vmath.h"
#include "tile.h"
#include "matmul.h"
#include "pack.h"

/* Zero the rows of a state (or of its gradient) that an episode boundary cuts off. */
static NOINLINE void reset_rows(ptrdiff_t rows, const uint8_t *reset, real *h, ptrdiff_t stride, ptrdiff_t n) {
  for (ptrdiff_t r = 0; r < rows; r++)
    if (reset[r]) memset(h + r * stride, 0, n * sizeof(real));
}

/* The gradient that reaches units u .. u + L of row r: from later steps and from y. */
INLINE V upstream_gradient(const rnnfast_dstep *s, ptrdiff_t r, ptrdiff_t u, ptrdiff_t P) {
  const V dh = load((const real *)s->dh + r * s->dh_stride + u);
  const real *dy = (const real *)s->dy + data_row(s->row_index, r) * s->dy_stride + u;
  if (!s->dy) return dh;
  return dh + load_partial(dy, P - u);
}

/* Fetch what row r of the call after this one reads besides its gates. With 4 rows of 128 units a step back
 * takes 5 (LSTM), 7 (GRU) and 16 per cent (RNN) less time, with 32 1 to 4 (Zen 4). */
INLINE void prefetch_next_step(const rnnfast_packed *w, const rnnfast_dstep *s, ptrdiff_t r) {
  const rnnfast_dstep *next = s->next;
  if (!next) return;
  if (next->dy) prefetch_lines((const real *)next->dy + data_row(next->row_index, r) * next->dy_stride, w->P, 0);
  if (w->cell == RNNFAST_LSTM) prefetch_lines((const real *)next->c + r * next->c_stride, w->H, 0);
  else if (w->cell != RNNFAST_RNN) prefetch_lines((const real *)next->h + r * next->h_stride, w->H, 0);
}

/* What a step's sums begin with, from row r on. */
INLINE const real *initial_sums(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t r) {
  return s->x_projected ? (const real *)s->x_projected + r * s->x_projected_stride : w->bias;
}

/* How many k a step sums over: those of x, unless `init` has them, and of h. */
INLINE ptrdiff_t k_of_step(const rnnfast_packed *w, const rnnfast_step *s) {
  return (s->x_projected ? 0 : w->I) + w->P;
}

/* How many of the full panels of a single row have the narrow one beside them. */
INLINE ptrdiff_t panels_beside_tail(const rnnfast_packed *w, ptrdiff_t full) {
  return !w->dense_tail ? 0 : full % 2 ? 1 : 2;
}

/* Row r of a step in x and y. */
INLINE const real *x_row(const rnnfast_step *s, ptrdiff_t r) {
  return (const real *)s->x + data_row(s->row_index, r) * s->x_stride;
}
INLINE real *y_row(const rnnfast_step *s, ptrdiff_t r) {
  return (real *)s->y + data_row(s->row_index, r) * s->y_stride;
}

/* Fetch, while its sums are added up, what a tile is going to write: nv vectors of units from u on. Stores wait
 * for their lines in order, and some 40 of a tile that come from the third cache or memory hold up everything
 * behind them. A step with tape takes 4 to 17 per cent less time (from H = 128 on, the LSTM most), one without
 * up to 6; where all is near it would take up to 5 more (Zen 4). */
INLINE void prefetch_outputs(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t u, int nv, int slots,
                           ptrdiff_t r, int mr) {
  if (!s->outputs_cold) return;
  for (ptrdiff_t row = r; row < r + mr; row++) {
    prefetch_lines(y_row(s, row) + u, nv * L, 1);
    if (!s->gates) continue;
    prefetch_lines((real *)s->gates + row * s->gates_stride + slots * u, slots * nv * L, 1);
    prefetch_lines((real *)s->h_next + row * s->h_next_stride + u, nv * L, 1);
    if (w->cell == RNNFAST_LSTM) prefetch_lines((real *)s->c_next + row * s->c_stride + u, nv * L, 1);
  }
}

/* A step's sums, on one of `panels` after the other, nx vectors wide for x and nh for h: that of h is the last,
 * that of x the first unless it stands ready as the step's `init`. `weights_leave_l2`: weights need to be fetched. */
typedef struct { operand_t operand[2]; const real *first_panel[2]; ptrdiff_t panel_size[2], panels; int n, weights_leave_l2; } step_operands_t;

/* What the tiles on a panel at b fetch: the panel after it, at last the first of the next step. */
INLINE const real *next_weights(const real *b, ptrdiff_t size, ptrdiff_t panels, const real *first, int weights_leave_l2) {
  return !weights_leave_l2 ? NULL : panels > 1 ? b + size : first;
}

/* Without weights to fetch, the tiles of the first panel fetch x, each that of the one after it: up to 2 per
 * cent of a step from 12 rows on, 2 to 4 of an RNN's (Zen 4). */
INLINE step_operands_t step_operands(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t panels, int nx, int nh) {
  const ptrdiff_t x = nx * L * w->I, h = nh * L * w->P, most = tile_rows_for(nx);
  const int weights_leave_l2 = exceeds_l2(panels * (x + h), s->rows, w->I + w->P + 6 * w->H);
  const int prefetch_x = !weights_leave_l2 && s->outputs_cold && !s->row_index && s->rows > most;
  const real *wx = w->w_ih, *wh = w->w_hh;
  const operand_t of_x = {.a = s->x, .row_index = s->row_index, .a_stride = s->x_stride, .run = w->I, .runs = 1, .b = wx,
                      .prefetch = prefetch_x ? (const real *)s->x + most * s->x_stride : next_weights(wx, x, panels, wx, weights_leave_l2),
                      .prefetch_per_row = bytes_per_row(prefetch_x ? s->rows * s->x_stride : x, s->rows)};
  const operand_t of_h = {.a = s->h, .a_stride = s->h_stride, .run = w->P, .runs = 1, .b = wh,
                      .prefetch = next_weights(wh, h, panels, wh, weights_leave_l2), .prefetch_per_row = bytes_per_row(h, s->rows)};
  if (s->x_projected) return (step_operands_t){{of_h}, {wh}, {h}, panels, 1, weights_leave_l2};
  return (step_operands_t){{of_x, of_h}, {wx, wh}, {x, h}, panels, 2, weights_leave_l2};
}

INLINE void advance_panel(step_operands_t *all) {
  all->panels--;
  for (int i = 0; i < all->n; i++) {
    operand_t *s = &all->operand[i];
    s->b += all->panel_size[i];
    s->prefetch = next_weights(s->b, all->panel_size[i], all->panels, all->first_panel[i], all->weights_leave_l2);
  }
}

#include "rnn.h"
#include "gru.h"
#include "lstm.h"
#include "weight_grads.h"

INLINE void activate_vectors(int act, ptrdiff_t remaining, const real *x, real *y, int n) {
  V a[4];
  EACH a[i] = load_partial(x + i * L, remaining - i * L);
  apply_activation(act, n, a);
  EACH store_partial(y + i * L, a[i], remaining - i * L);
}

static void activate_array(int act, ptrdiff_t n, const void *x, void *y) {
#define ACTIVATE_VECTORS(v, k) \
  activate_vectors(act, n - (v) * L, (const real *)x + (v) * L, (real *)y + (v) * L, k)
  FOR_GROUPS(vectors_for(n), ACTIVATE_VECTORS);
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
};

#ifdef TARGET_PUSHED
#pragma clang attribute pop
#endif
