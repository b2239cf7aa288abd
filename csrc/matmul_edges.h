/* The parts of a matrix product that fill no tile: one row, and last columns that fill no vector. */

/* One row, n sums side by side: acc[4 j + v] += a[j a_stride + k] * b[j b_stride + k][v]. One sum alone would wait for
 * the latency of its accumulators. One sum more may have panels of another width, `tail` vectors. */
INLINE void row_fma(int n, int nv, int tail, V *acc, const real *a, ptrdiff_t a_stride, ptrdiff_t K, const real *b,
                    ptrdiff_t b_stride) {
  const real *tail_b = b + n * b_stride;
  UNROLL_4 for (ptrdiff_t k = 0; k < K; k++, b += nv * L, tail_b += tail * L) {
    UNROLL for (int j = 0; j < n; j++) {
      const V s = splat(a[j * a_stride + k]);
      UNROLL for (int v = 0; v < nv; v++)
        acc[4 * j + v] = vfma(s, load(b + j * b_stride + v * L), acc[4 * j + v]);
    }
    UNROLL for (int v = 0; v < tail; v++)
      acc[4 * n + v] = vfma(splat(a[n * a_stride + k]), load(tail_b + v * L), acc[4 * n + v]);
  }
}

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

/* A panel of nv vectors: as many sums at a time as there are registers for. */
INLINE void row_panel(const matmul_t *g, const k_split_t *k, ptrdiff_t p, int nv) {
  V total[4];
  const real *b = (const real *)g->b + p * g->width * L * k->K;
  const ptrdiff_t units = k->units, stretch = k->stretch;
  ptrdiff_t u = 0;
  UNROLL for (int v = 0; v < nv; v++)
    total[v] = g->init ? load((const real *)g->init + p * g->init_panel + v * g->init_vec) : splat(0);
  for (; VECTOR_REGISTERS == 32 && u + 4 * stretch <= units; u += 4 * stretch)
    row_sums(g, k, 4, nv, u, stretch, b, total);
  for (; u + 2 * stretch <= units; u += 2 * stretch) row_sums(g, k, 2, nv, u, stretch, b, total);
  for (; u < units; u += stretch) row_sums(g, k, 1, nv, u, units - u < stretch ? units - u : stretch, b, total);
  UNROLL for (int v = 0; v < nv; v++) store((real *)g->c + p * g->c_panel + v * L, total[v]);
}

static void matmul_one_row(const matmul_t *g, const k_split_t *k) {
  const ptrdiff_t panels = (vectors_for(g->n) + g->width - 1) / g->width;
  for (ptrdiff_t p = 0; p < panels; p++)
    switch (panel_vectors(g, p)) {
      case 1: row_panel(g, k, p, 1); break;
      case 2: row_panel(g, k, p, 2); break;
      case 3: row_panel(g, k, p, 3); break;
      case 4: row_panel(g, k, p, 4); break;
    }
}

/* How many columns behind whole vectors are summed up one by one, where that takes less time than a vector of them.
 * By trial each costs a third more than its FMAs and as much as 7 vectors of k; to begin costs 32 FMAs. (M18) */
INLINE int edge_columns(ptrdiff_t n, ptrdiff_t K) {
  const ptrdiff_t edge = n % L, begin = n > L ? 32 : 0;
  return edge <= L / 2 && edge * (K / L + 7) * 4 / 3 + begin < K ? (int)edge : 0;
}

/* acc[m edge + c] += row[m][k] * b[c b_stride + k], lane by lane, for k < K. */
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

/* The edge of mr rows. Vectors run along k, so a sum is L sums at first. Tiles have all their rows: those beyond the
 * last row repeat it. */
INLINE void edge_tile(const matmul_t *g, ptrdiff_t K, int edge, int mr, ptrdiff_t r) {
  const ptrdiff_t rows = g->rows - r < mr ? g->rows - r : mr, b_stride = vectors_for(K) * L;
  const real *row[L], *tail[L], *b = (const real *)g->b + K * g->n;
  V acc[L];
  UNROLL for (int i = 0; i < L; i++) acc[i] = splat(0);
  UNROLL for (int m = 0; m < mr; m++) {
    const ptrdiff_t i = r + (m < rows ? m : rows - 1);
    row[m] = (const real *)g->a + i * g->a_stride, tail[m] = (const real *)g->tail_a + i * g->a_stride;
  }
  for (ptrdiff_t i = 0; i < g->runs; i++, b += g->run) {
    edge_fma(edge, mr, acc, row, g->run, b, b_stride);
    UNROLL for (int m = 0; m < mr; m++) row[m] += g->run_stride;
  }
  if (g->tail) edge_fma(edge, mr, acc, tail, g->tail, b, b_stride);
  real sum[L];
  store(sum, add_lanes(acc));
  for (ptrdiff_t m = 0; m < rows; m++) {
    real *c = (real *)g->c + data_row(g->c_row_index, r + m) * g->c_stride + g->n;
    for (int j = 0; j < edge; j++) c[j] = g->init ? c[j] + sum[m * edge + j] : sum[m * edge + j];
  }
}

/* An edge has at most half a vector; for wider ones no code is made. */
INLINE void edge_tiles(const matmul_t *g, ptrdiff_t K, int columns) {
  const int edge = columns <= L / 2 ? columns : 1;
  if (g->rows == 1) edge_tile(g, K, edge, 1, 0);
  else for (ptrdiff_t r = 0; r < g->rows; r += L / edge) edge_tile(g, K, edge, L / edge, r);
}

static NOINLINE void matmul_edge(const matmul_t *g, ptrdiff_t K) {
  switch (g->edge) {
    case 1: edge_tiles(g, K, 1); break;
    case 2: edge_tiles(g, K, 2); break;
    case 3: edge_tiles(g, K, 3); break;
    case 4: edge_tiles(g, K, 4); break;
    case 5: edge_tiles(g, K, 5); break;
    case 6: edge_tiles(g, K, 6); break;
    case 7: edge_tiles(g, K, 7); break;
    case 8: edge_tiles(g, K, 8); break;
  }
}
