/* Gated recurrent unit (Cho 2014; Chung 2014; the reset after the product as in cuDNN and PyTorch):
 *   r, z = sigmoid(w x + b_i + u h' + b_h),  h = (1 - z) n + z h'
 *   reset after    n = tanh(w_n x + b_in + r (u_n h' + b_hn))
 *   reset before   n = tanh(w_n x + b_in + b_hn + u_n (r h')) */

/* (1 - z) n + z h' */
INLINE V gru_state(V n, V z, V h) { return vfma(z, h - n, n); }

/* From dh: the gradients of the pre-activations of n and z. */
INLINE void gru_dgates(V n, V z, V h, V dh, V *dn, V *dz) {
  const V dn_out = dh - z * dh;
  *dn = vfma(-n * n, dn_out, dn_out);
  *dz = dh * (h - n) * (z - z * z);
}

/* The n unit vectors from `first` on, one below the other in a batch or side by side in a row, from
 * a_n a_r a_z (u_n h' + b_hn). */
INLINE void gru_units(const rnnfast_packed *w, const rnnfast_step *s, unit_t first, int n, const real *a) {
  V rz[8], nt[4];
  EACH rz[2 * i] = load(a + (4 * i + 1) * L), rz[2 * i + 1] = load(a + (4 * i + 2) * L);
  activate(2 * n, 0, rz);
  EACH nt[i] = vfma(rz[2 * i], load(a + (4 * i + 3) * L), load(a + 4 * i * L));
  activate(n, ~0u, nt);
  EACH {
    const ptrdiff_t row = first.row + i * first.down, u = (first.panel + i * !first.down) * L;
    const V h = gru_state(nt[i], rz[2 * i + 1], load((const real *)s->h + row * s->h_stride + u));
    real *g = (real *)s->gates + row * s->gates_stride + 4 * u;
    if (s->gates) {
      store(g, nt[i]), store(g + L, rz[2 * i]), store(g + 2 * L, rz[2 * i + 1]);
      store(g + 3 * L, load(a + (4 * i + 3) * L));
    }
    store((real *)s->h_next + row * s->h_next_stride + u, h);
    store_partial(y_row(s, row) + u, h, w->H - u);
  }
}

/* Two rows at a time: with four a step takes 0.5 to 5 per cent more, as a function of its own up to 2.5 (small
 * sizes most, Zen 4). */
INLINE void gru_finish(const rnnfast_packed *w, const rnnfast_step *s, unit_t first, int count, const real *a) {
#define GRU_UNITS(m, n) gru_units(w, s, unit_at(first, m), n, a + (m) * 4 * L)
  FOR_PAIRS(count, GRU_UNITS);
}

/* To a, from `start`: a_n a_r a_z (u_n h' + b_hn) of mr rows. The sums over x are the first three of the
 * four, those over h' the last three: in between one vector of each row goes and another comes. */
INLINE void gru_preactivations(const rnnfast_packed *w, const step_operands_t *xh, const real *start, ptrdiff_t start_stride,
                     real *a, ptrdiff_t p, ptrdiff_t r, int mr) {
  V acc[3 * TILE_ROWS_3V];
  const V b_hn = load((const real *)w->bias + (p * 4 + 3) * L);
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

#define DEFINE_GRU_TILE(mr, name)                                                                          \
  static NOINLINE void name##mr(const rnnfast_packed *w, const step_operands_t *xh, const real *start,    \
                                   ptrdiff_t start_stride, real *a, ptrdiff_t p, ptrdiff_t r) {          \
    gru_preactivations(w, xh, start, start_stride, a, p, r, mr);                                                   \
  }
#define GRU_TILE_AT(mr, name) [mr] = name##mr,
UP_TO_TILE_ROWS_3V(DEFINE_GRU_TILE, gru_preactivations_)
static void (*const gru_functions[TILE_ROWS_3V + 1])(const rnnfast_packed *, const step_operands_t *, const real *, ptrdiff_t, real *,
                                         ptrdiff_t, ptrdiff_t) = {UP_TO_TILE_ROWS_3V(GRU_TILE_AT, gru_preactivations_)};

static void gru_tile(const rnnfast_packed *w, const rnnfast_step *s, const step_operands_t *xh, ptrdiff_t p,
                     ptrdiff_t r, int mr) {
  real a[4 * TILE_ROWS_2V * L] __attribute__((aligned(VECTOR_BYTES)));
  const real *start = initial_sums(w, s, r) + p * 4 * L;
  const ptrdiff_t start_stride = s->x_projected ? s->x_projected_stride : 0;
  prefetch_outputs(w, s, p * L, 1, 4, r, mr);
  gru_functions[mr](w, xh, start, start_stride, a, p, r);
  gru_finish(w, s, (unit_t){r, p, 1}, mr, a);
}

/* The narrow panel, where the slots stand without gaps: in between they move on by one in memory. */
static void gru_dense_tail(const rnnfast_packed *w, const rnnfast_step *s, const step_operands_t *xh, ptrdiff_t p,
                       ptrdiff_t r, int mr) {
  real a[4 * TILE_ROWS_2V * L] __attribute__((aligned(VECTOR_BYTES)));
  const ptrdiff_t units = w->H - p * L;
  const V b_hn = load((const real *)w->bias + p * 4 * L + 3 * units);
  prefetch_outputs(w, s, p * L, 1, 4, r, mr);
  run_tile(xh->operand, xh->n - 1, w->dense_tail, initial_sums(w, s, r) + p * 4 * L, s->x_projected ? s->x_projected_stride : 0, a, 4 * L, r,
          mr);
  for (int m = 0; m < mr; m++) store(a + 4 * m * L + 3 * units, b_hn);
  run_tile(xh->operand + xh->n - 1, 1, w->dense_tail, a + units, 4 * L, a + units, 4 * L, r, mr);
  expand_dense_tail(a, mr, units);
  gru_finish(w, s, (unit_t){r, p, 1}, mr, a);
}

static void gru_rows(const rnnfast_packed *w, const rnnfast_step *s) {
  const ptrdiff_t panels = vectors_for(w->H);
  step_operands_t xh = step_operands(w, s, panels, 3, 3);
  for (ptrdiff_t p = 0; p < panels; p++, advance_panel(&xh))
    if (w->dense_tail && p == panels - 1) FOR_TILES(s->rows, tile_rows_for(w->dense_tail), gru_dense_tail, w, s, &xh, p)
    else FOR_TILES(s->rows, TILE_ROWS_3V, gru_tile, w, s, &xh, p)
}

/* What `gru_dense_tail` does between its products, in registers: from the sums over x to a_n, and behind it what
 * begins those over h. */
INLINE void gru_replace_operand(const real *bias, int dense_tail, ptrdiff_t units, V *acc) {
  V begin[2];
  UNROLL for (int v = 0; v < dense_tail; v++) {
    const ptrdiff_t first = units + v * L;
    const V b_hn = load(bias + first);
    begin[v] = select_lanes_or(acc, dense_tail, first, 3 * units - first, b_hn);
  }
  acc[0] = select_lanes(acc, dense_tail, 0, units);
  UNROLL for (int v = 0; v < dense_tail; v++) acc[1 + v] = begin[v];
}

/* A single row, np panels from p on and, if it has `dense_tail` vectors, the one after them. */
INLINE void gru_row(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t p, int np, int dense_tail) {
  V acc[4 * 3];
  real a[4 * 3 * L] __attribute__((aligned(VECTOR_BYTES)));
  const real *bias = (const real *)w->bias + p * 4 * L;
  const real *start = initial_sums(w, s, 0) + p * 4 * L;
  const ptrdiff_t nx = 3 * L * w->I, nh = 3 * L * w->P, units = w->H % L;
  UNROLL for (int v = 0; v < 4 * np + dense_tail; v++)
    acc[v] = load((v < 4 * np && v % 4 == 3 && !s->preactivations_ready ? bias : start) + v * L);
  if (!s->x_projected) row_fma(np, 3, dense_tail, acc, x_row(s, 0), 0, w->I, (const real *)w->w_ih + p * nx, nx);
  if (dense_tail) gru_replace_operand(bias + 4 * np * L, dense_tail, units, acc + 4 * np);
  if (!s->preactivations_ready) row_fma(np, 3, dense_tail, acc + 1, s->h, 0, w->P, (const real *)w->w_hh + p * nh, nh);
  if (dense_tail) expand_dense_tail_row(acc + 4 * np + 1, 3, dense_tail, units);
  store_preactivations(a, acc, np + (dense_tail > 0));
  gru_finish(w, s, (unit_t){0, p, 0}, np + (dense_tail > 0), a);
}

static void gru_one_row(const rnnfast_packed *w, const rnnfast_step *s) {
#define GRU_ROW(p, np) gru_row(w, s, p, np, 0)
#define GRU_LAST(p, np, dense_tail) case 4 * np + dense_tail: gru_row(w, s, p, np, dense_tail); break;
  const ptrdiff_t full = vectors_for(w->H) - (w->dense_tail > 0), last = panels_beside_tail(w, full), p = full - last;
  FOR_ROW_PANELS(p, 3 * L * k_of_step(w, s), s->reverse_panels, GRU_ROW)
  switch (4 * last + w->dense_tail) {
    GRU_LAST(p, 1, 1) GRU_LAST(p, 1, 2)
    GRU_LAST(p, 2, 1) GRU_LAST(p, 2, 2)
  }
}

static void gru_step(const rnnfast_packed *w, const rnnfast_step *s) {
  if (s->reset) reset_rows(s->rows, s->reset, s->h, s->h_stride, w->P);
  if (s->rows == 1) gru_one_row(w, s);
  else gru_rows(w, s);
}

static void gru_dstep(const rnnfast_packed *w, const rnnfast_dstep *s) {
  for (ptrdiff_t r = 0; r < s->rows; r++) {
    prefetch_next_step(w, s, r);
    for (ptrdiff_t u = 0; u < w->H; u += L) {
      real *g = (real *)s->gates + r * s->gates_stride + 4 * u, *dh_out = (real *)s->dh + r * s->dh_stride + u;
      const V n = load(g), rg = load(g + L), z = load(g + 2 * L), nh = load(g + 3 * L);
      const V dh = upstream_gradient(s, r, u, w->H), h = load((const real *)s->h + r * s->h_stride + u);
      V dn, dz;
      gru_dgates(n, z, h, dh, &dn, &dz);
      const ptrdiff_t slot_stride = slot_stride_in(w, u / L);
      store(g, keep_first(dn, w->H - u));
      store(g + slot_stride, keep_first(dn * nh * (rg - rg * rg), w->H - u));
      store(g + 2 * slot_stride, keep_first(dz, w->H - u));
      store(g + 3 * slot_stride, keep_first(dn * rg, w->H - u));
      store(dh_out, dh * z);
    }
  }
  multiply_dz(w, s, 1, 3, w->w_hh, w->P, s->dh, s->dh_stride, 1);
  if (s->reset) reset_rows(s->rows, s->reset, s->dh, s->dh_stride, w->P);
}

/* Reset before: n needs r h' of all units, so a step is two passes over the weights. The first
 * leaves  a_n r z (r h')  in the gate buffer; u_n (r h') is added in place. */
INLINE void gru_before_tile(const rnnfast_packed *w, const rnnfast_step *s, const step_operands_t *xh,
                            ptrdiff_t p, ptrdiff_t r, int mr) {
  real *g = (real *)s->gates + r * s->gates_stride + p * 4 * L;
  const real *start = initial_sums(w, s, r) + p * 4 * L, *h = (const real *)s->h + r * s->h_stride + p * L;
  run_tile(xh->operand, xh->n - 1, 3, start, s->x_projected ? s->x_projected_stride : 0, g, s->gates_stride, r, mr);
  run_tile(xh->operand + xh->n - 1, 1, 2, g + L, s->gates_stride, g + L, s->gates_stride, r, mr);
  for (int m = 0; m < mr; m++, g += s->gates_stride, h += s->h_stride) {
    V rz[2] = {load(g + L), load(g + 2 * L)};
    activate(2, 0, rz);
    store(g + L, rz[0]), store(g + 2 * L, rz[1]);
    store(g + 3 * L, keep_first(rz[0] * load(h), w->H - p * L));
  }
}

static void gru_before_step(const rnnfast_packed *w, const rnnfast_step *s) {
  real *gates = s->gates;
  if (s->reset) reset_rows(s->rows, s->reset, s->h, s->h_stride, w->P);
  step_operands_t xh = step_operands(w, s, vectors_for(w->H), 3, 2);
  for (ptrdiff_t p = 0; p < vectors_for(w->H); p++, advance_panel(&xh))
    FOR_TILES(s->rows, TILE_ROWS_3V, gru_before_tile, w, s, &xh, p)
  matmul(&(matmul_t){
      .rows = s->rows, .n = vectors_for(w->H) * L, .width = 4,
      .a = gates + 3 * L, .a_stride = s->gates_stride, .run = L, .runs = vectors_for(w->H), .run_stride = 4 * L,
      .b = w->w_hn, .init = gates, .init_stride = s->gates_stride, .init_panel = 16 * L, .init_vec = 4 * L,
      .c = gates, .c_stride = s->gates_stride, .c_panel = 16 * L, .c_vec = 4 * L, .padded = 1});
  for (ptrdiff_t r = 0; r < s->rows; r++)
    for (ptrdiff_t u = 0; u < w->H; u += L) {
      real *g = gates + r * s->gates_stride + 4 * u, *y = y_row(s, r) + u;
      const V n = vtanh(load(g));
      const V out = gru_state(n, load(g + 2 * L), load((const real *)s->h + r * s->h_stride + u));
      store(g, n);
      store((real *)s->h_next + r * s->h_next_stride + u, out);
      store_partial(y, out, w->H - u);
    }
}

static void gru_before_dstep(const rnnfast_packed *w, const rnnfast_dstep *s) {
  real *gates = s->gates, *ds = s->work;
  for (ptrdiff_t r = 0; r < s->rows; r++) {
    prefetch_next_step(w, s, r);
    for (ptrdiff_t u = 0; u < w->H; u += L) {
      real *g = gates + r * s->gates_stride + 4 * u, *dh_out = (real *)s->dh + r * s->dh_stride + u;
      const V n = load(g), z = load(g + 2 * L), dh = upstream_gradient(s, r, u, w->H);
      V dn, dz;
      gru_dgates(n, z, load((const real *)s->h + r * s->h_stride + u), dh, &dn, &dz);
      store(g, keep_first(dn, w->H - u));
      store(g + 2 * L, keep_first(dz, w->H - u));
      store(dh_out, dh * z);
    }
  }
  multiply_dz(w, s, 0, 1, w->w_hn, w->H, ds, s->work_stride, 0); /* d(r h') */
  for (ptrdiff_t r = 0; r < s->rows; r++)
    for (ptrdiff_t u = 0; u < w->H; u += L) {
      real *g = gates + r * s->gates_stride + 4 * u, *dh_out = (real *)s->dh + r * s->dh_stride + u;
      const V rg = load(g + L), d = load(ds + r * s->work_stride + u);
      const V h = load((const real *)s->h + r * s->h_stride + u);
      store(g + L, keep_first(d * h * (rg - rg * rg), w->H - u));
      store(dh_out, vfma(d, rg, load(dh_out)));
    }
  multiply_dz(w, s, 1, 2, w->w_hh, w->P, s->dh, s->dh_stride, 1);
  if (s->reset) reset_rows(s->rows, s->reset, s->dh, s->dh_stride, w->P);
}
