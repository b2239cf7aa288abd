/* The constants of the precision in use; kernels.inc includes this once with DOUBLE 0, once with 1.
 * ROUND is 1.5 * 2^MANTISSA + the exponent bias. */
#undef REAL
#undef INT
#undef SUFFIX
#undef LANES
#undef MANTISSA
#undef ROUND
#undef LN2_HI
#undef LN2_LO
#undef EXP_MAX
#undef TANH_MAX
#undef EXPM1_POLY
#undef LOG2E
#undef FMA
#undef MIN
#undef MAX
#undef RECIP
#undef PERMUTE
#undef LOAD_N
#undef STORE_N


#if !DOUBLE
#define REAL float
#define INT int32_t
#define SUFFIX f32
#define LANES (VBYTES / 4)
#ifdef FMA_f32
#define FMA FMA_f32
#endif
#ifdef MIN_f32
#define MIN MIN_f32
#define MAX MAX_f32
#endif
#ifdef RECIP_f32
#define RECIP RECIP_f32
#endif
#ifdef PERMUTE_f32
#define PERMUTE PERMUTE_f32
#endif
#ifdef LOAD_N_f32
#define LOAD_N LOAD_N_f32
#define STORE_N STORE_N_f32
#endif
#define MANTISSA 23
#define ROUND 12583039.0f
#define LN2_HI 0.693359375f
#define LN2_LO -2.12194440054690583e-4f
#define EXP_MAX 87.0f
#define TANH_MAX 10.0f
#define LOG2E 1.4426950408889634074f
#define EXPM1_POLY(TERM) \
  TERM(5, 1.38825152e-3f) TERM(4, 8.36654712e-3f) TERM(3, 4.16672007e-2f) TERM(2, 1.66665434e-1f) \
  TERM(1, 4.99999981e-1f)
#else
#define REAL double
#define INT int64_t
#define SUFFIX f64
#define LANES (VBYTES / 8)
#ifdef FMA_f64
#define FMA FMA_f64
#endif
#ifdef RECIP_f64
#define RECIP RECIP_f64
#endif
#ifdef MIN_f64
#define MIN MIN_f64
#define MAX MAX_f64
#endif
#ifdef PERMUTE_f64
#define PERMUTE PERMUTE_f64
#endif
#ifdef LOAD_N_f64
#define LOAD_N LOAD_N_f64
#define STORE_N STORE_N_f64
#endif
#define MANTISSA 52
#define ROUND 6755399441056767.0
#define LN2_HI 6.93145751953125e-1
#define LN2_LO 1.42860682030941723212e-6
#define EXP_MAX 708.0
#define TANH_MAX 20.0
#define LOG2E 1.4426950408889634074
#define EXPM1_POLY(TERM) \
  TERM(11, 2.0875321791412024948e-9) TERM(10, 2.5109024307166103145e-8) TERM(9, 2.7557402797393250847e-7) \
  TERM(8, 2.7557244254638500161e-6) TERM(7, 2.4801587172206216784e-5) TERM(6, 1.9841269886073012692e-4) \
  TERM(5, 1.3888888888962616281e-3) TERM(4, 8.3333333333216543387e-3) TERM(3, 4.1666666666666508132e-2) \
  TERM(2, 1.6666666666666676547e-1) TERM(1, 0.50000000000000000085)
#endif
