/* exp, sigmoid and tanh.
 *
 * All start from y = n ln2 + f, |f| <= ln2/2, with ln2 in two parts (Cody & Waite 1980) so that f is
 * exact, and expm1(f) = f + f^2 q(f), q minimax (Remez) for the relative error of expm1: 2^-26 in
 * float32 (degree 4), 2^-61 in float64 (degree 10). Adding 1.5 * 2^mantissa + bias rounds y/ln2 to
 * an integer and leaves n + bias in the low bits: one shift makes it the float 2^n.
 *
 * Largest errors over all 2^32 float32 inputs (tests/test_accuracy.py measures them):
 *   sigmoid 2.5 ULP for x > -87, below that it goes to 0;   tanh 2 ULP. */

typedef struct { V scale, m; } expm1_t;

INLINE expm1_t expm1_parts(V y) {
  const V rounded = fma_(y, splat((REAL)1.4426950408889634074), splat(ROUND));
  const V n = rounded - splat(ROUND);
  const V f = fma_(n, splat(-LN2_LO), fma_(n, splat(-LN2_HI), y));
  static const REAL c[] = EXPM1_POLY;
  V q = splat(c[0]);
  for (size_t i = 1; i < sizeof c / sizeof *c; i++) q = fma_(q, f, splat(c[i]));
  return (expm1_t){(V)((VI)rounded << MANTISSA), fma_(f * f, q, f)};
}

/* exp(y) for y in [EXP_MIN, EXP_MAX], the ends beyond; both are normal numbers. */
INLINE V exp_(V y) {
  const expm1_t e = expm1_parts(min_(splat(EXP_MAX), max_(splat(EXP_MIN), y)));
  return fma_(e.scale, e.m, e.scale);
}

/* 1 / (1 + e^-x). */
INLINE V sigmoid(V x) { return divide(splat(1), splat(1) + exp_(-x)); }

/* expm1(2x) / (expm1(2x) + 2): unlike 2 sigmoid(2x) - 1 it keeps its relative accuracy near 0. */
INLINE V tanh_(V x) {
  const V y = min_(splat(TANH_MAX), max_(splat(-TANH_MAX), x + x));
  const expm1_t e = expm1_parts(y);
  const V em1 = fma_(e.scale, e.m, e.scale - splat(1));
  return divide(em1, em1 + splat(2));
}

INLINE V act_point(int act, V a) {
  switch (act) {
    case RNNFAST_TANH: return tanh_(a);
    case RNNFAST_RELU: return max_(splat(0), a);
    case RNNFAST_SIGMOID: return sigmoid(a);
    case RNNFAST_EXP: return exp_(a);
    default: return a;
  }
}
