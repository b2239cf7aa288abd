/* What the kernels ask of the compiler (gcc or clang) beyond C. */
#ifndef COMPILER_H
#define COMPILER_H

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define UNROLL_4 _Pragma("clang loop unroll_count(4)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#define UNROLL_4 _Pragma("GCC unroll 4")
#endif
/* Stands before a call whose arguments are constants, one of several to the same function. Clang would merge such calls
 * into one. Its arguments would be variables then, and the loops in the function could not be unrolled. */
#ifdef __clang__
#define NOT_MERGED __attribute__((nomerge))
#else
#define NOT_MERGED
#endif
/* The compiler must keep x in a vector register and not know its value. */
#if defined(__x86_64__)
#define IN_VECTOR_REGISTER "+v"
#elif defined(__aarch64__)
#define IN_VECTOR_REGISTER "+w"
#else
#define IN_VECTOR_REGISTER "+m"
#endif
#define OPAQUE(x) __asm__ volatile("" : IN_VECTOR_REGISTER(x))

/* The compiler must not know the value of p, a pointer that moves from row to row. It would compute the addresses of all
 * rows beforehand, for which there are not registers enough. */
#define HIDE_FROM_COMPILER(p) ({ __asm__("" : "+r"(p)); })

#endif
