/* LSTM (Hochreiter & Schmidhuber 1997, forget gate of Gers 2000, projection of Sak 2014):
 *   i, f, o = sigmoid(a), g = tanh(a), a = w_ih x + b_ih + w_hh h' + b_hh
 *   c = f c' + i g,  h = o tanh(c),  then h = w_hr h if projected */

/* gate: in the gates, out the gradients of their pre-activations; t = tanh(c); dc: in of c, out of c'. */
INLINE void lstm_dpoint(V *gate, V c_prev, V t, V dh, V *dc) {
  const V i = gate[0], f = gate[1], g = gate[2], o = gate[3], do_ = dh * t, dht = dh * o;
  const V d = vfma(-t * t, dht, dht) + *dc;
  gate[0] = d * g * (i - i * i);
  gate[1] = d * c_prev * (f - f * f);
  gate[2] = d * i * vfma(-g, g, splat(1));
  gate[3] = do_ * (o - o * o);
  *dc = d * f;
}

/* Of the n unit vectors from `first` on, one below the other in a batch or side by side in a row, from their
 * pre-activations a: i, f, g and c. */
INLINE void lstm_gates(const rnnfast_step *s, unit_t first, int n, const real *a, V *c) {
  V ifg[6];
  EACH UNROLL for (int v = 0; v < 3; v++) ifg[3 * i + v] = load(a + (4 * i + v) * L);
  activate(3 * n, 0x24, ifg);
  EACH {
    const ptrdiff_t row = unit_at(first, i).row, u = unit_at(first, i).panel * L;
    const int starts_at_zero = s->reset && s->reset[row];
    c[i] = starts_at_zero ? splat(0) : load((const real *)s->c + row * s->c_stride + u);
    c[i] = vfma(ifg[3 * i + 1], c[i], ifg[3 * i] * ifg[3 * i + 2]);
    store((real *)s->c_next + row * s->c_stride + u, c[i]);
    if (s->gates)
      UNROLL for (int v = 0; v < 3; v++)
        store((real *)s->gates + row * s->gates_stride + 4 * u + v * L, ifg[3 * i + v]);
  }
}

/* Then o beside tanh(c), which alone would wait for its latency: two rows' 6 and 4 chains rather than 8 and 2
 * spare up to 6 per cent of a step, a single row's 7 to 9 (Zen 4). */
INLINE void lstm_outputs(const rnnfast_packed *w, const rnnfast_step *s, unit_t first, int n, const real *a,
                         const V *c) {
  V oc[4];
  EACH oc[2 * i] = load(a + (4 * i + 3) * L), oc[2 * i + 1] = c[i];
  activate(2 * n, 0xa, oc);
  EACH {
    const ptrdiff_t row = unit_at(first, i).row, u = unit_at(first, i).panel * L;
    const V h = oc[2 * i] * oc[2 * i + 1];
    if (s->gates) store((real *)s->gates + row * s->gates_stride + 4 * u + 3 * L, oc[2 * i]);
    if (w->w_hr) {
      store((real *)s->work + row * s->work_stride + u, h);
    } else {
      store((real *)s->h_next + row * s->h_next_stride + u, h);
      store_partial(y_row(s, row) + u, h, w->P - u);
    }
  }
}

/* From the outputs of all units, in `work`, the layer's. */
static NOINLINE void lstm_project(const rnnfast_packed *w, const rnnfast_step *s) {
  matmul(&(matmul_t){
      .rows = s->rows, .n = w->P, .width = 4, .a = s->work, .a_stride = s->work_stride, .run = w->H, .runs = 1,
      .run_stride = w->H, .b = w->w_hr, .c = s->h_next, .c_stride = s->h_next_stride, .c_panel = 4 * L, .c_vec = L,
      .padded = 1});
  for (ptrdiff_t r = 0; r < s->rows; r++)
    memcpy(y_row(s, r), (real *)s->h_next + r * s->h_next_stride, w->P * sizeof(real));
}

INLINE void lstm_units(const rnnfast_packed *w, const rnnfast_step *s, unit_t first, int n, const real *a) {
  V c[2];
  lstm_gates(s, first, n, a, c);
  lstm_outputs(w, s, first, n, a, c);
}

/* The second half of that for rows whose first is done. */
INLINE void lstm_outputs_of_units(const rnnfast_packed *w, const rnnfast_step *s, unit_t first, int n, const real *a) {
  V c[2];
  EACH c[i] = load((const real *)s->c_next + (first.row + i) * s->c_stride + first.panel * L);
  lstm_outputs(w, s, first, n, a, c);
}

/* `count` unit vectors. Six are 620 operations: 310 cycles on the two ports that the FMAs need too. That is 21 per
 * cent of a step at I + H = 96, 9 at 256, 2.5 at 1,024, and no schedule gets below it. Alone they take several times
 * that, nearly all of it latency; after a tile the FMAs of the next one fill it in. As a function of its own it would
 * cost a step up to 1.5 per cent more, a single row's at H = 20 15 (Zen 4). */
INLINE void lstm_finish(const rnnfast_packed *w, const rnnfast_step *s, unit_t first, int count, const real *a) {
#define LSTM_UNITS(m, n) lstm_units(w, s, unit_at(first, m), n, a + (m) * 4 * L)
  FOR_PAIRS(count, LSTM_UNITS);
}

INLINE void lstm_tile(const rnnfast_packed *w, const rnnfast_step *s, const step_operands_t *xh, ptrdiff_t p,
                      int nv, ptrdiff_t r, int mr) {
  real a[4 * TILE_ROWS_2V * L] __attribute__((aligned(VECTOR_BYTES)));
  prefetch_outputs(w, s, p * L, 1, 4, r, mr);
  run_tile(xh->operand, xh->n, nv, initial_sums(w, s, r) + p * 4 * L, s->x_projected ? s->x_projected_stride : 0, a, 4 * L, r, mr);
  if (nv < 4) expand_dense_tail(a, mr, w->H - p * L);
  lstm_finish(w, s, (unit_t){r, p, 1}, mr, a);
}

/* With 16 registers, whose vectors are half as long, the processor keeps half as much in flight, and the FMAs of the
 * next tile come too late. So the activations of 4 tiles wait for each other, and those that need c for all others:
 * a forward pass takes 7 per cent less time at I = 32, H = 64, 2 to 4 at 128, 1 at 256; with 32 registers it would
 * take 2 less to 1 more (Zen 4). */
enum { TILES_PER_ACTIVATION = TILE_ROWS_4V < 6 ? 4 : 1 };

INLINE void lstm_preactivations(const rnnfast_packed *w, const rnnfast_step *s, const step_operands_t *xh, ptrdiff_t p, int nv, real *a,
                      ptrdiff_t first_row, ptrdiff_t r, int mr) {
  const real *start = initial_sums(w, s, first_row + r) + p * 4 * L;
  prefetch_outputs(w, s, p * L, 1, 4, first_row + r, mr);
  run_tile(xh->operand, xh->n, nv, start, s->x_projected ? s->x_projected_stride : 0, a + r * 4 * L, 4 * L, first_row + r, mr);
}

/* `rows` rows from r on, in up to so many tiles. */
INLINE void lstm_tiles(const rnnfast_packed *w, const rnnfast_step *s, const step_operands_t *xh, ptrdiff_t p, int nv,
                       int tile_rows, ptrdiff_t r, ptrdiff_t rows) {
  real a[TILES_PER_ACTIVATION * TILE_ROWS_2V * 4 * L] __attribute__((aligned(VECTOR_BYTES)));
  const unit_t first = {r, p, 1};
  V c[2];
  FOR_TILES(rows, tile_rows, lstm_preactivations, w, s, xh, p, nv, a, r)
  if (nv < 4) expand_dense_tail(a, (int)rows, w->H - p * L);
#define LSTM_GATES(m, n) lstm_gates(s, unit_at(first, m), n, a + (m) * 4 * L, c)
#define LSTM_OUTPUTS(m, n) lstm_outputs_of_units(w, s, unit_at(first, m), n, a + (m) * 4 * L)
  FOR_PAIRS(rows, LSTM_GATES);
  FOR_PAIRS(rows, LSTM_OUTPUTS);
}

/* A single row, np panels from p on and, if it has `dense_tail` vectors, the one after them. */
INLINE void lstm_row(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t p, int np, int dense_tail) {
  V acc[4 * 3];
  real a[4 * 3 * L] __attribute__((aligned(VECTOR_BYTES)));
  const real *start = initial_sums(w, s, 0) + p * 4 * L;
  const ptrdiff_t nx = 4 * L * w->I, nh = 4 * L * w->P;
  UNROLL for (int v = 0; v < 4 * np + dense_tail; v++) acc[v] = load(start + v * L);
  if (!s->x_projected) row_fma(np, 4, dense_tail, acc, x_row(s, 0), 0, w->I, (const real *)w->w_ih + p * nx, nx);
  if (!s->preactivations_ready) row_fma(np, 4, dense_tail, acc, s->h, 0, w->P, (const real *)w->w_hh + p * nh, nh);
  if (dense_tail) expand_dense_tail_row(acc + 4 * np, 4, dense_tail, w->H % L);
  store_preactivations(a, acc, np + (dense_tail > 0));
  lstm_finish(w, s, (unit_t){0, p, 0}, np + (dense_tail > 0), a);
}

static void lstm_one_row(const rnnfast_packed *w, const rnnfast_step *s) {
#define LSTM_ROW(p, np) lstm_row(w, s, p, np, 0)
#define LSTM_LAST(p, np, dense_tail) case 4 * np + dense_tail: lstm_row(w, s, p, np, dense_tail); break;
  const ptrdiff_t full = vectors_for(w->H) - (w->dense_tail > 0), last = panels_beside_tail(w, full), p = full - last;
  FOR_ROW_PANELS(p, 4 * L * k_of_step(w, s), s->reverse_panels, LSTM_ROW)
  switch (4 * last + w->dense_tail) {
    LSTM_LAST(p, 1, 1) LSTM_LAST(p, 1, 2) LSTM_LAST(p, 1, 3)
    LSTM_LAST(p, 2, 1) LSTM_LAST(p, 2, 2) LSTM_LAST(p, 2, 3)
  }
  if (w->w_hr) lstm_project(w, s);
}

/* Where a panel of weights is near, tiles of 4 rows, which follow each other almost without a gap (tile.h), are
 * better than those of 6 if the rows fill them and not those: 0.5 to 1.5 per cent of a step (Zen 4). */
INLINE int lstm_tile_rows(const rnnfast_packed *w, const rnnfast_step *s, int nv) {
  const int panel_fits_l1 = k_of_step(w, s) * 4 * VECTOR_BYTES < 48000;
  return nv == 4 && TILE_ROWS_4V == 6 && panel_fits_l1 && s->rows % 4 == 0 && s->rows % 6 ? 4 : tile_rows_for(nv);
}

static void lstm_rows(const rnnfast_packed *w, const rnnfast_step *s) {
  const ptrdiff_t panels = vectors_for(w->H);
  step_operands_t xh = step_operands(w, s, panels, 4, 4);
  for (ptrdiff_t p = 0; p < panels; p++, advance_panel(&xh)) {
    const int nv = w->dense_tail && p == panels - 1 ? w->dense_tail : 4;
    const int tile_rows = lstm_tile_rows(w, s, nv), rows_together = TILES_PER_ACTIVATION * tile_rows;
    if (TILES_PER_ACTIVATION == 1) FOR_TILES(s->rows, tile_rows, lstm_tile, w, s, &xh, p, nv)
    else
      for (ptrdiff_t r = 0; r < s->rows; r += rows_together)
        lstm_tiles(w, s, &xh, p, nv, tile_rows, r, s->rows - r < rows_together ? s->rows - r : rows_together);
  }
  if (w->w_hr) lstm_project(w, s);
}

static void lstm_step(const rnnfast_packed *w, const rnnfast_step *s) {
  if (s->reset) reset_rows(s->rows, s->reset, s->h, s->h_stride, w->P);
  if (s->rows == 1) lstm_one_row(w, s);
  else lstm_rows(w, s);
}

/* n unit vectors of row r from unit u on. */
INLINE void lstm_dunits(const rnnfast_packed *w, const rnnfast_dstep *s, ptrdiff_t r, ptrdiff_t u, int n) {
  const int starts_at_zero = s->reset && s->reset[r];
  V t[4];
  EACH t[i] = load((const real *)s->c_next + r * s->c_stride + u + i * L);
  activate(n, ~0u, t);
  for (int i = 0; i < n; i++, u += L) {
    real *g = (real *)s->gates + r * s->gates_stride + 4 * u, *dc_out = (real *)s->dc + r * s->dc_stride + u;
    const ptrdiff_t slot_stride = slot_stride_in(w, u / L);
    V gate[4] = {load(g), load(g + L), load(g + 2 * L), load(g + 3 * L)}, dc = load(dc_out);
    const V c = starts_at_zero ? splat(0) : load((const real *)s->c + r * s->c_stride + u);
    const V dh = w->w_hr ? load((real *)s->work + r * s->work_stride + u) : upstream_gradient(s, r, u, w->H);
    if (w->w_hr) store((real *)s->h_raw + r * s->h_raw_stride + u, gate[3] * t[i]);
    lstm_dpoint(gate, c, t[i], dh, &dc);
    UNROLL for (int v = 0; v < 4; v++) store(g + v * slot_stride, keep_first(gate[v], w->H - u));
    store(dc_out, dc);
  }
}

static void lstm_dstep(const rnnfast_packed *w, const rnnfast_dstep *s) {
  if (w->w_hr) {
    for (ptrdiff_t r = 0; r < s->rows; r++)
      for (ptrdiff_t u = 0; u < w->P; u += L)
        store((real *)s->dh_sum + r * s->dh_sum_stride + u, upstream_gradient(s, r, u, w->P));
    matmul(&(matmul_t){
        .rows = s->rows, .n = w->H, .width = 4, .a = s->dh_sum, .a_stride = s->dh_sum_stride, .run = w->P,
        .runs = 1, .run_stride = w->P, .b = w->w_hr, .c = s->work, .c_stride = s->work_stride, .c_panel = 4 * L,
        .c_vec = L, .padded = 1});
  }
#define LSTM_DUNITS(p, n) lstm_dunits(w, s, r, (p) * L, n)
  for (ptrdiff_t r = 0; r < s->rows; r++) {
    prefetch_next_step(w, s, r);
    FOR_GROUPS(vectors_for(w->H), LSTM_DUNITS);
  }
  multiply_dz(w, s, 0, 4, w->w_hh, w->P, s->dh, s->dh_stride, 0);
  if (s->reset) reset_rows(s->rows, s->reset, s->dh, s->dh_stride, w->P);
  if (s->reset) reset_rows(s->rows, s->reset, s->dc, s->dc_stride, w->H);
}
