/* Gated recurrent unit (Cho 2014; Chung 2014; the reset after the product as in cuDNN and PyTorch):
 *   r, z = sigmoid(w x + b_i + u h' + b_h),  h = (1 - z) n + z h'
 *   reset after    n = tanh(w_n x + b_in + r (u_n h' + b_hn))
 *   reset before   n = tanh(w_n x + b_in + b_hn + u_n (r h')) */

/* (1 - z) n + z h' */
INLINE V gru_state(V n, V z, V h) { return fma_(z, h - n, n); }

/* From dh: the gradients of the pre-activations of n and z. */
INLINE void gru_dgates(V n, V z, V h, V dh, V *dn, V *dz) {
  const V dn_out = dh - z * dh;
  *dn = fma_(-n * n, dn_out, dn_out);
  *dz = dh * (h - n) * (z - z * z);
}

/* The n unit vectors from `at` on, one below the other in a batch or side by side in a row, from
 * a_n a_r a_z (u_n h' + b_hn). */
INLINE void gru_units(const rnnfast_packed *w, const rnnfast_step *s, place_t at, int n, const real *a) {
  V rz[8], nt[4];
  EACH rz[2 * i] = load(a + (4 * i + 1) * L), rz[2 * i + 1] = load(a + (4 * i + 2) * L);
  activate(2 * n, 0, rz);
  EACH nt[i] = fma_(rz[2 * i], load(a + (4 * i + 3) * L), load(a + 4 * i * L));
  activate(n, ~0u, nt);
  EACH {
    const ptrdiff_t row = at.row + i * at.down, u = (at.panel + i * !at.down) * L;
    const V h = gru_state(nt[i], rz[2 * i + 1], load((const real *)s->h + row * s->ldh + u));
    real *g = (real *)s->gates + row * s->ldgates + 4 * u;
    if (s->gates) {
      store(g, nt[i]), store(g + L, rz[2 * i]), store(g + 2 * L, rz[2 * i + 1]);
      store(g + 3 * L, load(a + (4 * i + 3) * L));
    }
    store((real *)s->h_next + row * s->ldh_next + u, h);
    store_up_to(output_of(s, row) + u, h, w->H - u);
  }
}

/* Two rows at a time: with four a step takes 0.5 to 5 per cent more, as a function of its own up to 2.5 (small
 * sizes most, Zen 4). */
INLINE void gru_finish(const rnnfast_packed *w, const rnnfast_step *s, place_t at, int count, const real *a) {
#define GRU_UNITS(m, n) gru_units(w, s, further(at, m), n, a + (m) * 4 * L)
  FOR_PAIRS(count, GRU_UNITS);
}

/* To a, from `start`: a_n a_r a_z (u_n h' + b_hn) of mr rows. The sums over x are the first three of the
 * four, those over h' the last three: in between one vector of each row goes and another comes. */
INLINE void gru_sums(const rnnfast_packed *w, const sums_t *xh, const real *start, ptrdiff_t ldstart,
                     real *a, ptrdiff_t p, ptrdiff_t r, int mr) {
  V acc[3 * MR_3];
  const V b_hn = load((const real *)w->bias + (p * 4 + 3) * L);
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < 3; v++) acc[3 * m + v] = load(start + m * ldstart + v * L);
  if (xh->n == 2) add_sum(mr, 3, acc, &xh->sum[0], r);
  UNROLL for (int m = 0; m < mr; m++) {
    store(a + 4 * m * L, acc[3 * m]);
    acc[3 * m] = acc[3 * m + 1], acc[3 * m + 1] = acc[3 * m + 2], acc[3 * m + 2] = b_hn;
  }
  add_sum(mr, 3, acc, &xh->sum[xh->n - 1], r);
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < 3; v++) store(a + (4 * m + 1 + v) * L, acc[3 * m + v]);
}

#define GRU_SUMS(mr, name)                                                                          \
  static NOINLINE void name##mr(const rnnfast_packed *w, const sums_t *xh, const real *start,    \
                                   ptrdiff_t ldstart, real *a, ptrdiff_t p, ptrdiff_t r) {          \
    gru_sums(w, xh, start, ldstart, a, p, r, mr);                                                   \
  }
#define GRU_SUMS_AT(mr, name) [mr] = name##mr,
UP_TO_MR_3(GRU_SUMS, gru_sums_)
static void (*const gru_sizes[MR_3 + 1])(const rnnfast_packed *, const sums_t *, const real *, ptrdiff_t, real *,
                                         ptrdiff_t, ptrdiff_t) = {UP_TO_MR_3(GRU_SUMS_AT, gru_sums_)};

static void gru_tile(const rnnfast_packed *w, const rnnfast_step *s, const sums_t *xh, ptrdiff_t p,
                     ptrdiff_t r, int mr) {
  real a[4 * MR_2 * L] __attribute__((aligned(VBYTES)));
  const real *start = start_of(w, s, r) + p * 4 * L;
  const ptrdiff_t ldstart = s->init ? s->ldinit : 0;
  expect_outputs(w, s, p * L, 1, 4, r, mr);
  gru_sizes[mr](w, xh, start, ldstart, a, p, r);
  gru_finish(w, s, (place_t){r, p, 1}, mr, a);
}

/* The narrow panel, where the slots stand without gaps: in between they move on by one in memory. */
static void gru_narrow(const rnnfast_packed *w, const rnnfast_step *s, const sums_t *xh, ptrdiff_t p,
                       ptrdiff_t r, int mr) {
  real a[4 * MR_2 * L] __attribute__((aligned(VBYTES)));
  const ptrdiff_t units = w->H - p * L;
  const V b_hn = load((const real *)w->bias + p * 4 * L + 3 * units);
  expect_outputs(w, s, p * L, 1, 4, r, mr);
  product(xh->sum, xh->n - 1, w->narrow, start_of(w, s, r) + p * 4 * L, s->init ? s->ldinit : 0, a, 4 * L, r,
          mr);
  for (int m = 0; m < mr; m++) store(a + 4 * m * L + 3 * units, b_hn);
  product(xh->sum + xh->n - 1, 1, w->narrow, a + units, 4 * L, a + units, 4 * L, r, mr);
  spread(a, mr, units);
  gru_finish(w, s, (place_t){r, p, 1}, mr, a);
}

static void gru_rows(const rnnfast_packed *w, const rnnfast_step *s) {
  const ptrdiff_t panels = panels_of(w->H);
  sums_t xh = sums_of(w, s, panels, 3, 3);
  for (ptrdiff_t p = 0; p < panels; p++, next_panel(&xh))
    if (w->narrow && p == panels - 1) FOR_TILES(s->rows, height_of(w->narrow), gru_narrow, w, s, &xh, p)
    else FOR_TILES(s->rows, MR_3, gru_tile, w, s, &xh, p)
}

/* What `gru_narrow` does between its products, in registers: from the sums over x to a_n, and behind it what
 * begins those over h. */
INLINE void gru_move_on(const real *bias, int narrow, ptrdiff_t units, V *acc) {
  V begin[2];
  UNROLL for (int v = 0; v < narrow; v++) {
    const ptrdiff_t first = units + v * L;
    const V b_hn = load(bias + first);
    begin[v] = take_or(acc, narrow, first, 3 * units - first, b_hn);
  }
  acc[0] = take(acc, narrow, 0, units);
  UNROLL for (int v = 0; v < narrow; v++) acc[1 + v] = begin[v];
}

/* A single row, np panels from p on and, if it has `narrow` vectors, the one after them. */
INLINE void gru_row(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t p, int np, int narrow) {
  V acc[4 * 3];
  real a[4 * 3 * L] __attribute__((aligned(VBYTES)));
  const real *bias = (const real *)w->bias + p * 4 * L;
  const real *start = start_of(w, s, 0) + p * 4 * L;
  const ptrdiff_t nx = 3 * L * w->I, nh = 3 * L * w->P, units = w->H % L;
  UNROLL for (int v = 0; v < 4 * np + narrow; v++)
    acc[v] = load((v < 4 * np && v % 4 == 3 && !s->summed ? bias : start) + v * L);
  if (!s->init) madd_row(np, 3, narrow, acc, input_of(s, 0), 0, w->I, (const real *)w->x + p * nx, nx);
  if (narrow) gru_move_on(bias + 4 * np * L, narrow, units, acc + 4 * np);
  if (!s->summed) madd_row(np, 3, narrow, acc + 1, s->h, 0, w->P, (const real *)w->h + p * nh, nh);
  if (narrow) spread_row(acc + 4 * np + 1, 3, narrow, units);
  spill(a, acc, np + (narrow > 0));
  gru_finish(w, s, (place_t){0, p, 0}, np + (narrow > 0), a);
}

static void gru_one(const rnnfast_packed *w, const rnnfast_step *s) {
#define GRU_ROW(p, np) gru_row(w, s, p, np, 0)
#define GRU_LAST(p, np, narrow) case 4 * np + narrow: gru_row(w, s, p, np, narrow); break;
  const ptrdiff_t full = panels_of(w->H) - (w->narrow > 0), last = beside_narrow(w, full), p = full - last;
  FOR_ROW(p, 3 * L * depth_of(w, s), s->turned, GRU_ROW)
  switch (4 * last + w->narrow) {
    GRU_LAST(p, 1, 1) GRU_LAST(p, 1, 2)
    GRU_LAST(p, 2, 1) GRU_LAST(p, 2, 2)
  }
}

static void gru_step(const rnnfast_packed *w, const rnnfast_step *s) {
  if (s->reset) reset_rows(s->rows, s->reset, s->h, s->ldh, w->P);
  if (s->rows == 1) gru_one(w, s);
  else gru_rows(w, s);
}

static void gru_dstep(const rnnfast_packed *w, const rnnfast_dstep *s) {
  for (ptrdiff_t r = 0; r < s->rows; r++) {
    fetch_next(w, s, r);
    for (ptrdiff_t u = 0; u < w->H; u += L) {
      real *g = (real *)s->gates + r * s->ldgates + 4 * u, *dh_out = (real *)s->dh + r * s->lddh + u;
      const V n = load(g), rg = load(g + L), z = load(g + 2 * L), nh = load(g + 3 * L);
      const V dh = upstream(s, r, u, w->H), h = load((const real *)s->h + r * s->ldh + u);
      V dn, dz;
      gru_dgates(n, z, h, dh, &dn, &dz);
      const ptrdiff_t apart = apart_in(w, u / L);
      store(g, keep_n(dn, w->H - u));
      store(g + apart, keep_n(dn * nh * (rg - rg * rg), w->H - u));
      store(g + 2 * apart, keep_n(dz, w->H - u));
      store(g + 3 * apart, keep_n(dn * rg, w->H - u));
      store(dh_out, dh * z);
    }
  }
  dz_times(w, s, 1, 3, w->h, w->P, s->dh, s->lddh, 1);
  if (s->reset) reset_rows(s->rows, s->reset, s->dh, s->lddh, w->P);
}

/* Reset before: n needs r h' of all units, so a step is two passes over the weights. The first
 * leaves  a_n r z (r h')  in the gate buffer; u_n (r h') is added in place. */
INLINE void gru_before_tile(const rnnfast_packed *w, const rnnfast_step *s, const sums_t *xh,
                            ptrdiff_t p, ptrdiff_t r, int mr) {
  real *g = (real *)s->gates + r * s->ldgates + p * 4 * L;
  const real *start = start_of(w, s, r) + p * 4 * L, *h = (const real *)s->h + r * s->ldh + p * L;
  product(xh->sum, xh->n - 1, 3, start, s->init ? s->ldinit : 0, g, s->ldgates, r, mr);
  product(xh->sum + xh->n - 1, 1, 2, g + L, s->ldgates, g + L, s->ldgates, r, mr);
  for (int m = 0; m < mr; m++, g += s->ldgates, h += s->ldh) {
    V rz[2] = {load(g + L), load(g + 2 * L)};
    activate(2, 0, rz);
    store(g + L, rz[0]), store(g + 2 * L, rz[1]);
    store(g + 3 * L, keep_n(rz[0] * load(h), w->H - p * L));
  }
}

static void gru_before_step(const rnnfast_packed *w, const rnnfast_step *s) {
  real *gates = s->gates;
  if (s->reset) reset_rows(s->rows, s->reset, s->h, s->ldh, w->P);
  sums_t xh = sums_of(w, s, panels_of(w->H), 3, 2);
  for (ptrdiff_t p = 0; p < panels_of(w->H); p++, next_panel(&xh))
    FOR_TILES(s->rows, MR_3, gru_before_tile, w, s, &xh, p)
  gemm(&(gemm_t){
      .rows = s->rows, .n = panels_of(w->H) * L, .width = 4,
      .a = gates + 3 * L, .lda = s->ldgates, .run = L, .runs = panels_of(w->H), .stride = 4 * L,
      .b = w->h2, .init = gates, .ldinit = s->ldgates, .init_panel = 16 * L, .init_vec = 4 * L,
      .c = gates, .ldc = s->ldgates, .c_panel = 16 * L, .c_vec = 4 * L, .whole = 1});
  for (ptrdiff_t r = 0; r < s->rows; r++)
    for (ptrdiff_t u = 0; u < w->H; u += L) {
      real *g = gates + r * s->ldgates + 4 * u, *y = output_of(s, r) + u;
      const V n = tanh_(load(g));
      const V out = gru_state(n, load(g + 2 * L), load((const real *)s->h + r * s->ldh + u));
      store(g, n);
      store((real *)s->h_next + r * s->ldh_next + u, out);
      store_up_to(y, out, w->H - u);
    }
}

static void gru_before_dstep(const rnnfast_packed *w, const rnnfast_dstep *s) {
  real *gates = s->gates, *ds = s->work;
  for (ptrdiff_t r = 0; r < s->rows; r++) {
    fetch_next(w, s, r);
    for (ptrdiff_t u = 0; u < w->H; u += L) {
      real *g = gates + r * s->ldgates + 4 * u, *dh_out = (real *)s->dh + r * s->lddh + u;
      const V n = load(g), z = load(g + 2 * L), dh = upstream(s, r, u, w->H);
      V dn, dz;
      gru_dgates(n, z, load((const real *)s->h + r * s->ldh + u), dh, &dn, &dz);
      store(g, keep_n(dn, w->H - u));
      store(g + 2 * L, keep_n(dz, w->H - u));
      store(dh_out, dh * z);
    }
  }
  dz_times(w, s, 0, 1, w->h2, w->H, ds, s->ldwork, 0); /* d(r h') */
  for (ptrdiff_t r = 0; r < s->rows; r++)
    for (ptrdiff_t u = 0; u < w->H; u += L) {
      real *g = gates + r * s->ldgates + 4 * u, *dh_out = (real *)s->dh + r * s->lddh + u;
      const V rg = load(g + L), d = load(ds + r * s->ldwork + u);
      const V h = load((const real *)s->h + r * s->ldh + u);
      store(g + L, keep_n(d * h * (rg - rg * rg), w->H - u));
      store(dh_out, fma_(d, rg, load(dh_out)));
    }
  dz_times(w, s, 1, 2, w->h, w->P, s->dh, s->lddh, 1);
  if (s->reset) reset_rows(s->rows, s->reset, s->dh, s->lddh, w->P);
}
