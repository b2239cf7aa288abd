/* Elman RNN (Elman 1990): h = act(w_ih x + b_ih + w_hh h' + b_hh). A panel is 4 vectors of units. */

/* nv vectors of a row from unit u on, activated and stored; `units` of them are the layer's. */
INLINE void rnn_units(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t row, ptrdiff_t u, int nv,
                      ptrdiff_t units, const V *preactivations) {
  real *h = (real *)s->h_next + row * s->h_next_stride + u, *y = y_row(s, row) + u;
  real *g = s->gates ? (real *)s->gates + row * s->gates_stride + u : NULL;
  V a[4];
  UNROLL for (int v = 0; v < nv; v++) a[v] = preactivations[v];
  apply_activation(w->act, nv, a);
  UNROLL for (int v = 0; v < nv; v++) {
    store(h + v * L, a[v]);
    if (g) store(g + v * L, a[v]);
    store_partial(y + v * L, a[v], units - v * L);
  }
}

/* The pre-activations of a tile are in h_next, still in the first-level cache. */
INLINE void rnn_activate(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t u, int nv, ptrdiff_t r, int mr) {
  for (ptrdiff_t row = r; row < r + mr; row++) {
    const real *h = (const real *)s->h_next + row * s->h_next_stride + u;
    V a[4];
    UNROLL for (int v = 0; v < nv; v++) a[v] = load(h + v * L);
    rnn_units(w, s, row, u, nv, w->H - u, a);
  }
}

/* With a constant number of vectors they stay in registers. An array of another length would be cleared and copied for
 * every row. (M30) */
static NOINLINE void rnn_activate_tile(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t u, int nv,
                                       ptrdiff_t r, int mr) {
  switch (nv) {
    case 1: rnn_activate(w, s, u, 1, r, mr); break;
    case 2: rnn_activate(w, s, u, 2, r, mr); break;
    case 3: rnn_activate(w, s, u, 3, r, mr); break;
    case 4: rnn_activate(w, s, u, 4, r, mr); break;
  }
}

INLINE void rnn_tiles(const rnnfast_packed *w, const rnnfast_step *s, const step_operands_t *xh, ptrdiff_t p, int nv,
                      int tile_rows, ptrdiff_t r, ptrdiff_t rows) {
  const ptrdiff_t u = p * 4 * L;
  (void)tile_rows;
  prefetch_outputs(w, s, u, nv, 1, r, (int)rows);
  run_tile(xh->operand, xh->n, nv, initial_sums(w, s, r) + u, initial_sums_stride(s),
           (real *)s->h_next + r * s->h_next_stride + u, s->h_next_stride, r, (int)rows);
  rnn_activate_tile(w, s, u, nv, r, (int)rows);
}

/* np panels, or one with `tail` vectors. */
INLINE void rnn_row(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t p, int np, int tail) {
  V acc[4 * 3];
  const int panels = np ? np : 1, nv = np ? 4 : tail;
  const ptrdiff_t u = p * 4 * L, nx = 4 * L * w->I, nh = 4 * L * w->P;
  const real *start = initial_sums(w, s, 0) + u;
  UNROLL for (int j = 0; j < panels; j++)
    UNROLL for (int v = 0; v < nv; v++) acc[4 * j + v] = load(start + (4 * j + v) * L);
  if (!s->x_projected) row_fma(panels, nv, 0, acc, x_row(s, 0), 0, w->I, (const real *)w->w_ih + p * nx, nx);
  if (!s->preactivations_ready) row_fma(panels, nv, 0, acc, s->h, 0, w->P, (const real *)w->w_hh + p * nh, nh);
  UNROLL for (int j = 0; j < panels; j++)
    rnn_units(w, s, 0, u + j * 4 * L, nv, w->H - u - j * 4 * L, acc + 4 * j);
}

static const cell_t rnn = {.units = 4, .x_vectors = 4, .h_vectors = 4, .tiles_together = 1, .longest_tail = 3,
                           .tile_rows = tallest_tile, .tiles = rnn_tiles, .row = rnn_row};
static NOINLINE void rnn_one_row(const rnnfast_packed *w, const rnnfast_step *s) { step_one_row(&rnn, w, s); }
static void rnn_rows(const rnnfast_packed *w, const rnnfast_step *s) { step_rows(&rnn, w, s); }

static void rnn_step(const rnnfast_packed *w, const rnnfast_step *s) {
  if (s->reset) reset_rows(s->rows, s->reset, s->h, s->h_stride, w->P);
  if (s->rows == 1) rnn_one_row(w, s);
  else rnn_rows(w, s);
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
