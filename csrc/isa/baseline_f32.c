#include "../real_f32.h"
#include "baseline.h"
#define KERNELS rnnfast_baseline_f32
#include "../kernels.h"
