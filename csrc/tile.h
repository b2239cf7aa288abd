/* The register tile that everything is made of.
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

/* One row, n sums side by side: acc[4 j + v] += a[j as + k] * b[j bs + k][v]. One sum alone would wait for
 * the latency of its 4 accumulators. */
INLINE void madd_row(int n, int nv, V *acc, const REAL *a, ptrdiff_t as, ptrdiff_t K, const REAL *b,
                     ptrdiff_t bs) {
  UNROLL_4 for (ptrdiff_t k = 0; k < K; k++, b += nv * L)
    UNROLL for (int j = 0; j < n; j++) {
      const V s = splat(a[j * as + k]);
      UNROLL for (int v = 0; v < nv; v++)
        acc[4 * j + v] = fma_(s, load(b + j * bs + v * L), acc[4 * j + v]);
    }
}

/* F(p, n) over the panels of a single row: two fill the ports, three rather than two and one. */
#define FOR_ROW(panels, F)                                              \
  for (ptrdiff_t p_ = 0, left_ = (panels); left_ > 0;) {                \
    if (left_ == 3 && MR >= 6) { F(p_, 3); left_ = 0; }                 \
    else if (left_ > 1) { F(p_, 2); p_ += 2, left_ -= 2; }              \
    else { F(p_, 1); left_ = 0; }                                       \
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
