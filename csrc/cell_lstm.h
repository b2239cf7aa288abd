/* LSTM (Hochreiter & Schmidhuber 1997, forget gate of Gers 2000, projection of Sak 2014):
 *   i, f, o = sigmoid(a), g = tanh(a), a = w_ih x + b_ih + w_hh h' + b_hh
 *   c = f c' + i g,  h = o tanh(c),  then h = w_hr h if projected */

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

/* Of the n unit vectors from `at` on, one below the other in a batch or side by side in a row, from their
 * pre-activations a: i, f, g and c. */
INLINE void lstm_gates(const rnnfast_step *s, place_t at, int n, const real *a, V *c) {
  V ifg[6];
  EACH UNROLL for (int v = 0; v < 3; v++) ifg[3 * i + v] = load(a + (4 * i + v) * L);
  activate(3 * n, 0x24, ifg);
  EACH {
    const ptrdiff_t row = further(at, i).row, u = further(at, i).panel * L;
    const int fresh = s->reset && s->reset[row];
    c[i] = fresh ? splat(0) : load((const real *)s->c + row * s->ldc + u);
    c[i] = fma_(ifg[3 * i + 1], c[i], ifg[3 * i] * ifg[3 * i + 2]);
    store((real *)s->c_next + row * s->ldc + u, c[i]);
    if (s->gates)
      UNROLL for (int v = 0; v < 3; v++)
        store((real *)s->gates + row * s->ldgates + 4 * u + v * L, ifg[3 * i + v]);
  }
}

/* Then o beside tanh(c), which alone would wait for its latency: two rows' 6 and 4 chains rather than 8 and 2
 * spare up to 6 per cent of a step, a single row's 7 to 9 (Zen 4). */
INLINE void lstm_outputs(const rnnfast_packed *w, const rnnfast_step *s, place_t at, int n, const real *a,
                         const V *c) {
  V oc[4];
  EACH oc[2 * i] = load(a + (4 * i + 3) * L), oc[2 * i + 1] = c[i];
  activate(2 * n, 0xa, oc);
  EACH {
    const ptrdiff_t row = further(at, i).row, u = further(at, i).panel * L;
    const V h = oc[2 * i] * oc[2 * i + 1];
    if (s->gates) store((real *)s->gates + row * s->ldgates + 4 * u + 3 * L, oc[2 * i]);
    if (w->r) {
      store((real *)s->work + row * s->ldwork + u, h);
    } else {
      store((real *)s->h_next + row * s->ldh_next + u, h);
      store_up_to(output_of(s, row) + u, h, w->P - u);
    }
  }
}

/* From the outputs of all units, in `work`, the layer's. */
static NOINLINE void lstm_project(const rnnfast_packed *w, const rnnfast_step *s) {
  gemm(&(gemm_t){
      .rows = s->rows, .n = w->P, .width = 4, .a = s->work, .lda = s->ldwork, .run = w->H, .runs = 1,
      .stride = w->H, .b = w->r, .c = s->h_next, .ldc = s->ldh_next, .c_panel = 4 * L, .c_vec = L,
      .whole = 1});
  for (ptrdiff_t r = 0; r < s->rows; r++)
    memcpy(output_of(s, r), (real *)s->h_next + r * s->ldh_next, w->P * sizeof(real));
}

INLINE void lstm_units(const rnnfast_packed *w, const rnnfast_step *s, place_t at, int n, const real *a) {
  V c[2];
  lstm_gates(s, at, n, a, c);
  lstm_outputs(w, s, at, n, a, c);
}

/* The second half of that for rows whose first is done. */
INLINE void lstm_late_units(const rnnfast_packed *w, const rnnfast_step *s, place_t at, int n, const real *a) {
  V c[2];
  EACH c[i] = load((const real *)s->c_next + (at.row + i) * s->ldc + at.panel * L);
  lstm_outputs(w, s, at, n, a, c);
}

/* `count` unit vectors. Six are 620 operations: 310 cycles on the two ports that the FMAs need too. That is 21 per
 * cent of a step at I + H = 96, 9 at 256, 2.5 at 1,024, and no schedule gets below it. Alone they take several times
 * that, nearly all of it latency; after a tile the FMAs of the next one fill it in. As a function of its own it would
 * cost a step up to 1.5 per cent more, a single row's at H = 20 15 (Zen 4). */
INLINE void lstm_finish(const rnnfast_packed *w, const rnnfast_step *s, place_t at, int count, const real *a) {
#define LSTM_UNITS(m, n) lstm_units(w, s, further(at, m), n, a + (m) * 4 * L)
  FOR_PAIRS(count, LSTM_UNITS);
}

INLINE void lstm_tile(const rnnfast_packed *w, const rnnfast_step *s, const sums_t *xh, ptrdiff_t p,
                      int nv, ptrdiff_t r, int mr) {
  real a[4 * MR_2 * L] __attribute__((aligned(VBYTES)));
  expect_outputs(w, s, p * L, 1, 4, r, mr);
  product(xh->sum, xh->n, nv, start_of(w, s, r) + p * 4 * L, s->init ? s->ldinit : 0, a, 4 * L, r, mr);
  if (nv < 4) spread(a, mr, w->H - p * L);
  lstm_finish(w, s, (place_t){r, p, 1}, mr, a);
}

/* With 16 registers, whose vectors are half as long, the processor keeps half as much in flight, and the FMAs of the
 * next tile come too late. So the activations of 4 tiles wait for each other, and those that need c for all others:
 * a forward pass takes 7 per cent less time at I = 32, H = 64, 2 to 4 at 128, 1 at 256; with 32 registers it would
 * take 2 less to 1 more (Zen 4). */
enum { WAITING = MR < 6 ? 4 : 1 };

INLINE void lstm_sums(const rnnfast_packed *w, const rnnfast_step *s, const sums_t *xh, ptrdiff_t p, int nv, real *a,
                      ptrdiff_t first, ptrdiff_t r, int mr) {
  const real *start = start_of(w, s, first + r) + p * 4 * L;
  expect_outputs(w, s, p * L, 1, 4, first + r, mr);
  product(xh->sum, xh->n, nv, start, s->init ? s->ldinit : 0, a + r * 4 * L, 4 * L, first + r, mr);
}

/* `rows` rows from r on, in up to so many tiles. */
INLINE void lstm_tiles(const rnnfast_packed *w, const rnnfast_step *s, const sums_t *xh, ptrdiff_t p, int nv,
                       int height, ptrdiff_t r, ptrdiff_t rows) {
  real a[WAITING * MR_2 * 4 * L] __attribute__((aligned(VBYTES)));
  const place_t at = {r, p, 1};
  V c[2];
  FOR_TILES(rows, height, lstm_sums, w, s, xh, p, nv, a, r)
  if (nv < 4) spread(a, (int)rows, w->H - p * L);
#define LSTM_GATES(m, n) lstm_gates(s, further(at, m), n, a + (m) * 4 * L, c)
#define LSTM_LATE_UNITS(m, n) lstm_late_units(w, s, further(at, m), n, a + (m) * 4 * L)
  FOR_PAIRS(rows, LSTM_GATES);
  FOR_PAIRS(rows, LSTM_LATE_UNITS);
}

/* A single row, np panels from p on and, if it has `narrow` vectors, the one after them. */
INLINE void lstm_row(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t p, int np, int narrow) {
  V acc[4 * 3];
  real a[4 * 3 * L] __attribute__((aligned(VBYTES)));
  const real *start = start_of(w, s, 0) + p * 4 * L;
  const ptrdiff_t nx = 4 * L * w->I, nh = 4 * L * w->P;
  UNROLL for (int v = 0; v < 4 * np + narrow; v++) acc[v] = load(start + v * L);
  if (!s->init) madd_row(np, 4, narrow, acc, input_of(s, 0), 0, w->I, (const real *)w->x + p * nx, nx);
  if (!s->summed) madd_row(np, 4, narrow, acc, s->h, 0, w->P, (const real *)w->h + p * nh, nh);
  if (narrow) spread_row(acc + 4 * np, 4, narrow, w->H % L);
  spill(a, acc, np + (narrow > 0));
  lstm_finish(w, s, (place_t){0, p, 0}, np + (narrow > 0), a);
}

static void lstm_one(const rnnfast_packed *w, const rnnfast_step *s) {
#define LSTM_ROW(p, np) lstm_row(w, s, p, np, 0)
#define LSTM_LAST(p, np, narrow) case 4 * np + narrow: lstm_row(w, s, p, np, narrow); break;
  const ptrdiff_t full = panels_of(w->H) - (w->narrow > 0), last = beside_narrow(w, full), p = full - last;
  FOR_ROW(p, 4 * L * depth_of(w, s), s->turned, LSTM_ROW)
  switch (4 * last + w->narrow) {
    LSTM_LAST(p, 1, 1) LSTM_LAST(p, 1, 2) LSTM_LAST(p, 1, 3)
    LSTM_LAST(p, 2, 1) LSTM_LAST(p, 2, 2) LSTM_LAST(p, 2, 3)
  }
  if (w->r) lstm_project(w, s);
}

/* Where a panel of weights is near, tiles of 4 rows, which follow each other almost without a gap (tile.h), are
 * better than those of 6 if the rows fill them and not those: 0.5 to 1.5 per cent of a step (Zen 4). */
INLINE int lstm_height(const rnnfast_packed *w, const rnnfast_step *s, int nv) {
  const int near = depth_of(w, s) * 4 * VBYTES < 48000;
  return nv == 4 && MR == 6 && near && s->rows % 4 == 0 && s->rows % 6 ? 4 : height_of(nv);
}

static void lstm_rows(const rnnfast_packed *w, const rnnfast_step *s) {
  const ptrdiff_t panels = panels_of(w->H);
  sums_t xh = sums_of(w, s, panels, 4, 4);
  for (ptrdiff_t p = 0; p < panels; p++, next_panel(&xh)) {
    const int nv = w->narrow && p == panels - 1 ? w->narrow : 4;
    const int height = lstm_height(w, s, nv), most = WAITING * height;
    if (WAITING == 1) FOR_TILES(s->rows, height, lstm_tile, w, s, &xh, p, nv)
    else
      for (ptrdiff_t r = 0; r < s->rows; r += most)
        lstm_tiles(w, s, &xh, p, nv, height, r, s->rows - r < most ? s->rows - r : most);
  }
  if (w->r) lstm_project(w, s);
}

static void lstm_step(const rnnfast_packed *w, const rnnfast_step *s) {
  if (s->reset) reset_rows(s->rows, s->reset, s->h, s->ldh, w->P);
  if (s->rows == 1) lstm_one(w, s);
  else lstm_rows(w, s);
}

/* n unit vectors of row r from unit u on. */
INLINE void lstm_dunits(const rnnfast_packed *w, const rnnfast_dstep *s, ptrdiff_t r, ptrdiff_t u, int n) {
  const int fresh = s->reset && s->reset[r];
  V t[4];
  EACH t[i] = load((const real *)s->c_next + r * s->ldc + u + i * L);
  activate(n, ~0u, t);
  for (int i = 0; i < n; i++, u += L) {
    real *g = (real *)s->gates + r * s->ldgates + 4 * u, *dc_out = (real *)s->dc + r * s->lddc + u;
    const ptrdiff_t apart = apart_in(w, u / L);
    V gate[4] = {load(g), load(g + L), load(g + 2 * L), load(g + 3 * L)}, dc = load(dc_out);
    const V c = fresh ? splat(0) : load((const real *)s->c + r * s->ldc + u);
    const V dh = w->r ? load((real *)s->work + r * s->ldwork + u) : upstream(s, r, u, w->H);
    if (w->r) store((real *)s->h_raw + r * s->ldh_raw + u, gate[3] * t[i]);
    lstm_dpoint(gate, c, t[i], dh, &dc);
    UNROLL for (int v = 0; v < 4; v++) store(g + v * apart, keep_n(gate[v], w->H - u));
    store(dc_out, dc);
  }
}

static void lstm_dstep(const rnnfast_packed *w, const rnnfast_dstep *s) {
  if (w->r) {
    for (ptrdiff_t r = 0; r < s->rows; r++)
      for (ptrdiff_t u = 0; u < w->P; u += L)
        store((real *)s->dh_sum + r * s->lddh_sum + u, upstream(s, r, u, w->P));
    gemm(&(gemm_t){
        .rows = s->rows, .n = w->H, .width = 4, .a = s->dh_sum, .lda = s->lddh_sum, .run = w->P,
        .runs = 1, .stride = w->P, .b = w->r, .c = s->work, .ldc = s->ldwork, .c_panel = 4 * L,
        .c_vec = L, .whole = 1});
  }
#define LSTM_DUNITS(p, n) lstm_dunits(w, s, r, (p) * L, n)
  for (ptrdiff_t r = 0; r < s->rows; r++) {
    fetch_next(w, s, r);
    FOR_GROUPS(panels_of(w->H), LSTM_DUNITS);
  }
  dz_times(w, s, 0, 4, w->h, w->P, s->dh, s->lddh, 0);
  if (s->reset) reset_rows(s->rows, s->reset, s->dh, s->lddh, w->P);
  if (s->reset) reset_rows(s->rows, s->reset, s->dc, s->lddc, w->H);
}
