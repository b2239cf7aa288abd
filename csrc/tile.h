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

INLINE ptrdiff_t vectors_for(ptrdiff_t n) { return (n + L - 1) / L; }

/* The rows of a tile on a panel of nv vectors. */
INLINE int tile_rows_for(ptrdiff_t nv) { return nv == 4 ? TILE_ROWS_4V : nv == 3 ? TILE_ROWS_3V : TILE_ROWS_2V; }

/* While a panel of weights beyond the second cache is in use, its tiles fetch the next one, each a share in
 * proportion to its rows, evenly over its k: `per_k` bytes a k from `at` on, and as many from `second` bytes
 * further on unless that is 0.
 *
 * Weights arrive at 8 bytes a cycle (Granite Rapids, one core), which is what 16 rows at the peak ask for. Were
 * they fetched by the first four tiles only, at 5 bytes a cycle, a step of an LSTM at H = 1024 would take 7 per
 * cent more time with 128 rows and 2 to 5 with 32 (with 16 and 24 as much, within 2); without fetching it takes
 * 8 to 10 more again at H = 256 and 512. To ask for 8 lines at once every 4 k costs 12 rows 9 per cent of a step
 * back. To ask for a line up to 5 times costs nothing measurable; 11 times, as tiles of 3 rows would of 64, 4 to
 * 6 per cent of an LSTM's step at H = 256 (AVX2, Zen 4). */
typedef struct { const char *at; ptrdiff_t per_k, second; } prefetch_t;

/* Whether weights leave that cache (2 MiB) until the next step, because of what each of `rows` rows reads and
 * writes besides them. If not, to ask for them twice costs up to 10 per cent of a step of 8 rows. */
INLINE int exceeds_l2(ptrdiff_t weights, ptrdiff_t rows, ptrdiff_t per_row) {
  return (weights + rows * per_row) * (ptrdiff_t)sizeof(real) > 1700000;
}

/* The lines of n reals, on their way to the second cache, to be read or written. */
INLINE void prefetch_lines(const real *p, ptrdiff_t n, int write) {
  const char *at = (const char *)p, *end = (const char *)(p + n);
  for (; at < end; at += 64)
    if (write) __builtin_prefetch(at, 1, 2);
    else __builtin_prefetch(at, 0, 2);
}

/* acc[m nv + v] += row[m][k ks] * b[k bs + v L] for k < K; what is `plan` is fetched meanwhile, in so many
 * streams. Rows have a pointer each, so they may lie anywhere: 0.98 to 1.02 of the time that a stride takes. */
INLINE void tile_fma(int mr, int nv, V *acc, const real *const *row, ptrdiff_t k_stride, ptrdiff_t K, const real *b,
                 ptrdiff_t b_stride, int streams, prefetch_t plan) {
  const ptrdiff_t skip = plan.per_k <= 8 ? 3 : 0; /* bits of a k that does not ask */
  /* Unrolling keeps the loop's own additions off the ports of the FMAs: 84 -> 90 per cent of the peak at
   * K = 256. */
  UNROLL_4 for (ptrdiff_t k = 0; k < K; k++, b += b_stride) {
    V s[TILE_ROWS_2V], w[4];
    if (streams) {
      if (!(k & skip)) {
        __builtin_prefetch(plan.at, 0, 2);
        if (streams > 1) __builtin_prefetch(plan.at + plan.second, 0, 2);
      }
      plan.at += plan.per_k;
    }
    if (mr < nv) {
      UNROLL for (int m = 0; m < mr; m++) s[m] = splat(row[m][k * k_stride]);
      UNROLL for (int v = 0; v < nv; v++) {
        w[v] = load(b + v * L);
        UNROLL for (int m = 0; m < mr; m++) acc[m * nv + v] = vfma(s[m], w[v], acc[m * nv + v]);
      }
    } else {
      UNROLL for (int v = 0; v < nv; v++) w[v] = load(b + v * L);
      UNROLL for (int m = 0; m < mr; m++) {
        s[m] = splat(row[m][k * k_stride]);
        UNROLL for (int v = 0; v < nv; v++) acc[m * nv + v] = vfma(s[m], w[v], acc[m * nv + v]);
      }
    }
  }
}

/* Where row r of a step is in data that `rows` index; NULL: in its place. */
INLINE ptrdiff_t data_row(const ptrdiff_t *row_index, ptrdiff_t r) { return row_index ? row_index[r] : r; }

/* A sum over k: the reals of each row of a, `runs` stretches of `run`, `run_stride` apart, times b, a panel of nv
 * vectors for each. Meanwhile what is needed `prefetch` is fetched unless it is NULL, `per_row` bytes of it by each
 * row, and as many from `prefetch_second` on unless that is NULL or rows so few that `prefetch` takes both streams. */
typedef struct {
  const real *a;
  const ptrdiff_t *row_index;
  ptrdiff_t a_stride, run, runs, run_stride;
  const real *b, *prefetch, *prefetch_second;
  ptrdiff_t prefetch_per_row;
} operand_t;

/* Of so many reals, what one of `rows` rows fetches: its `per_row`. */
INLINE ptrdiff_t bytes_per_row(ptrdiff_t reals, ptrdiff_t rows) {
  return (reals * (ptrdiff_t)sizeof(real) + rows - 1) / rows;
}

/* The share of rows r .. r + mr. A stream asks for a line a k at most: a single tile fetches half a panel. */
INLINE prefetch_t plan_prefetch(const operand_t *s, ptrdiff_t r, int mr) {
  const ptrdiff_t K = s->run * s->runs, per_k = (s->prefetch_per_row * mr + K - 1) / K;
  const char *at = (const char *)s->prefetch + s->prefetch_per_row * r;
  if (per_k <= 64) return (prefetch_t){at, per_k, s->prefetch_second ? (const char *)s->prefetch_second - (const char *)s->prefetch : 0};
  return (prefetch_t){at, per_k / 2 < 64 ? per_k / 2 : 64, per_k / 2 * K};
}

/* acc += the sum of the mr rows of a from r on. */
INLINE void tile_add_operand(int mr, int nv, V *acc, const operand_t *s, ptrdiff_t r) {
  const real *row[TILE_ROWS_2V], *b = s->b;
  prefetch_t plan = {0};
  if (s->prefetch) plan = plan_prefetch(s, r, mr);
  if (s->row_index) {
    const ptrdiff_t *at = s->row_index + r;
    UNROLL for (int m = 0; m < mr; m++, at++) row[m] = s->a + *at * s->a_stride, HIDE_FROM_COMPILER(at);
  } else {
    const real *a = s->a + r * s->a_stride;
    UNROLL for (int m = 0; m < mr; m++, a += s->a_stride) row[m] = a, HIDE_FROM_COMPILER(a);
  }
  for (ptrdiff_t j = 0; j < s->runs; j++, b += s->run * nv * L) {
    if (!s->prefetch) tile_fma(mr, nv, acc, row, 1, s->run, b, nv * L, 0, plan);
    else if (!plan.second) tile_fma(mr, nv, acc, row, 1, s->run, b, nv * L, 1, plan);
    else tile_fma(mr, nv, acc, row, 1, s->run, b, nv * L, 2, plan);
    UNROLL for (int m = 0; m < mr; m++) row[m] += s->run_stride;
    if (s->prefetch) plan.at += s->run * plan.per_k;
  }
}

/* to[m][v] = from[m][v] + the sums, one chain; without `from` it begins at zero and is added to `to` when it
 * is complete. */
INLINE void tile_body(int mr, int nv, const operand_t *s, int operands, const real *from, ptrdiff_t from_stride, real *to,
                 ptrdiff_t to_stride, ptrdiff_t r) {
  const int add_to_dst = !from;
  if (add_to_dst) from = zeros, from_stride = 0;
  V acc[2 * TILE_ROWS_2V];
  UNROLL for (int m = 0; m < mr; m++, from += from_stride) {
    UNROLL for (int v = 0; v < nv; v++) acc[m * nv + v] = load(from + v * L);
    HIDE_FROM_COMPILER(from);
  }
  for (; operands; operands--, s++) tile_add_operand(mr, nv, acc, s, r);
  UNROLL for (int m = 0; m < mr; m++, to += to_stride) {
    UNROLL for (int v = 0; v < nv; v++)
      store(to + v * L, add_to_dst ? acc[m * nv + v] + load(to + v * L) : acc[m * nv + v]);
    HIDE_FROM_COMPILER(to);
  }
}

/* F(mr, nv) for all sizes of tiles. */
#define TILE_SIZES(F) UP_TO_TILE_ROWS_2V(F, 1) UP_TO_TILE_ROWS_2V(F, 2) UP_TO_TILE_ROWS_3V(F, 3) UP_TO_TILE_ROWS_4V(F, 4)

/* A tile of a panel of nv vectors, mr rows from r on. All sizes at every place of use would be twice the code of
 * the whole package, so what becomes of the sums reads them from memory, which costs nothing measurable. Each size
 * is a function of its own: as cases of one they had to share a frame and registers.
 *
 * What goes by between two tiles without FMAs is 48 cycles for 6 rows, of whose 24 stores each takes 2, 10 to 20
 * for 5 rows, up to 10 for 4 (Zen 4). It was 66, 54 and 13 while gcc worked out where all rows are beforehand and
 * kept that in vector registers, from where it comes by way of the queue that is full of FMAs. With `s` put
 * together anew for each panel a step of 4 rows takes 4 per cent more. */
typedef void tile_function(const operand_t *s, int operands, const real *from, ptrdiff_t from_stride, real *to, ptrdiff_t to_stride,
                       ptrdiff_t r);
#define DEFINE_TILE(mr, nv)                                                                                  \
  static NOINLINE void product_##nv##_##mr(const operand_t *s, int operands, const real *from, ptrdiff_t from_stride, \
                                              real *to, ptrdiff_t to_stride, ptrdiff_t r) {                   \
    tile_body(mr, nv, s, operands, from, from_stride, to, to_stride, r);                                                    \
  }
#define TILE_AT(mr, nv) [nv][mr] = product_##nv##_##mr,
TILE_SIZES(DEFINE_TILE)
static tile_function *const tile_functions[5][TILE_ROWS_2V + 1] = {TILE_SIZES(TILE_AT)};

INLINE void run_tile(const operand_t *s, int operands, int nv, const real *from, ptrdiff_t from_stride, real *to, ptrdiff_t to_stride,
                    ptrdiff_t r, int mr) {
  tile_functions[nv][mr](s, operands, from, from_stride, to, to_stride, r);
}

/* One row, n sums side by side: acc[4 j + v] += a[j as + k] * b[j bs + k][v]. One sum alone would wait for
 * the latency of its 4 accumulators. One more may have other, `dense_tail`, panels. */
INLINE void row_fma(int n, int nv, int dense_tail, V *acc, const real *a, ptrdiff_t a_stride, ptrdiff_t K, const real *b,
                     ptrdiff_t b_stride) {
  const real *tail_b = b + n * b_stride;
  UNROLL_4 for (ptrdiff_t k = 0; k < K; k++, b += nv * L, tail_b += dense_tail * L) {
    UNROLL for (int j = 0; j < n; j++) {
      const V s = splat(a[j * a_stride + k]);
      UNROLL for (int v = 0; v < nv; v++)
        acc[4 * j + v] = vfma(s, load(b + j * b_stride + v * L), acc[4 * j + v]);
    }
    UNROLL for (int v = 0; v < dense_tail; v++)
      acc[4 * n + v] = vfma(splat(a[n * a_stride + k]), load(tail_b + v * L), acc[4 * n + v]);
  }
}

/* F(p, n) over the panels of a single row, each of so many reals of weights. In the first cache two panels
 * fill the ports, three rather than two and one. Weights beyond it (32 KiB) come at 32 bytes a cycle (Zen 4),
 * which the four chains of one panel keep up with. Then it is one at a time, every other step `reverse_panels` so that
 * what was used last, still there, is used first: an LSTM's step at I = 32, H = 64 takes 16 per cent less time,
 * at H = 48 21, at 100 7, at 128, where no panel fits, 2. */
#define FOR_ROW_PANELS(panels, reals, reverse_panels, F)                                                  \
  if ((panels) * (reals) * (ptrdiff_t)sizeof(real) > 32768)                                \
    for (ptrdiff_t p_ = 0; p_ < (panels); p_++) F(((reverse_panels) ? (panels) - 1 - p_ : p_), 1); \
  else                                                                                     \
    for (ptrdiff_t p_ = 0, left_ = (panels); left_ > 0;) {                                 \
      if (left_ == 3 && TILE_ROWS_4V >= 6) { F(p_, 3); left_ = 0; }                                  \
      else if (left_ > 1) { F(p_, 2); p_ += 2, left_ -= 2; }                               \
      else { F(p_, 1); left_ = 0; }                                                        \
    }

/* Put the pre-activations of n panels of a single row where a loop can read them: still the first cache, and
 * the activations need the registers. */
INLINE void store_preactivations(real *to, const V *acc, int n) {
  UNROLL for (int i = 0; i < 4 * n; i++) store(to + i * L, acc[i]);
}

/* From mr rows of 4 slots of so many units, without gaps, to slots of whole vectors. */
INLINE void expand_dense_tail(real *a, int mr, ptrdiff_t units) {
  for (int m = 0; m < mr; m++, a += 4 * L)
    for (int v = 3; v >= 0; v--) store(a + v * L, load_first(a + v * units, units));
}

/* The same of a single row in registers: from its `dense_tail` vectors to as many slots. */
INLINE void expand_dense_tail_row(V *slot, int slots, int dense_tail, ptrdiff_t units) {
  V dense[3];
  UNROLL for (int v = 0; v < dense_tail; v++) dense[v] = slot[v];
  UNROLL for (int v = 0; v < slots; v++) slot[v] = select_lanes(dense, dense_tail, v * units, units);
}

/* Where the first of some unit vectors stands: row and panel. The next is below it or beside it. */
typedef struct { ptrdiff_t row, panel; int down; } unit_t;

INLINE unit_t unit_at(unit_t at, ptrdiff_t i) {
  return (unit_t){at.row + i * at.down, at.panel + i * !at.down, at.down};
}

/* TILE(..., r, mr) for all rows, cut into tiles as even as can be: 13 rows are 7 + 6, not 12 + 1. */
#define FOR_TILES(rows, most, TILE, ...)                                                     \
  for (ptrdiff_t tiles_ = ((rows) + (most) - 1) / (most), low_ = tiles_ ? (rows) / tiles_ : 0, \
                 high_ = (rows) - low_ * tiles_, r_ = 0, i_ = 0, mr_;                        \
       mr_ = low_ + (i_ < high_), i_ < tiles_; r_ += mr_, i_++)                              \
    TILE(__VA_ARGS__, r_, (int)mr_);
