/* The register tile that everything is made of, and the matrix product built on it.
 *
 * A tile is `mr` rows x `nv` vectors of accumulators, kept in registers over the whole sum: with 32
 * registers 6 x 4 accumulators + 4 vectors of b + a broadcast; with 16, 3 x 4 + 1 + 3 (b is then
 * loaded once per vector and used for all rows: any other order spills). Per k a 6 x 4 tile issues
 * 10 loads for 24 FMAs. Each accumulator is one chain of FMAs, k ascending, so neither the height
 * of the tile nor a stop in memory between two stretches of k changes a bit. */

INLINE ptrdiff_t panels_of(ptrdiff_t n) { return (n + L - 1) / L; }

/* acc[4 m + v] += a[m rs + k ks] * b[k][v] for k < K.
 *
 * Weights beyond the second cache arrive at 8 bytes a cycle (Granite Rapids, one core), a third of
 * what a tile eats. So while a panel is in use, its first two tiles fetch half of the next one each;
 * `ahead` is where. Unrolling keeps the loop's own additions off the ports of the FMAs: 84 -> 90 per
 * cent of the peak at K = 256. */
INLINE void madd(int mr, int nv, V *acc, const REAL *a, ptrdiff_t rs, ptrdiff_t ks, ptrdiff_t K,
                 const REAL *b, const REAL *ahead) {
  enum { LINE = 64 / sizeof(REAL) };
  UNROLL_4 for (ptrdiff_t k = 0; k < K; k++, a += ks, b += nv * L, ahead += nv * L / 2) {
    V s[MR];
    UNROLL for (int i = 0; i < nv * L / 2; i += LINE) __builtin_prefetch(ahead + i, 0, 2);
    UNROLL for (int m = 0; m < mr; m++) s[m] = splat(a[m * rs]);
    UNROLL for (int v = 0; v < nv; v++) {
      const V w = load(b + v * L);
      UNROLL for (int m = 0; m < mr; m++) acc[4 * m + v] = fma_(s[m], w, acc[4 * m + v]);
    }
  }
}

/* One row, `np` panels `bs` apart: acc[4 j + v] += a[k] * b[j][k][v]. One panel alone would wait for the
 * latency of its 4 accumulators. */
INLINE void madd_row(int np, int nv, V *acc, const REAL *a, ptrdiff_t K, const REAL *b, ptrdiff_t bs) {
  UNROLL_4 for (ptrdiff_t k = 0; k < K; k++, b += nv * L) {
    const V s = splat(a[k]);
    UNROLL for (int j = 0; j < np; j++)
      UNROLL for (int v = 0; v < nv; v++)
        acc[4 * j + v] = fma_(s, load(b + j * bs + v * L), acc[4 * j + v]);
  }
}

/* For tile i on panel p of `panels`, each of `size` reals from b on; later tiles fetch what is there. */
INLINE const REAL *ahead_of(const void *b, ptrdiff_t p, ptrdiff_t panels, ptrdiff_t size, ptrdiff_t i) {
  const ptrdiff_t next = p + 1 < panels ? p + 1 : 0;
  return (const REAL *)b + (i < 2 ? next * size + i * size / 2 : p * size);
}

/* Put a tile's pre-activations where a loop over its rows can read them: still the first cache, and
 * the activations need the registers. */
INLINE void spill(REAL *to, const V *acc, int mr) {
  UNROLL for (int i = 0; i < 4 * mr; i++) store(to + i * L, acc[i]);
}

/* Where the first of some unit vectors stands: row and panel. The next is below it or beside it. */
typedef struct { ptrdiff_t row, panel; int down; } place_t;

INLINE place_t further(place_t at, ptrdiff_t i) {
  return (place_t){at.row + i * at.down, at.panel + i * !at.down, at.down};
}

/* Rows are cut into tiles as even as can be: 7 rows are 4 + 3, not 6 + 1. */
#define FOR_TILES(rows, TILE, ...)                                                \
  for (ptrdiff_t tiles_ = ((rows) + MR - 1) / MR, low_ = tiles_ ? (rows) / tiles_ : 0, \
                 high_ = (rows) - low_ * tiles_, r_ = 0, i_ = 0, mr_;             \
       mr_ = low_ + (i_ < high_), i_ < tiles_; r_ += mr_, i_++)                   \
    switch (mr_) { CASES(TILE, __VA_ARGS__, i_, r_) }

INLINE void gemm_tile(const rnnfast_gemm *g, ptrdiff_t p, int nv, ptrdiff_t tile, ptrdiff_t r, int mr) {
  V acc[4 * MR];
  const REAL *a = (const REAL *)g->a + r * g->lda;
  const ptrdiff_t size = g->width * L * g->run * g->runs, vectors = panels_of(g->n);
  const REAL *b = (const REAL *)g->b + p * size;
  const REAL *ahead = ahead_of(g->b, p, vectors / g->width, size, tile);
  const REAL *init = (const REAL *)g->init + r * g->ldinit + p * g->init_panel;
  REAL *c = (REAL *)g->c + r * g->ldc + p * g->c_panel;
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < nv; v++)
      acc[4 * m + v] = g->init ? load(init + m * g->ldinit + v * g->init_vec) : splat(0);
  for (ptrdiff_t i = 0; i < g->runs; i++, a += g->stride, b += g->run * nv * L, ahead += g->run * nv * L / 2)
    madd(mr, nv, acc, a, g->lda, 1, g->run, b, ahead);
  const ptrdiff_t valid = g->whole ? 4 * L : g->n - p * g->width * L;
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < nv; v++) {
      REAL *to = c + m * g->ldc + v * g->c_vec;
      store_up_to(to, acc[4 * m + v], valid - v * L);
    }
}

INLINE void gemm_panel(const rnnfast_gemm *g, ptrdiff_t p, int nv) {
  FOR_TILES(g->rows, gemm_tile, g, p, nv)
}

static void gemm(const rnnfast_gemm *given) {
  rnnfast_gemm g = *given;
  if (g.run == g.stride) g.run *= g.runs, g.runs = 1;
  const ptrdiff_t vectors = panels_of(g.n);
  for (ptrdiff_t p = 0; p * g.width < vectors; p++) {
    const ptrdiff_t nv = vectors - p * g.width;
    switch (nv < g.width ? nv : g.width) {
      case 1: gemm_panel(&g, p, 1); break;
      case 2: gemm_panel(&g, p, 2); break;
      case 3: gemm_panel(&g, p, 3); break;
      case 4: gemm_panel(&g, p, 4); break;
    }
  }
}
