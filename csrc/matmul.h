/* C (rows x n) = init + A B, by tiles.
 *
 * A row of A has `runs` stretches of `run` reals, run_stride apart. B is packed in panels of `width` vectors (pack.h).
 * Vector v of panel p of C lies at p c_panel + v c_vec.
 *
 * Long sums over k are cut into stretches of about 4 KiB of a row of A. So 128 rows of A and a panel of B share the
 * second-level cache. C waits in memory between two stretches, and each goes on with the sums of the one before.
 *
 * With min_sums there are at least so many stretches, and each is a sum of its own that is added when it is complete.
 * A single row then has several chains of FMAs side by side and does not wait for their latency. (M16) C must be whole
 * vectors then. */
typedef struct {
  ptrdiff_t rows, n, width;
  int edge;                          /* further columns behind n, which is whole vectors then (matmul_edges.h) */
  const void *a;
  const ptrdiff_t *a_row_index;      /* where its rows are; NULL: one after the other */
  ptrdiff_t a_stride, run, runs, run_stride, min_sums;
  const void *tail_a;                /* one more, shorter stretch of each row of A: `tail` reals */
  ptrdiff_t tail;
  const void *b;
  const void *init;                  /* NULL: zero; with init_stride 0 one row for all (a bias) */
  ptrdiff_t init_stride, init_panel, init_vec;
  void *c;
  const ptrdiff_t *c_row_index;      /* as a_row_index; init is NULL then */
  ptrdiff_t c_stride, c_panel, c_vec;
  int padded;                        /* the rows of C and init are whole vectors */
  int cold;                          /* A and C are in no near cache: their rows are prefetched (M17) */
  const void *prefetch;              /* reals to fetch meanwhile; or NULL */
  ptrdiff_t prefetch_reals;
} matmul_t;

/* How k is cut: `units` of `unit` reals, unit_stride apart in A. A stretch has `stretch` units, the last one the
 * rest. */
typedef struct { ptrdiff_t K, unit, unit_stride, units, stretch; } k_split_t;

/* The vectors of panel p. */
INLINE int panel_vectors(const matmul_t *g, ptrdiff_t p) {
  const ptrdiff_t remaining = vectors_for(g->n) - p * g->width;
  return (int)(remaining < g->width ? remaining : g->width);
}

/* Panel p of B from k on, of K. */
INLINE const real *panel_at(const matmul_t *g, ptrdiff_t K, ptrdiff_t p, ptrdiff_t k) {
  return (const real *)g->b + (p * g->width * K + k * panel_vectors(g, p)) * L;
}

/* A product of a stretch, and of the tail behind the last one. */
INLINE int operands_in(const matmul_t *g) { return g->tail ? 2 : 1; }

/* A tile of panel p by way of a copy: its vectors are not whole and side by side, or its rows lie anywhere. */
static void matmul_tile_copied(const matmul_t *g, const operand_t *o, ptrdiff_t p, int nv, ptrdiff_t r, int mr) {
  real a[2 * TILE_ROWS_2V * L] __attribute__((aligned(VECTOR_BYTES)));
  const ptrdiff_t columns = g->padded ? nv * L : g->n - p * g->width * L, stride = nv * L;
  if (g->init)
    for (int m = 0; m < mr; m++) {
      const ptrdiff_t row = g->init == g->c ? data_row(g->c_row_index, r + m) : r + m;
      const real *init = (const real *)g->init + row * g->init_stride + p * g->init_panel;
      for (int v = 0; v < nv; v++)
        store(a + m * stride + v * L, load_partial(init + v * g->init_vec, columns - v * L));
    }
  run_tile(o, operands_in(g), nv, g->init ? a : zeros, g->init ? stride : 0, a, stride, r, mr);
  for (int m = 0; m < mr; m++) {
    real *c = (real *)g->c + data_row(g->c_row_index, r + m) * g->c_stride + p * g->c_panel;
    for (int v = 0; v < nv; v++) store_partial(c + v * g->c_vec, load(a + m * stride + v * L), columns - v * L);
  }
}

INLINE void matmul_tile(const matmul_t *g, const operand_t *o, ptrdiff_t p, int nv, int separate_sum, ptrdiff_t r,
                        int mr) {
  const int padded = g->padded || g->n - p * g->width * L >= nv * L;
  const real *init = g->init ? (const real *)g->init + r * g->init_stride + p * g->init_panel : zeros;
  if (g->cold)
    for (ptrdiff_t row = r; row < r + mr; row++)
      prefetch_lines((real *)g->c + data_row(g->c_row_index, row) * g->c_stride + p * g->c_panel, nv * L, 1);
  if (!padded || g->c_row_index || g->c_vec != L || (g->init && g->init_vec != L))
    matmul_tile_copied(g, o, p, nv, r, mr);
  else
    run_tile(o, operands_in(g), nv, separate_sum ? NULL : init, g->init ? g->init_stride : 0,
             (real *)g->c + r * g->c_stride + p * g->c_panel, g->c_stride, r, mr);
}

/* What the tiles of panel p fetch while they add up k0 .. k0 + n: the rows of A at first, later the next panel of B,
 * and in the last panels their part of what g->prefetch names. */
INLINE prefetch_request_t request_of_panel(const matmul_t *g, ptrdiff_t K, ptrdiff_t k0, ptrdiff_t n, ptrdiff_t p,
                                           int nv) {
  const ptrdiff_t panels = (vectors_for(g->n) + g->width - 1) / g->width, k1 = k0 + n, reals = n * nv * L;
  const ptrdiff_t k_after = K - g->tail - k1; /* whole stretches */
  const ptrdiff_t panels_after = k_after / n * panels + panels - 1 - p;
  const real *next_data = prefetch_part(g->prefetch, g->prefetch_reals, reals, panels_after), *next_panel = NULL;
  if (g->cold && p == 0 && k0 == 0 && !k_after) {
    const real *next_tile = (const real *)g->a + tile_rows_for(nv) * g->a_stride;
    return (prefetch_request_t){next_tile, NULL, g->a_stride * (ptrdiff_t)sizeof(real)};
  }
  if (exceeds_l2(g->n * K, g->rows, g->n + K))
    next_panel = p + 1 < panels ? panel_at(g, K, p + 1, k0) : panel_at(g, K, 0, k_after ? k1 : 0);
  return request_both(next_panel, next_data, bytes_per_row(reals, g->rows));
}

/* The sum over k0 .. k0 + run * runs of K, going on with init. */
static void matmul_panel(const matmul_t *g, ptrdiff_t K, ptrdiff_t k0, ptrdiff_t p, int nv, int separate_sum) {
  const ptrdiff_t n = g->run * g->runs;
  const operand_t operand[2] = {
    {.a = g->a, .row_index = g->a_row_index, .a_stride = g->a_stride, .run = g->run, .runs = g->runs,
     .run_stride = g->run_stride, .b = panel_at(g, K, p, k0), .prefetch = request_of_panel(g, K, k0, n, p, nv)},
    {.a = g->tail_a, .row_index = g->a_row_index, .a_stride = g->a_stride, .run = g->tail, .runs = 1,
     .b = panel_at(g, K, p, k0 + n)}};
  for (tile_t t = first_tile(g->rows, tile_rows_for(nv)); t.rows; t = next_tile(t))
    matmul_tile(g, operand, p, nv, separate_sum, t.row, t.rows);
}

/* One stretch of k after the other; g changes on the way. */
static void matmul_rows(matmul_t *g, const k_split_t *k) {
  const real *a = g->a;
  const ptrdiff_t tail = g->tail, panels = (vectors_for(g->n) + g->width - 1) / g->width;
  const int contiguous = k->unit_stride == k->unit;
  for (ptrdiff_t u = 0; u < k->units; u += k->stretch) {
    const ptrdiff_t n = k->units - u < k->stretch ? k->units - u : k->stretch;
    g->a = a + u * k->unit_stride, g->tail = u + n == k->units ? tail : 0;
    if (contiguous) g->run = n * k->unit, g->runs = 1;
    else g->runs = n;
    for (ptrdiff_t p = 0; p < panels; p++)
      matmul_panel(g, k->K, u * k->unit, p, panel_vectors(g, p), u && g->min_sums);
    g->init = g->c, g->init_stride = g->c_stride, g->init_panel = g->c_panel, g->init_vec = g->c_vec;
  }
}

static k_split_t split_k(const matmul_t *g) {
  const int contiguous = g->run == g->run_stride;
  const ptrdiff_t body = g->run * g->runs;
  k_split_t k = {.K = body + g->tail};
  const ptrdiff_t longest = (k.K * (ptrdiff_t)sizeof(real) + 4095) / 4096;
  const ptrdiff_t stretches = longest < g->min_sums ? g->min_sums : longest;
  k.unit = !contiguous ? g->run : g->min_sums ? L : 1;
  k.unit_stride = contiguous ? k.unit : g->run_stride;
  k.units = !contiguous ? g->runs : g->min_sums ? body / L : body;
  k.stretch = (k.units + stretches - 1) / stretches;
  return k;
}

/* In matmul_edges.h. */
static void matmul_one_row(const matmul_t *g, const k_split_t *k);
static void matmul_edge(const matmul_t *g, ptrdiff_t K);

static void matmul(matmul_t *g) {
  if (g->rows == 0) return;
  const k_split_t k = split_k(g);
  matmul_t before_edge;
  if (g->rows == 1 && g->min_sums) matmul_one_row(g, &k);
  else if (g->edge) before_edge = *g, matmul_rows(&before_edge, &k);
  else matmul_rows(g, &k);
  if (g->edge) matmul_edge(g, k.K); /* last, because A is in the cache by now (M18) */
}
