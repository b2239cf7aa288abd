/* The interpreter of point programs (rnnfast.h): what a cell of the user's own computes between its products.
 *
 * An instruction works on all rows of a chunk before the next one (operations.h). A masked result has zeros in the
 * lanes beyond its units. */

static void run_operation(int operation, const operation_t *o) {
  switch (operation) {
    case RNNFAST_SPREAD: for_each(o, op_spread); break;
    case RNNFAST_ADD: for_each(o, op_add); break;
    case RNNFAST_SUB: for_each(o, op_sub); break;
    case RNNFAST_MUL: for_each(o, op_mul); break;
    case RNNFAST_DIV: for_each(o, op_div); break;
    case RNNFAST_MINIMUM: for_each(o, op_minimum); break;
    case RNNFAST_MAXIMUM: for_each(o, op_maximum); break;
    case RNNFAST_LESS: for_each(o, op_less); break;
    case RNNFAST_LESS_EQUAL: for_each(o, op_less_equal); break;
    case RNNFAST_EQUAL: for_each(o, op_equal); break;
    case RNNFAST_NOT_EQUAL: for_each(o, op_not_equal); break;
    case RNNFAST_NEG: for_each(o, op_neg); break;
    case RNNFAST_RELU_OF: for_each(o, op_relu); break;
    case RNNFAST_ABS: for_each(o, op_abs); break;
    case RNNFAST_WHERE: for_each(o, op_where); break;
    case RNNFAST_MULTIPLY_ADD: for_each(o, op_multiply_add); break;
    case RNNFAST_MULTIPLY_SUB: for_each(o, op_multiply_sub); break;
    case RNNFAST_SUBTRACT_PRODUCT: for_each(o, op_subtract_product); break;
    case RNNFAST_SIGMOID_BACK: for_each(o, op_sigmoid_back); break;
    case RNNFAST_TANH_BACK: for_each(o, op_tanh_back); break;
    case RNNFAST_SIGMOID_BACK_PRODUCT: for_each(o, op_sigmoid_back_product); break;
    case RNNFAST_TANH_BACK_PRODUCT: for_each(o, op_tanh_back_product); break;
    case RNNFAST_SIGMOID_OF: for_each_four(o, f_sigmoid); break;
    case RNNFAST_TANH_OF: for_each_four(o, f_tanh); break;
    case RNNFAST_EXP: for_each_four(o, f_exp); break;
    case RNNFAST_LOG: for_each_four(o, f_log); break;
    case RNNFAST_SQRT: for_each_four(o, f_sqrt); break;
    case RNNFAST_SOFTPLUS: for_each_four(o, f_softplus); break;
    case RNNFAST_OUTER: outer_rows(o); break;
    case RNNFAST_OUTER_LEFT: outer_left_rows(o); break;
    case RNNFAST_OUTER_RIGHT: outer_right_rows(o); break;
    case RNNFAST_TOTAL: reduce_rows(o, splat(0), add_number); break;
    case RNNFAST_LARGEST: reduce_rows(o, -1 / splat(0), take_larger); break;
    case RNNFAST_INVERSE_DEVIATION: inverse_deviation_rows(o); break;
    case RNNFAST_NORMALIZED: normalized_rows(o); break;
    case RNNFAST_NORMALIZED_BACK: normalized_back_rows(o); break;
  }
}

/* Where a place is for the rows from `first` on. */
INLINE place_t place_at(const rnnfast_place *p, const rnnfast_array *arrays, ptrdiff_t first) {
  const rnnfast_array *array = &arrays[p->array];
  real *at = (real *)array->at + p->offset + (array->local ? 0 : first * array->stride);
  return (place_t){at, array->stride, p->is_vector ? L : 0};
}

/* Zero what is behind the units in the last vector of each result. */
static void mask_rows(const operation_t *o, ptrdiff_t units) {
  const ptrdiff_t last = units / L * L;
  for (ptrdiff_t r = 0; r < o->rows; r++) {
    real *to = o->to.at + r * o->to.stride + last;
    store(to, keep_first(load(to), units - last));
  }
}

static void run_program(const rnnfast_instruction *code, ptrdiff_t n, const rnnfast_array *arrays, ptrdiff_t rows,
                        ptrdiff_t rows_at_a_time) {
  for (ptrdiff_t first = 0; first < rows; first += rows_at_a_time)
    for (ptrdiff_t i = 0; i < n; i++) {
      const rnnfast_instruction *code_i = &code[i];
      const operation_t o = {
        .rows = rows - first < rows_at_a_time ? rows - first : rows_at_a_time,
        .size = code_i->size, .inner = code_i->inner, .to = place_at(&code_i->to, arrays, first),
        .a = place_at(&code_i->a, arrays, first), .b = place_at(&code_i->b, arrays, first),
        .c = place_at(&code_i->c, arrays, first)};
      run_operation(code_i->operation, &o);
      if (code_i->masked % L) mask_rows(&o, code_i->masked);
    }
}

/* ---- The products of a stage. */

/* Rows of n reals by index, to scratch: whole vectors with zeros behind them, one number to all lanes. */
static void copy_rows(ptrdiff_t rows, ptrdiff_t n, const void *from, ptrdiff_t from_stride,
                      const ptrdiff_t *row_index, void *to, ptrdiff_t to_stride) {
  for (ptrdiff_t r = 0; r < rows; r++) {
    const real *a = (const real *)from + data_row(row_index, r) * from_stride;
    real *b = (real *)to + r * to_stride;
    if (n == 1) store(b, splat(*a));
    else
      for (ptrdiff_t u = 0; u < n; u += L) store(b + u, load_partial(a + u, n - u));
  }
}

/* Weights for `multiply`. A column of the product has a row of weights, row[c] of K reals, or none (NULL). */
static void pack_weights(const void *const *row, ptrdiff_t columns, ptrdiff_t K, void *block) {
  real *to = block;
  for (ptrdiff_t j = 0; j < columns; j += 4 * L) {
    const ptrdiff_t nv = columns - j < 4 * L ? vectors_for(columns - j) : 4;
    for (ptrdiff_t v = 0; v < nv; v++)
      for (ptrdiff_t k = 0; k < K; k += L)
        pack_square(to + v * L, nv * L, (const real *const *)row + j + v * L, K, k, K);
    to += K * nv * L;
  }
}

/* The transpose: the sum goes over `columns`, of which each has a row of K weights or none. */
static void pack_weights_back(const void *const *row, ptrdiff_t columns, ptrdiff_t K, void *block) {
  real *to = block;
  for (ptrdiff_t j = 0; j < K; j += 4 * L) {
    const ptrdiff_t nv = K - j < 4 * L ? vectors_for(K - j) : 4;
    for (ptrdiff_t c = 0; c < columns; c++, to += nv * L)
      for (ptrdiff_t v = 0; v < nv; v++)
        store(to + v * L, row[c] ? load_partial((const real *)row[c] + j + v * L, K - j - v * L) : splat(0));
  }
}
