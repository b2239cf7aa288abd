/* The operations of point programs (program.h), each on all rows of a chunk: dispatch is paid once for many vectors.
 *
 * Each element of a result is one operation, or one fused multiply-add, and sums over units add in one order. So no bit
 * depends on how rows are cut into chunks. Lanes beyond a vector's units hold anything; a sum over units leaves them
 * out. */

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

/* What a sum over units adds to it: `a` and `b` are operands at the same units. */
typedef V (*term_t)(V sum, V a, V b, V shift);

INLINE V add_number(V sum, V a, V b, V shift) { (void)b, (void)shift; return sum + a; }
INLINE V add_square(V sum, V a, V b, V shift) { (void)b; return vfma(a - shift, a - shift, sum); }
INLINE V add_product(V sum, V a, V b, V shift) { (void)shift; return vfma(a, b, sum); }
INLINE V take_larger(V sum, V a, V b, V shift) { (void)b, (void)shift; return op_maximum(sum, a, sum); }

/* A sum over the units of a row, or the largest of them, in all lanes. Four sums run side by side, because each has to
 * wait for the one before; they are joined two by two, then lanes by halves. */
INLINE V over_units(ptrdiff_t size, const real *a, const real *b, V shift, V start, term_t add, term_t join) {
  V sum[4] = {start, start, start, start};
  ptrdiff_t u = 0;
  for (; u + 4 * L <= size; u += 4 * L)
    UNROLL for (int i = 0; i < 4; i++) sum[i] = add(sum[i], load(a + u + i * L), load(b + u + i * L), shift);
  UNROLL for (int i = 0; i < 4; i++, u += L)
    if (u < size) {
      const V next = add(sum[i], load(a + u), load(b + u), shift);
      sum[i] = size - u < L ? blend(lane_numbers() < (real_int)(size - u) - (VI){0}, next, sum[i]) : next;
    }
  V all = join(join(sum[0], sum[1], start, start), join(sum[2], sum[3], start, start), start, start);
  if (L > 8) all = join(all, SHUFFLE(all, all, SWAP, 8, 0), start, start);
  if (L > 4) all = join(all, SHUFFLE(all, all, SWAP, 4, 0), start, start);
  if (L > 2) all = join(all, SHUFFLE(all, all, SWAP, 2, 0), start, start);
  all = join(all, SHUFFLE(all, all, SWAP, 1, 0), start, start);
  return splat(all[0]); /* the larger of 0 and -0 depends on the lane */
}

INLINE V row_mean(ptrdiff_t size, const real *a, const real *b, V shift, term_t add) {
  return over_units(size, a, b, shift, splat(0), add, add_number) / splat((real)size);
}

INLINE void reduce_rows(const operation_t *o, V start, term_t f) {
  for (ptrdiff_t r = 0; r < o->rows; r++) {
    const real *a = o->a.at + r * o->a.stride;
    store(o->to.at + r * o->to.stride, over_units(o->size, a, a, start, start, f, f));
  }
}

/* 1 / sqrt(variance of a + b). */
INLINE void inverse_deviation_rows(const operation_t *o) {
  for (ptrdiff_t r = 0; r < o->rows; r++) {
    const real *a = o->a.at + r * o->a.stride, *b = o->b.at + r * o->b.stride;
    const V mean = row_mean(o->size, a, a, splat(0), add_number);
    const V variance = row_mean(o->size, a, a, mean, add_square);
    store(o->to.at + r * o->to.stride, splat(1 / real_sqrt(variance[0] + b[0])));
  }
}

/* (a - mean of a) b, with the inverse deviation of a in b. */
INLINE void normalized_rows(const operation_t *o) {
  for (ptrdiff_t r = 0; r < o->rows; r++) {
    const real *a = o->a.at + r * o->a.stride;
    real *to = o->to.at + r * o->to.stride;
    const V mean = row_mean(o->size, a, a, splat(0), add_number), b = load(o->b.at + r * o->b.stride);
    for (ptrdiff_t u = 0; u < o->size; u += L) store(to + u, (load(a + u) - mean) * b);
  }
}

/* From the gradient a of the normalised values b: (a - mean of a - b mean of (a b)) c, with the inverse deviation in c.
 */
INLINE void normalized_back_rows(const operation_t *o) {
  for (ptrdiff_t r = 0; r < o->rows; r++) {
    const real *a = o->a.at + r * o->a.stride, *b = o->b.at + r * o->b.stride;
    real *to = o->to.at + r * o->to.stride;
    const V mean = row_mean(o->size, a, a, splat(0), add_number), c = load(o->c.at + r * o->c.stride);
    const V slope = row_mean(o->size, a, b, splat(0), add_product);
    for (ptrdiff_t u = 0; u < o->size; u += L) store(to + u, vfma(-slope, load(b + u), load(a + u) - mean) * c);
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
