/* The interpreter of point programs (rnnfast.h): what a cell of the user's own computes between its products.
 *
 * An instruction works on all rows of a chunk before the next one, so its dispatch is paid once for many vectors. Each
 * element of a result is one operation, or one fused multiply-add, and sums over units add in one order. So no bit
 * depends on how rows are cut into chunks. Lanes beyond a vector's units hold anything; a sum over units leaves them
 * out, and a masked result has zeros there. */

/* The operands of one instruction on the rows of a chunk. `step` is L, or 0 where all vectors are the same one. */
typedef struct { real *at; ptrdiff_t stride, step; } place_t;
typedef struct {
  ptrdiff_t rows, size, inner;
  place_t to, a, b, c;
} operation_t;

/* to = f(a, b, c), vector by vector. The copy of the operation can stay in registers: a store may change *o for all that
 * the compiler knows. */
INLINE void for_each(const operation_t *o, V (*f)(V a, V b, V c)) {
  const operation_t p = *o;
  const ptrdiff_t vectors = vectors_for(p.size);
  for (ptrdiff_t r = 0; r < p.rows; r++) {
    const real *a = p.a.at + r * p.a.stride, *b = p.b.at + r * p.b.stride, *c = p.c.at + r * p.c.stride;
    real *to = p.to.at + r * p.to.stride;
    for (ptrdiff_t v = 0; v < vectors; v++, a += p.a.step, b += p.b.step, c += p.c.step)
      store(to + v * L, f(load(a), load(b), load(c)));
  }
}

/* Where the next vector of an operand and of the result is: in this row, or at the start of the next one. */
typedef struct {
  const real *a;
  real *to;
  ptrdiff_t v, vectors, a_step, next_a, next_to;
} cursor_t;

/* f on the next n vectors. */
INLINE void next_vectors(cursor_t *c, int n, void (*f)(int n, V *a)) {
  real *to[4];
  V x[4];
  UNROLL for (int i = 0; i < n; i++) {
    x[i] = load(c->a), to[i] = c->to;
    c->a += c->a_step, c->to += L;
    if (++c->v == c->vectors) c->v = 0, c->a += c->next_a, c->to += c->next_to;
  }
  f(n, x);
  UNROLL for (int i = 0; i < n; i++) store(to[i], x[i]);
}

/* Four vectors at a time, of one row or of several, because a chain of operations has to wait for each of its results.
 * `f` changes n vectors in place. */
INLINE void for_each_four(const operation_t *o, void (*f)(int n, V *a)) {
  const ptrdiff_t vectors = vectors_for(o->size), all = vectors * o->rows;
  cursor_t c = {o->a.at, o->to.at, 0, vectors, o->a.step, o->a.stride - vectors * o->a.step,
                o->to.stride - vectors * L};
  ptrdiff_t i = 0;
  for (; i + 4 <= all; i += 4) next_vectors(&c, 4, f);
  for (; i < all; i++) next_vectors(&c, 1, f);
}

/* ---- Element by element. NaN in an operand is NaN in the result, but for comparisons. */

INLINE V truth(VI mask) { return (V)(mask & (VI)splat(1)); }
INLINE V op_spread(V a, V b, V c) { (void)b, (void)c; return a; }
INLINE V op_add(V a, V b, V c) { (void)c; return a + b; }
INLINE V op_sub(V a, V b, V c) { (void)c; return a - b; }
INLINE V op_mul(V a, V b, V c) { (void)c; return a * b; }
INLINE V op_div(V a, V b, V c) { (void)c; return a / b; }
INLINE V op_minimum(V a, V b, V c) { (void)c; return blend(a < b, a, blend(a != a, a, b)); }
INLINE V op_maximum(V a, V b, V c) { (void)c; return blend(a > b, a, blend(a != a, a, b)); }
INLINE V op_less(V a, V b, V c) { (void)c; return truth(a < b); }
INLINE V op_less_equal(V a, V b, V c) { (void)c; return truth(a <= b); }
INLINE V op_equal(V a, V b, V c) { (void)c; return truth(a == b); }
INLINE V op_not_equal(V a, V b, V c) { (void)c; return truth(a != b); }
INLINE V op_neg(V a, V b, V c) { (void)b, (void)c; return -a; }
INLINE V op_relu(V a, V b, V c) { (void)b, (void)c; return vmax(splat(0), a); }
INLINE V op_abs(V a, V b, V c) { (void)b, (void)c; return (V)((VI)a & ~(VI)splat(-(real)0)); }
INLINE V op_where(V a, V b, V c) { return blend(a != splat(0), b, c); }
INLINE V op_multiply_add(V a, V b, V c) { return vfma(a, b, c); }
INLINE V op_multiply_sub(V a, V b, V c) { return vfma(a, b, -c); }
INLINE V op_subtract_product(V a, V b, V c) { return vfma(-a, b, c); }
/* The gradient at the argument of a sigmoid, or tanh, from that of its value b. */
INLINE V op_sigmoid_back(V a, V b, V c) { (void)c; return a * vfma(-b, b, b); }
INLINE V op_tanh_back(V a, V b, V c) { (void)c; return vfma(-a, b * b, a); }
/* The same if the gradient of the value c is a product. */
INLINE V op_sigmoid_back_product(V a, V b, V c) { return op_sigmoid_back(a * b, c, c); }
INLINE V op_tanh_back_product(V a, V b, V c) { return op_tanh_back(a * b, c, c); }

/* ---- Functions. */

INLINE void f_sigmoid(int n, V *a) { activate(n, ALL_SIGMOID, a); }
INLINE void f_tanh(int n, V *a) { activate(n, ALL_TANH, a); }
INLINE void f_exp(int n, V *a) { vexp(n, a); }

/* A function of the C library, or one that the compiler knows, lane by lane. */
INLINE V by_lanes(V x, real (*f)(real)) {
  real lane[L] __attribute__((aligned(VECTOR_BYTES)));
  store(lane, x);
  for (int l = 0; l < L; l++) lane[l] = f(lane[l]);
  return load(lane);
}

INLINE void f_sqrt(int n, V *a) {
  UNROLL for (int i = 0; i < n; i++) a[i] = by_lanes(a[i], real_sqrt);
}
INLINE void f_log(int n, V *a) {
  UNROLL for (int i = 0; i < n; i++) a[i] = by_lanes(a[i], real_log);
}

/* max(a, 0) + log(1 + e^-|a|), which does not overflow. */
INLINE void f_softplus(int n, V *a) {
  UNROLL for (int i = 0; i < n; i++) {
    V e = -op_abs(a[i], a[i], a[i]);
    vexp(1, &e);
    a[i] = vmax(splat(0), a[i]) + by_lanes(e, real_log1p);
  }
}

/* ---- Over the units of a row. */

/* The sum, or the largest, of a row, in all lanes of the result. Vectors are added one after the other, then lanes. */
INLINE void reduce_rows(const operation_t *o, V start, V (*f)(V a, V b, V c)) {
  for (ptrdiff_t r = 0; r < o->rows; r++) {
    const real *a = o->a.at + r * o->a.stride;
    V all = start;
    ptrdiff_t u = 0;
    for (; u + L <= o->size; u += L) all = f(all, load(a + u), start);
    if (u < o->size) {
      const VI inside = lane_numbers() < (real_int)(o->size - u) - (VI){0};
      all = f(all, blend(inside, load(a + u), start), start);
    }
    real lane[L];
    store(lane, all);
    for (int n = L / 2; n; n /= 2)
      for (int i = 0; i < n; i++) lane[i] = f(splat(lane[i]), splat(lane[i + n]), start)[0];
    store(o->to.at + r * o->to.stride, splat(lane[0]));
  }
}

/* ---- Outer products: p[i][j] = a[i] b[j], j from 0 to `inner`. */

INLINE void outer_rows(const operation_t *o) {
  for (ptrdiff_t r = 0; r < o->rows; r++) {
    const real *a = o->a.at + r * o->a.stride, *b = o->b.at + r * o->b.stride;
    real *to = o->to.at + r * o->to.stride;
    for (ptrdiff_t i = 0; i * o->inner < o->size; i++)
      for (ptrdiff_t j = 0; j < o->inner; j++) to[i * o->inner + j] = a[i] * b[j];
  }
}

/* From the gradient of p, in a: that of the first factor, if the second one is in b. */
INLINE void outer_left_rows(const operation_t *o) {
  for (ptrdiff_t r = 0; r < o->rows; r++) {
    const real *p = o->a.at + r * o->a.stride, *b = o->b.at + r * o->b.stride;
    real *to = o->to.at + r * o->to.stride;
    const ptrdiff_t n = o->size / o->inner;
    for (ptrdiff_t i = 0; i < n; i++) {
      real sum = 0;
      for (ptrdiff_t j = 0; j < o->inner; j++) sum += p[i * o->inner + j] * b[j];
      if (n == 1) store(to, splat(sum));
      else to[i] = sum;
    }
  }
}

/* That of the second factor, if the first one is in b. */
INLINE void outer_right_rows(const operation_t *o) {
  for (ptrdiff_t r = 0; r < o->rows; r++) {
    const real *p = o->a.at + r * o->a.stride, *b = o->b.at + r * o->b.stride;
    real *to = o->to.at + r * o->to.stride;
    for (ptrdiff_t j = 0; j < o->inner; j++) {
      real sum = 0;
      for (ptrdiff_t i = 0; i * o->inner < o->size; i++) sum += p[i * o->inner + j] * b[i];
      if (o->inner == 1) store(to, splat(sum));
      else to[j] = sum;
    }
  }
}

/* ---- The interpreter. */

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
    case RNNFAST_TOTAL: reduce_rows(o, splat(0), op_add); break;
    case RNNFAST_LARGEST: reduce_rows(o, -1 / splat(0), op_maximum); break;
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
