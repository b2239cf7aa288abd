/* The steps of the LSTM: how its units (lstm.h) go into tiles and single rows, and the projection. */

/* `count` vectors of units by twos: more do not pay, and as a function of its own it would cost a single row. (M32) */
INLINE void lstm_units(const rnnfast_packed *w, const rnnfast_step *s, unit_t first, ptrdiff_t count, const real *a) {
  V c[2];
  ptrdiff_t m = 0;
  for (; m + 2 <= count; m += 2) {
    lstm_cell_states(s, unit_at(first, m), 2, a + m * LSTM_SLOTS * L, c);
    lstm_outputs(w, s, unit_at(first, m), 2, a + m * LSTM_SLOTS * L, c);
  }
  if (m < count) {
    lstm_cell_states(s, unit_at(first, m), 1, a + m * LSTM_SLOTS * L, c);
    lstm_outputs(w, s, unit_at(first, m), 1, a + m * LSTM_SLOTS * L, c);
  }
}

/* The same in two passes over the units of several rows, below each other. */
INLINE void lstm_units_in_two_passes(const rnnfast_packed *w, const rnnfast_step *s, unit_t first, ptrdiff_t count,
                                     const real *a) {
  const real *c_next = units_in(s->c_next, s->c_stride, first);
  V c[2];
  ptrdiff_t m = 0;
  for (; m + 2 <= count; m += 2) lstm_cell_states(s, unit_at(first, m), 2, a + m * LSTM_SLOTS * L, c);
  if (m < count) lstm_cell_states(s, unit_at(first, m), 1, a + m * LSTM_SLOTS * L, c);
  for (m = 0; m + 2 <= count; m += 2) {
    c[0] = load(c_next + m * s->c_stride), c[1] = load(c_next + (m + 1) * s->c_stride);
    lstm_outputs(w, s, unit_at(first, m), 2, a + m * LSTM_SLOTS * L, c);
  }
  if (m < count) {
    c[0] = load(c_next + m * s->c_stride);
    lstm_outputs(w, s, unit_at(first, m), 1, a + m * LSTM_SLOTS * L, c);
  }
}

/* Tiles whose activations run together.
 *
 * With 16 registers the processor keeps too little in flight to hide the activations of one tile behind the FMAs of the
 * next. So those of four tiles are interleaved with each other instead. (M33) */
enum { TILES_PER_ACTIVATION = VECTOR_REGISTERS == 16 ? 4 : 1 };

/* Where a panel of weights fits the first-level cache, tiles of 4 rows follow each other almost without a gap. They are
 * better than those of 6 if they fit the rows exactly. (M34) */
INLINE int lstm_tile_rows(const rnnfast_packed *w, const rnnfast_step *s, int nv) {
  const int fits_l1 = k_of_step(w, s) * LSTM_SLOTS * VECTOR_BYTES < 48000;
  return nv == 4 && VECTOR_REGISTERS == 32 && fits_l1 && s->rows % 4 == 0 && s->rows % 6 ? 4 : tile_rows_for(nv);
}

INLINE void lstm_preactivations(const rnnfast_packed *w, const rnnfast_step *s, const step_operands_t *xh,
                                ptrdiff_t p, int nv, real *a, ptrdiff_t r, int mr) {
  prefetch_outputs(w, s, p * L, 1, LSTM_SLOTS, r, mr);
  run_tile(xh->operand, xh->n, nv, initial_sums(w, s, r) + p * LSTM_SLOTS * L, initial_sums_stride(s), a,
           LSTM_SLOTS * L, r, mr);
}

INLINE void lstm_tiles(const rnnfast_packed *w, const rnnfast_step *s, const step_operands_t *xh, ptrdiff_t p, int nv,
                       int tile_rows, ptrdiff_t r, ptrdiff_t rows) {
  real a[TILES_PER_ACTIVATION * TILE_ROWS_2V * LSTM_SLOTS * L] __attribute__((aligned(VECTOR_BYTES)));
  if (TILES_PER_ACTIVATION == 1)
    lstm_preactivations(w, s, xh, p, nv, a, r, (int)rows);
  else
    for (tile_t t = first_tile(rows, tile_rows); t.rows; t = next_tile(t))
      lstm_preactivations(w, s, xh, p, nv, a + t.row * LSTM_SLOTS * L, r + t.row, t.rows);
  if (nv < 4) expand_dense_tail(a, (int)rows, w->H - p * L);
  if (TILES_PER_ACTIVATION == 1) lstm_units(w, s, (unit_t){r, p, 1}, rows, a);
  else lstm_units_in_two_passes(w, s, (unit_t){r, p, 1}, rows, a);
}

INLINE void lstm_row(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t p, int np, int tail) {
  V acc[4 * 3];
  real a[4 * 3 * L] __attribute__((aligned(VECTOR_BYTES)));
  const real *start = initial_sums(w, s, 0) + p * 4 * L;
  const ptrdiff_t nx = 4 * L * w->I, nh = 4 * L * w->P;
  UNROLL for (int v = 0; v < 4 * np + tail; v++) acc[v] = load(start + v * L);
  if (!s->x_projected) row_fma(np, 4, tail, acc, x_row(s, 0), 0, w->I, (const real *)w->w_ih + p * nx, nx);
  if (!s->preactivations_ready) row_fma(np, 4, tail, acc, s->h, 0, w->P, (const real *)w->w_hh + p * nh, nh);
  if (tail) expand_dense_tail_row(acc + 4 * np, 4, tail, w->H % L);
  store_preactivations(a, acc, np + (tail > 0));
  lstm_units(w, s, (unit_t){0, p, 0}, np + (tail > 0), a);
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

static const cell_t lstm = {.units = 1, .x_vectors = 4, .h_vectors = 4, .tiles_together = TILES_PER_ACTIVATION,
                            .longest_tail = 3, .tile_rows = lstm_tile_rows, .tiles = lstm_tiles, .row = lstm_row};
static NOINLINE void lstm_one_row(const rnnfast_packed *w, const rnnfast_step *s) { step_one_row(&lstm, w, s); }
static void lstm_rows(const rnnfast_packed *w, const rnnfast_step *s) { step_rows(&lstm, w, s); }

static void lstm_step(const rnnfast_packed *w, const rnnfast_step *s) {
  if (s->reset) reset_rows(s->rows, s->reset, s->h, s->h_stride, w->P);
  if (s->rows == 1) lstm_one_row(w, s);
  else lstm_rows(w, s);
  if (w->w_hr) lstm_project(w, s);
}

/* dh_sum, the whole gradient of the projected output, and from it that of the units' outputs, in `work`. */
static NOINLINE void lstm_project_back(const rnnfast_packed *w, const rnnfast_dstep *s) {
  for (ptrdiff_t r = 0; r < s->rows; r++)
    for (ptrdiff_t u = 0; u < w->P; u += L)
      store((real *)s->dh_sum + r * s->dh_sum_stride + u, upstream_gradient(s, r, u, w->P));
  matmul(&(matmul_t){
      .rows = s->rows, .n = w->H, .width = 4, .a = s->dh_sum, .a_stride = s->dh_sum_stride, .run = w->P,
      .runs = 1, .run_stride = w->P, .b = w->w_hr, .c = s->work, .c_stride = s->work_stride, .c_panel = 4 * L,
      .c_vec = L, .padded = 1});
}

static void lstm_dstep(const rnnfast_packed *w, const rnnfast_dstep *s) {
  if (w->w_hr) lstm_project_back(w, s);
  for (ptrdiff_t r = 0; r < s->rows; r++) {
    const ptrdiff_t vectors = vectors_for(w->H);
    ptrdiff_t v = 0;
    prefetch_next_step(w, s, r);
    for (; v + 4 <= vectors; v += 4) lstm_units_back(w, s, r, v * L, 4);
    if (v + 2 <= vectors) lstm_units_back(w, s, r, v * L, 2), v += 2;
    if (v < vectors) lstm_units_back(w, s, r, v * L, 1);
  }
  multiply_dz(w, s, LSTM_I, LSTM_SLOTS, w->w_hh, w->P, s->dh, s->dh_stride, 0);
  if (s->reset) reset_rows(s->rows, s->reset, s->dh, s->dh_stride, w->P);
  if (s->reset) reset_rows(s->rows, s->reset, s->dc, s->dc_stride, w->H);
}
