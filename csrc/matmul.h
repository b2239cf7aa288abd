/* C (rows x n) = init + A B. A row of A has `runs` stretches of `run` reals, `run_stride` apart. B is packed
 * in panels of `width` vectors (pack.h). Vector v of panel p of C lies at p*c_panel + v*c_vec.
 *
 * Long sums over k are cut into stretches of about 4 KiB of a row of A, so that 128 rows of A and a panel
 * of B share the second cache; C waits in memory between them, and each goes on with the sums of the one
 * before. With `min_sums` there are at least so many stretches, and each is a sum of its own, added when it
 * is complete: a single row then does not wait for the latency of one chain of FMAs, but has several
 * side by side. Backward of one row takes 10 to 15 per cent less time for it from H = 64 on, 45 at
 * H = 20; many rows pay up to 2 per cent of it (LSTM and GRU, one core). C must be whole vectors.
 *
 * The last columns, if they are few, are dot products, of vectors along k: a step back takes 6 to 11 per cent
 * less time at H = 100 and 130, dx 9, at I = 1 60 to 80 (Zen 4). */
typedef struct {
  ptrdiff_t rows, n, width;
  int edge;                           /* columns more, behind n that are whole vectors */
  const void *a;
  const ptrdiff_t *a_row_index;           /* where its rows are; NULL: one after the other */
  ptrdiff_t a_stride, run, runs, run_stride, min_sums;
  const void *tail_a;                /* one more, shorter stretch of each row of A: `tail` reals */
  ptrdiff_t tail;
  const void *b;
  const void *init;                  /* NULL: zero; with ldinit 0 one row for all (a bias) */
  ptrdiff_t init_stride, init_panel, init_vec;
  void *c;
  const ptrdiff_t *c_row_index;           /* as a_rows; then init is NULL */
  ptrdiff_t c_stride, c_panel, c_vec;
  int padded;                         /* the rows of C and init are padded: whole vectors */
  int cold;                         /* A and C are in no near cache: fetch the rows of the tile to come, up
                                        to 10 per cent of dx (Zen 4), and of C, 2 to 5 */
  const void *prefetch;                 /* reals to fetch meanwhile; or NULL */
  ptrdiff_t prefetch_reals;
} matmul_t;

/* PANEL(p, nv) for every panel p and its number of vectors. */
#define FOR_PANELS(g, PANEL)                                                                 \
  for (ptrdiff_t p_ = 0, left_ = vectors_for((g)->n); left_ > 0; p_++, left_ -= (g)->width)    \
    PANEL(p_, (int)(left_ < (g)->width ? left_ : (g)->width))

/* A stretch, and the tail behind the last. */
INLINE int operands_in(const matmul_t *g) { return g->tail ? 2 : 1; }

/* One tile of panel p, nv wide, by way of a copy: its vectors are not whole and side by side, or its rows
 * anywhere. */
static void matmul_tile_copied(const matmul_t *g, const operand_t *sum, ptrdiff_t p, int nv, ptrdiff_t r, int mr) {
  real a[2 * TILE_ROWS_2V * L] __attribute__((aligned(VECTOR_BYTES)));
  const ptrdiff_t remaining = g->padded ? nv * L : g->n - p * g->width * L, stride = nv * L;
  if (g->init)
    for (int m = 0; m < mr; m++) {
      const ptrdiff_t row = g->init == g->c ? data_row(g->c_row_index, r + m) : r + m;
      const real *init = (const real *)g->init + row * g->init_stride + p * g->init_panel;
      for (int v = 0; v < nv; v++)
        store(a + m * stride + v * L, load_partial(init + v * g->init_vec, remaining - v * L));
    }
  run_tile(sum, operands_in(g), nv, g->init ? a : zeros, g->init ? stride : 0, a, stride, r, mr);
  for (int m = 0; m < mr; m++) {
    real *c = (real *)g->c + data_row(g->c_row_index, r + m) * g->c_stride + p * g->c_panel;
    for (int v = 0; v < nv; v++) store_partial(c + v * g->c_vec, load(a + m * stride + v * L), remaining - v * L);
  }
}

INLINE void matmul_tile(const matmul_t *g, const operand_t *sum, ptrdiff_t p, int nv, int separate_sum, ptrdiff_t r,
                      int mr) {
  const int padded = g->padded || g->n - p * g->width * L >= nv * L;
  const real *init = g->init ? (const real *)g->init + r * g->init_stride + p * g->init_panel : zeros;
  if (g->cold)
    for (ptrdiff_t row = r; row < r + mr; row++)
      prefetch_lines((real *)g->c + data_row(g->c_row_index, row) * g->c_stride + p * g->c_panel, nv * L, 1);
  if (!padded || g->c_row_index || g->c_vec != L || (g->init && g->init_vec != L))
    matmul_tile_copied(g, sum, p, nv, r, mr);
  else
    run_tile(sum, operands_in(g), nv, separate_sum ? NULL : init, g->init ? g->init_stride : 0,
            (real *)g->c + r * g->c_stride + p * g->c_panel, g->c_stride, r, mr);
}

/* What a panel fetches of what is needed later: `reals` of it, as the last panels do, with so many `remaining`. */
INLINE const real *prefetch_part(const matmul_t *g, ptrdiff_t reals, ptrdiff_t remaining) {
  return g->prefetch && remaining * reals < g->prefetch_reals ? (const real *)g->prefetch + remaining * reals : NULL;
}

/* Panel p of B from k on, of K. */
INLINE const real *panel_at(const matmul_t *g, ptrdiff_t K, ptrdiff_t p, ptrdiff_t k) {
  const ptrdiff_t remaining = vectors_for(g->n) - p * g->width, nv = remaining < g->width ? remaining : g->width;
  return (const real *)g->b + (p * g->width * K + k * nv) * L;
}

/* The sum over k0 .. k0 + run * runs of K, going on with init. */
static void matmul_panel(const matmul_t *g, ptrdiff_t K, ptrdiff_t k0, ptrdiff_t p, int nv, int separate_sum) {
  const ptrdiff_t panels = (vectors_for(g->n) + g->width - 1) / g->width, n = g->run * g->runs, k1 = k0 + n;
  const ptrdiff_t stretches_after = K - g->tail - k1; /* of a whole stretch each */
  operand_t sum[2] = {
    {.a = g->a, .row_index = g->a_row_index, .a_stride = g->a_stride, .run = g->run, .runs = g->runs, .run_stride = g->run_stride,
     .b = panel_at(g, K, p, k0), .prefetch = prefetch_part(g, n * nv * L, stretches_after / n * panels + panels - 1 - p),
     .prefetch_per_row = bytes_per_row(n * nv * L, g->rows)},
    {.a = g->tail_a, .row_index = g->a_row_index, .a_stride = g->a_stride, .run = g->tail, .runs = 1, .b = panel_at(g, K, p, k1)}};
  if (g->cold && p == 0 && k0 == 0 && !stretches_after) {
    sum->prefetch = (const real *)g->a + tile_rows_for(nv) * g->a_stride;
    sum->prefetch_per_row = g->a_stride * (ptrdiff_t)sizeof(real);
  } else if (exceeds_l2(g->n * K, g->rows, g->n + K)) {
    sum->prefetch_second = sum->prefetch;
    sum->prefetch = p + 1 < panels ? panel_at(g, K, p + 1, k0) : panel_at(g, K, 0, stretches_after ? k1 : 0);
  }
  FOR_TILES(g->rows, tile_rows_for(nv), matmul_tile, g, sum, p, nv, separate_sum)
}

/* How k is cut: `units` of `unit` reals, `unit_stride` apart in A; a stretch has `stretch` of them, the last one
 * the rest. */
typedef struct { ptrdiff_t K, unit, unit_stride, units, stretch; } k_split_t;

/* `count` stretches of n units of a single row, from unit u on, side by side. */
INLINE void row_sums(const matmul_t *g, const k_split_t *k, int count, int nv, ptrdiff_t u, ptrdiff_t n,
                     const real *b, V *total) {
  V acc[4 * 4];
  const int contiguous = k->unit_stride == k->unit;
  const ptrdiff_t run = contiguous ? n * k->unit : k->unit, runs = contiguous ? 1 : n;
  const real *a = (const real *)g->a + u * k->unit_stride, *tail = b + k->units * k->unit * nv * L;
  b += u * k->unit * nv * L;
  UNROLL for (int j = 0; j < count; j++)
    UNROLL for (int v = 0; v < nv; v++) acc[4 * j + v] = u || j ? splat(0) : total[v];
  for (ptrdiff_t i = 0; i < runs; i++, a += k->unit_stride, b += run * nv * L)
    row_fma(count, nv, 0, acc, a, n * k->unit_stride, run, b, n * k->unit * nv * L);
  if (g->tail && u + count * n == k->units)
    row_fma(1, nv, 0, acc + 4 * (count - 1), g->tail_a, 0, g->tail, tail, 0);
  UNROLL for (int j = 0; j < count; j++)
    UNROLL for (int v = 0; v < nv; v++) total[v] = u || j ? acc[4 * j + v] + total[v] : acc[4 * j + v];
}

/* As many sums at a time as there are registers for. */
INLINE void row_panel(const matmul_t *g, const k_split_t *k, ptrdiff_t p, int nv) {
  V total[4];
  const real *b = (const real *)g->b + p * g->width * L * k->K;
  const ptrdiff_t units = k->units, stretch = k->stretch;
  ptrdiff_t u = 0;
  UNROLL for (int v = 0; v < nv; v++)
    total[v] = g->init ? load((const real *)g->init + p * g->init_panel + v * g->init_vec) : splat(0);
  for (; TILE_ROWS_4V >= 6 && u + 4 * stretch <= units; u += 4 * stretch) row_sums(g, k, 4, nv, u, stretch, b, total);
  for (; u + 2 * stretch <= units; u += 2 * stretch) row_sums(g, k, 2, nv, u, stretch, b, total);
  for (; u < units; u += stretch) row_sums(g, k, 1, nv, u, units - u < stretch ? units - u : stretch, b, total);
  UNROLL for (int v = 0; v < nv; v++) store((real *)g->c + p * g->c_panel + v * L, total[v]);
}

#define ROW_PANEL(p, nv) row_panel(g, k, p, nv)
static void matmul_one_row(const matmul_t *g, const k_split_t *k) {
#define ROW_PANELS(p, nv) switch (nv) { UP_TO_4(CASE, ROW_PANEL, p) }
  FOR_PANELS(g, ROW_PANELS)
}

/* How many columns more than whole vectors are summed up one by one, where that takes less time than a vector
 * of them. By trial (AVX-512, Zen 4): what is done with each costs a third more than its FMAs and as much as 7
 * vectors of k, and to begin behind whole vectors 32 FMAs. */
INLINE int edge_columns(ptrdiff_t n, ptrdiff_t K) {
  const ptrdiff_t edge = n % L, begin = n > L ? 32 : 0;
  return edge <= L / 2 && edge * (K / L + 7) * 4 / 3 + begin < K ? (int)edge : 0;
}

/* acc[m few + c] += row[m][k] * b[c ldb + k], lane by lane, for k < K. */
INLINE void edge_fma(int edge, int mr, V *acc, const real *const *row, ptrdiff_t K, const real *b,
                     ptrdiff_t b_stride) {
  for (ptrdiff_t k = 0; k < K; k += L) {
    V w[L];
    UNROLL for (int c = 0; c < edge; c++) w[c] = load(b + c * b_stride + k);
    UNROLL for (int m = 0; m < mr; m++) {
      const V a = load(row[m] + k);
      UNROLL for (int c = 0; c < edge; c++) acc[m * edge + c] = vfma(a, w[c], acc[m * edge + c]);
    }
  }
}

/* The few columns of mr rows. Vectors run along k, so a sum is L sums at first. Tiles are whole: rows beyond
 * the last repeat it. */
INLINE void edge_tile(const matmul_t *g, ptrdiff_t K, int edge, int mr, ptrdiff_t r) {
  const ptrdiff_t remaining = g->rows - r < mr ? g->rows - r : mr, b_stride = vectors_for(K) * L;
  const real *row[L], *tail[L], *b = (const real *)g->b + K * g->n;
  V acc[L];
  UNROLL for (int i = 0; i < L; i++) acc[i] = splat(0);
  UNROLL for (int m = 0; m < mr; m++) {
    const ptrdiff_t at = r + (m < remaining ? m : remaining - 1);
    row[m] = (const real *)g->a + at * g->a_stride, tail[m] = (const real *)g->tail_a + at * g->a_stride;
  }
  for (ptrdiff_t i = 0; i < g->runs; i++, b += g->run) {
    edge_fma(edge, mr, acc, row, g->run, b, b_stride);
    UNROLL for (int m = 0; m < mr; m++) row[m] += g->run_stride;
  }
  if (g->tail) edge_fma(edge, mr, acc, tail, g->tail, b, b_stride);
  real sum[L];
  store(sum, add_lanes(acc));
  for (ptrdiff_t m = 0; m < remaining; m++) {
    real *c = (real *)g->c + data_row(g->c_row_index, r + m) * g->c_stride + g->n;
    for (int j = 0; j < edge; j++) c[j] = g->init ? c[j] + sum[m * edge + j] : sum[m * edge + j];
  }
}

INLINE void edge_tiles(const matmul_t *g, ptrdiff_t K, int edge) {
  if (g->rows == 1) edge_tile(g, K, edge, 1, 0);
  else for (ptrdiff_t r = 0; r < g->rows; r += L / edge) edge_tile(g, K, edge, L / edge, r);
}

#define EDGE_TILES(K, edge) edge_tiles(g, K, edge <= L / 2 ? edge : 1) /* there are no more than L / 2 */
static NOINLINE void matmul_edge(const matmul_t *g, ptrdiff_t K) {
  switch (g->edge) { UP_TO_8(CASE, EDGE_TILES, K) }
}

/* One stretch of k after the other; g changes on the way. */
static void matmul_rows(matmul_t *g, const k_split_t *k) {
  const real *a = g->a;
  const ptrdiff_t tail = g->tail;
  const int contiguous = k->unit_stride == k->unit;
  for (ptrdiff_t u = 0; u < k->units; u += k->stretch) {
    const ptrdiff_t n = k->units - u < k->stretch ? k->units - u : k->stretch;
    g->a = a + u * k->unit_stride, g->tail = u + n == k->units ? tail : 0;
    if (contiguous) g->run = n * k->unit, g->runs = 1;
    else g->runs = n;
#define MATMUL_PANEL(p, nv) matmul_panel(g, k->K, u * k->unit, p, nv, u && g->min_sums);
    FOR_PANELS(g, MATMUL_PANEL)
    g->init = g->c, g->init_stride = g->c_stride, g->init_panel = g->c_panel, g->init_vec = g->c_vec;
  }
}

static void matmul(matmul_t *g) {
  if (g->rows == 0) return;
  const int contiguous = g->run == g->run_stride;
  const ptrdiff_t padded = g->run * g->runs;
  k_split_t k = {.K = padded + g->tail};
  const ptrdiff_t longest = (k.K * (ptrdiff_t)sizeof(real) + 4095) / 4096;
  const ptrdiff_t stretches = longest < g->min_sums ? g->min_sums : longest;
  k.unit = !contiguous ? g->run : g->min_sums ? L : 1;
  k.unit_stride = contiguous ? k.unit : g->run_stride;
  k.units = !contiguous ? g->runs : g->min_sums ? padded / L : padded;
  k.stretch = (k.units + stretches - 1) / stretches;
  matmul_t most;
  if (g->rows == 1 && g->min_sums) matmul_one_row(g, &k);
  else if (g->edge) most = *g, matmul_rows(&most, &k);
  else matmul_rows(g, &k);
  if (g->edge) matmul_edge(g, k.K); /* A is near now: before, dx would take up to 12 per cent more time */
}
