/* The vector type V of reals, and what is done with it.
 *
 * GCC and clang vector extensions give + - * / and comparisons. What C cannot say is an inline function in the
 * header of the instruction set: vfma, vmin, vmax (x86: a NaN in the second operand is the result) and, where it
 * pays, recip (an estimate), permute, load_first and store_first. Multiply-adds are always explicit. Which products
 * are fused is part of the result's bits, so the build has -ffp-contract=off: no compiler decides it. */
#include "isa/shuffle.h"

enum { L = VECTOR_BYTES / sizeof(real) }; /* lanes of a vector */

typedef real_int VI __attribute__((vector_size(VECTOR_BYTES)));
typedef real unaligned_V __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));

INLINE V load(const real *p) { return *(const unaligned_V *)p; }
INLINE void store(real *p, V v) { *(unaligned_V *)p = v; }
/* s - 0 folds into the broadcast. s + 0 would not, because of -0.0. */
INLINE V splat(real s) { return s - (V){0}; }

INLINE V blend(VI mask, V a, V b) { return (V)((mask & (VI)a) | (~mask & (VI)b)); }

#ifndef HAS_FMA
INLINE V vfma(V a, V b, V c) { return a * b + c; }
#endif

/* n - q d, exact but for the last rounding. Without FMA it comes from halves whose products are exact. */
INLINE V exact_remainder(V n, V q, V d) {
#ifdef HAS_FMA
  return vfma(-q, d, n);
#else
  const real_int top = -((real_int)1 << (MANTISSA + 1) / 2);
  const V q1 = (V)((VI)q & top), d1 = (V)((VI)d & top), q2 = q - q1, d2 = d - d1;
  return (n - q1 * d1 - q1 * d2 - q2 * d1) - q2 * d2;
#endif
}

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

/* A vector, or as many lanes as a row of n more elements has. */
INLINE V load_partial(const real *p, ptrdiff_t n) { return n >= L ? load(p) : load_first(p, n); }
INLINE void store_partial(real *p, V v, ptrdiff_t n) {
  if (n >= L) store(p, v);
  else store_first(p, v, n);
}

/* 0, 1, 2, ... */
INLINE VI lane_numbers(void) {
  VI lane;
  for (int l = 0; l < L; l++) lane[l] = l;
  return lane;
}

/* v with zeros behind the first n lanes. */
INLINE V keep_first(V v, ptrdiff_t n) { return n >= L ? v : (V)((VI)v & (lane_numbers() < (real_int)n - (VI){0})); }

/* Lanes first .. first + n of nv <= 3 vectors in a row, and behind them the lanes of `rest` in their places. */
INLINE V select_lanes_or(const V *v, int nv, ptrdiff_t first, ptrdiff_t n, V rest) {
#ifdef HAS_PERMUTE
  const VI source = lane_numbers() + (real_int)first;
  V x = permute(v[0], source, v[nv > 1]);
  if (nv == 3) x = blend(source < 2 * L, x, permute(v[2], source, v[2]));
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

/* The L x L transpose. First squares as wide as the 16 bytes within which shuffles are cheap change places, then
 * lanes within each. Zips of whole vectors would be slower. (M01) */
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
