/* sigmoid and tanh, from expm1(y):
 *   y = -x   sigmoid(x) = 1 / (1 + e^y)
 *   y = 2x   tanh(x) = m / (m + 1), m = expm1(y) / 2, which unlike 2 sigmoid(2x) - 1 is exact near 0.
 *
 * y = n ln2 + f with |f| <= ln2/2. ln2 has two parts (Cody & Waite 1980), so that f is exact. expm1(f) = f + f^2 q(f),
 * with q minimax (Remez) for the relative error: 2^-26 in float32 (degree 4), 2^-61 in float64 (degree 10). Adding
 * 1.5 * 2^mantissa + bias rounds y/ln2 to an integer and leaves n + bias in the low bits: one shift makes it the
 * float 2^n. Both functions share their constants, because two sets do not fit the registers. (M02)
 *
 * Every step is done for several vectors before the next step. One activation is a chain of dependent operations of
 * 4 cycles each. The scheduler cannot hold as many chains as fill both ports, so they are interleaved here. (M03)
 *
 * Largest errors over all 2^32 float32 inputs, with AVX2 and baseline (tests/test_accuracy.py holds them to 2.5
 * and 2):
 *   sigmoid 2.48 ULP for x > -87, below that it goes to 0;   tanh 1.93 ULP, without FMA 1.95.
 * In float64 over 10^8 samples: sigmoid 2.46 ULP for x > -708, tanh 2.1, without FMA 2.5 (limits 3). */

enum { MAX_ACTIVATIONS = 8 }; /* vectors in one call of `activate` */

/* Which of the vectors are a tanh: one bit each. The others are a sigmoid. */
enum { ALL_SIGMOID = 0, ALL_TANH = -1 };
INLINE unsigned tanh_at(int i) { return 1u << i; }

typedef struct { V rounded[MAX_ACTIVATIONS], f[MAX_ACTIVATIONS], q[MAX_ACTIVATIONS]; } exp_t;

/* Whether one part of ln2 is enough for a tanh. It is 1 but for its rounding before n has grown, so the rounding of
 * the constant costs less than 0.1 ULP. Without FMA the product would be rounded too. */
#ifdef HAS_FMA
enum { ONE_PART_FOR_TANH = 1 };
#else
enum { ONE_PART_FOR_TANH = 0 };
#endif

/* The constants, where they differ first those of sigmoid, as whole vectors, so that they can be operands in
 * memory. */
typedef struct {
  real max_x[2][L], min_x[2][L], to_n[2][L], round[2][L], ln2_hi[L], ln2_lo[L], ln2[L], one[L], half[L];
  real q[EXPM1_TERMS][L];
} constants_t;
#define ALL_LANES(x) {[0 ... L - 1] = (x)}
static const constants_t constants __attribute__((aligned(VECTOR_BYTES))) = {
  {ALL_LANES(EXP_MAX), ALL_LANES(TANH_MAX)},
  {ALL_LANES(-EXP_MAX), ALL_LANES(-TANH_MAX)},
  {ALL_LANES(-LOG2E), ALL_LANES(2 * LOG2E)},
  {ALL_LANES(ROUND), ALL_LANES(ROUND - 1)},
  ALL_LANES(LN2_HI), ALL_LANES(LN2_LO), ALL_LANES(LN2_HI + LN2_LO), ALL_LANES(1), ALL_LANES((real)0.5),
  EXPM1_POLY};

/* n (as bits; of a tanh n - 1), f and q(f) of a[i], after a limit on |x|. NaN stays NaN. */
INLINE void split_exp(int n, unsigned tanhs, const constants_t *c, const V *a, exp_t *e) {
  V x[MAX_ACTIVATIONS], minus_n[MAX_ACTIVATIONS];
  int t[MAX_ACTIVATIONS];
  UNROLL for (int i = 0; i < n; i++) t[i] = tanhs >> i & 1;
  UNROLL for (int i = 0; i < n; i++) x[i] = vmin(load(c->max_x[t[i]]), vmax(load(c->min_x[t[i]]), a[i]));
  UNROLL for (int i = 0; i < n; i++) e->rounded[i] = vfma(x[i], load(c->to_n[t[i]]), load(c->round[t[i]]));
  UNROLL for (int i = 0; i < n; i++) minus_n[i] = load(c->round[t[i]]) - e->rounded[i];
  UNROLL for (int i = 0; i < n; i++) {
    const real *ln2 = t[i] && ONE_PART_FOR_TANH ? c->ln2 : c->ln2_hi;
    e->f[i] = vfma(minus_n[i], load(ln2), t[i] ? x[i] + x[i] : -x[i]);
  }
  UNROLL for (int i = 0; i < n; i++)
    if (!t[i] || !ONE_PART_FOR_TANH) e->f[i] = vfma(minus_n[i], load(c->ln2_lo), e->f[i]);
  UNROLL for (int i = 0; i < n; i++) e->q[i] = load(c->q[0]);
  UNROLL for (int j = 1; j < EXPM1_TERMS; j++)
    UNROLL for (int i = 0; i < n; i++) e->q[i] = vfma(e->q[i], e->f[i], load(c->q[j]));
}

/* 2^n, of a tanh half of that. */
INLINE V power_of_two(const exp_t *e, int i) { return (V)((VI)e->rounded[i] << MANTISSA); }

/* 1 / den, for a sigmoid to all bits. A tanh has one step less, because its remainder comes later. */
INLINE void reciprocals(int n, unsigned tanhs, const V *den, V one, V *r) {
#ifdef HAS_RECIP /* 14 bits at first; a division would block the divider for longer than these steps take */
  enum { NEWTON_STEPS = sizeof(real) / 4 };
  UNROLL for (int i = 0; i < n; i++) r[i] = recip(den[i]);
  UNROLL for (int step = 0; step < NEWTON_STEPS; step++)
    UNROLL for (int i = 0; i < n; i++)
      if (step || !(tanhs >> i & 1)) r[i] = vfma(vfma(-den[i], r[i], one), r[i], r[i]);
#else
  (void)tanhs;
  UNROLL for (int i = 0; i < n; i++) r[i] = one / den[i];
#endif
}

/* Activate n vectors in place. */
INLINE void activate(int n, unsigned tanhs, V *a) {
  V m[MAX_ACTIVATIONS], den[MAX_ACTIVATIONS], r[MAX_ACTIVATIONS];
  const constants_t *c = &constants;
  exp_t e;
  /* With 16 registers the compiler must not know the constants: it would broadcast all of them before every tile
   * and spill them. With 32 registers that is the better way. (M04) */
  if (VECTOR_REGISTERS == 16) HIDE_FROM_COMPILER(c);
  const V one = load(c->one), half = load(c->half);
  split_exp(n, tanhs, c, a, &e);
  UNROLL for (int i = 0; i < n; i++) {
    const V s = power_of_two(&e, i);
    if (tanhs >> i & 1) {
      m[i] = vfma(s, vfma(e.f[i] * e.f[i], e.q[i], e.f[i]), s - half);
      den[i] = m[i] + one;
    } else {
      const V p = vfma(e.q[i], e.f[i], one);
      den[i] = vfma(vfma(e.f[i], p, one), s, one);
    }
  }
  reciprocals(n, tanhs, den, one, r);
  /* The remainder m - t (m + 1) makes the quotient exact, whatever r and den lost. */
  UNROLL for (int i = 0; i < n; i++)
    if (tanhs >> i & 1) {
      const V t = m[i] * r[i];
      a[i] = vfma(exact_remainder(m[i] - t, t, m[i]), r[i], t);
    } else {
      a[i] = r[i];
    }
}

/* e^x of n <= 4 vectors in place. 2^n comes in two factors, so that it is right from the smallest numbers up to the
 * largest, infinity included. */
INLINE void vexp(int n, V *a) {
  const constants_t *c = &constants;
  V rounded[4], f[4], q[4];
  UNROLL for (int i = 0; i < n; i++) a[i] = vmin(splat(EXP_RANGE), vmax(splat(-EXP_RANGE), a[i]));
  UNROLL for (int i = 0; i < n; i++) rounded[i] = vfma(a[i], splat(LOG2E), splat(ROUND));
  UNROLL for (int i = 0; i < n; i++) {
    const V minus_n = splat(ROUND) - rounded[i];
    f[i] = vfma(minus_n, load(c->ln2_lo), vfma(minus_n, load(c->ln2_hi), a[i]));
    q[i] = load(c->q[0]);
  }
  UNROLL for (int j = 1; j < EXPM1_TERMS; j++)
    UNROLL for (int i = 0; i < n; i++) q[i] = vfma(q[i], f[i], load(c->q[j]));
  UNROLL for (int i = 0; i < n; i++) {
    const VI power = (VI)rounded[i] - (VI)splat(ROUND), half = power >> 1;
    const V first = (V)((half + EXP_BIAS) << MANTISSA), second = (V)((power - half + EXP_BIAS) << MANTISSA);
    const V e = vfma(f[i], vfma(q[i], f[i], splat(1)), splat(1)) * first * second;
    a[i] = blend(a[i] != a[i], a[i], e);
  }
}

INLINE V vtanh(V x) {
  activate(1, ALL_TANH, &x);
  return x;
}

/* In place: h = act(a) for n vectors. */
INLINE void apply_activation(int act, int n, V *a) {
  switch (act) {
    case RNNFAST_TANH: activate(n, ALL_TANH, a); break;
    case RNNFAST_SIGMOID: activate(n, ALL_SIGMOID, a); break;
    case RNNFAST_RELU:
      UNROLL for (int i = 0; i < n; i++) a[i] = vmax(splat(0), a[i]);
      break;
  }
}

/* dh times the derivative of the activation, given h = act(a). */
INLINE V activation_gradient(int act, V h, V dh) {
  switch (act) {
    case RNNFAST_TANH: return vfma(-h * h, dh, dh);
    case RNNFAST_RELU: return (V)((VI)dh & (h > splat(0)));
    case RNNFAST_SIGMOID: return dh * (h - h * h);
    default: return dh;
  }
}
