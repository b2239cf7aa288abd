/* Tasks shared among OpenMP's threads, and how many threads pay.
 *
 * While other programs run, a thread may wait a time slice of the scheduler for a processor. At the end of a
 * parallel region all other threads wait for it. So every region compares the time that passed with the processor
 * time of its threads. When regions lose more by waiting than they gain by threads, calls take half the threads
 * for a while. Then they try all threads again.
 *
 * Results do not depend on the number of threads, so it may change from call to call.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <time.h>

#include "rnnfast.h"

#if RNNFAST_OPENMP
#include <omp.h>

/* In seconds, but for PAUSE. To enter and leave a region takes up to ENTRY, sleeping threads included. A pause is
 * PAUSE times as long as what was lost, so that a try in vain costs little of the whole. */
static const double ENTRY = 5e-5, PAUSE = 20, SHORTEST = 0.02, LONGEST = 0.8;
/* The balance is what lately was gained, less what was lost: at most CREDIT seconds. Each region keeps the share
 * KEPT of it. */
#define CREDIT 2e-3
static const double KEPT = 0.9;

/* Shared by all Python threads without a lock: if two change them at once, one change may be lost. */
static _Atomic int fewer;         /* threads of a call during a pause; 0: no pause */
static _Atomic double pause_end;
static _Atomic double balance = CREDIT;

static double seconds(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int rnnfast_paying_threads(int most) {
  const int limit = fewer;
  if (limit == 0 || limit >= most) return most;
  if (seconds(CLOCK_MONOTONIC) < pause_end) return limit;
  fewer = 0;
  return most;
}

/* Learn from a region that took `time`; its threads ran on the processors for `busy[threads]`. */
static void learn(int threads, const double *busy, double time) {
  const int half = threads / 2;
  double sum = 0, longest = 0;
  for (int i = 0; i < threads; i++) {
    sum += busy[i];
    if (busy[i] > longest) longest = busy[i];
  }
  const double gain = sum / half - longest, loss = time - longest - ENTRY;
  double now = KEPT * balance + (gain > 0 ? gain : 0) - (loss > 0 ? loss : 0);
  if (now < 0) {
    double pause = PAUSE * loss;
    pause = pause < SHORTEST ? SHORTEST : pause > LONGEST ? LONGEST : pause;
    pause_end = seconds(CLOCK_MONOTONIC) + pause;
    fewer = half;
    now = 0;
  }
  balance = now < CREDIT ? now : CREDIT;
}

/* What all regions together did, for tests. */
static _Atomic long regions, tasks_done, takers;

rnnfast_shared rnnfast_shared_so_far(void) { return (rnnfast_shared){regions, tasks_done, takers}; }

static int share(ptrdiff_t n, int threads, int in_turn, rnnfast_task *task, void *job) {
  double busy[RNNFAST_MAX_THREADS];
  int failed = 0;
  for (int i = 0; i < threads; i++) busy[i] = 0;
  const double start = seconds(CLOCK_MONOTONIC);
#pragma omp parallel num_threads(threads) reduction(| : failed)
  {
    const double begin = seconds(CLOCK_THREAD_CPUTIME_ID);
    long own_tasks = 0;
    if (in_turn) {
#pragma omp for schedule(static, 1) nowait
      for (ptrdiff_t i = 0; i < n; i++) failed |= task(job, i), own_tasks++;
    } else {
#pragma omp for schedule(dynamic, 1) nowait
      for (ptrdiff_t i = 0; i < n; i++) failed |= task(job, i), own_tasks++;
    }
    tasks_done += own_tasks;
    takers += own_tasks > 0;
    busy[omp_get_thread_num()] = seconds(CLOCK_THREAD_CPUTIME_ID) - begin;
  }
  regions++;
  learn(threads, busy, seconds(CLOCK_MONOTONIC) - start);
  return failed;
}
#else
int rnnfast_paying_threads(int most) {
  (void)most;
  return 1;
}
rnnfast_shared rnnfast_shared_so_far(void) { return (rnnfast_shared){0, 0, 0}; }
#endif

int rnnfast_share(ptrdiff_t n, int threads, int in_turn, rnnfast_task *task, void *job) {
#if RNNFAST_OPENMP
  if (threads > 1) return share(n, threads, in_turn, task, job);
#endif
  (void)threads, (void)in_turn;
  int failed = 0;
  for (ptrdiff_t i = 0; i < n; i++) failed |= task(job, i);
  return failed;
}
