/* Kernels for float32: the type, its layout and the constants of expm1 (vmath.h). */
#include <math.h>
#include <string.h>

#include "compiler.h"
#include "rnnfast.h"

typedef float real;
typedef int32_t real_int;
#define REAL_BYTES 4

#define MANTISSA 23
#define ROUND 12583039.0f /* 1.5 * 2^MANTISSA + the exponent bias */
#define LN2_HI 0.693359375f
#define LN2_LO -2.12194440054690583e-4f
#define EXP_MAX 87.0f
#define TANH_MAX 10.0f
#define LOG2E 1.4426950408889634074f
#define EXP_BIAS 127
#define EXP_RANGE 104.0f /* e^x is 0 below that, and infinite above */
enum { EXPM1_TERMS = 5 };
INLINE real real_sqrt(real x) { return __builtin_sqrtf(x); }
INLINE real real_log(real x) { return logf(x); }
INLINE real real_log1p(real x) { return log1pf(x); }

/* Coefficients of q, that of the highest power first; L lanes each (vmath.h). */
#define EXPM1_POLY                                                               \
  {ALL_LANES(1.38825152e-3f), ALL_LANES(8.36654712e-3f), ALL_LANES(4.16672007e-2f), \
   ALL_LANES(1.66665434e-1f), ALL_LANES(4.99999981e-1f)}
