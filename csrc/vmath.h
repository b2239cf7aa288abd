/* sigmoid and tanh, from expm1(y):
 *   y = -x   sigmoid(x) = 1 / (1 + e^y)
 *   y = 2x   tanh(x) = m / (m + 1), m = expm1(y) / 2, which unlike 2 sigmoid(2x) - 1 is exact near 0.
 *
 * y = n ln2 + f, |f| <= ln2/2, with ln2 in two parts (Cody & Waite 1980) so that f is exact, and
 * expm1(f) = f + f^2 q(f), q minimax (Remez) for the relative error: 2^-26 in float32 (degree 4), 2^-61 in
 * float64 (degree 10). Adding 1.5 * 2^mantissa + bias rounds y/ln2 to an integer and leaves n + bias in the low
 * bits: one shift makes it the float 2^n. Both have their constants in common: with others for y = 2x, 23 of
 * them, too many for the registers, a single row at I = 1, H = 32 takes 4 (LSTM) to 8 per cent (GRU) more,
 * with AVX2 6 to 11 (Zen 4).
 *
 * Everything takes several vectors at once and does each operation for all of them before the next. One
 * activation is a chain of 16 or 17 operations of 4 cycles; the processor's scheduler holds 4 such chains,
 * not the 8 that fill its two ports, so they are written side by side.
 *
 * Largest errors over all 2^32 float32 inputs, with AVX2 and baseline (tests/test_accuracy.py holds them to 2.5
 * and 2):
 *   sigmoid 2.48 ULP for x > -87, below that it goes to 0;   tanh 1.93 ULP, without FMA 1.95.
 * In float64 over 10^8 samples: sigmoid 2.46 ULP for x > -708, tanh 2.1, without FMA 2.5 (limits 3). */

#define EACH UNROLL for (int i = 0; i < n; i++)
enum { MAX_ACTIVATIONS = 8 };

typedef struct { V rounded[MAX_ACTIVATIONS], f[MAX_ACTIVATIONS], q[MAX_ACTIVATIONS]; } exp_t;

/* Whether one part of ln2 is enough: a tanh is 1 but for its rounding before n has grown, so that of
 * the constant costs it less than 0.1 ULP. Without FMA the product would be rounded too. */
#ifdef HAS_FMA
#define ONE_PART(tanh) (tanh)
#else
#define ONE_PART(tanh) 0
#endif

/* The constants, where they differ first those of sigmoid, as whole vectors, so that they can be operands in
 * memory. */
#define AND_ONE(n, c) + 1
enum { TERMS = 0 EXPM1_POLY(AND_ONE) };
typedef struct {
  real most[2][L], least[2][L], to_n[2][L], round[2][L], ln2_hi[L], ln2_lo[L], ln2[L], one[L], half[L], q[TERMS][L];
} constants_t;
#define ALL(x) {[0 ... L - 1] = (x)}
#define ALL_TERMS(n, c) ALL(c),
static const constants_t constants __attribute__((aligned(VECTOR_BYTES))) = {
  {ALL(EXP_MAX), ALL(TANH_MAX)}, {ALL(-EXP_MAX), ALL(-TANH_MAX)}, {ALL(-LOG2E), ALL(2 * LOG2E)},
  {ALL(ROUND), ALL(ROUND - 1)}, ALL(LN2_HI), ALL(LN2_LO), ALL(LN2_HI + LN2_LO), ALL(1), ALL((real)0.5),
  {EXPM1_POLY(ALL_TERMS)}};

/* n (as bits; of a tanh n - 1), f and q(f) of a[i], after a limit on |x|; NaN stays NaN. */
INLINE void split_exp(int n, unsigned tanhs, const constants_t *c, const V *a, exp_t *e) {
  V x[MAX_ACTIVATIONS], minus_n[MAX_ACTIVATIONS];
  int t[MAX_ACTIVATIONS];
  EACH t[i] = tanhs >> i & 1;
  EACH x[i] = vmin(load(c->most[t[i]]), vmax(load(c->least[t[i]]), a[i]));
  EACH e->rounded[i] = vfma(x[i], load(c->to_n[t[i]]), load(c->round[t[i]]));
  EACH minus_n[i] = load(c->round[t[i]]) - e->rounded[i];
  EACH e->f[i] = vfma(minus_n[i], load(ONE_PART(t[i]) ? c->ln2 : c->ln2_hi), t[i] ? x[i] + x[i] : -x[i]);
  EACH if (!ONE_PART(t[i])) e->f[i] = vfma(minus_n[i], load(c->ln2_lo), e->f[i]);
  EACH e->q[i] = load(c->q[0]);
  UNROLL for (int j = 1; j < TERMS; j++) EACH e->q[i] = vfma(e->q[i], e->f[i], load(c->q[j]));
}

/* 2^n, of a tanh half of that */
INLINE V power_of_two(const exp_t *e, int i) { return (V)((VI)e->rounded[i] << MANTISSA); }

/* In place, tanh where the bit of `tanhs` is set, else sigmoid. */
INLINE void activate(int n, unsigned tanhs, V *a) {
  V m[MAX_ACTIVATIONS], den[MAX_ACTIVATIONS], r[MAX_ACTIVATIONS];
  const constants_t *c = &constants;
  exp_t e;
  /* With 16 registers the compiler must not know what is there: it would broadcast all constants before every
   * tile and spill them, 1 to 2.5 per cent of an LSTM's forward pass, 11 of a row at I = 1, H = 32 (AVX2, Zen 4).
   * With 32 that is the better way, by 2 to 4 per cent at I = 32, H = 64. */
  if (TILE_ROWS_4V < 6) HIDE_FROM_COMPILER(c);
  const V one = load(c->one), half = load(c->half);
  split_exp(n, tanhs, c, a, &e);
  EACH {
    const V s = power_of_two(&e, i);
    if (tanhs >> i & 1) {
      m[i] = vfma(s, vfma(e.f[i] * e.f[i], e.q[i], e.f[i]), s - half);
      den[i] = m[i] + one;
    } else {
      const V p = vfma(e.q[i], e.f[i], one);
      den[i] = vfma(vfma(e.f[i], p, one), s, one);
    }
  }
#ifdef HAS_RECIP /* 14 bits in 3 port slots, as a division, which then blocks the divider: 10 cycles, float64 16 */
  enum { NEWTON = sizeof(real) / 4 }; /* steps to all bits; the remainder spares tanh one */
  EACH r[i] = recip(den[i]);
  UNROLL for (int step = 0; step < NEWTON; step++)
    EACH if (step || !(tanhs >> i & 1)) r[i] = vfma(vfma(-den[i], r[i], one), r[i], r[i]);
#else
  EACH r[i] = one / den[i];
#endif
  /* The remainder m - t (m + 1) makes the quotient exact, whatever r and den lost. */
  EACH if (tanhs >> i & 1) {
    const V t = m[i] * r[i];
    a[i] = vfma(exact_remainder(m[i] - t, t, m[i]), r[i], t);
  } else {
    a[i] = r[i];
  }
}

INLINE V vtanh(V x) {
  activate(1, 1, &x);
  return x;
}

INLINE void apply_activation(int act, int n, V *a) {
  switch (act) {
    case RNNFAST_TANH: activate(n, ~0u, a); break;
    case RNNFAST_SIGMOID: activate(n, 0, a); break;
    case RNNFAST_RELU: EACH a[i] = vmax(splat(0), a[i]); break;
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
