/* The processor's treatment of subnormal numbers, which a kernel sets for its own thread and restores. Inline, because
 * a step of a small stream takes only some 200 ns. */
#ifndef RNNFAST_FLOAT_STATE_H
#define RNNFAST_FLOAT_STATE_H

#ifdef __x86_64__
#include <xmmintrin.h>
#endif

/* Subnormals count as zero in this thread from `enter` to `leave`. */
static inline unsigned long rnnfast_flush_enter(void) {
  unsigned long state = 0;
#if defined(__x86_64__)
  state = _mm_getcsr();
  _mm_setcsr((unsigned)state | 0x8040u); /* FTZ | DAZ */
#elif defined(__aarch64__)
  __asm__ volatile("mrs %0, fpcr" : "=r"(state));
  __asm__ volatile("msr fpcr, %0" : : "r"(state | 1ul << 24));
#endif
  return state;
}

static inline void rnnfast_flush_leave(unsigned long state) {
#if defined(__x86_64__)
  _mm_setcsr((unsigned)state);
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" : : "r"(state));
#else
  (void)state;
#endif
}

#endif
