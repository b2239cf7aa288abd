#ifdef __aarch64__
#include "../real_f64.h"
#include "neon.h"
#define KERNELS rnnfast_neon_f64
#include "../kernels.h"
#endif
