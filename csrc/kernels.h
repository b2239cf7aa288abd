/* All kernels of one instruction set and precision: a file of isa/ includes a real_*.h, the header of the
 * instruction set and this. */
#define L ((int)(VBYTES / sizeof(real)))
#define LANES (VBYTES / REAL_BYTES) /* the same for the preprocessor */

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
#include "gemm.h"
#include "pack.h"

/* Zero the rows of a state (or of its gradient) that an episode boundary cuts off. */
static NOINLINE void reset_rows(ptrdiff_t rows, const uint8_t *reset, real *h, ptrdiff_t ld, ptrdiff_t n) {
  for (ptrdiff_t r = 0; r < rows; r++)
    if (reset[r]) memset(h + r * ld, 0, n * sizeof(real));
}

/* The gradient that reaches units u .. u + L of row r: from later steps and from y. */
INLINE V upstream(const rnnfast_dstep *s, ptrdiff_t r, ptrdiff_t u, ptrdiff_t P) {
  const V dh = load((const real *)s->dh + r * s->lddh + u);
  const real *dy = (const real *)s->dy + row_of(s->data_rows, r) * s->lddy + u;
  if (!s->dy) return dh;
  return dh + load_up_to(dy, P - u);
}

/* Fetch what row r of the call after this one reads besides its gates. With 4 rows of 128 units a step back
 * takes 5 (LSTM), 7 (GRU) and 16 per cent (RNN) less time, with 32 1 to 4 (Zen 4). */
INLINE void fetch_next(const rnnfast_packed *w, const rnnfast_dstep *s, ptrdiff_t r) {
  const rnnfast_dstep *next = s->next;
  if (!next) return;
  if (next->dy) fetch((const real *)next->dy + row_of(next->data_rows, r) * next->lddy, w->P, 0);
  if (w->cell == RNNFAST_LSTM) fetch((const real *)next->c + r * next->ldc, w->H, 0);
  else if (w->cell != RNNFAST_RNN) fetch((const real *)next->h + r * next->ldh, w->H, 0);
}

/* What a step's sums begin with, from row r on. */
INLINE const real *start_of(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t r) {
  return s->init ? (const real *)s->init + r * s->ldinit : w->bias;
}

/* How many k a step sums over: those of x, unless `init` has them, and of h. */
INLINE ptrdiff_t depth_of(const rnnfast_packed *w, const rnnfast_step *s) {
  return (s->init ? 0 : w->I) + w->P;
}

/* How many of the full panels of a single row have the narrow one beside them. */
INLINE ptrdiff_t beside_narrow(const rnnfast_packed *w, ptrdiff_t full) {
  return !w->narrow ? 0 : full % 2 ? 1 : 2;
}

/* Row r of a step in x and y. */
INLINE const real *input_of(const rnnfast_step *s, ptrdiff_t r) {
  return (const real *)s->x + row_of(s->data_rows, r) * s->ldx;
}
INLINE real *output_of(const rnnfast_step *s, ptrdiff_t r) {
  return (real *)s->y + row_of(s->data_rows, r) * s->ldy;
}

/* Fetch, while its sums are added up, what a tile is going to write: nv vectors of units from u on. Stores wait
 * for their lines in order, and some 40 of a tile that come from the third cache or memory hold up everything
 * behind them. A step with tape takes 4 to 17 per cent less time (from H = 128 on, the LSTM most), one without
 * up to 6; where all is near it would take up to 5 more (Zen 4). */
INLINE void expect_outputs(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t u, int nv, int slots,
                           ptrdiff_t r, int mr) {
  if (!s->fresh) return;
  for (ptrdiff_t row = r; row < r + mr; row++) {
    fetch(output_of(s, row) + u, nv * L, 1);
    if (!s->gates) continue;
    fetch((real *)s->gates + row * s->ldgates + slots * u, slots * nv * L, 1);
    fetch((real *)s->h_next + row * s->ldh_next + u, nv * L, 1);
    if (w->cell == RNNFAST_LSTM) fetch((real *)s->c_next + row * s->ldc + u, nv * L, 1);
  }
}

/* A step's sums, on one of `panels` after the other, nx vectors wide for x and nh for h: that of h is the last,
 * that of x the first unless it stands ready as the step's `init`. `away`: weights need to be fetched. */
typedef struct { sum_t sum[2]; const real *first[2]; ptrdiff_t size[2], panels; int n, away; } sums_t;

/* What the tiles on a panel at b fetch: the panel after it, at last the first of the next step. */
INLINE const real *after(const real *b, ptrdiff_t size, ptrdiff_t panels, const real *first, int away) {
  return !away ? NULL : panels > 1 ? b + size : first;
}

/* Without weights to fetch, the tiles of the first panel fetch x, each that of the one after it: up to 2 per
 * cent of a step from 12 rows on, 2 to 4 of an RNN's (Zen 4). */
INLINE sums_t sums_of(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t panels, int nx, int nh) {
  const ptrdiff_t x = nx * L * w->I, h = nh * L * w->P, most = height_of(nx);
  const int away = far(panels * (x + h), s->rows, w->I + w->P + 6 * w->H);
  const int ahead = !away && s->fresh && !s->data_rows && s->rows > most;
  const real *wx = w->x, *wh = w->h;
  const sum_t of_x = {.a = s->x, .rows = s->data_rows, .lda = s->ldx, .run = w->I, .runs = 1, .b = wx,
                      .next = ahead ? (const real *)s->x + most * s->ldx : after(wx, x, panels, wx, away),
                      .each = part_of(ahead ? s->rows * s->ldx : x, s->rows)};
  const sum_t of_h = {.a = s->h, .lda = s->ldh, .run = w->P, .runs = 1, .b = wh,
                      .next = after(wh, h, panels, wh, away), .each = part_of(h, s->rows)};
  if (s->init) return (sums_t){{of_h}, {wh}, {h}, panels, 1, away};
  return (sums_t){{of_x, of_h}, {wx, wh}, {x, h}, panels, 2, away};
}

INLINE void next_panel(sums_t *all) {
  all->panels--;
  for (int i = 0; i < all->n; i++) {
    sum_t *s = &all->sum[i];
    s->b += all->size[i];
    s->next = after(s->b, all->size[i], all->panels, all->first[i], all->away);
  }
}

#include "cell_rnn.h"
#include "cell_gru.h"
#include "cell_lstm.h"
#include "wgrad.h"

INLINE void math_vectors(int act, ptrdiff_t left, const real *x, real *y, int n) {
  V a[4];
  EACH a[i] = load_up_to(x + i * L, left - i * L);
  act_point(act, n, a);
  EACH store_up_to(y + i * L, a[i], left - i * L);
}

static void math(int act, ptrdiff_t n, const void *x, void *y) {
#define MATH_VECTORS(v, k) \
  math_vectors(act, n - (v) * L, (const real *)x + (v) * L, (real *)y + (v) * L, k)
  FOR_GROUPS(panels_of(n), MATH_VECTORS);
}

/* 12 independent chains hide the latency of 4 cycles at 2 FMAs a cycle. */
static double peak(long repeats) {
  V acc[12], sum = splat(0);
  UNROLL for (int i = 0; i < 12; i++) acc[i] = splat((real)i);
  const V a = splat((real)0.999), b = splat((real)0.001);
  for (long k = 0; k < repeats; k++)
    UNROLL for (int i = 0; i < 12; i++) acc[i] = fma_(acc[i], a, b);
  UNROLL for (int i = 0; i < 12; i++) sum += acc[i];
  OPAQUE(sum);
  return repeats * 12.0 * 2 * L;
}

const rnnfast_kernels KERNELS = {
  ISA, sizeof(real), L, MR,
  packed_size, pack,
  {rnn_step, gru_step, gru_before_step, lstm_step},
  {rnn_dstep, gru_dstep, gru_before_dstep, lstm_dstep},
  one_step, project, dinput, wgrad_plan, bias_grads, wgrad_scratch, wgrad, math, peak,
};

#ifdef TARGET_PUSHED
#pragma clang attribute pop
#endif
