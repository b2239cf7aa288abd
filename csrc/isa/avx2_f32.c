#ifdef __x86_64__
#include "../real_f32.h"
#include "avx2.h"
#define KERNELS rnnfast_avx2_f32
#include "../kernels.h"
#endif
