#ifdef __aarch64__
#include "../real_f32.h"
#include "neon.h"
#define KERNELS rnnfast_neon_f32
#include "../kernels.h"
#endif
