/* The vector type V of reals and all that is done with it.
 *
 * GCC and clang vector extensions give + - * / and comparisons. What C cannot say is an inline function in
 * the ISA's header: fma, min, max (x86: a NaN in the second operand is the result) and, where it pays, recip
 * (an estimate), permute and masked load and store.
 * Multiply-adds are always explicit: which products are fused is part of the result's bits, and
 * the build has -ffp-contract=off so that no compiler decides it per tile. */

typedef real VU __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
typedef real_int VI __attribute__((vector_size(VECTOR_BYTES)));

INLINE V load(const real *p) { return *(const VU *)p; }
INLINE void store(real *p, V v) { *(VU *)p = v; }
/* s - 0 folds into the broadcast, s + 0 would not (-0.0). */
INLINE V splat(real s) { return s - (V){0}; }

#ifndef HAS_FMA
INLINE V vfma(V a, V b, V c) { return a * b + c; }
#endif

/* n - q d, exact but for the last rounding: without FMA from halves whose products are exact. */
INLINE V exact_remainder(V n, V q, V d) {
#ifdef HAS_FMA
  return vfma(-q, d, n);
#else
  const real_int top = -((real_int)1 << (MANTISSA + 1) / 2);
  const V q1 = (V)((VI)q & top), d1 = (V)((VI)d & top), q2 = q - q1, d2 = d - d1;
  return (n - q1 * d1 - q1 * d2 - q2 * d1) - q2 * d2;
#endif
}

INLINE V blend(VI yes, V a, V b) { return (V)((yes & (VI)a) | (~yes & (VI)b)); }

/* NaN in x passes through both. */
#ifndef HAS_MIN_MAX
INLINE V vmin(V limit, V x) { return blend(x > limit, limit, x); }
INLINE V vmax(V limit, V x) { return blend(x < limit, limit, x); }
#endif

/* The first n lanes; the others are 0 in a register and untouched in memory. */
#ifndef HAS_MASKED_LOADS
INLINE V load_first(const real *p, ptrdiff_t n) {
  V v = {0};
  for (ptrdiff_t l = 0; l < L; l++)
    if (l < n) v[l] = p[l];
  return v;
}
INLINE void store_first(real *p, V v, ptrdiff_t n) {
  for (ptrdiff_t l = 0; l < L; l++)
    if (l < n) p[l] = v[l];
}
#endif

/* The lanes that a row of `remaining` more elements has room for. */
INLINE void store_partial(real *p, V v, ptrdiff_t remaining) {
  if (remaining >= L) store(p, v);
  else store_first(p, v, remaining);
}
INLINE V load_partial(const real *p, ptrdiff_t remaining) { return remaining >= L ? load(p) : load_first(p, remaining); }

/* 0, 1, 2, ... */
INLINE VI lane_numbers(void) {
  VI lane;
  for (int l = 0; l < L; l++) lane[l] = l;
  return lane;
}
INLINE V keep_first(V v, ptrdiff_t n) { return n >= L ? v : (V)((VI)v & (lane_numbers() < (real_int)n - (VI){0})); }

/* Lanes first .. first + n of nv <= 3 vectors in a row, and behind them those of `rest` in their places. */
INLINE V select_lanes_or(const V *v, int nv, ptrdiff_t first, ptrdiff_t n, V rest) {
#ifdef HAS_PERMUTE
  const VI at = lane_numbers() + (real_int)first;
  V x = permute(v[0], at, v[nv > 1]);
  if (nv == 3) x = blend(at < 2 * L, x, permute(v[2], at, v[2]));
#else /* a detour by way of the cache */
  real t[4 * L] __attribute__((aligned(VECTOR_BYTES)));
  UNROLL for (int i = 0; i < 4; i++) store(t + i * L, i < nv ? v[i] : splat(0));
  const V x = load(t + (first < 3 * L ? first : 3 * L));
#endif
  return blend(lane_numbers() < (real_int)n, x, rest);
}
INLINE V select_lanes(const V *v, int nv, ptrdiff_t first, ptrdiff_t n) {
  return select_lanes_or(v, nv, first, n, splat(0));
}

/* Shuffles of a and b: f(lane, size, half) is which of a's and, behind them, b's lanes each lane is. ZIP takes
 * lanes of a and b in turn, from the lower or upper half of every group of `size`; PICK every other group. */
#if LANES == 16
#define LANES_OF(f, ...) f(0, __VA_ARGS__), f(1, __VA_ARGS__), f(2, __VA_ARGS__), f(3, __VA_ARGS__), \
    f(4, __VA_ARGS__), f(5, __VA_ARGS__), f(6, __VA_ARGS__), f(7, __VA_ARGS__), f(8, __VA_ARGS__), \
    f(9, __VA_ARGS__), f(10, __VA_ARGS__), f(11, __VA_ARGS__), f(12, __VA_ARGS__), f(13, __VA_ARGS__), \
    f(14, __VA_ARGS__), f(15, __VA_ARGS__)
#elif LANES == 8
#define LANES_OF(f, ...) f(0, __VA_ARGS__), f(1, __VA_ARGS__), f(2, __VA_ARGS__), f(3, __VA_ARGS__), \
    f(4, __VA_ARGS__), f(5, __VA_ARGS__), f(6, __VA_ARGS__), f(7, __VA_ARGS__)
#elif LANES == 4
#define LANES_OF(f, ...) f(0, __VA_ARGS__), f(1, __VA_ARGS__), f(2, __VA_ARGS__), f(3, __VA_ARGS__)
#else
#define LANES_OF(f, ...) f(0, __VA_ARGS__), f(1, __VA_ARGS__)
#endif
#define ZIP(l, size, half) ((l) / (size) * (size) + (l) % (size) / 2 + (half) * (size) / 2 + (l) % 2 * LANES)
#define PICK(l, size, half) ((l) + (l) / (size) * (size) + (half) * (size))
#define SHUFFLE(a, b, f, ...) __builtin_shufflevector(a, b, LANES_OF(f, __VA_ARGS__))

/* The L x L transpose. First squares as wide as the 16 bytes within which shuffles are cheap change places,
 * then lanes within each: a quarter less time than with zips of whole vectors (AVX-512, Zen 4). */
INLINE void transpose(V *a) {
  enum { W = 16 / sizeof(real) };
  V b[L];
  UNROLL for (int squares = 1; squares < L / W; squares *= 2) {
    UNROLL for (int i = 0; i < L / 2; i++) {
      const int from = i / W * 2 * W + i % W;
      b[i] = SHUFFLE(a[from], a[from + W], PICK, W, 0);
      b[i + L / 2] = SHUFFLE(a[from], a[from + W], PICK, W, 1);
    }
    UNROLL for (int i = 0; i < L; i++) a[i] = b[i];
  }
  UNROLL for (int stage = 1; stage < W; stage *= 2) {
    UNROLL for (int i = 0; i < L / 2; i++) {
      const int from = i / (W / 2) * W + i % (W / 2), to = i / (W / 2) * W + i % (W / 2) * 2;
      b[to] = SHUFFLE(a[from], a[from + W / 2], ZIP, W, 0);
      b[to + 1] = SHUFFLE(a[from], a[from + W / 2], ZIP, W, 1);
    }
    UNROLL for (int i = 0; i < L; i++) a[i] = b[i];
  }
}

/* Lane i: the sum of the lanes of a[i]. */
INLINE V add_lanes(V *a) {
  UNROLL for (int n = L / 2; n; n /= 2)
    UNROLL for (int i = 0; i < n; i++)
      a[i] = SHUFFLE(a[i], a[i + n], ZIP, L, 0) + SHUFFLE(a[i], a[i + n], ZIP, L, 1);
  return a[0];
}
