/* The steps of the GRU: how its units (gru.h) go into tiles and single rows. The sums over x are the first three of the
 * four slots, those over h' the last three. */

/* Two vectors of units at a time: four would cost more, and so would a function of its own. (M32) */
INLINE void gru_units(const rnnfast_packed *w, const rnnfast_step *s, unit_t first, ptrdiff_t count, const real *a) {
  ptrdiff_t m = 0;
  for (; m + 2 <= count; m += 2) gru_unit_vectors(w, s, unit_at(first, m), 2, a + m * GRU_SLOTS * L);
  if (m < count) gru_unit_vectors(w, s, unit_at(first, m), 1, a + m * GRU_SLOTS * L);
}

/* The slots of mr rows. Between the two products one vector of each row leaves the registers and another comes. */
INLINE void gru_preactivations(const rnnfast_packed *w, const step_operands_t *xh, const real *start,
                               ptrdiff_t start_stride, real *a, ptrdiff_t p, ptrdiff_t r, int mr) {
  V acc[3 * TILE_ROWS_3V];
  const V b_hn = load((const real *)w->bias + (p * GRU_SLOTS + GRU_UH) * L);
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < 3; v++) acc[3 * m + v] = load(start + m * start_stride + v * L);
  if (xh->n == 2) tile_add_operand(mr, 3, acc, &xh->operand[0], r);
  UNROLL for (int m = 0; m < mr; m++) {
    store(a + 4 * m * L, acc[3 * m]);
    acc[3 * m] = acc[3 * m + 1], acc[3 * m + 1] = acc[3 * m + 2], acc[3 * m + 2] = b_hn;
  }
  tile_add_operand(mr, 3, acc, &xh->operand[xh->n - 1], r);
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < 3; v++) store(a + (4 * m + 1 + v) * L, acc[3 * m + v]);
}

#define DEFINE_GRU_TILE(mr, nv)                                                                            \
  static NOINLINE void gru_preactivations_##mr(const rnnfast_packed *w, const step_operands_t *xh,         \
                                               const real *start, ptrdiff_t start_stride, real *a,         \
                                               ptrdiff_t p, ptrdiff_t r) {                                 \
    gru_preactivations(w, xh, start, start_stride, a, p, r, mr);                                           \
  }
#define GRU_TILE_AT(mr, nv) [mr] = gru_preactivations_##mr,
TILES_3V(DEFINE_GRU_TILE)
static void (*const gru_functions[TILE_ROWS_3V + 1])(const rnnfast_packed *, const step_operands_t *, const real *,
                                                     ptrdiff_t, real *, ptrdiff_t, ptrdiff_t) = {
  TILES_3V(GRU_TILE_AT)};

/* The same in the dense tail, where the slots stand without gaps: in between they move on by one in memory. */
INLINE void gru_dense_tail(const rnnfast_packed *w, const rnnfast_step *s, const step_operands_t *xh, ptrdiff_t p,
                           real *a, ptrdiff_t r, int mr) {
  const ptrdiff_t units = w->H - p * L;
  const V b_hn = load((const real *)w->bias + p * 4 * L + 3 * units);
  run_tile(xh->operand, xh->n - 1, w->dense_tail, initial_sums(w, s, r) + p * 4 * L, initial_sums_stride(s), a, 4 * L,
           r, mr);
  for (int m = 0; m < mr; m++) store(a + 4 * m * L + 3 * units, b_hn);
  run_tile(xh->operand + xh->n - 1, 1, w->dense_tail, a + units, 4 * L, a + units, 4 * L, r, mr);
  expand_dense_tail(a, mr, units);
}

INLINE void gru_tiles(const rnnfast_packed *w, const rnnfast_step *s, const step_operands_t *xh, ptrdiff_t p, int nv,
                      int tile_rows, ptrdiff_t r, ptrdiff_t rows) {
  real a[GRU_SLOTS * TILE_ROWS_2V * L] __attribute__((aligned(VECTOR_BYTES)));
  const real *start = initial_sums(w, s, r) + p * GRU_SLOTS * L;
  (void)tile_rows;
  prefetch_outputs(w, s, p * L, 1, GRU_SLOTS, r, (int)rows);
  if (nv == 3) gru_functions[rows](w, xh, start, initial_sums_stride(s), a, p, r);
  else gru_dense_tail(w, s, xh, p, a, r, (int)rows);
  gru_units(w, s, (unit_t){r, p, 1}, rows, a);
}

/* What gru_dense_tail does between its products, in registers: from the sums over x to that of n, and behind it what
 * begins those over h. */
INLINE void gru_replace_operand(const real *bias, int tail, ptrdiff_t units, V *acc) {
  V begin[2];
  UNROLL for (int v = 0; v < tail; v++) {
    const ptrdiff_t first = units + v * L;
    const V b_hn = load(bias + first);
    begin[v] = select_lanes_or(acc, tail, first, 3 * units - first, b_hn);
  }
  acc[0] = select_lanes(acc, tail, 0, units);
  UNROLL for (int v = 0; v < tail; v++) acc[1 + v] = begin[v];
}

INLINE void gru_row(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t p, int np, int tail) {
  V acc[4 * 3];
  real a[4 * 3 * L] __attribute__((aligned(VECTOR_BYTES)));
  const real *bias = (const real *)w->bias + p * 4 * L;
  const real *start = initial_sums(w, s, 0) + p * 4 * L;
  const ptrdiff_t nx = 3 * L * w->I, nh = 3 * L * w->P, units = w->H % L;
  UNROLL for (int v = 0; v < 4 * np + tail; v++)
    acc[v] = load((v < 4 * np && v % 4 == 3 && !s->preactivations_ready ? bias : start) + v * L);
  if (!s->x_projected) row_fma(np, 3, tail, acc, x_row(s, 0), 0, w->I, (const real *)w->w_ih + p * nx, nx);
  if (tail) gru_replace_operand(bias + 4 * np * L, tail, units, acc + 4 * np);
  if (!s->preactivations_ready)
    row_fma(np, 3, tail, acc + 1, s->h, 0, w->P, (const real *)w->w_hh + p * nh, nh);
  if (tail) expand_dense_tail_row(acc + 4 * np + 1, 3, tail, units);
  store_preactivations(a, acc, np + (tail > 0));
  gru_units(w, s, (unit_t){0, p, 0}, np + (tail > 0), a);
}

static const cell_t gru = {.units = 1, .x_vectors = 3, .h_vectors = 3, .tiles_together = 1, .longest_tail = 2,
                           .tile_rows = tallest_tile, .tiles = gru_tiles, .row = gru_row};
static NOINLINE void gru_one_row(const rnnfast_packed *w, const rnnfast_step *s) { step_one_row(&gru, w, s); }
static void gru_rows(const rnnfast_packed *w, const rnnfast_step *s) { step_rows(&gru, w, s); }

static void gru_step(const rnnfast_packed *w, const rnnfast_step *s) {
  if (s->reset) reset_rows(s->rows, s->reset, s->h, s->h_stride, w->P);
  if (s->rows == 1) gru_one_row(w, s);
  else gru_rows(w, s);
}

static void gru_dstep(const rnnfast_packed *w, const rnnfast_dstep *s) {
  for (ptrdiff_t r = 0; r < s->rows; r++) {
    prefetch_next_step(w, s, r);
    for (ptrdiff_t u = 0; u < w->H; u += L) gru_unit_back(w, s, r, u);
  }
  multiply_dz(w, s, GRU_R, 3, w->w_hh, w->P, s->dh, s->dh_stride, 1);
  if (s->reset) reset_rows(s->rows, s->reset, s->dh, s->dh_stride, w->P);
}
