/* C (rows x n) = init + A B. A row of A has `runs` stretches of `run` reals, `stride` apart. B is packed
 * in panels of `width` vectors (pack.h). Vector v of panel p of C lies at p*c_panel + v*c_vec.
 *
 * Long sums over k are cut into stretches of about 4 KiB of a row of A, so that 128 rows of A and a panel
 * of B share the second cache; C waits in memory between them, and each goes on with the sums of the one
 * before. With `sums` there are at least so many stretches, and each is a sum of its own, added when it
 * is complete: a single row then does not wait for the latency of one chain of FMAs, but has several
 * side by side. Backward of one row takes 10 to 15 per cent less time for it from H = 64 on, 45 at
 * H = 20; many rows pay up to 2 per cent of it (LSTM and GRU, one core). C must be whole vectors.
 *
 * The last columns, if they are few, are dot products, of vectors along k: a step back takes 6 to 11 per cent
 * less time at H = 100 and 130, dx 9, at I = 1 60 to 80 (Zen 4). */
typedef struct {
  ptrdiff_t rows, n, width;
  int few;                           /* columns more, behind n that are whole vectors */
  const void *a;
  const ptrdiff_t *a_rows;           /* where its rows are; NULL: one after the other */
  ptrdiff_t lda, run, runs, stride, sums;
  const void *tail_a;                /* one more, shorter stretch of each row of A: `tail` reals */
  ptrdiff_t tail;
  const void *b;
  const void *init;                  /* NULL: zero; with ldinit 0 one row for all (a bias) */
  ptrdiff_t ldinit, init_panel, init_vec;
  void *c;
  const ptrdiff_t *c_rows;           /* as a_rows; then init is NULL */
  ptrdiff_t ldc, c_panel, c_vec;
  int whole;                         /* the rows of C and init are padded: whole vectors */
  int fresh;                         /* A and C are in no near cache: fetch the rows of the tile to come, up
                                        to 10 per cent of dx (Zen 4), and of C, 2 to 5 */
  const void *later;                 /* reals to fetch meanwhile; or NULL */
  ptrdiff_t later_reals;
} gemm_t;

/* PANEL(p, nv) for every panel p and its number of vectors. */
#define FOR_PANELS(g, PANEL)                                                                 \
  for (ptrdiff_t p_ = 0, left_ = panels_of((g)->n); left_ > 0; p_++, left_ -= (g)->width)    \
    PANEL(p_, (int)(left_ < (g)->width ? left_ : (g)->width))

/* A stretch, and the tail behind the last. */
INLINE int sums_in(const gemm_t *g) { return g->tail ? 2 : 1; }

/* One tile of panel p, nv wide, by way of a copy: its vectors are not whole and side by side, or its rows
 * anywhere. */
static void gemm_aside(const gemm_t *g, const sum_t *sum, ptrdiff_t p, int nv, ptrdiff_t r, int mr) {
  real a[2 * MR_2 * L] __attribute__((aligned(VBYTES)));
  const ptrdiff_t left = g->whole ? nv * L : g->n - p * g->width * L, ld = nv * L;
  if (g->init)
    for (int m = 0; m < mr; m++) {
      const ptrdiff_t row = g->init == g->c ? row_of(g->c_rows, r + m) : r + m;
      const real *init = (const real *)g->init + row * g->ldinit + p * g->init_panel;
      for (int v = 0; v < nv; v++)
        store(a + m * ld + v * L, load_up_to(init + v * g->init_vec, left - v * L));
    }
  product(sum, sums_in(g), nv, g->init ? a : zeros, g->init ? ld : 0, a, ld, r, mr);
  for (int m = 0; m < mr; m++) {
    real *c = (real *)g->c + row_of(g->c_rows, r + m) * g->ldc + p * g->c_panel;
    for (int v = 0; v < nv; v++) store_up_to(c + v * g->c_vec, load(a + m * ld + v * L), left - v * L);
  }
}

INLINE void gemm_tile(const gemm_t *g, const sum_t *sum, ptrdiff_t p, int nv, int apart, ptrdiff_t r,
                      int mr) {
  const int whole = g->whole || g->n - p * g->width * L >= nv * L;
  const real *init = g->init ? (const real *)g->init + r * g->ldinit + p * g->init_panel : zeros;
  if (g->fresh)
    for (ptrdiff_t row = r; row < r + mr; row++)
      fetch((real *)g->c + row_of(g->c_rows, row) * g->ldc + p * g->c_panel, nv * L, 1);
  if (!whole || g->c_rows || g->c_vec != L || (g->init && g->init_vec != L))
    gemm_aside(g, sum, p, nv, r, mr);
  else
    product(sum, sums_in(g), nv, apart ? NULL : init, g->init ? g->ldinit : 0,
            (real *)g->c + r * g->ldc + p * g->c_panel, g->ldc, r, mr);
}

/* What a panel fetches of what is needed later: `reals` of it, as the last panels do, with so many `left`. */
INLINE const real *later_of(const gemm_t *g, ptrdiff_t reals, ptrdiff_t left) {
  return g->later && left * reals < g->later_reals ? (const real *)g->later + left * reals : NULL;
}

/* Panel p of B from k on, of K. */
INLINE const real *panel_of(const gemm_t *g, ptrdiff_t K, ptrdiff_t p, ptrdiff_t k) {
  const ptrdiff_t left = panels_of(g->n) - p * g->width, nv = left < g->width ? left : g->width;
  return (const real *)g->b + (p * g->width * K + k * nv) * L;
}

/* The sum over k0 .. k0 + run * runs of K, going on with init. */
static void gemm_panel(const gemm_t *g, ptrdiff_t K, ptrdiff_t k0, ptrdiff_t p, int nv, int apart) {
  const ptrdiff_t panels = (panels_of(g->n) + g->width - 1) / g->width, n = g->run * g->runs, k1 = k0 + n;
  const ptrdiff_t more = K - g->tail - k1; /* of a whole stretch each */
  sum_t sum[2] = {
    {.a = g->a, .rows = g->a_rows, .lda = g->lda, .run = g->run, .runs = g->runs, .stride = g->stride,
     .b = panel_of(g, K, p, k0), .next = later_of(g, n * nv * L, more / n * panels + panels - 1 - p),
     .each = part_of(n * nv * L, g->rows)},
    {.a = g->tail_a, .rows = g->a_rows, .lda = g->lda, .run = g->tail, .runs = 1, .b = panel_of(g, K, p, k1)}};
  if (g->fresh && p == 0 && k0 == 0 && !more) {
    sum->next = (const real *)g->a + height_of(nv) * g->lda;
    sum->each = g->lda * (ptrdiff_t)sizeof(real);
  } else if (far(g->n * K, g->rows, g->n + K)) {
    sum->also = sum->next;
    sum->next = p + 1 < panels ? panel_of(g, K, p + 1, k0) : panel_of(g, K, 0, more ? k1 : 0);
  }
  FOR_TILES(g->rows, height_of(nv), gemm_tile, g, sum, p, nv, apart)
}

/* How k is cut: `units` of `unit` reals, `step` apart in A; a stretch has `each` of them, the last one
 * the rest. */
typedef struct { ptrdiff_t K, unit, step, units, each; } cut_t;

/* `count` stretches of n units of a single row, from unit u on, side by side. */
INLINE void row_sums(const gemm_t *g, const cut_t *k, int count, int nv, ptrdiff_t u, ptrdiff_t n,
                     const real *b, V *total) {
  V acc[4 * 4];
  const int adjoin = k->step == k->unit;
  const ptrdiff_t run = adjoin ? n * k->unit : k->unit, runs = adjoin ? 1 : n;
  const real *a = (const real *)g->a + u * k->step, *tail = b + k->units * k->unit * nv * L;
  b += u * k->unit * nv * L;
  UNROLL for (int j = 0; j < count; j++)
    UNROLL for (int v = 0; v < nv; v++) acc[4 * j + v] = u || j ? splat(0) : total[v];
  for (ptrdiff_t i = 0; i < runs; i++, a += k->step, b += run * nv * L)
    madd_row(count, nv, 0, acc, a, n * k->step, run, b, n * k->unit * nv * L);
  if (g->tail && u + count * n == k->units)
    madd_row(1, nv, 0, acc + 4 * (count - 1), g->tail_a, 0, g->tail, tail, 0);
  UNROLL for (int j = 0; j < count; j++)
    UNROLL for (int v = 0; v < nv; v++) total[v] = u || j ? acc[4 * j + v] + total[v] : acc[4 * j + v];
}

/* As many sums at a time as there are registers for. */
INLINE void row_panel(const gemm_t *g, const cut_t *k, ptrdiff_t p, int nv) {
  V total[4];
  const real *b = (const real *)g->b + p * g->width * L * k->K;
  const ptrdiff_t units = k->units, each = k->each;
  ptrdiff_t u = 0;
  UNROLL for (int v = 0; v < nv; v++)
    total[v] = g->init ? load((const real *)g->init + p * g->init_panel + v * g->init_vec) : splat(0);
  for (; MR >= 6 && u + 4 * each <= units; u += 4 * each) row_sums(g, k, 4, nv, u, each, b, total);
  for (; u + 2 * each <= units; u += 2 * each) row_sums(g, k, 2, nv, u, each, b, total);
  for (; u < units; u += each) row_sums(g, k, 1, nv, u, units - u < each ? units - u : each, b, total);
  UNROLL for (int v = 0; v < nv; v++) store((real *)g->c + p * g->c_panel + v * L, total[v]);
}

#define ROW_PANEL(p, nv) row_panel(g, k, p, nv)
static void gemm_row(const gemm_t *g, const cut_t *k) {
#define ROW_PANELS(p, nv) switch (nv) { UP_TO_4(CASE, ROW_PANEL, p) }
  FOR_PANELS(g, ROW_PANELS)
}

/* How many columns more than whole vectors are summed up one by one, where that takes less time than a vector
 * of them. By trial (AVX-512, Zen 4): what is done with each costs a third more than its FMAs and as much as 7
 * vectors of k, and to begin behind whole vectors 32 FMAs. */
INLINE int few_of(ptrdiff_t n, ptrdiff_t K) {
  const ptrdiff_t few = n % L, begin = n > L ? 32 : 0;
  return few <= L / 2 && few * (K / L + 7) * 4 / 3 + begin < K ? (int)few : 0;
}

/* acc[m few + c] += row[m][k] * b[c ldb + k], lane by lane, for k < K. */
INLINE void madd_few(int few, int mr, V *acc, const real *const *row, ptrdiff_t K, const real *b,
                     ptrdiff_t ldb) {
  for (ptrdiff_t k = 0; k < K; k += L) {
    V w[L];
    UNROLL for (int c = 0; c < few; c++) w[c] = load(b + c * ldb + k);
    UNROLL for (int m = 0; m < mr; m++) {
      const V a = load(row[m] + k);
      UNROLL for (int c = 0; c < few; c++) acc[m * few + c] = fma_(a, w[c], acc[m * few + c]);
    }
  }
}

/* The few columns of mr rows. Vectors run along k, so a sum is L sums at first. Tiles are whole: rows beyond
 * the last repeat it. */
INLINE void few_tile(const gemm_t *g, ptrdiff_t K, int few, int mr, ptrdiff_t r) {
  const ptrdiff_t left = g->rows - r < mr ? g->rows - r : mr, ldb = panels_of(K) * L;
  const real *row[L], *tail[L], *b = (const real *)g->b + K * g->n;
  V acc[L];
  UNROLL for (int i = 0; i < L; i++) acc[i] = splat(0);
  UNROLL for (int m = 0; m < mr; m++) {
    const ptrdiff_t at = r + (m < left ? m : left - 1);
    row[m] = (const real *)g->a + at * g->lda, tail[m] = (const real *)g->tail_a + at * g->lda;
  }
  for (ptrdiff_t i = 0; i < g->runs; i++, b += g->run) {
    madd_few(few, mr, acc, row, g->run, b, ldb);
    UNROLL for (int m = 0; m < mr; m++) row[m] += g->stride;
  }
  if (g->tail) madd_few(few, mr, acc, tail, g->tail, b, ldb);
  real sum[L];
  store(sum, sums_of_lanes(acc));
  for (ptrdiff_t m = 0; m < left; m++) {
    real *c = (real *)g->c + row_of(g->c_rows, r + m) * g->ldc + g->n;
    for (int j = 0; j < few; j++) c[j] = g->init ? c[j] + sum[m * few + j] : sum[m * few + j];
  }
}

INLINE void few_tiles(const gemm_t *g, ptrdiff_t K, int few) {
  if (g->rows == 1) few_tile(g, K, few, 1, 0);
  else for (ptrdiff_t r = 0; r < g->rows; r += L / few) few_tile(g, K, few, L / few, r);
}

#define FEW_TILES(K, few) few_tiles(g, K, few <= L / 2 ? few : 1) /* there are no more than L / 2 */
static NOINLINE void gemm_few(const gemm_t *g, ptrdiff_t K) {
  switch (g->few) { UP_TO_8(CASE, FEW_TILES, K) }
}

/* One stretch of k after the other; g changes on the way. */
static void gemm_rows(gemm_t *g, const cut_t *k) {
  const real *a = g->a;
  const ptrdiff_t tail = g->tail;
  const int adjoin = k->step == k->unit;
  for (ptrdiff_t u = 0; u < k->units; u += k->each) {
    const ptrdiff_t n = k->units - u < k->each ? k->units - u : k->each;
    g->a = a + u * k->step, g->tail = u + n == k->units ? tail : 0;
    if (adjoin) g->run = n * k->unit, g->runs = 1;
    else g->runs = n;
#define GEMM_PANEL(p, nv) gemm_panel(g, k->K, u * k->unit, p, nv, u && g->sums);
    FOR_PANELS(g, GEMM_PANEL)
    g->init = g->c, g->ldinit = g->ldc, g->init_panel = g->c_panel, g->init_vec = g->c_vec;
  }
}

static void gemm(gemm_t *g) {
  if (g->rows == 0) return;
  const int adjoin = g->run == g->stride;
  const ptrdiff_t whole = g->run * g->runs;
  cut_t k = {.K = whole + g->tail};
  const ptrdiff_t longest = (k.K * (ptrdiff_t)sizeof(real) + 4095) / 4096;
  const ptrdiff_t stretches = longest < g->sums ? g->sums : longest;
  k.unit = !adjoin ? g->run : g->sums ? L : 1;
  k.step = adjoin ? k.unit : g->stride;
  k.units = !adjoin ? g->runs : g->sums ? whole / L : whole;
  k.each = (k.units + stretches - 1) / stretches;
  gemm_t most;
  if (g->rows == 1 && g->sums) gemm_row(g, &k);
  else if (g->few) most = *g, gemm_rows(&most, &k);
  else gemm_rows(g, &k);
  if (g->few) gemm_few(g, k.K); /* A is near now: before, dx would take up to 12 per cent more time */
}
