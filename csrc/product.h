/* The products of a cell of the user's own (rnnfast.h): several factors in one pass over the tiles, so that the sums
 * stay in registers from the first factor to the last. Each sum is one chain of FMAs: init, then factor after factor, k
 * ascending. So it does not matter for the bits which of the ways below a product takes. */

enum { MOST_FACTORS = 4 };           /* in one pass */

/* All k of a product. */
INLINE ptrdiff_t k_of_product(const rnnfast_product *p) {
  ptrdiff_t K = 0;
  for (ptrdiff_t i = 0; i < p->factors; i++) K += p->factor[i].K;
  return K;
}

/* One factor after the other: C waits in memory between two. This is for results that are not whole vectors or lie
 * anywhere, for many factors, and for sums so long that matmul cuts them. */
static NOINLINE void multiply_by_factor(const rnnfast_product *p) {
  const void *init = p->init;
  ptrdiff_t init_stride = p->init_stride;
  for (ptrdiff_t i = 0; i < p->factors; i++) {
    const rnnfast_factor *f = &p->factor[i];
    matmul(&(matmul_t){.rows = p->rows, .n = p->columns, .width = 4, .a = f->a, .a_row_index = f->row_index,
                       .a_stride = f->stride, .run = f->K, .runs = 1, .run_stride = f->K, .b = f->weights,
                       .init = init, .init_stride = init_stride, .init_panel = 4 * L, .init_vec = L, .c = p->c,
                       .c_row_index = p->c_row_index, .c_stride = p->c_stride, .c_panel = 4 * L, .c_vec = L,
                       .padded = p->whole_vectors});
    init = p->c, init_stride = p->c_stride;
  }
}

/* Several panels of a single row side by side: one alone would wait for the latency of its sums. */
INLINE void row_of_panels(const rnnfast_product *p, ptrdiff_t panel, int n, int tail) {
  V acc[4 * 3];
  const real *init = p->init ? (const real *)p->init + panel * 4 * L : zeros;
  real *c = (real *)p->c + panel * 4 * L;
  UNROLL for (int v = 0; v < 4 * n + tail; v++) acc[v] = p->init ? load(init + v * L) : splat(0);
  for (ptrdiff_t i = 0; i < p->factors; i++) {
    const rnnfast_factor *f = &p->factor[i];
    const real *a = (const real *)f->a + data_row(f->row_index, 0) * f->stride;
    row_fma(n, 4, tail, acc, a, 0, f->K, (const real *)f->weights + panel * 4 * L * f->K, 4 * L * f->K);
  }
  UNROLL for (int v = 0; v < 4 * n + tail; v++) store(c + v * L, acc[v]);
}

static NOINLINE void multiply_one_row(const rnnfast_product *p) {
  const ptrdiff_t vectors = vectors_for(p->columns);
  ptrdiff_t i = 0, full = vectors / 4;
  const int tail = (int)(vectors % 4);
  for (; full - i > 1; i += 2) row_of_panels(p, i, 2, 0);
  if (full > i)
    switch (tail) {
      case 0: row_of_panels(p, i, 1, 0); break;
      case 1: row_of_panels(p, i, 1, 1); break;
      case 2: row_of_panels(p, i, 1, 2); break;
      case 3: row_of_panels(p, i, 1, 3); break;
    }
  else
    switch (tail) {
      case 1: row_of_panels(p, i, 0, 1); break;
      case 2: row_of_panels(p, i, 0, 2); break;
      case 3: row_of_panels(p, i, 0, 3); break;
    }
}

/* The factors with their weights of the first panel. */
INLINE void operands_of(const rnnfast_product *p, operand_t *o) {
  for (ptrdiff_t i = 0; i < p->factors; i++) {
    const rnnfast_factor *f = &p->factor[i];
    o[i] = (operand_t){.a = f->a, .row_index = f->row_index, .a_stride = f->stride, .run = f->K, .runs = 1,
                       .b = f->weights};
  }
}

/* Let the tiles of a panel fetch the weights of the next one, after the last panel those of the first. */
INLINE void fetch_next_panel(const rnnfast_product *p, operand_t *o, int nv, int last) {
  for (ptrdiff_t i = 0; i < p->factors; i++) {
    const ptrdiff_t reals = nv * L * o[i].run;
    o[i].prefetch = request_both(last ? p->factor[i].weights : o[i].b + reals, NULL, bytes_per_row(reals, p->rows));
  }
}

static void multiply(const rnnfast_product *p) {
  const ptrdiff_t K = k_of_product(p), vectors = vectors_for(p->columns);
  if (p->rows == 0) return;
  if (!p->whole_vectors || p->c_row_index || p->factors > MOST_FACTORS || K * (ptrdiff_t)sizeof(real) > 4096) {
    multiply_by_factor(p);
    return;
  }
  if (p->rows == 1) {
    multiply_one_row(p);
    return;
  }
  const int weights_leave_l2 = exceeds_l2(p->columns * K, p->rows, p->columns + K);
  operand_t o[MOST_FACTORS];
  operands_of(p, o);
  for (ptrdiff_t v = 0; v < vectors; v += 4) {
    const int nv = vectors - v < 4 ? (int)(vectors - v) : 4;
    const real *init = p->init ? (const real *)p->init + v * L : zeros;
    if (weights_leave_l2) fetch_next_panel(p, o, nv, v + nv == vectors);
    for (tile_t t = first_tile(p->rows, tile_rows_for(nv)); t.rows; t = next_tile(t))
      run_tile(o, (int)p->factors, nv, p->init ? init + t.row * p->init_stride : zeros, p->init ? p->init_stride : 0,
               (real *)p->c + t.row * p->c_stride + v * L, p->c_stride, t.row, t.rows);
    for (ptrdiff_t i = 0; i < p->factors; i++) o[i].b += 4 * L * o[i].run;
  }
}
