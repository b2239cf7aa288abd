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

/* The compiler must not know that of p either, a pointer that moves from row to row: it would work out where all
 * rows are beforehand, for which there are not registers enough. */
#define FORGET(p) ({ __asm__("" : "+r"(p)); })

#define L ((int)(VBYTES / sizeof(REAL)))

/* F(m, ...) for every m from 1 on. An ISA file defines MR, MR_3 and MR_2, the rows of the tallest tile 4, 3 and up
 * to 2 vectors wide, and UP_TO_MR and so on for each. MR_2 is at least 4, a group of activations. */
#define UP_TO_2(F, ...) F(1, __VA_ARGS__) F(2, __VA_ARGS__)
#define UP_TO_3(F, ...) UP_TO_2(F, __VA_ARGS__) F(3, __VA_ARGS__)
#define UP_TO_4(F, ...) UP_TO_3(F, __VA_ARGS__) F(4, __VA_ARGS__)
#define UP_TO_6(F, ...) UP_TO_4(F, __VA_ARGS__) F(5, __VA_ARGS__) F(6, __VA_ARGS__)
#define UP_TO_8(F, ...) UP_TO_6(F, __VA_ARGS__) F(7, __VA_ARGS__) F(8, __VA_ARGS__)
#define UP_TO_12(F, ...)                                                                        \
  UP_TO_8(F, __VA_ARGS__) F(9, __VA_ARGS__) F(10, __VA_ARGS__) F(11, __VA_ARGS__) F(12, __VA_ARGS__)

/* A case of a switch over them. */
#define CASE(m, F, ...) case m: F(__VA_ARGS__, m); break;
