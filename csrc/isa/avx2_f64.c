#ifdef __x86_64__
#include "../real_f64.h"
#include "avx2.h"
#define KERNELS rnnfast_avx2_f64
#include "../kernels.h"
#endif
