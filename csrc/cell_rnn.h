/* Elman RNN (Elman 1990): h = act(w_ih x + b_ih + w_hh h' + b_hh). */

/* d/da act(a), given h = act(a); times dh. */
INLINE V act_dpoint(int act, V h, V dh) {
  switch (act) {
    case RNNFAST_TANH: return fma_(-h * h, dh, dh);
    case RNNFAST_RELU: return (V)((VI)dh & (h > splat(0)));
    case RNNFAST_SIGMOID: return dh * (h - h * h);
    default: return dh;
  }
}

/* Activates one tile in h_next, where it is still in the first cache: 4 nonlinearities unrolled over
 * 24 tiles would be half a megabyte of code. */
static void rnn_finish(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t u, int nv, ptrdiff_t r,
                       int mr) {
  for (ptrdiff_t row = r; row < r + mr; row++) {
    REAL *h = (REAL *)s->h_next + row * s->ldh_next, *y = (REAL *)s->y + row * s->ldy;
    REAL *g = (REAL *)s->gates + row * s->ldgates;
    V a[4] = {{0}};
    for (int v = 0; v < nv; v++) a[v] = load(h + u + v * L);
    act_point(w->act, 4, a);
    for (int v = 0; v < nv; v++) {
      const ptrdiff_t at = u + v * L;
      store(h + at, a[v]);
      if (s->gates) store(g + at, a[v]);
      store_up_to(y + at, a[v], w->H - at);
    }
  }
}

INLINE void rnn_tile(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t p, int nv,
                     ptrdiff_t tile, ptrdiff_t r, int mr) {
  V acc[4 * MR];
  const REAL *start = s->init ? (const REAL *)s->init + r * s->ldinit : w->bias;
  const ptrdiff_t ldstart = s->init ? s->ldinit : 0, u = p * 4 * L, panels = panels_of(w->H) / 4;
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < nv; v++) acc[4 * m + v] = load(start + m * ldstart + u + v * L);
  if (!s->init)
    madd(mr, nv, acc, (const REAL *)s->x + r * s->ldx, s->ldx, 1, w->I, (const REAL *)w->x + u * w->I,
         ahead_of(w->x, p, panels, 4 * L * w->I, tile));
  madd(mr, nv, acc, (const REAL *)s->h + r * s->ldh, s->ldh, 1, w->P, (const REAL *)w->h + u * w->P,
       ahead_of(w->h, p, panels, 4 * L * w->P, tile));
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < nv; v++)
      store((REAL *)s->h_next + (r + m) * s->ldh_next + u + v * L, acc[4 * m + v]);
  rnn_finish(w, s, u, nv, r, mr);
}

#define RNN_PANEL(nv) FOR_TILES(s->rows, rnn_tile, w, s, p, nv)

static void rnn_step(const rnnfast_packed *w, const rnnfast_step *s) {
  const ptrdiff_t vectors = panels_of(w->H);
  reset_rows(s->rows, s->reset, s->h, s->ldh, w->P);
  for (ptrdiff_t p = 0; 4 * p < vectors; p++) {
    switch (vectors - 4 * p) {
      case 1: RNN_PANEL(1); break;
      case 2: RNN_PANEL(2); break;
      case 3: RNN_PANEL(3); break;
      default: RNN_PANEL(4); break;
    }
  }
}

static void rnn_dstep(const rnnfast_packed *w, const rnnfast_dstep *s) {
  for (ptrdiff_t r = 0; r < s->rows; r++)
    for (ptrdiff_t u = 0; u < w->H; u += L) {
      REAL *g = (REAL *)s->gates + r * s->ldgates + u;
      const V dh = upstream(s, r, u, w->H);
      store(g, keep_n(act_dpoint(w->act, load(g), dh), w->H - u));
    }
  dz_times(w, s->rows, s->gates, s->ldgates, 0, 1, 0, w->h, w->P, s->dh, s->lddh, 0, 1);
  reset_rows(s->rows, s->reset, s->dh, s->lddh, w->P);
}
