#include "../real_f64.h"
#include "baseline.h"
#define KERNELS rnnfast_baseline_f64
#include "../kernels.h"
