#ifdef __x86_64__
#include "../real_f64.h"
#include "avx512.h"
#define KERNELS rnnfast_avx512_f64
#include "../kernels.h"
#endif
