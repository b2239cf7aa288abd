/* Kernels for float64: the type, its layout and the constants of expm1 (vmath.h). */
#include <math.h>
#include <string.h>

#include "compiler.h"
#include "rnnfast.h"

typedef double real;
typedef int64_t real_int;
#define REAL_BYTES 8

#define MANTISSA 52
#define ROUND 6755399441056767.0 /* 1.5 * 2^MANTISSA + the exponent bias */
#define LN2_HI 6.93145751953125e-1
#define LN2_LO 1.42860682030941723212e-6
#define EXP_MAX 708.0
#define TANH_MAX 20.0
#define LOG2E 1.4426950408889634074
#define EXP_BIAS 1023
#define EXP_RANGE 746.0 /* e^x is 0 below that, and infinite above */
enum { EXPM1_TERMS = 11 };
INLINE real real_sqrt(real x) { return __builtin_sqrt(x); }
INLINE real real_log(real x) { return log(x); }
INLINE real real_log1p(real x) { return log1p(x); }

/* Coefficients of q, that of the highest power first; L lanes each (vmath.h). */
#define EXPM1_POLY                                                                                     \
  {ALL_LANES(2.0875321791412024948e-9), ALL_LANES(2.5109024307166103145e-8), ALL_LANES(2.7557402797393250847e-7), \
   ALL_LANES(2.7557244254638500161e-6), ALL_LANES(2.4801587172206216784e-5), ALL_LANES(1.9841269886073012692e-4), \
   ALL_LANES(1.3888888888962616281e-3), ALL_LANES(8.3333333333216543387e-3), ALL_LANES(4.1666666666666508132e-2), \
   ALL_LANES(1.6666666666666676547e-1), ALL_LANES(0.50000000000000000085)}
