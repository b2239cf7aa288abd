/* LSTM (Hochreiter & Schmidhuber 1997, forget gate of Gers 2000, projection of Sak 2014):
 *   i, f, o = sigmoid(a), g = tanh(a), a = w_ih x + b_ih + w_hh h' + b_hh
 *   c = f c' + i g,  h = o tanh(c),  then h = w_hr h if projected */

INLINE void lstm_point(V *gate, V c_prev, V *c, V *h) {
  const V i = sigmoid(gate[0]), f = sigmoid(gate[1]), g = tanh_(gate[2]), o = sigmoid(gate[3]);
  *c = fma_(f, c_prev, i * g);
  *h = o * tanh_(*c);
  gate[0] = i, gate[1] = f, gate[2] = g, gate[3] = o;
}

/* gate: in the gates, out the gradients of their pre-activations; dc: in of c, out of c'. */
INLINE void lstm_dpoint(V *gate, V c_prev, V c, V dh, V *dc, V *h) {
  const V i = gate[0], f = gate[1], g = gate[2], o = gate[3], t = tanh_(c), do_ = dh * t, dht = dh * o;
  const V d = fma_(-t * t, dht, dht) + *dc;
  gate[0] = d * g * (i - i * i);
  gate[1] = d * c_prev * (f - f * f);
  gate[2] = d * i * fma_(-g, g, splat(1));
  gate[3] = do_ * (o - o * o);
  *dc = d * f;
  *h = o * t;
}

INLINE void lstm_tile(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t p, ptrdiff_t r, int mr) {
  V acc[4 * MR];
  const REAL *start = (s->init ? (const REAL *)s->init + r * s->ldinit : w->bias);
  const ptrdiff_t ldstart = s->init ? s->ldinit : 0, valid = w->P - p * L;
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < 4; v++) acc[4 * m + v] = load(start + m * ldstart + (p * 4 + v) * L);
  if (!s->init)
    madd(mr, 4, acc, (const REAL *)s->x + r * s->ldx, s->ldx, 1, w->I,
         (const REAL *)w->x + p * 4 * L * w->I);
  madd(mr, 4, acc, (const REAL *)s->h + r * s->ldh, s->ldh, 1, w->P,
       (const REAL *)w->h + p * 4 * L * w->P);
  UNROLL for (int m = 0; m < mr; m++) {
    const ptrdiff_t row = r + m;
    const int fresh = s->reset && s->reset[row];
    V c = fresh ? splat(0) : load((const REAL *)s->c + row * s->ldc + p * L), h;
    lstm_point(acc + 4 * m, c, &c, &h);
    store((REAL *)s->c_next + row * s->ldc + p * L, c);
    REAL *g = (REAL *)s->gates + row * s->ldgates + p * 4 * L;
    if (s->gates)
      UNROLL for (int v = 0; v < 4; v++) store(g + v * L, acc[4 * m + v]);
    if (w->r) {
      store((REAL *)s->work + row * s->ldwork + p * L, h);
      continue;
    }
    REAL *y = (REAL *)s->y + row * s->ldy + p * L;
    store((REAL *)s->h_next + row * s->ldh_next + p * L, h);
    if (valid >= L) store(y, h);
    else store_n(y, h, valid);
  }
}

static void lstm_step(const rnnfast_packed *w, const rnnfast_step *s) {
  reset_rows(s->rows, s->reset, s->h, s->ldh, w->P);
  for (ptrdiff_t p = 0; p < panels_of(w->H); p++) { FOR_TILES(s->rows, lstm_tile, w, s, p) }
  if (!w->r) return;
  gemm(&(rnnfast_gemm){
      .rows = s->rows, .n = w->P, .width = 4, .a = s->work, .lda = s->ldwork, .run = w->H, .runs = 1,
      .stride = w->H, .b = w->r, .c = s->h_next, .ldc = s->ldh_next, .c_panel = 4 * L, .c_vec = L,
      .whole = 1});
  for (ptrdiff_t r = 0; r < s->rows; r++)
    memcpy((REAL *)s->y + r * s->ldy, (REAL *)s->h_next + r * s->ldh_next, w->P * sizeof(REAL));
}

static void lstm_dstep(const rnnfast_packed *w, const rnnfast_dstep *s) {
  if (w->r) {
    for (ptrdiff_t r = 0; r < s->rows; r++)
      for (ptrdiff_t u = 0; u < w->P; u += L)
        store((REAL *)s->dh_sum + r * s->lddh_sum + u, upstream(s, r, u, w->P));
    gemm(&(rnnfast_gemm){
        .rows = s->rows, .n = w->H, .width = 4, .a = s->dh_sum, .lda = s->lddh_sum, .run = w->P,
        .runs = 1, .stride = w->P, .b = w->r, .c = s->work, .ldc = s->ldwork, .c_panel = 4 * L,
        .c_vec = L, .whole = 1});
  }
  for (ptrdiff_t r = 0; r < s->rows; r++) {
    const int fresh = s->reset && s->reset[r];
    for (ptrdiff_t u = 0; u < w->H; u += L) {
      REAL *g = (REAL *)s->gates + r * s->ldgates + 4 * u, *dc_out = (REAL *)s->dc + r * s->lddc + u;
      const REAL *cell = (const REAL *)s->c + r * s->ldc + u;
      const REAL *next = (const REAL *)s->c_next + r * s->ldc + u;
      V gate[4] = {load(g), load(g + L), load(g + 2 * L), load(g + 3 * L)}, dc = load(dc_out), h;
      const V dh = w->r ? load((REAL *)s->work + r * s->ldwork + u) : upstream(s, r, u, w->H);
      lstm_dpoint(gate, fresh ? splat(0) : load(cell), load(next), dh, &dc, &h);
      UNROLL for (int v = 0; v < 4; v++) store(g + v * L, keep_n(gate[v], w->H - u));
      store(dc_out, dc);
      if (w->r) store((REAL *)s->h_raw + r * s->ldh_raw + u, h);
    }
  }
  dz_times(w, s->rows, s->gates, s->ldgates, 0, 4, w->h, w->P, s->dh, s->lddh, 0, 1);
  reset_rows(s->rows, s->reset, s->dh, s->lddh, w->P);
  reset_rows(s->rows, s->reset, s->dc, s->lddc, w->H);
}
