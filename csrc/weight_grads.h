/* Weight gradients, C = dz^T B summed over all K = T*B rows, in blocks of KB rows. With 16 registers tiles are
 * small and read a panel of B twice as often, so it had better fit the first cache: 192 rows take 2 to 5 per cent less
 * time than 256 at H = 128 (AVX2, Zen 4).
 *
 * A row of dz and a row of B are contiguous along the outputs, so nothing is transposed: the tile
 * broadcasts dz and reads B in vectors. Both are copied first, because dz rows lie 4 or 8 KiB apart
 * and would share a few cache sets: B as [4 vectors][k], dz as [k][4 vectors]. Short rows of B are read
 * where they are. Work is split by panels of dz, i.e. by rows of C, so the sums do not depend on the
 * number of threads. */

enum { KB = TILE_ROWS_4V < 6 ? 192 : 256 };

static size_t wgrad_scratch(const rnnfast_wgrad *g) {
  size_t reals = (KB * 4 + 1) * L;
  for (int i = 0; i < g->terms; i++) reals += KB * vectors_for(g->term[i].n) * L;
  return reals;
}

/* b[k0 .. k0 + kb] as panels of 4 vectors, read in the order of memory. */
static real *wgrad_pack(real *to, const rnnfast_term *t, ptrdiff_t k0, ptrdiff_t kb) {
  const ptrdiff_t vectors = vectors_for(t->n);
  for (ptrdiff_t k = 0; k < kb; k++) {
    const real *b = (const real *)t->b + (t->row_index ? t->row_index[k0 + k] : k0 + k) * t->b_stride;
    for (ptrdiff_t q = 0; q < vectors; q += 4) {
      const ptrdiff_t nv = vectors - q < 4 ? vectors - q : 4, remaining = t->n - q * L;
      const real *from = b + q * t->vec_stride;
      real *row = to + (q * kb + k * nv) * L;
      if (remaining >= 4 * L)
        UNROLL for (int v = 0; v < 4; v++) store(row + v * L, load(from + v * t->vec_stride));
      else
        for (ptrdiff_t v = 0; v < nv; v++) store(row + v * L, load_partial(from + v * t->vec_stride, remaining - v * L));
    }
  }
  return to + vectors * kb * L;
}

/* n vectors of dz, `step` apart, and their sums over k. With less than L units to a slot they get closer than
 * L: each overwrites the padding of the one before, the last one's is room behind the block. Side by side the
 * sums are n chains: one after the other they would wait for each addition, up to 4 per cent of the whole. */
INLINE void wgrad_dz(real *to, ptrdiff_t slot_stride, const real *dz, ptrdiff_t dz_stride, ptrdiff_t step, ptrdiff_t kb,
                     real *bias, int first, int n) {
  V sum[4];
  EACH sum[i] = first || !bias ? splat(0) : load(bias + i * L);
  for (ptrdiff_t k = 0; k < kb; k++, dz += dz_stride)
    EACH {
      const V d = load(dz + i * step);
      store(to, d), sum[i] += d, to += slot_stride;
    }
  if (bias) EACH store(bias + i * L, sum[i]);
}

/* Whether tiles read b's rows where they are: whole vectors, near each other. Up to 512 bytes apart it takes 0
 * to 15 per cent less time, the more the fewer outputs share a copy; from 1 KiB on, up to 17 per cent more.
 *
 * NumPy's arrays begin at any 16 bytes. The small tiles of 16 registers have no loads to spare for vectors that
 * cross a line: with such an x a backward pass at I = H = 128 takes 12 per cent more time, that of a copy 2; with
 * 32 registers it makes no difference (Zen 4). */
static int reads_in_place(const rnnfast_term *t) {
  const int aligned = TILE_ROWS_4V >= 6 || (uintptr_t)t->b % VECTOR_BYTES == 0;
  return aligned && !t->row_index && t->vec_stride == L && t->n % L == 0 && t->b_stride * (ptrdiff_t)sizeof(real) <= 512;
}

/* Rows, `slot_stride` bytes from each other, of which 4 vectors are to be fetched; `at` NULL: none. */
typedef struct { const char *at; ptrdiff_t stride; } prefetch_rows_t;

INLINE prefetch_rows_t prefetch_rows(const real *at, ptrdiff_t stride) {
  return (prefetch_rows_t){(const char *)at, stride * (ptrdiff_t)sizeof(real)};
}

/* What the tiles of one panel of b have in common: kb rows of a, lda apart, and of b, ldb apart. Row m of C
 * begins at row[m], the panel at column j, with `columns` columns left. */
typedef struct {
  const real *a, *b;
  ptrdiff_t a_stride, b_stride, kb, j, columns;
  real *const *row;
  int first;
  prefetch_rows_t next[2];                    /* of b and of dz */
} outputs_t;

/* Columns r .. r + mr of a x nv vectors of b. Fetched meanwhile: the rows of C for the next tile, which have
 * been out of the near caches since the last block of k (3 per cent of the time at H = 512, 6 at 1,024), and a
 * line of each row that is copied next: 4 tiles those of b (up to 2 per cent, Zen 4), 4 those of dz (8). */
INLINE void wgrad_tile(const outputs_t *o, int nv, ptrdiff_t r, int mr) {
  real *const *row = o->row + r;
  const ptrdiff_t j = o->j;
  V acc[2 * TILE_ROWS_2V];
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < nv; v++)
      acc[m * nv + v] = o->first ? splat(0) : load_partial(row[m] + j + v * L, o->columns - v * L);
  if (!o->first)
    UNROLL for (int m = 0; m < mr; m++)
      UNROLL for (int v = 0; v < nv; v++) __builtin_prefetch(row[mr + m] + j + v * L, 1);
  const real *a[TILE_ROWS_2V];
  UNROLL for (int m = 0; m < mr; m++) a[m] = o->a + r + m;
  const ptrdiff_t i = r / tile_rows_for(nv), line = i % 4 * 64;
  const prefetch_rows_t next = i < 8 && line < 4 * VECTOR_BYTES ? o->next[i / 4] : (prefetch_rows_t){0};
  if (next.at) tile_fma(mr, nv, acc, a, o->a_stride, o->kb, o->b, o->b_stride, 1, (prefetch_t){next.at + line, next.stride, 0});
  else tile_fma(mr, nv, acc, a, o->a_stride, o->kb, o->b, o->b_stride, 0, (prefetch_t){0});
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < nv; v++)
      store_partial(row[m] + j + v * L, acc[m * nv + v], o->columns - v * L);
}

#define DEFINE_WGRAD_TILE(mr, nv)                                                        \
  static NOINLINE void wgrad_##nv##_##mr(const outputs_t *o, ptrdiff_t r) {     \
    wgrad_tile(o, nv, r, mr);                                                      \
  }
#define WGRAD_TILE_AT(mr, nv) [nv][mr] = wgrad_##nv##_##mr,
TILE_SIZES(DEFINE_WGRAD_TILE)
static void (*const wgrad_functions[5][TILE_ROWS_2V + 1])(const outputs_t *, ptrdiff_t) = {TILE_SIZES(WGRAD_TILE_AT)};

INLINE void wgrad_tiles(const outputs_t *o, int nv, ptrdiff_t r, int mr) { wgrad_functions[nv][mr](o, r); }

/* The last n columns, less than a vector, of `rows` rows of C: in vectors of dz, a tile's rows are the columns.
 * It is the same sum. At I = 1 an LSTM's term of x would take 16 times as many FMAs the other way. */
static NOINLINE void wgrad_transposed(const outputs_t *o, ptrdiff_t rows, int n) {
  const int nv = (int)vectors_for(rows);
  const ptrdiff_t stride = nv * L;
  real t[L * 4 * L] __attribute__((aligned(VECTOR_BYTES))), *row[L + TILE_ROWS_2V];
  V a[L];
  for (int m = 0; m < L + TILE_ROWS_2V; m++) row[m] = t + m % L * stride;
  for (ptrdiff_t r = 0; !o->first && r < rows; r += L) {
    const real *c[L];
    for (int l = 0; l < L; l++) c[l] = r + l < rows ? o->row[r + l] : NULL;
    load_square(a, c, o->j, n);
    UNROLL for (int m = 0; m < L; m++) store(row[m] + r, a[m]);
  }
  const outputs_t of = {.a = o->b, .b = o->a, .a_stride = o->b_stride, .b_stride = o->a_stride, .kb = o->kb, .columns = stride,
                        .row = row, .first = o->first};
  FOR_TILES(n, tile_rows_for(nv), wgrad_tiles, &of, nv)
  for (ptrdiff_t r = 0; r < rows; r += L) {
    UNROLL for (int m = 0; m < L; m++) a[m] = m < n ? load(row[m] + r) : splat(0);
    transpose(a);
    for (ptrdiff_t l = 0; l < L && r + l < rows; l++) store_first(o->row[r + l] + o->j, a[l], n);
  }
}

/* One term, `units` units from u0 on, one block of k; `next_b` and `next_dz` are copied after it. */
static void wgrad_block(const rnnfast_wgrad *g, const rnnfast_term *t, const real *dz, ptrdiff_t a_stride,
                        const real *b, ptrdiff_t kb, ptrdiff_t u0, ptrdiff_t units, int first,
                        const real *next_b, prefetch_rows_t next_dz) {
  const ptrdiff_t rows = t->slots * units;
  const int in_place = reads_in_place(t);
  real *row[4 * L + TILE_ROWS_2V];
  for (int s = 0; s < t->slots; s++) {
    real *c = (real *)t->c + (t->gate[s] * g->H + u0) * t->c_stride;
    for (ptrdiff_t u = 0; u < units; u++) row[s * units + u] = c + u * t->c_stride;
  }
  for (int m = 0; m < TILE_ROWS_2V; m++) row[rows + m] = row[m] + 4 * L; /* after the last tile the next columns */
  for (ptrdiff_t j = 0; j < t->n; j += 4 * L) {
    const int nv = t->n - j < 4 * L ? (int)vectors_for(t->n - j) : 4, remaining = (int)(t->n - j) % L;
    const int transposed = nv * L > t->n - j && remaining * (vectors_for(rows) * kb + rows) < rows * kb;
    outputs_t o = {.a = dz + t->first_slot * units, .a_stride = a_stride, .b = b, .b_stride = in_place ? t->b_stride : nv * L,
                   .kb = kb, .j = j, .columns = t->n - j, .row = row, .first = first};
    if (next_b) o.next[0] = prefetch_rows(next_b + j / L * t->vec_stride, t->b_stride);
    if (j + 4 * L >= t->n) o.next[1] = next_dz;
    if (nv > transposed) FOR_TILES(rows, tile_rows_for(nv - transposed), wgrad_tiles, &o, nv - transposed)
    if (transposed) {
      o.b += (nv - 1) * L, o.j += (nv - 1) * L;
      wgrad_transposed(&o, rows, remaining);
    }
    b += in_place ? nv * L : kb * nv * L;
  }
}

/* n rows of C of nv vectors, `remaining` columns of them there, from as many of a single row of dz and that of b. */
INLINE void outer_product(int nv, real *c, ptrdiff_t c_stride, const real *dz, ptrdiff_t n, const real *b, ptrdiff_t vec_stride,
                  ptrdiff_t remaining) {
  V row[4];
  UNROLL for (int v = 0; v < nv; v++) row[v] = load_partial(b + v * vec_stride, remaining - v * L);
  for (ptrdiff_t u = 0; u < n; u++, c += c_stride)
    UNROLL for (int v = 0; v < nv; v++)
      store_partial(c + v * L, vfma(splat(dz[u]), row[v], splat(0)), remaining - v * L);
}

/* The same for K = 1: C is written row by row, where tiles would take 20 to 60 per cent more time (at
 * I = 32, H = 64, Zen 4). */
static NOINLINE void wgrad_row(const rnnfast_wgrad *g, ptrdiff_t panel0, ptrdiff_t panel1) {
  for (ptrdiff_t p = panel0; p < panel1; p++) {
    const ptrdiff_t remaining = g->H - p * L, units = remaining < L ? remaining : L, slot_stride = g->dense_tail ? units : L;
    const real *dz = (const real *)g->dz + p * g->slots * L;
    for (int s = 0; g->bias && s < g->slots; s++)
      store((real *)g->bias + (p * g->slots + s) * L, load(dz + s * slot_stride));
    for (int i = 0; i < g->terms; i++) {
      const rnnfast_term *t = &g->term[i];
      const real *b = (const real *)t->b + (t->row_index ? t->row_index[0] : 0) * t->b_stride;
      for (int s = 0; s < t->slots; s++) {
        real *c = (real *)t->c + (t->gate[s] * g->H + p * L) * t->c_stride;
        for (ptrdiff_t j = 0; j < t->n; j += 4 * L) {
#define OUTER_PRODUCT(d, nv) outer_product(nv, c + j, t->c_stride, d, units, b + j / L * t->vec_stride, t->vec_stride, t->n - j)
          switch (t->n - j < 4 * L ? vectors_for(t->n - j) : 4) { UP_TO_4(CASE, OUTER_PRODUCT, dz + (t->first_slot + s) * slot_stride) }
        }
      }
    }
  }
}

/* Four vectors of dz at a time: the slots of a panel, or four panels of one slot. */
static void wgrad(const rnnfast_wgrad *g, ptrdiff_t panel0, ptrdiff_t panel1, void *scratch) {
  if (g->K == 1) {
    wgrad_row(g, panel0, panel1);
    return;
  }
  const ptrdiff_t wide = g->slots * L, group = 4 / g->slots;
  for (ptrdiff_t k0 = 0; k0 == 0 || k0 < g->K; k0 += KB) {
    const ptrdiff_t kb = g->K - k0 < KB ? g->K - k0 : KB;
    const real *block = (const real *)g->dz + k0 * g->dz_stride + panel0 * wide;
    real *dz = scratch, *room = dz + (KB * 4 + 1) * L;
    const real *b[3];
    for (int i = 0; i < g->terms; i++) {
      const rnnfast_term *t = &g->term[i];
      b[i] = reads_in_place(t) ? (const real *)t->b + k0 * t->b_stride : room;
      if (!reads_in_place(t)) room = wgrad_pack(room, t, k0, kb);
    }
    for (ptrdiff_t p = panel0; p < panel1; p += group) {
      const ptrdiff_t panels = panel1 - p < group ? panel1 - p : group, remaining = g->H - p * L;
      const ptrdiff_t units = remaining < panels * L ? remaining : panels * L, slot_stride = g->slots == 1 ? L : units;
      const real *from = block + (p - panel0) * wide;
      real *bias = g->bias ? (real *)g->bias + p * wide : 0;
      const ptrdiff_t step = g->dense_tail ? slot_stride : L;
      switch (panels * g->slots) {
        case 1: wgrad_dz(dz, slot_stride, from, g->dz_stride, step, kb, bias, k0 == 0, 1); break;
        case 2: wgrad_dz(dz, slot_stride, from, g->dz_stride, step, kb, bias, k0 == 0, 2); break;
        case 3: wgrad_dz(dz, slot_stride, from, g->dz_stride, step, kb, bias, k0 == 0, 3); break;
        case 4: wgrad_dz(dz, slot_stride, from, g->dz_stride, step, kb, bias, k0 == 0, 4); break;
      }
      const int last = p + group >= panel1, more_rows = k0 + KB < g->K;
      const real *next = !last ? from + group * wide : more_rows ? block + KB * g->dz_stride : NULL;
      for (int i = 0; i < g->terms; i++) {
        const rnnfast_term *t = &g->term[i];
        const real *next_b = last && more_rows && !t->row_index ? (const real *)t->b + (k0 + KB) * t->b_stride : NULL;
        wgrad_block(g, t, dz, panels * g->slots * slot_stride, b[i], kb, p * L, units, k0 == 0, next_b,
                    prefetch_rows(i + 1 < g->terms ? NULL : next, g->dz_stride));
      }
    }
  }
}

static void wgrad_plan(const rnnfast_packed *w, ptrdiff_t K, const void *dz, const void *x,
                       const ptrdiff_t *x_row_index, const void *h, ptrdiff_t h_stride, const ptrdiff_t *h_row_index,
                       void *dw_ih, void *dw_hh, void *bias, rnnfast_wgrad *g) {
  const layout_t *lay = &layout[w->cell];
  const ptrdiff_t dz_stride = vectors_for(w->H) * lay->slots * L;
  *g = (rnnfast_wgrad){.K = K, .H = w->H, .dz = dz, .dz_stride = dz_stride, .slots = lay->slots,
                       .dense_tail = w->dense_tail, .terms = 2, .bias = bias};
  g->term[0] = (rnnfast_term){.b = x, .row_index = x_row_index, .b_stride = w->I, .n = w->I, .vec_stride = L, .c = dw_ih,
                              .c_stride = w->I, .first_slot = 0, .slots = lay->x_slots};
  g->term[1] = (rnnfast_term){.b = h, .row_index = h_row_index, .b_stride = h_stride, .n = w->P, .vec_stride = L, .c = dw_hh,
                              .c_stride = w->P, .first_slot = lay->h_first, .slots = lay->h_slots};
  memcpy(g->term[0].gate, lay->x_gate, sizeof lay->x_gate);
  memcpy(g->term[1].gate, lay->h_gate, sizeof lay->h_gate);
  if (w->cell == RNNFAST_GRU_RESET_BEFORE) /* u_n multiplies r h', which stands in slot 3 */
    g->term[g->terms++] = (rnnfast_term){.b = (const real *)dz + 3 * L, .b_stride = dz_stride, .n = w->H,
                                         .vec_stride = 4 * L, .c = dw_hh, .c_stride = w->H, .first_slot = 0, .slots = 1,
                                         .gate = {2}};
}

/* From slots to the public gate order. The GRU's u_n has a bias of its own when it is inside r. */
static void bias_grads(const rnnfast_packed *w, const void *bias, void *db_ih, void *db_hh) {
  const layout_t *lay = &layout[w->cell];
  for (int s = 0; s < lay->x_slots; s++) {
    const int own = w->cell == RNNFAST_GRU && s == 0 ? 3 : s;
    for (ptrdiff_t u = 0; u < w->H; u += L) {
      const real *panel = (const real *)bias + u * lay->slots;
      const ptrdiff_t at = lay->x_gate[s] * w->H + u, n = w->H - u < L ? w->H - u : L;
      if (db_ih) store_first((real *)db_ih + at, load(panel + s * L), n);
      if (db_hh) store_first((real *)db_hh + at, load(panel + own * L), n);
    }
  }
}
