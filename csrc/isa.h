/* What every ISA file starts from. */
#include <string.h>

#include "names.h"
#include "rnnfast.h"

#define INLINE static inline __attribute__((always_inline))
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

/* A switch over the heights of tile that the ISA has. */
#define CASE(m, TILE, ...) case m: TILE(__VA_ARGS__, m); break;
#define CASES_2(...) CASE(1, __VA_ARGS__) CASE(2, __VA_ARGS__)
#define CASES_3(...) CASES_2(__VA_ARGS__) CASE(3, __VA_ARGS__)
#define CASES_6(...) CASES_3(__VA_ARGS__) CASE(4, __VA_ARGS__) CASE(5, __VA_ARGS__) CASE(6, __VA_ARGS__)
