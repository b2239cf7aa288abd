/* The register tile that everything is made of.
 *
 * A tile is `mr` rows x `nv` vectors of accumulators, kept in registers over the whole sum. Each accumulator
 * is one chain of FMAs, k ascending, so neither the shape of the tile nor a stop in memory between two
 * stretches of k changes a bit.
 *
 * With 32 registers it is 6 x 4 accumulators + 4 vectors of b + a broadcast: 10 loads for 24 FMAs. Narrower
 * panels have taller tiles, 8 x 3 and 12 x 2, with as many accumulators: the GRU at B = 64, H = 256 takes 4
 * per cent less time than with 6 x 3. (Two passes of 12 x 2 for a panel of 4 ask the second cache for half as
 * much, but load 14 times, from rows that may share a set of the first cache: 1 to 5 per cent more.) With 16
 * registers it is 3 x 4 + 1 + 3, b then loaded once per vector and used for all rows, or 4 x 3 + 3 + 1, a
 * broadcast at a time: any other order spills. 4 x 3 takes 10 per cent less than 3 x 3, with 4 rows 27. */

static const real zeros[4 * L] = {0};

INLINE ptrdiff_t panels_of(ptrdiff_t n) { return (n + L - 1) / L; }

/* The rows of a tile on a panel of nv vectors. */
INLINE int height_of(ptrdiff_t nv) { return nv == 4 ? MR : nv == 3 ? MR_3 : MR_2; }

/* While a panel of weights beyond the second cache is in use, its tiles fetch the next one, each a share in
 * proportion to its rows, evenly over its k: `step` bytes a k from `at` on, and as many from `more` bytes
 * further on unless that is 0.
 *
 * Weights arrive at 8 bytes a cycle (Granite Rapids, one core), which is what 16 rows at the peak ask for. Were
 * they fetched by the first four tiles only, at 5 bytes a cycle, a step of an LSTM at H = 1024 would take 7 per
 * cent more time with 128 rows and 2 to 5 with 32 (with 16 and 24 as much, within 2); without fetching it takes
 * 8 to 10 more again at H = 256 and 512. To ask for 8 lines at once every 4 k costs 12 rows 9 per cent of a step
 * back. To ask for a line up to 5 times costs nothing measurable; 11 times, as tiles of 3 rows would of 64, 4 to
 * 6 per cent of an LSTM's step at H = 256 (AVX2, Zen 4). */
typedef struct { const char *at; ptrdiff_t step, more; } share_t;

/* Whether weights leave that cache (2 MiB) until the next step, because of what each of `rows` rows reads and
 * writes besides them. If not, to ask for them twice costs up to 10 per cent of a step of 8 rows. */
INLINE int far(ptrdiff_t weights, ptrdiff_t rows, ptrdiff_t each) {
  return (weights + rows * each) * (ptrdiff_t)sizeof(real) > 1700000;
}

/* The lines of n reals, on their way to the second cache, to be read or written. */
INLINE void fetch(const real *p, ptrdiff_t n, int write) {
  const char *at = (const char *)p, *end = (const char *)(p + n);
  for (; at < end; at += 64)
    if (write) __builtin_prefetch(at, 1, 2);
    else __builtin_prefetch(at, 0, 2);
}

/* acc[m nv + v] += row[m][k ks] * b[k bs + v L] for k < K; what is `ahead` is fetched meanwhile, in so many
 * streams. Rows have a pointer each, so they may lie anywhere: 0.98 to 1.02 of the time that a stride takes. */
INLINE void madd(int mr, int nv, V *acc, const real *const *row, ptrdiff_t ks, ptrdiff_t K, const real *b,
                 ptrdiff_t bs, int streams, share_t ahead) {
  const ptrdiff_t skip = ahead.step <= 8 ? 3 : 0; /* bits of a k that does not ask */
  /* Unrolling keeps the loop's own additions off the ports of the FMAs: 84 -> 90 per cent of the peak at
   * K = 256. */
  UNROLL_4 for (ptrdiff_t k = 0; k < K; k++, b += bs) {
    V s[MR_2], w[4];
    if (streams) {
      if (!(k & skip)) {
        __builtin_prefetch(ahead.at, 0, 2);
        if (streams > 1) __builtin_prefetch(ahead.at + ahead.more, 0, 2);
      }
      ahead.at += ahead.step;
    }
    if (mr < nv) {
      UNROLL for (int m = 0; m < mr; m++) s[m] = splat(row[m][k * ks]);
      UNROLL for (int v = 0; v < nv; v++) {
        w[v] = load(b + v * L);
        UNROLL for (int m = 0; m < mr; m++) acc[m * nv + v] = fma_(s[m], w[v], acc[m * nv + v]);
      }
    } else {
      UNROLL for (int v = 0; v < nv; v++) w[v] = load(b + v * L);
      UNROLL for (int m = 0; m < mr; m++) {
        s[m] = splat(row[m][k * ks]);
        UNROLL for (int v = 0; v < nv; v++) acc[m * nv + v] = fma_(s[m], w[v], acc[m * nv + v]);
      }
    }
  }
}

/* Where row r of a step is in data that `rows` index; NULL: in its place. */
INLINE ptrdiff_t row_of(const ptrdiff_t *rows, ptrdiff_t r) { return rows ? rows[r] : r; }

/* A sum over k: the reals of each row of a, `runs` stretches of `run`, `stride` apart, times b, a panel of nv
 * vectors for each. Meanwhile what is needed `next` is fetched unless it is NULL, `each` bytes of it by each
 * row, and as many from `also` on unless that is NULL or rows so few that `next` takes both streams. */
typedef struct {
  const real *a;
  const ptrdiff_t *rows;
  ptrdiff_t lda, run, runs, stride;
  const real *b, *next, *also;
  ptrdiff_t each;
} sum_t;

/* Of so many reals, what one of `rows` rows fetches: its `each`. */
INLINE ptrdiff_t part_of(ptrdiff_t reals, ptrdiff_t rows) {
  return (reals * (ptrdiff_t)sizeof(real) + rows - 1) / rows;
}

/* The share of rows r .. r + mr. A stream asks for a line a k at most: a single tile fetches half a panel. */
INLINE share_t share_of(const sum_t *s, ptrdiff_t r, int mr) {
  const ptrdiff_t K = s->run * s->runs, step = (s->each * mr + K - 1) / K;
  const char *at = (const char *)s->next + s->each * r;
  if (step <= 64) return (share_t){at, step, s->also ? (const char *)s->also - (const char *)s->next : 0};
  return (share_t){at, step / 2 < 64 ? step / 2 : 64, step / 2 * K};
}

/* acc += the sum of the mr rows of a from r on. */
INLINE void add_sum(int mr, int nv, V *acc, const sum_t *s, ptrdiff_t r) {
  const real *row[MR_2], *b = s->b;
  share_t ahead = {0};
  if (s->next) ahead = share_of(s, r, mr);
  if (s->rows) {
    const ptrdiff_t *at = s->rows + r;
    UNROLL for (int m = 0; m < mr; m++, at++) row[m] = s->a + *at * s->lda, FORGET(at);
  } else {
    const real *a = s->a + r * s->lda;
    UNROLL for (int m = 0; m < mr; m++, a += s->lda) row[m] = a, FORGET(a);
  }
  for (ptrdiff_t j = 0; j < s->runs; j++, b += s->run * nv * L) {
    if (!s->next) madd(mr, nv, acc, row, 1, s->run, b, nv * L, 0, ahead);
    else if (!ahead.more) madd(mr, nv, acc, row, 1, s->run, b, nv * L, 1, ahead);
    else madd(mr, nv, acc, row, 1, s->run, b, nv * L, 2, ahead);
    UNROLL for (int m = 0; m < mr; m++) row[m] += s->stride;
    if (s->next) ahead.at += s->run * ahead.step;
  }
}

/* to[m][v] = from[m][v] + the sums, one chain; without `from` it begins at zero and is added to `to` when it
 * is complete. */
INLINE void tile(int mr, int nv, const sum_t *s, int sums, const real *from, ptrdiff_t ldfrom, real *to,
                 ptrdiff_t ldto, ptrdiff_t r) {
  const int apart = !from;
  if (apart) from = zeros, ldfrom = 0;
  V acc[2 * MR_2];
  UNROLL for (int m = 0; m < mr; m++, from += ldfrom) {
    UNROLL for (int v = 0; v < nv; v++) acc[m * nv + v] = load(from + v * L);
    FORGET(from);
  }
  for (; sums; sums--, s++) add_sum(mr, nv, acc, s, r);
  UNROLL for (int m = 0; m < mr; m++, to += ldto) {
    UNROLL for (int v = 0; v < nv; v++)
      store(to + v * L, apart ? acc[m * nv + v] + load(to + v * L) : acc[m * nv + v]);
    FORGET(to);
  }
}

/* F(mr, nv) for all sizes of tiles. */
#define ALL_SIZES(F) UP_TO_MR_2(F, 1) UP_TO_MR_2(F, 2) UP_TO_MR_3(F, 3) UP_TO_MR(F, 4)

/* A tile of a panel of nv vectors, mr rows from r on. All sizes at every place of use would be twice the code of
 * the whole package, so what becomes of the sums reads them from memory, which costs nothing measurable. Each size
 * is a function of its own: as cases of one they had to share a frame and registers.
 *
 * What goes by between two tiles without FMAs is 48 cycles for 6 rows, of whose 24 stores each takes 2, 10 to 20
 * for 5 rows, up to 10 for 4 (Zen 4). It was 66, 54 and 13 while gcc worked out where all rows are beforehand and
 * kept that in vector registers, from where it comes by way of the queue that is full of FMAs. With `s` put
 * together anew for each panel a step of 4 rows takes 4 per cent more. */
typedef void product_t(const sum_t *s, int sums, const real *from, ptrdiff_t ldfrom, real *to, ptrdiff_t ldto,
                       ptrdiff_t r);
#define PRODUCT(mr, nv)                                                                                  \
  static NOINLINE void product_##nv##_##mr(const sum_t *s, int sums, const real *from, ptrdiff_t ldfrom, \
                                              real *to, ptrdiff_t ldto, ptrdiff_t r) {                   \
    tile(mr, nv, s, sums, from, ldfrom, to, ldto, r);                                                    \
  }
#define PRODUCT_AT(mr, nv) [nv][mr] = product_##nv##_##mr,
ALL_SIZES(PRODUCT)
static product_t *const products[5][MR_2 + 1] = {ALL_SIZES(PRODUCT_AT)};

INLINE void product(const sum_t *s, int sums, int nv, const real *from, ptrdiff_t ldfrom, real *to, ptrdiff_t ldto,
                    ptrdiff_t r, int mr) {
  products[nv][mr](s, sums, from, ldfrom, to, ldto, r);
}

/* One row, n sums side by side: acc[4 j + v] += a[j as + k] * b[j bs + k][v]. One sum alone would wait for
 * the latency of its 4 accumulators. One more may have other, `narrow`, panels. */
INLINE void madd_row(int n, int nv, int narrow, V *acc, const real *a, ptrdiff_t as, ptrdiff_t K, const real *b,
                     ptrdiff_t bs) {
  const real *more = b + n * bs;
  UNROLL_4 for (ptrdiff_t k = 0; k < K; k++, b += nv * L, more += narrow * L) {
    UNROLL for (int j = 0; j < n; j++) {
      const V s = splat(a[j * as + k]);
      UNROLL for (int v = 0; v < nv; v++)
        acc[4 * j + v] = fma_(s, load(b + j * bs + v * L), acc[4 * j + v]);
    }
    UNROLL for (int v = 0; v < narrow; v++)
      acc[4 * n + v] = fma_(splat(a[n * as + k]), load(more + v * L), acc[4 * n + v]);
  }
}

/* F(p, n) over the panels of a single row, each of so many reals of weights. In the first cache two panels
 * fill the ports, three rather than two and one. Weights beyond it (32 KiB) come at 32 bytes a cycle (Zen 4),
 * which the four chains of one panel keep up with. Then it is one at a time, every other step `turned` so that
 * what was used last, still there, is used first: an LSTM's step at I = 32, H = 64 takes 16 per cent less time,
 * at H = 48 21, at 100 7, at 128, where no panel fits, 2. */
#define FOR_ROW(panels, reals, turned, F)                                                  \
  if ((panels) * (reals) * (ptrdiff_t)sizeof(real) > 32768)                                \
    for (ptrdiff_t p_ = 0; p_ < (panels); p_++) F(((turned) ? (panels) - 1 - p_ : p_), 1); \
  else                                                                                     \
    for (ptrdiff_t p_ = 0, left_ = (panels); left_ > 0;) {                                 \
      if (left_ == 3 && MR >= 6) { F(p_, 3); left_ = 0; }                                  \
      else if (left_ > 1) { F(p_, 2); p_ += 2, left_ -= 2; }                               \
      else { F(p_, 1); left_ = 0; }                                                        \
    }

/* Put the pre-activations of n panels of a single row where a loop can read them: still the first cache, and
 * the activations need the registers. */
INLINE void spill(real *to, const V *acc, int n) {
  UNROLL for (int i = 0; i < 4 * n; i++) store(to + i * L, acc[i]);
}

/* From mr rows of 4 slots of so many units, without gaps, to slots of whole vectors. */
INLINE void spread(real *a, int mr, ptrdiff_t units) {
  for (int m = 0; m < mr; m++, a += 4 * L)
    for (int v = 3; v >= 0; v--) store(a + v * L, load_n(a + v * units, units));
}

/* The same of a single row in registers: from its `narrow` vectors to as many slots. */
INLINE void spread_row(V *slot, int slots, int narrow, ptrdiff_t units) {
  V dense[3];
  UNROLL for (int v = 0; v < narrow; v++) dense[v] = slot[v];
  UNROLL for (int v = 0; v < slots; v++) slot[v] = take(dense, narrow, v * units, units);
}

/* Where the first of some unit vectors stands: row and panel. The next is below it or beside it. */
typedef struct { ptrdiff_t row, panel; int down; } place_t;

INLINE place_t further(place_t at, ptrdiff_t i) {
  return (place_t){at.row + i * at.down, at.panel + i * !at.down, at.down};
}

/* TILE(..., r, mr) for all rows, cut into tiles as even as can be: 13 rows are 7 + 6, not 12 + 1. */
#define FOR_TILES(rows, most, TILE, ...)                                                     \
  for (ptrdiff_t tiles_ = ((rows) + (most) - 1) / (most), low_ = tiles_ ? (rows) / tiles_ : 0, \
                 high_ = (rows) - low_ * tiles_, r_ = 0, i_ = 0, mr_;                        \
       mr_ = low_ + (i_ < high_), i_ < tiles_; r_ += mr_, i_++)                              \
    TILE(__VA_ARGS__, r_, (int)mr_);
