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

/* Whether one part of ln2 is enough: a tanh is 1 but for its rounding before n has grown, so that of
 * the constant costs it less than 0.1 ULP. Without FMA the product would be rounded too. */
#ifdef FMA
#define ONE_PART(tanh) (tanh)
#else
#define ONE_PART(tanh) 0
#endif

/* The constants for k = -1 and k = 2 as whole vectors, so that they can be operands in memory. */
#define AND_ONE(n, c) + 1
enum { TERMS = 0 EXPM1_POLY(AND_ONE) };
typedef struct { REAL most[L], least[L], to_n[L], round[L], ln2_hi[L], ln2_lo[L], one[L], half[L], q[TERMS][L]; }
  formula_t;
#define ALL(x) {[0 ... L - 1] = (x)}
#define FOR_SIGMOID(n, c) ALL((n) % 2 ? -(c) : (c)),
#define FOR_TANH(n, c) ALL((c) * (1 << (n))),
static const formula_t formulas[2] __attribute__((aligned(VBYTES))) = {
  {ALL(EXP_MAX), ALL(-EXP_MAX), ALL(-LOG2E), ALL(ROUND), ALL(LN2_HI), ALL(LN2_LO), ALL(1), ALL((REAL)0.5),
   {EXPM1_POLY(FOR_SIGMOID)}},
  {ALL(TANH_MAX), ALL(-TANH_MAX), ALL(2 * LOG2E), ALL(ROUND), ALL((ONE_PART(1) ? LN2_HI + LN2_LO : LN2_HI) / -2),
   ALL(LN2_LO / -2), ALL(1), ALL((REAL)0.5), {EXPM1_POLY(FOR_TANH)}},
};

/* n (as bits), f and k q(kf) of a[i], after a limit on |x|; NaN stays NaN. */
INLINE void exp_parts(int n, unsigned tanhs, const formula_t *const *c, const V *a, exp_t *e) {
  V x[WIDEST], whole[WIDEST];
  EACH x[i] = min_(load(c[i]->most), max_(load(c[i]->least), a[i]));
  EACH e->rounded[i] = fma_(x[i], load(c[i]->to_n), load(c[i]->round));
  EACH whole[i] = e->rounded[i] - load(c[i]->round);
  EACH e->f[i] = fma_(whole[i], load(c[i]->ln2_hi), x[i]);
  EACH if (!ONE_PART(tanhs >> i & 1)) e->f[i] = fma_(whole[i], load(c[i]->ln2_lo), e->f[i]);
  EACH e->q[i] = load(c[i]->q[0]);
  UNROLL for (int j = 1; j < TERMS; j++)
    EACH e->q[i] = fma_(e->q[i], e->f[i], load(c[i]->q[j]));
}

/* 2^n */
INLINE V two_to_n(const exp_t *e, int i) { return (V)((VI)e->rounded[i] << MANTISSA); }

/* In place, tanh where the bit of `tanhs` is set, else sigmoid. */
INLINE void activate(int n, unsigned tanhs, V *a) {
  V m[WIDEST], den[WIDEST], r[WIDEST], one[WIDEST];
  const formula_t *all = formulas, *c[WIDEST];
  exp_t e;
  /* With 16 registers the compiler must not know what is there: it would broadcast all constants before every
   * tile and spill them, 1 to 2.5 per cent of an LSTM's forward pass, 11 of a row at I = 1, H = 32 (AVX2, Zen 4).
   * With 32 that is the better way, by 2 to 4 per cent at I = 32, H = 64. */
  if (MR < 6) FORGET(all);
  EACH c[i] = &all[tanhs >> i & 1];
  EACH one[i] = load(c[i]->one);
  exp_parts(n, tanhs, c, a, &e);
  EACH {
    if (tanhs >> i & 1) {
      const V s = two_to_n(&e, i), half = load(c[i]->half), p = fma_(e.f[i] * e.f[i], e.q[i], e.f[i]);
      m[i] = fma_(s, p, fma_(s, half, -half));
      den[i] = m[i] + one[i];
    } else {
      const V p = fma_(e.q[i], e.f[i], one[i]);
      den[i] = fma_(fma_(-e.f[i], p, one[i]), two_to_n(&e, i), one[i]);
    }
  }
#ifdef RECIP /* 14 bits in 3 port slots, as a division, which then blocks the divider: 10 cycles, float64 16 */
  enum { NEWTON = sizeof(REAL) / 4 }; /* steps to all bits; the remainder spares tanh one */
  EACH r[i] = RECIP(den[i]);
  UNROLL for (int step = 0; step < NEWTON; step++)
    EACH if (step || !(tanhs >> i & 1)) r[i] = fma_(fma_(-den[i], r[i], one[i]), r[i], r[i]);
#else
  EACH r[i] = one[i] / den[i];
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
