/* Memory of the kernels: scratch, packed weights, tapes and large results. Some free blocks are kept for the next call.
 *
 * A training step frees everything it took. malloc would give the pages back to the system, and the next step would wait
 * until each is mapped and cleared again. (M35) Small blocks are kept too: an aligned block costs malloc some 600
 * instructions.
 *
 * At most PLACES blocks are kept, those freed last. They have KEPT bytes together, or more: up to MOST, as long as they
 * and what is in use are at most a quarter more than was lately in use at once. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "rnnfast.h"

enum { HEADER = 64, PLACES = 64 };
/* AddressSanitizer knows where a block of malloc ends and that it was freed. For it none is kept, and the rest of the
 * header counts as outside. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
enum { KEEPS = 0 };
#else
enum { KEEPS = 1 };
#endif
static const size_t HUGE = (size_t)2 << 20, KEPT = (size_t)128 << 20, MOST = (size_t)1 << 30;

/* Before every block. */
typedef struct { size_t size; } header;

static void guard(header *h) {
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(h + 1, HEADER - sizeof *h);
#else
  (void)h;
#endif
}

/* The kept blocks, oldest first. Two threads often come at once. Going to malloc instead of waiting would cost one of
 * them new pages. (M36) But a thread that finds the lock taken all the time does without: a fork may have left it so. */
static atomic_flag lock = ATOMIC_FLAG_INIT;
static struct { header *block; size_t size; } place[PLACES];
static int places;
static size_t kept;
/* Bytes in use with their headers, and the most there were before a free, which fades with every free. */
static atomic_size_t used;
static size_t peak;
/* For tests: the allocation that fails, counted from now on; 0 or less: none. */
static atomic_long refused;

static int try_lock(void) {
  int tries = 200;
  while (tries && atomic_flag_test_and_set_explicit(&lock, memory_order_acquire)) tries--;
  return tries > 0;
}
static void unlock(void) { atomic_flag_clear_explicit(&lock, memory_order_release); }

static header *remove_block(int i) {
  header *h = place[i].block;
  memmove(place + i, place + i + 1, (size_t)(--places - i) * sizeof *place);
  kept -= h->size;
  return h;
}

/* The smallest kept block of `size` to `most` bytes; NULL if there is none. */
static header *reuse(size_t size, size_t most) {
  int best = -1;
  if (!try_lock()) return NULL;
  for (int i = 0; i < places; i++)
    if (place[i].size >= size && place[i].size <= most && (best < 0 || place[i].size < place[best].size))
      best = i;
  header *h = best < 0 ? NULL : remove_block(best);
  unlock();
  return h;
}

static header *new_block(size_t size) {
  void *block;
  if (posix_memalign(&block, size >= 2 * HUGE ? HUGE : 64, HEADER + size)) return NULL;
#ifdef MADV_HUGEPAGE
  if (size >= 2 * HUGE) madvise(block, HEADER + size, MADV_HUGEPAGE);
#endif
  header *h = block;
  h->size = size;
  guard(h);
  return h;
}

static void *alloc(size_t bytes, size_t most) {
  if (atomic_load_explicit(&refused, memory_order_relaxed) > 0 && atomic_fetch_sub(&refused, 1) == 1) return NULL;
  header *h = reuse(bytes, most);
  if (!h) h = new_block(bytes);
  if (!h) return NULL;
  atomic_fetch_add_explicit(&used, HEADER + h->size, memory_order_relaxed);
  return (char *)h + HEADER;
}

void *rnnfast_alloc(size_t bytes) { return alloc(bytes, 2 * bytes); }
void *rnnfast_alloc_result(size_t bytes) { return alloc(bytes, bytes + bytes / 4); }

/* How much may be kept beside `still` bytes in use. */
static size_t room(size_t still) {
  const size_t most = peak + peak / 4 < MOST ? peak + peak / 4 : MOST;
  return most > still + KEPT ? most - still : KEPT;
}

void rnnfast_free(void *block) {
  if (!block) return;
  header *old[PLACES], *h = (header *)((char *)block - HEADER);
  const size_t before = atomic_fetch_sub_explicit(&used, HEADER + h->size, memory_order_relaxed);
  int n = 0;
  if (KEEPS && try_lock()) {
    peak = before > peak ? before : peak - peak / 1024;
    const size_t most = room(before - HEADER - h->size);
    if (h->size <= most) {
      while (places == PLACES || kept + h->size > most) old[n++] = remove_block(0);
      place[places].block = h, place[places++].size = h->size;
      kept += h->size;
      h = NULL;
    }
    unlock();
  }
  free(h);
  while (n) free(old[--n]);
}

rnnfast_memory rnnfast_memory_now(void) { return (rnnfast_memory){used, kept, places}; }
long rnnfast_memory_refuse(long n) { return atomic_exchange(&refused, n); }
void rnnfast_memory_hold(int hold) {
  if (!hold) unlock();
  else while (!try_lock()) {}
}
