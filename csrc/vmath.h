/* sigmoid and tanh, from m = expm1(kx) / k:
 *   k = -1   sigmoid(x) = 1 / (1 + e^-x)
 *   k =  2   tanh(x) = m / (m + 1), which unlike 2 sigmoid(2x) - 1 is exact near 0.
 *
 * kx = n ln2 + kf, |kf| <= ln2/2, with ln2 in two parts (Cody & Waite 1980) so that f is exact, and
 * expm1(kf) / k = f + f^2 k q(kf), q minimax (Remez) for the relative error of expm1: 2^-26 in float32
 * (degree 4), 2^-61 in float64 (degree 10). The powers of k stand in the constants: k costs nothing.
 * Adding 1.5 * 2^mantissa + bias rounds kx/ln2 to an integer and leaves n + bias in the low bits: one
 * shift makes it the float 2^n.
 *
 * Everything takes several vectors at once and does each operation for all of them before the next. One
 * activation is a chain of 16 or 17 operations of 4 cycles; the processor's scheduler holds 4 such chains,
 * not the 8 that fill its two ports, so they are written side by side.
 *
 * Largest errors over all 2^32 float32 inputs (tests/test_accuracy.py measures them):
 *   sigmoid 2.5 ULP for x > -87, below that it goes to 0;   tanh 1.8 ULP. */

#define EACH UNROLL for (int i = 0; i < n; i++)
enum { WIDEST = 8 };

typedef struct { V rounded[WIDEST], f[WIDEST], q[WIDEST]; } exp_t;

INLINE REAL power(REAL k, int n) {
  REAL p = 1;
  UNROLL for (int i = 0; i < n; i++) p *= k;
  return p;
}

/* Whether one part of ln2 is enough: a tanh is 1 but for its rounding before n has grown, so that of
 * the constant costs it less than 0.1 ULP. Without FMA the product would be rounded too. */
#ifdef FMA
#define ONE_PART(k) ((k) > 0)
#else
#define ONE_PART(k) 0
#endif

/* n (as bits), f and k q(kf) of a[i] with k[i], after a limit on |x|; NaN stays NaN. */
INLINE void exp_parts(int n, const REAL *k, const V *a, exp_t *e) {
  static const REAL c[] = EXPM1_POLY;
  enum { DEGREE = sizeof c / sizeof *c - 1 };
  REAL limit[WIDEST];
  V x[WIDEST], whole[WIDEST];
  EACH limit[i] = k[i] > 0 ? TANH_MAX : EXP_MAX;
  EACH x[i] = min_(splat(limit[i]), max_(splat(-limit[i]), a[i]));
  EACH e->rounded[i] = fma_(x[i], splat(k[i] * (REAL)1.4426950408889634074), splat(ROUND));
  EACH whole[i] = e->rounded[i] - splat(ROUND);
  EACH e->f[i] = fma_(whole[i], splat(-(ONE_PART(k[i]) ? LN2_HI + LN2_LO : LN2_HI) / k[i]), x[i]);
  EACH if (!ONE_PART(k[i])) e->f[i] = fma_(whole[i], splat(-LN2_LO / k[i]), e->f[i]);
  EACH e->q[i] = splat(c[0] * power(k[i], DEGREE + 1));
  UNROLL for (int j = 1; j <= DEGREE; j++)
    EACH e->q[i] = fma_(e->q[i], e->f[i], splat(c[j] * power(k[i], DEGREE + 1 - j)));
}

/* 2^n */
INLINE V two_to_n(const exp_t *e, int i) { return (V)((VI)e->rounded[i] << MANTISSA); }

/* In place, tanh where the bit of `tanhs` is set, else sigmoid. */
INLINE void activate(int n, unsigned tanhs, V *a) {
  V m[WIDEST], den[WIDEST], r[WIDEST];
  REAL k[WIDEST];
  exp_t e;
  EACH k[i] = tanhs >> i & 1 ? 2 : -1;
  exp_parts(n, k, a, &e);
  EACH {
    if (tanhs >> i & 1) {
      const V s = two_to_n(&e, i), half = splat((REAL)0.5);
      m[i] = fma_(s, fma_(e.f[i] * e.f[i], e.q[i], e.f[i]), fma_(s, half, -half));
      den[i] = m[i] + splat(1);
    } else {
      den[i] = fma_(fma_(-e.f[i], fma_(e.q[i], e.f[i], splat(1)), splat(1)), two_to_n(&e, i), splat(1));
    }
  }
#ifdef RECIP /* 14 bits in 3 port slots, as a division, which then blocks the divider: 10 cycles, float64 16 */
  enum { NEWTON = sizeof(REAL) / 4 }; /* steps to all bits; the remainder spares tanh one */
  EACH r[i] = RECIP(den[i]);
  UNROLL for (int step = 0; step < NEWTON; step++)
    EACH if (step || !(tanhs >> i & 1)) r[i] = fma_(fma_(-den[i], r[i], splat(1)), r[i], r[i]);
#else
  EACH r[i] = splat(1) / den[i];
#endif
  /* The remainder m - t (m + 1) makes the quotient exact, whatever r and den lost. */
  EACH if (tanhs >> i & 1) {
    const V t = m[i] * r[i];
    a[i] = fma_(remainder_(m[i] - t, t, m[i]), r[i], t);
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
