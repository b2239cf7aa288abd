/* The register tile that everything is made of, and the matrix product built on it.
 *
 * A tile is `mr` rows x `nv` vectors of accumulators, kept in registers over the whole sum: with 32
 * registers 6 x 4 accumulators + 4 vectors of b + a broadcast; with 16, 3 x 4 + 1 + 3 (b is then
 * loaded once per vector and used for all rows: any other order spills). Per k a 6 x 4 tile issues
 * 10 loads for 24 FMAs. Each accumulator is one chain of FMAs, k ascending, so neither the height
 * of the tile nor a stop in memory between two stretches of k changes a bit. */

INLINE ptrdiff_t panels_of(ptrdiff_t n) { return (n + L - 1) / L; }

/* While a panel is in use, its first tiles fetch the next one, a share each. */
#define SHARES 4

/* acc[4 m + v] += a[m rs + k ks] * b[k][v] for k < K.
 *
 * Weights beyond the second cache arrive at 8 bytes a cycle (Granite Rapids, one core), a third of
 * what a tile eats. So the next panel is fetched meanwhile, from `ahead` on. In halves a tile would ask
 * for 10 bytes a cycle, in quarters it is 5: 2 to 6 per cent less time from H = 256 on. Unrolling keeps
 * the loop's own additions off the ports of the FMAs: 84 -> 90 per cent of the peak at K = 256. */
INLINE void madd(int mr, int nv, V *acc, const REAL *a, ptrdiff_t rs, ptrdiff_t ks, ptrdiff_t K,
                 const REAL *b, const REAL *ahead) {
  enum { LINE = 64 / sizeof(REAL) };
  UNROLL_4 for (ptrdiff_t k = 0; k < K; k++, a += ks, b += nv * L, ahead += nv * L / SHARES) {
    V s[MR];
    UNROLL for (int i = 0; i < nv * L / SHARES; i += LINE) __builtin_prefetch(ahead + i, 0, 2);
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

/* Where tile i begins of the `size` reals from `next` on; later tiles fetch what is there. */
INLINE const REAL *share_of(const REAL *next, const REAL *here, ptrdiff_t size, ptrdiff_t i) {
  return i < SHARES ? next + i * size / SHARES : here;
}

/* For tile i on panel p of `panels`, each of `size` reals from b on. */
INLINE const REAL *ahead_of(const REAL *b, ptrdiff_t p, ptrdiff_t panels, ptrdiff_t size, ptrdiff_t i) {
  return share_of(b + (p + 1 < panels ? p + 1 : 0) * size, b + p * size, size, i);
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

/* C (rows x n) = init + A B. A row of A has `runs` stretches of `run` reals, `stride` apart. B is packed
 * in panels of `width` vectors (pack.h). Vector v of panel p of C lies at p*c_panel + v*c_vec. */
typedef struct {
  ptrdiff_t rows, n, width;
  const void *a;
  ptrdiff_t lda, run, runs, stride;
  const void *b;
  const void *init;                  /* NULL: zero; with ldinit 0 one row for all (a bias) */
  ptrdiff_t ldinit, init_panel, init_vec;
  void *c;
  ptrdiff_t ldc, c_panel, c_vec;
  int whole;                         /* the rows of C and init are padded: whole vectors */
} gemm_t;

/* One tile of the sum over K0 .. K0 + run * runs of K. */
INLINE void gemm_tile(const gemm_t *g, ptrdiff_t K, ptrdiff_t K0, ptrdiff_t p, int nv, ptrdiff_t tile,
                      ptrdiff_t r, int mr) {
  V acc[4 * MR];
  const ptrdiff_t size = g->width * L * K, panels = panels_of(g->n) / g->width, run = g->run * nv * L;
  const REAL *a = (const REAL *)g->a + r * g->lda;
  const REAL *b = (const REAL *)g->b + p * size + K0 * nv * L;
  const REAL *next = (const REAL *)g->b + (p + 1 < panels ? p + 1 : 0) * size + K0 * nv * L;
  const REAL *ahead = share_of(next, b, run * g->runs, tile);
  REAL *c = (REAL *)g->c + r * g->ldc + p * g->c_panel;
  const ptrdiff_t valid = g->whole ? 4 * L : g->n - p * g->width * L;
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < nv; v++) {
      const ptrdiff_t at = (r + m) * g->ldinit + p * g->init_panel + v * g->init_vec;
      acc[4 * m + v] = g->init ? load_up_to((const REAL *)g->init + at, valid - v * L) : splat(0);
    }
  for (ptrdiff_t i = 0; i < g->runs; i++, a += g->stride, b += run, ahead += run / SHARES)
    madd(mr, nv, acc, a, g->lda, 1, g->run, b, ahead);
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < nv; v++)
      store_up_to(c + m * g->ldc + v * g->c_vec, acc[4 * m + v], valid - v * L);
}

INLINE void gemm_panel(const gemm_t *g, ptrdiff_t K, ptrdiff_t K0, ptrdiff_t p, int nv) {
  FOR_TILES(g->rows, gemm_tile, g, K, K0, p, nv)
}

static void gemm_stretch(const gemm_t *g, ptrdiff_t K, ptrdiff_t K0) {
  const ptrdiff_t vectors = panels_of(g->n);
  for (ptrdiff_t p = 0; p * g->width < vectors; p++) {
    const ptrdiff_t nv = vectors - p * g->width;
    switch (nv < g->width ? nv : g->width) {
      case 1: gemm_panel(g, K, K0, p, 1); break;
      case 2: gemm_panel(g, K, K0, p, 2); break;
      case 3: gemm_panel(g, K, K0, p, 3); break;
      case 4: gemm_panel(g, K, K0, p, 4); break;
    }
  }
}

/* Long sums are cut into stretches of about 4 KiB of a row of A, so that 128 rows of A and a panel of
 * B share the second cache; C waits in memory between them. */
static void gemm(const gemm_t *given) {
  gemm_t g = *given;
  const ptrdiff_t K = g.run * g.runs, whole = g.run == g.stride;
  const ptrdiff_t units = whole ? K : g.runs, unit = whole ? 1 : g.run;
  const ptrdiff_t stretches = (K * (ptrdiff_t)sizeof(REAL) + 4095) / 4096;
  for (ptrdiff_t i = 0; i == 0 || i < stretches; i++) {
    const ptrdiff_t first = stretches ? i * units / stretches : 0;
    const ptrdiff_t count = stretches ? (i + 1) * units / stretches - first : 0;
    g.a = (const REAL *)given->a + first * (whole ? 1 : g.stride);
    g.run = whole ? count : given->run, g.runs = whole ? 1 : count;
    gemm_stretch(&g, K, first * unit);
    g.init = g.c, g.ldinit = g.ldc, g.init_panel = g.c_panel, g.init_vec = g.c_vec;
  }
}
