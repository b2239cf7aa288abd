/* The register tile that everything is made of.
 *
 * A tile is `mr` rows x `nv` vectors of accumulators, kept in registers over a whole sum. Each accumulator is one
 * chain of FMAs, k ascending. So neither the shape of the tile nor a stop in memory between two stretches of k
 * changes a bit.
 *
 * With 32 registers a tile has up to 6 x 4, 8 x 3 or 12 x 2 accumulators: as many as fit beside the vectors of b and
 * a broadcast. With 16 registers it has 3 x 4 or 4 x 3. Any other order of loads than that in tile_fma would spill.
 * (M12) */

static const real zeros[4 * L] = {0};

/* The rows of the tallest tile on a panel of nv vectors. */
INLINE int tile_rows_for(ptrdiff_t nv) { return nv == 4 ? TILE_ROWS_4V : nv == 3 ? TILE_ROWS_3V : TILE_ROWS_2V; }

/* acc[m nv + v] += row[m][k k_stride] * b[k b_stride + v L] for k < K, and in `streams` streams what `plan` asks for.
 * Rows have a pointer each, so they may lie anywhere. (M13) */
INLINE void tile_fma(int mr, int nv, V *acc, const real *const *row, ptrdiff_t k_stride, ptrdiff_t K, const real *b,
                     ptrdiff_t b_stride, int streams, prefetch_t plan) {
  const ptrdiff_t skipped = skipped_bits(plan);
  /* Unrolling keeps the additions of the loop itself off the ports of the FMAs. (M14) */
  UNROLL_4 for (ptrdiff_t k = 0; k < K; k++, b += b_stride) {
    V s[TILE_ROWS_2V], w[4];
    prefetch_share(&plan, streams, k, skipped);
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

/* A x B for one panel of B. A row of A has `runs` stretches of `run` reals, run_stride apart. B has a vector times nv
 * for each of them. */
typedef struct {
  const real *a;
  const ptrdiff_t *row_index; /* which rows of a; NULL: in their places */
  ptrdiff_t a_stride, run, runs, run_stride;
  const real *b;
  prefetch_request_t prefetch;
} operand_t;

/* acc += the operand's product for rows r .. r + mr. */
INLINE void tile_add_operand(int mr, int nv, V *acc, const operand_t *o, ptrdiff_t r) {
  const real *row[TILE_ROWS_2V], *b = o->b;
  prefetch_t plan = {0};
  if (o->prefetch.first) plan = plan_prefetch(&o->prefetch, o->run * o->runs, r, mr);
  if (o->row_index) {
    const ptrdiff_t *index = o->row_index + r;
    UNROLL for (int m = 0; m < mr; m++, index++) row[m] = o->a + *index * o->a_stride, HIDE_FROM_COMPILER(index);
  } else {
    const real *a = o->a + r * o->a_stride;
    UNROLL for (int m = 0; m < mr; m++, a += o->a_stride) row[m] = a, HIDE_FROM_COMPILER(a);
  }
  for (ptrdiff_t j = 0; j < o->runs; j++, b += o->run * nv * L) {
    if (!o->prefetch.first) tile_fma(mr, nv, acc, row, 1, o->run, b, nv * L, 0, plan);
    else if (!plan.second) tile_fma(mr, nv, acc, row, 1, o->run, b, nv * L, 1, plan);
    else tile_fma(mr, nv, acc, row, 1, o->run, b, nv * L, 2, plan);
    UNROLL for (int m = 0; m < mr; m++) row[m] += o->run_stride;
    if (o->prefetch.first) plan.at += o->run * plan.bytes_per_k;
  }
}

/* dst[m][v] = src[m][v] + the products, as one chain. Without src the chain begins at zero, and what is in dst is
 * added to the complete sum. */
INLINE void tile_body(int mr, int nv, const operand_t *o, int operands, const real *src, ptrdiff_t src_stride,
                      real *dst, ptrdiff_t dst_stride, ptrdiff_t r) {
  const int add_to_dst = !src;
  if (add_to_dst) src = zeros, src_stride = 0;
  V acc[2 * TILE_ROWS_2V];
  UNROLL for (int m = 0; m < mr; m++, src += src_stride) {
    UNROLL for (int v = 0; v < nv; v++) acc[m * nv + v] = load(src + v * L);
    HIDE_FROM_COMPILER(src);
  }
  for (; operands; operands--, o++) tile_add_operand(mr, nv, acc, o, r);
  UNROLL for (int m = 0; m < mr; m++, dst += dst_stride) {
    UNROLL for (int v = 0; v < nv; v++)
      store(dst + v * L, add_to_dst ? acc[m * nv + v] + load(dst + v * L) : acc[m * nv + v]);
    HIDE_FROM_COMPILER(dst);
  }
}

/* Each size of a tile is a function of its own, so that it has its own frame and registers. What becomes of the sums
 * reads them from memory: tiles inlined at every place of use would be twice the code of the whole package. (M15) */
typedef void tile_function(const operand_t *o, int operands, const real *src, ptrdiff_t src_stride, real *dst,
                           ptrdiff_t dst_stride, ptrdiff_t r);

#define TILE_SIZES(F) TILES_UP_TO_2V(F, 1) TILES_UP_TO_2V(F, 2) TILES_3V(F) TILES_4V(F)
#define DEFINE_TILE(mr, nv)                                                                                \
  static NOINLINE void tile_##nv##_##mr(const operand_t *o, int operands, const real *src, ptrdiff_t src_stride, \
                                        real *dst, ptrdiff_t dst_stride, ptrdiff_t r) {                    \
    tile_body(mr, nv, o, operands, src, src_stride, dst, dst_stride, r);                                   \
  }
#define TILE_AT(mr, nv) [nv][mr] = tile_##nv##_##mr,
TILE_SIZES(DEFINE_TILE)
static tile_function *const tile_functions[5][TILE_ROWS_2V + 1] = {TILE_SIZES(TILE_AT)};

/* Run the tile of rows r .. r + mr on a panel of nv vectors. */
INLINE void run_tile(const operand_t *o, int operands, int nv, const real *src, ptrdiff_t src_stride, real *dst,
                     ptrdiff_t dst_stride, ptrdiff_t r, int mr) {
  tile_functions[nv][mr](o, operands, src, src_stride, dst, dst_stride, r);
}
