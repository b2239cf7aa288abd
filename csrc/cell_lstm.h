/* LSTM (Hochreiter & Schmidhuber 1997, forget gate of Gers 2000, projection of Sak 2014):
 *   i, f, o = sigmoid(a), g = tanh(a), a = w_ih x + b_ih + w_hh h' + b_hh
 *   c = f c' + i g,  h = o tanh(c),  then h = w_hr h if projected */

/* n rows: gates i f g o from their pre-activations, in place, and c from c'. */
INLINE void lstm_point(int n, V *gate, V *c) {
  activate(4 * n, 0x44, gate);
  EACH c[i] = fma_(gate[4 * i + 1], c[i], gate[4 * i] * gate[4 * i + 2]);
}

/* gate: in the gates, out the gradients of their pre-activations; t = tanh(c); dc: in of c, out of c'. */
INLINE void lstm_dpoint(V *gate, V c_prev, V t, V dh, V *dc) {
  const V i = gate[0], f = gate[1], g = gate[2], o = gate[3], do_ = dh * t, dht = dh * o;
  const V d = fma_(-t * t, dht, dht) + *dc;
  gate[0] = d * g * (i - i * i);
  gate[1] = d * c_prev * (f - f * f);
  gate[2] = d * i * fma_(-g, g, splat(1));
  gate[3] = do_ * (o - o * o);
  *dc = d * f;
}

/* The n unit vectors from `at` on, one below the other in a batch or side by side in a row:
 * pre-activations a become gates, c the new cells. */
INLINE void lstm_gates(const rnnfast_step *s, place_t at, int n, REAL *a, REAL *c) {
  V gate[8], cell[2];
  UNROLL for (int v = 0; v < 4 * n; v++) gate[v] = load(a + v * L);
  EACH {
    const ptrdiff_t row = at.row + i * at.down, u = (at.panel + i * !at.down) * L;
    const int fresh = s->reset && s->reset[row];
    cell[i] = fresh ? splat(0) : load((const REAL *)s->c + row * s->ldc + u);
  }
  lstm_point(n, gate, cell);
  EACH {
    const ptrdiff_t row = at.row + i * at.down, u = (at.panel + i * !at.down) * L;
    store(c + i * L, cell[i]), store(a + (4 * i + 3) * L, gate[4 * i + 3]);
    store((REAL *)s->c_next + row * s->ldc + u, cell[i]);
    if (s->gates)
      UNROLL for (int v = 0; v < 4; v++)
        store((REAL *)s->gates + row * s->ldgates + 4 * u + v * L, gate[4 * i + v]);
  }
}

/* h = o tanh(c) of n of them; o stands in slot 3 of a. */
INLINE void lstm_output(const rnnfast_packed *w, const rnnfast_step *s, place_t at, int n, const REAL *a,
                        const REAL *c) {
  V h[4];
  EACH h[i] = load(c + i * L);
  activate(n, ~0u, h);
  EACH {
    const ptrdiff_t row = at.row + i * at.down, u = (at.panel + i * !at.down) * L;
    h[i] = load(a + (4 * i + 3) * L) * h[i];
    if (w->r) {
      store((REAL *)s->work + row * s->ldwork + u, h[i]);
    } else {
      store((REAL *)s->h_next + row * s->ldh_next + u, h[i]);
      store_up_to(output_of(s, row) + u, h[i], w->P - u);
    }
  }
}

/* Six vectors are 620 operations: 310 cycles on the two ports that the FMAs need too. That is 21 per
 * cent of a step at I + H = 96, 9 at 256, 2.5 at 1,024, and no schedule gets below it. Alone they take
 * several times that, nearly all of it latency; after a tile the FMAs of the next one fill it in. */
static void lstm_finish(const rnnfast_packed *w, const rnnfast_step *s, place_t at, int count, REAL *a) {
  REAL c[MR_2 * L] __attribute__((aligned(VBYTES)));
#define LSTM_GATES(m, n) lstm_gates(s, further(at, m), n, a + (m) * 4 * L, c + (m) * L)
#define LSTM_OUTPUT(m, n) lstm_output(w, s, further(at, m), n, a + (m) * 4 * L, c + (m) * L)
  FOR_PAIRS(count, LSTM_GATES);
  FOR_GROUPS(count, LSTM_OUTPUT);
}

INLINE void lstm_tile(const rnnfast_packed *w, const rnnfast_step *s, const sums_t *xh, ptrdiff_t p,
                      ptrdiff_t r, int mr) {
  REAL a[4 * MR_2 * L] __attribute__((aligned(VBYTES)));
  expect_outputs(w, s, p * L, 1, 4, r, mr);
  product(xh->sum, xh->n, 4, start_of(w, s, r) + p * 4 * L, s->init ? s->ldinit : 0, a, 4 * L, r, mr);
  lstm_finish(w, s, (place_t){r, p, 1}, mr, a);
}

/* A single row, np panels. */
INLINE void lstm_row(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t p, int np) {
  V acc[4 * 3];
  REAL a[4 * 3 * L] __attribute__((aligned(VBYTES)));
  const REAL *start = start_of(w, s, 0) + p * 4 * L;
  const ptrdiff_t nx = 4 * L * w->I, nh = 4 * L * w->P;
  UNROLL for (int v = 0; v < 4 * np; v++) acc[v] = load(start + v * L);
  if (!s->init) madd_row(np, 4, acc, input_of(s, 0), 0, w->I, (const REAL *)w->x + p * nx, nx);
  madd_row(np, 4, acc, s->h, 0, w->P, (const REAL *)w->h + p * nh, nh);
  spill(a, acc, np);
  lstm_finish(w, s, (place_t){0, p, 0}, np, a);
}

static void lstm_step(const rnnfast_packed *w, const rnnfast_step *s) {
  ptrdiff_t p = 0, panels = panels_of(w->H);
  reset_rows(s->rows, s->reset, s->h, s->ldh, w->P);
#define LSTM_ROW(p, np) lstm_row(w, s, p, np)
  if (s->rows == 1) FOR_ROW(panels, LSTM_ROW)
  else
    for (sums_t xh = sums_of(w, s, panels, 4, 4); p < panels; p++, next_panel(&xh))
      FOR_TILES(s->rows, MR, lstm_tile, w, s, &xh, p)
  if (!w->r) return;
  gemm(&(gemm_t){
      .rows = s->rows, .n = w->P, .width = 4, .a = s->work, .lda = s->ldwork, .run = w->H, .runs = 1,
      .stride = w->H, .b = w->r, .c = s->h_next, .ldc = s->ldh_next, .c_panel = 4 * L, .c_vec = L,
      .whole = 1});
  for (ptrdiff_t r = 0; r < s->rows; r++)
    memcpy(output_of(s, r), (REAL *)s->h_next + r * s->ldh_next, w->P * sizeof(REAL));
}

/* n unit vectors of row r from unit u on. */
INLINE void lstm_dunits(const rnnfast_packed *w, const rnnfast_dstep *s, ptrdiff_t r, ptrdiff_t u, int n) {
  const int fresh = s->reset && s->reset[r];
  V t[4];
  EACH t[i] = load((const REAL *)s->c_next + r * s->ldc + u + i * L);
  activate(n, ~0u, t);
  for (int i = 0; i < n; i++, u += L) {
    REAL *g = (REAL *)s->gates + r * s->ldgates + 4 * u, *dc_out = (REAL *)s->dc + r * s->lddc + u;
    V gate[4] = {load(g), load(g + L), load(g + 2 * L), load(g + 3 * L)}, dc = load(dc_out);
    const V c = fresh ? splat(0) : load((const REAL *)s->c + r * s->ldc + u);
    const V dh = w->r ? load((REAL *)s->work + r * s->ldwork + u) : upstream(s, r, u, w->H);
    if (w->r) store((REAL *)s->h_raw + r * s->ldh_raw + u, gate[3] * t[i]);
    lstm_dpoint(gate, c, t[i], dh, &dc);
    UNROLL for (int v = 0; v < 4; v++) store(g + v * L, keep_n(gate[v], w->H - u));
    store(dc_out, dc);
  }
}

static void lstm_dstep(const rnnfast_packed *w, const rnnfast_dstep *s) {
  if (w->r) {
    for (ptrdiff_t r = 0; r < s->rows; r++)
      for (ptrdiff_t u = 0; u < w->P; u += L)
        store((REAL *)s->dh_sum + r * s->lddh_sum + u, upstream(s, r, u, w->P));
    gemm(&(gemm_t){
        .rows = s->rows, .n = w->H, .width = 4, .a = s->dh_sum, .lda = s->lddh_sum, .run = w->P,
        .runs = 1, .stride = w->P, .b = w->r, .c = s->work, .ldc = s->ldwork, .c_panel = 4 * L,
        .c_vec = L, .whole = 1});
  }
#define LSTM_DUNITS(p, n) lstm_dunits(w, s, r, (p) * L, n)
  for (ptrdiff_t r = 0; r < s->rows; r++) FOR_GROUPS(panels_of(w->H), LSTM_DUNITS);
  dz_times(w, s, 0, 4, w->h, w->P, s->dh, s->lddh, 0);
  reset_rows(s->rows, s->reset, s->dh, s->lddh, w->P);
  reset_rows(s->rows, s->reset, s->dc, s->lddc, w->H);
}
