/* Elman RNN (Elman 1990): h = act(w_ih x + b_ih + w_hh h' + b_hh). */

/* d/da act(a), given h = act(a); times dh. */
INLINE V activation_gradient(int act, V h, V dh) {
  switch (act) {
    case RNNFAST_TANH: return vfma(-h * h, dh, dh);
    case RNNFAST_RELU: return (V)((VI)dh & (h > splat(0)));
    case RNNFAST_SIGMOID: return dh * (h - h * h);
    default: return dh;
  }
}

/* Activates nv vectors of a row from unit u on, of which `remaining` units are there. */
INLINE void rnn_units(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t row, ptrdiff_t u, int nv,
                      ptrdiff_t remaining, const V *from) {
  real *h = (real *)s->h_next + row * s->h_next_stride + u, *y = y_row(s, row) + u;
  real *g = s->gates ? (real *)s->gates + row * s->gates_stride + u : NULL;
  V a[4];
  UNROLL for (int v = 0; v < nv; v++) a[v] = from[v];
  apply_activation(w->act, nv, a);
  UNROLL for (int v = 0; v < nv; v++) {
    store(h + v * L, a[v]);
    if (g) store(g + v * L, a[v]);
    store_partial(y + v * L, a[v], remaining - v * L);
  }
}

/* Activates one tile in h_next, which is still in the first cache. */
INLINE void rnn_finish(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t u, int nv, ptrdiff_t r,
                       int mr) {
  for (ptrdiff_t row = r; row < r + mr; row++) {
    const real *h = (const real *)s->h_next + row * s->h_next_stride + u;
    V a[4];
    UNROLL for (int v = 0; v < nv; v++) a[v] = load(h + v * L);
    rnn_units(w, s, row, u, nv, w->H - u, a);
  }
}

/* The number of vectors is constant, so that they stay in registers: as an array that gcc clears (`rep stos`) and
 * copies (memcpy) for every row they cost an RNN's forward pass 4 (medium) to 6 per cent (small), with AVX2 5 to
 * 15 (Zen 4). */
#define RNN_FINISH(u, nv) rnn_finish(w, s, u, nv, r, mr)
static NOINLINE void rnn_finish_tile(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t u, int nv,
                                     ptrdiff_t r, int mr) {
  switch (nv) { UP_TO_4(CASE, RNN_FINISH, u) }
}

INLINE void rnn_tile(const rnnfast_packed *w, const rnnfast_step *s, const step_operands_t *xh, ptrdiff_t p, int nv,
                     ptrdiff_t r, int mr) {
  const ptrdiff_t u = p * 4 * L;
  prefetch_outputs(w, s, u, nv, 1, r, mr);
  run_tile(xh->operand, xh->n, nv, initial_sums(w, s, r) + u, s->x_projected ? s->x_projected_stride : 0,
          (real *)s->h_next + r * s->h_next_stride + u, s->h_next_stride, r, mr);
  rnn_finish_tile(w, s, u, nv, r, mr);
}

/* A single row, np panels of nv vectors. */
INLINE void rnn_row(const rnnfast_packed *w, const rnnfast_step *s, int nv, ptrdiff_t p, int np) {
  V acc[4 * 3];
  const ptrdiff_t u = p * 4 * L, nx = 4 * L * w->I, nh = 4 * L * w->P;
  const real *start = initial_sums(w, s, 0) + u;
  UNROLL for (int j = 0; j < np; j++)
    UNROLL for (int v = 0; v < nv; v++) acc[4 * j + v] = load(start + (4 * j + v) * L);
  if (!s->x_projected) row_fma(np, nv, 0, acc, x_row(s, 0), 0, w->I, (const real *)w->w_ih + p * nx, nx);
  if (!s->preactivations_ready) row_fma(np, nv, 0, acc, s->h, 0, w->P, (const real *)w->w_hh + p * nh, nh);
  UNROLL for (int j = 0; j < np; j++)
    rnn_units(w, s, 0, u + j * 4 * L, nv, w->H - u - j * 4 * L, acc + 4 * j);
}

static void rnn_one_row(const rnnfast_packed *w, const rnnfast_step *s) {
  const ptrdiff_t full = vectors_for(w->H) / 4;
#define RNN_ROW(p, np) rnn_row(w, s, 4, p, np)
  FOR_ROW_PANELS(full, 4 * L * k_of_step(w, s), s->reverse_panels, RNN_ROW)
  switch (vectors_for(w->H) % 4) {
    case 1: rnn_row(w, s, 1, full, 1); break;
    case 2: rnn_row(w, s, 2, full, 1); break;
    case 3: rnn_row(w, s, 3, full, 1); break;
  }
}

static void rnn_step(const rnnfast_packed *w, const rnnfast_step *s) {
  const ptrdiff_t vectors = vectors_for(w->H);
  if (s->reset) reset_rows(s->rows, s->reset, s->h, s->h_stride, w->P);
  if (s->rows == 1) {
    rnn_one_row(w, s);
    return;
  }
  step_operands_t xh = step_operands(w, s, (vectors + 3) / 4, 4, 4);
  for (ptrdiff_t p = 0; 4 * p < vectors; p++, advance_panel(&xh)) {
    const int nv = vectors - 4 * p < 4 ? (int)(vectors - 4 * p) : 4;
    FOR_TILES(s->rows, tile_rows_for(nv), rnn_tile, w, s, &xh, p, nv)
  }
}

static void rnn_dstep(const rnnfast_packed *w, const rnnfast_dstep *s) {
  for (ptrdiff_t r = 0; r < s->rows; r++) {
    prefetch_next_step(w, s, r);
    for (ptrdiff_t u = 0; u < w->H; u += L) {
      real *g = (real *)s->gates + r * s->gates_stride + u;
      const V dh = upstream_gradient(s, r, u, w->H);
      store(g, keep_first(activation_gradient(w->act, load(g), dh), w->H - u));
    }
  }
  multiply_dz(w, s, 0, 1, w->w_hh, w->P, s->dh, s->dh_stride, 0);
  if (s->reset) reset_rows(s->rows, s->reset, s->dh, s->dh_stride, w->P);
}
