#ifdef __x86_64__
#include "../real_f32.h"
#include "avx512.h"
#define KERNELS rnnfast_avx512_f32
#include "../kernels.h"
#endif
