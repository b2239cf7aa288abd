/* exp, sigmoid and tanh.
 *
 * All start from y = n ln2 + f, |f| <= ln2/2, with ln2 in two parts (Cody & Waite 1980) so that f is
 * exact, and exp(f) = 1 + f + f^2 q(f), q minimax (Remez) for the relative error of exp(f) - 1:
 * 2^-26 in float32 (degree 4), 2^-61 in float64 (degree 10). Adding 1.5 * 2^mantissa + bias rounds
 * y/ln2 to an integer and leaves n + bias in the low bits: one shift makes it the float 2^n.
 *
 * Everything takes n vectors at once and does each operation for all of them before the next. One
 * activation is a chain of 25 operations of 4 cycles; the processor's scheduler holds 4 such chains,
 * not the 8 that fill its two ports, so they are written side by side.
 *
 * Largest errors over all 2^32 float32 inputs (tests/test_accuracy.py measures them):
 *   sigmoid 2.5 ULP for x > -87, below that it goes to 0;   tanh 2 ULP. */

#define EACH UNROLL for (int i = 0; i < n; i++)
enum { WIDEST = 8 };

typedef struct { V rounded[WIDEST], n[WIDEST], f[WIDEST], q[WIDEST]; } exp_t;

/* |y| <= limit first; NaN stays NaN. */
INLINE void exp_parts(int n, const V *y, const REAL *limit, exp_t *e) {
  static const REAL c[] = EXPM1_POLY;
  V x[WIDEST];
  EACH x[i] = min_(splat(limit[i]), max_(splat(-limit[i]), y[i]));
  EACH e->rounded[i] = fma_(x[i], splat((REAL)1.4426950408889634074), splat(ROUND));
  EACH e->n[i] = e->rounded[i] - splat(ROUND);
  EACH e->f[i] = fma_(e->n[i], splat(-LN2_HI), x[i]);
  EACH e->f[i] = fma_(e->n[i], splat(-LN2_LO), e->f[i]);
  EACH e->q[i] = splat(c[0]);
  UNROLL for (size_t j = 1; j < sizeof c / sizeof *c; j++)
    EACH e->q[i] = fma_(e->q[i], e->f[i], splat(c[j]));
}

/* m 2^n */
INLINE V scale(V m, const exp_t *e, int i) {
#ifdef SCALE
  return SCALE(m, e->n[i]);
#else
  return m * (V)((VI)e->rounded[i] << MANTISSA);
#endif
}

/* In place, tanh where the bit of `tanhs` is set, else sigmoid:
 *   sigmoid(x) = 1 / (1 + e^-x)
 *   tanh(x) = expm1(2x) / (expm1(2x) + 2), which unlike 2 sigmoid(2x) - 1 is exact near 0. */
INLINE void activate(int n, unsigned tanhs, V *a) {
  V num[WIDEST], den[WIDEST], r[WIDEST];
  REAL limit[WIDEST];
  exp_t e;
  EACH limit[i] = tanhs >> i & 1 ? TANH_MAX : EXP_MAX;
  EACH a[i] = tanhs >> i & 1 ? a[i] + a[i] : -a[i];
  exp_parts(n, a, limit, &e);
  EACH {
    if (tanhs >> i & 1) {
      const V s = scale(splat(1), &e, i);
      num[i] = fma_(s, fma_(e.f[i] * e.f[i], e.q[i], e.f[i]), s - splat(1));
      den[i] = num[i] + splat(2);
    } else {
      den[i] = splat(1) + scale(fma_(e.f[i], fma_(e.q[i], e.f[i], splat(1)), splat(1)), &e, i);
    }
  }
#ifdef RECIP /* 14 bits; one Newton step makes them 0.6 ULP in 4 cycles (vdivps zmm: 10) */
  EACH r[i] = RECIP(den[i]);
  EACH r[i] = fma_(fma_(-den[i], r[i], splat(1)), r[i], r[i]);
#else
  EACH r[i] = splat(1) / den[i];
#endif
  /* tanh: correct the quotient by its remainder, taking back what rounding did to num + 2. */
  EACH if (tanhs >> i & 1) {
    const V lost = num[i] - (den[i] - splat(2));
    const V t = num[i] * r[i], remainder = remainder_(num[i], t, den[i]) - t * lost;
    a[i] = fma_(remainder, r[i], t);
  } else {
    a[i] = r[i];
  }
}

INLINE V tanh_(V x) {
  activate(1, 1, &x);
  return x;
}

INLINE void act_point(int act, int n, V *a) {
  switch (act) {
    case RNNFAST_TANH: activate(n, ~0u, a); break;
    case RNNFAST_SIGMOID: activate(n, 0, a); break;
    case RNNFAST_RELU: EACH a[i] = max_(splat(0), a[i]); break;
  }
}

/* F(first, n) over `count` in groups of 2 and 1, or of 4, 2 and 1. */
#define FOR_PAIRS(count, F)                              \
  do {                                                   \
    ptrdiff_t i_ = 0, count_ = (count);                  \
    for (; count_ - i_ >= 2; i_ += 2) { F(i_, 2); }      \
    if (count_ > i_) { F(i_, 1); }                       \
  } while (0)
#define FOR_GROUPS(count, F)                             \
  do {                                                   \
    ptrdiff_t i_ = 0, count_ = (count);                  \
    for (; count_ - i_ >= 4; i_ += 4) { F(i_, 4); }      \
    if (count_ - i_ >= 2) { F(i_, 2); i_ += 2; }         \
    if (count_ > i_) { F(i_, 1); }                       \
  } while (0)
