/* GRU with the reset before the product (Cho 2014): n = tanh(w_n x + b_in + b_hn + u_n (r h')).
 *
 * n needs r h' of all units, so a step is two passes over the weights. The first leaves the pre-activation of n, r, z and
 * r h' in the gate buffer; the second adds u_n (r h') in place. */
enum { GRU_RH = GRU_UH }; /* the slot of r h' */

INLINE void gru_before_tiles(const rnnfast_packed *w, const rnnfast_step *s, const step_operands_t *xh, ptrdiff_t p,
                             int nv, int tile_rows, ptrdiff_t r, ptrdiff_t rows) {
  real *g = (real *)s->gates + r * s->gates_stride + p * GRU_SLOTS * L;
  const real *start = initial_sums(w, s, r) + p * GRU_SLOTS * L, *h = (const real *)s->h + r * s->h_stride + p * L;
  (void)nv, (void)tile_rows;
  run_tile(xh->operand, xh->n - 1, 3, start, initial_sums_stride(s), g, s->gates_stride, r, (int)rows);
  run_tile(xh->operand + xh->n - 1, 1, 2, g + GRU_R * L, s->gates_stride, g + GRU_R * L, s->gates_stride, r,
           (int)rows);
  for (ptrdiff_t m = 0; m < rows; m++, g += s->gates_stride, h += s->h_stride) {
    V rz[2] = {load(g + GRU_R * L), load(g + GRU_Z * L)};
    activate(2, ALL_SIGMOID, rz);
    store(g + GRU_R * L, rz[0]), store(g + GRU_Z * L, rz[1]);
    store(g + GRU_RH * L, keep_first(rz[0] * load(h), w->H - p * L));
  }
}

static const cell_t gru_before = {.units = 1, .x_vectors = 3, .h_vectors = 2, .tiles_together = 1,
                                  .tile_rows = tallest_tile, .tiles = gru_before_tiles};

static void gru_before_step(const rnnfast_packed *w, const rnnfast_step *s) {
  real *gates = s->gates;
  if (s->reset) reset_rows(s->rows, s->reset, s->h, s->h_stride, w->P);
  step_rows(&gru_before, w, s);
  matmul(&(matmul_t){
      .rows = s->rows, .n = vectors_for(w->H) * L, .width = 4,
      .a = gates + GRU_RH * L, .a_stride = s->gates_stride, .run = L, .runs = vectors_for(w->H),
      .run_stride = 4 * L, .b = w->w_hn, .init = gates, .init_stride = s->gates_stride, .init_panel = 16 * L,
      .init_vec = 4 * L, .c = gates, .c_stride = s->gates_stride, .c_panel = 16 * L, .c_vec = 4 * L, .padded = 1});
  for (ptrdiff_t r = 0; r < s->rows; r++)
    for (ptrdiff_t u = 0; u < w->H; u += L) {
      real *g = gates + r * s->gates_stride + GRU_SLOTS * u, *y = y_row(s, r) + u;
      const V n = vtanh(load(g));
      const V h = gru_state(n, load(g + GRU_Z * L), load((const real *)s->h + r * s->h_stride + u));
      store(g, n);
      store((real *)s->h_next + r * s->h_next_stride + u, h);
      store_partial(y, h, w->H - u);
    }
}

/* A vector of units back, in two halves: what comes before d(r h') = dn u_n, and what needs it, in `work`. */
INLINE void gru_before_unit_back(const rnnfast_packed *w, const rnnfast_dstep *s, ptrdiff_t r, ptrdiff_t u) {
  real *g = (real *)s->gates + r * s->gates_stride + GRU_SLOTS * u, *dh_out = (real *)s->dh + r * s->dh_stride + u;
  const V n = load(g), z = load(g + GRU_Z * L), dh = upstream_gradient(s, r, u, w->H);
  V dn, dz;
  gru_gradients(n, z, load((const real *)s->h + r * s->h_stride + u), dh, &dn, &dz);
  store(g, keep_first(dn, w->H - u));
  store(g + GRU_Z * L, keep_first(dz, w->H - u));
  store(dh_out, dh * z);
}
INLINE void gru_before_reset_back(const rnnfast_packed *w, const rnnfast_dstep *s, ptrdiff_t r, ptrdiff_t u) {
  real *g = (real *)s->gates + r * s->gates_stride + GRU_SLOTS * u, *dh_out = (real *)s->dh + r * s->dh_stride + u;
  const V rg = load(g + GRU_R * L), d = load((const real *)s->work + r * s->work_stride + u);
  const V h = load((const real *)s->h + r * s->h_stride + u);
  store(g + GRU_R * L, keep_first(d * h * (rg - rg * rg), w->H - u));
  store(dh_out, vfma(d, rg, load(dh_out)));
}

static void gru_before_dstep(const rnnfast_packed *w, const rnnfast_dstep *s) {
  for (ptrdiff_t r = 0; r < s->rows; r++) {
    prefetch_next_step(w, s, r);
    for (ptrdiff_t u = 0; u < w->H; u += L) gru_before_unit_back(w, s, r, u);
  }
  multiply_dz(w, s, GRU_N, 1, w->w_hn, w->H, s->work, s->work_stride, 0); /* d(r h') */
  for (ptrdiff_t r = 0; r < s->rows; r++)
    for (ptrdiff_t u = 0; u < w->H; u += L) gru_before_reset_back(w, s, r, u);
  multiply_dz(w, s, GRU_R, 2, w->w_hh, w->P, s->dh, s->dh_stride, 1);
  if (s->reset) reset_rows(s->rows, s->reset, s->dh, s->dh_stride, w->P);
}
