/* What every ISA file starts from. */
#include <string.h>

#include "names.h"
#include "rnnfast.h"

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define UNROLL_4 _Pragma("clang loop unroll_count(4)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#define UNROLL_4 _Pragma("GCC unroll 4")
#endif
/* The compiler must keep x in a register and not know its value. */
#if defined(__x86_64__)
#define OPAQUE(x) __asm__ volatile("" : "+v"(x))
#elif defined(__aarch64__)
#define OPAQUE(x) __asm__ volatile("" : "+w"(x))
#else
#define OPAQUE(x) __asm__ volatile("" : "+m"(x))
#endif

#define L ((int)(VBYTES / sizeof(REAL)))

/* Cases of a switch over the heights of tile. An ISA file defines MR, MR_3 and MR_2, the rows of the tallest
 * tile 4, 3 and up to 2 vectors wide, and the cases of each. MR_2 is at least 4, a group of activations. */
#define CASE(m, TILE, ...) case m: TILE(__VA_ARGS__, m); break;
#define CASES_2(...) CASE(1, __VA_ARGS__) CASE(2, __VA_ARGS__)
#define CASES_3(...) CASES_2(__VA_ARGS__) CASE(3, __VA_ARGS__)
#define CASES_4(...) CASES_3(__VA_ARGS__) CASE(4, __VA_ARGS__)
#define CASES_6(...) CASES_4(__VA_ARGS__) CASE(5, __VA_ARGS__) CASE(6, __VA_ARGS__)
#define CASES_8(...) CASES_6(__VA_ARGS__) CASE(7, __VA_ARGS__) CASE(8, __VA_ARGS__)
#define CASES_12(...)                                                                     \
  CASES_8(__VA_ARGS__) CASE(9, __VA_ARGS__) CASE(10, __VA_ARGS__) CASE(11, __VA_ARGS__) \
  CASE(12, __VA_ARGS__)
