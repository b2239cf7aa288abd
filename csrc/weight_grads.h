/* Weight gradients, C = dz^T B summed over all K = T*B rows, in blocks of K_BLOCK rows.
 *
 * A row of dz and a row of B are contiguous along the outputs, so nothing is transposed: a tile broadcasts dz and reads
 * B in vectors. Both are copied first, because rows 4 or 8 KiB apart would share a few cache sets: B as
 * [4 vectors][k], dz as [k][4 vectors]. Short rows of B are read where they are. Work is split by panels of dz, that is
 * by rows of C, so the sums do not depend on the number of threads. */

/* With 16 registers tiles are small and read a panel of B twice as often, so it has to fit the first-level cache.
 * (M23) */
enum { K_BLOCK = VECTOR_REGISTERS == 16 ? 192 : 256 };

static size_t wgrad_scratch(const rnnfast_wgrad *g) {
  size_t reals = (K_BLOCK * 4 + 1) * L;
  for (int i = 0; i < g->terms; i++) reals += K_BLOCK * vectors_for(g->term[i].n) * L;
  return reals;
}

/* Rows k0 .. k0 + kb of b as panels of 4 vectors, read in the order of memory. */
static real *copy_b(real *to, const rnnfast_term *t, ptrdiff_t k0, ptrdiff_t kb) {
  const ptrdiff_t vectors = vectors_for(t->n);
  for (ptrdiff_t k = 0; k < kb; k++) {
    const real *b = (const real *)t->b + data_row(t->row_index, k0 + k) * t->b_stride;
    for (ptrdiff_t q = 0; q < vectors; q += 4) {
      const ptrdiff_t nv = vectors - q < 4 ? vectors - q : 4, columns = t->n - q * L;
      const real *from = b + q * t->vec_stride;
      real *row = to + (q * kb + k * nv) * L;
      if (columns >= 4 * L)
        UNROLL for (int v = 0; v < 4; v++) store(row + v * L, load(from + v * t->vec_stride));
      else
        for (ptrdiff_t v = 0; v < nv; v++)
          store(row + v * L, load_partial(from + v * t->vec_stride, columns - v * L));
    }
  }
  return to + vectors * kb * L;
}

/* n vectors of dz, `step` from one to the next, to vectors `stride` from one to the next, and their sums over k. Where a
 * slot has fewer units than L, each vector overwrites the padding of the one before; the last one's is room behind the
 * block. Side by side the sums are n chains, which do not wait for each other. (M24) */
INLINE void copy_dz(real *to, ptrdiff_t stride, const real *dz, ptrdiff_t dz_stride, ptrdiff_t step, ptrdiff_t kb,
                    real *bias, int first, int n) {
  V sum[4];
  UNROLL for (int i = 0; i < n; i++) sum[i] = first || !bias ? splat(0) : load(bias + i * L);
  for (ptrdiff_t k = 0; k < kb; k++, dz += dz_stride)
    UNROLL for (int i = 0; i < n; i++) {
      const V d = load(dz + i * step);
      store(to, d), sum[i] += d, to += stride;
    }
  if (bias)
    UNROLL for (int i = 0; i < n; i++) store(bias + i * L, sum[i]);
}

/* Whether tiles read the rows of b where they are: whole vectors, near each other. (M25) NumPy's arrays begin at
 * any 16 bytes. The small tiles of 16 registers have no loads to spare for vectors that cross a line. (M26) */
static int reads_in_place(const rnnfast_term *t) {
  const int aligned = VECTOR_REGISTERS == 32 || (uintptr_t)t->b % VECTOR_BYTES == 0;
  const int rows_adjoin = t->b_stride * (ptrdiff_t)sizeof(real) <= 512;
  return aligned && rows_adjoin && !t->row_index && t->vec_stride == L && t->n % L == 0;
}

/* What the tiles of one panel of b have in common: kb rows of a and of b. Row m of C begins at row[m], the panel at
 * column j, with `columns` columns behind it. */
typedef struct {
  const real *a, *b;
  ptrdiff_t a_stride, b_stride, kb, j, columns;
  real *const *row;
  int first;                         /* the first block of k: C is not read */
  prefetch_rows_t next[2];           /* of b and of dz */
} outputs_t;

/* Columns r .. r + mr of a x nv vectors of b. */
INLINE void wgrad_tile(const outputs_t *o, int nv, ptrdiff_t r, int mr) {
  real *const *row = o->row + r;
  const ptrdiff_t j = o->j;
  V acc[2 * TILE_ROWS_2V];
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < nv; v++)
      acc[m * nv + v] = o->first ? splat(0) : load_partial(row[m] + j + v * L, o->columns - v * L);
  if (!o->first) prefetch_results(row, j, nv, mr);
  const real *a[TILE_ROWS_2V];
  UNROLL for (int m = 0; m < mr; m++) a[m] = o->a + r + m;
  const prefetch_t plan = prefetch_of_tile(o->next, r / tile_rows_for(nv));
  if (plan.at) tile_fma(mr, nv, acc, a, o->a_stride, o->kb, o->b, o->b_stride, 1, plan);
  else tile_fma(mr, nv, acc, a, o->a_stride, o->kb, o->b, o->b_stride, 0, plan);
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < nv; v++)
      store_partial(row[m] + j + v * L, acc[m * nv + v], o->columns - v * L);
}

#define DEFINE_WGRAD_TILE(mr, nv) \
  static NOINLINE void wgrad_##nv##_##mr(const outputs_t *o, ptrdiff_t r) { wgrad_tile(o, nv, r, mr); }
#define WGRAD_TILE_AT(mr, nv) [nv][mr] = wgrad_##nv##_##mr,
TILE_SIZES(DEFINE_WGRAD_TILE)
static void (*const wgrad_functions[5][TILE_ROWS_2V + 1])(const outputs_t *, ptrdiff_t) = {TILE_SIZES(WGRAD_TILE_AT)};

/* All tiles of `rows` columns of a on a panel of nv vectors. */
INLINE void wgrad_tiles(const outputs_t *o, ptrdiff_t rows, int nv) {
  for (tile_t t = first_tile(rows, tile_rows_for(nv)); t.rows; t = next_tile(t)) wgrad_functions[nv][t.rows](o, t.row);
}

/* The last n columns, less than a vector, of `rows` rows of C: the vectors are of dz, and the rows of a tile are the
 * columns. It is the same sum. With one column the other way would take L times as many FMAs. */
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
  wgrad_tiles(&of, n, nv);
  for (ptrdiff_t r = 0; r < rows; r += L) {
    UNROLL for (int m = 0; m < L; m++) a[m] = m < n ? load(row[m] + r) : splat(0);
    transpose(a);
    for (ptrdiff_t l = 0; l < L && r + l < rows; l++) store_first(o->row[r + l] + o->j, a[l], n);
  }
}

/* One term, `units` units from u0 on, one block of k. `next_b` and `next_dz` are copied after it. */
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
    const int nv = t->n - j < 4 * L ? (int)vectors_for(t->n - j) : 4, partial = (int)(t->n - j) % L;
    const int transposed = nv * L > t->n - j && partial * (vectors_for(rows) * kb + rows) < rows * kb;
    outputs_t o = {.a = dz + t->first_slot * units, .a_stride = a_stride, .b = b,
                   .b_stride = in_place ? t->b_stride : nv * L, .kb = kb, .j = j, .columns = t->n - j, .row = row,
                   .first = first};
    if (next_b) o.next[0] = prefetch_rows(next_b + j / L * t->vec_stride, t->b_stride);
    if (j + 4 * L >= t->n) o.next[1] = next_dz;
    if (nv > transposed) wgrad_tiles(&o, rows, nv - transposed);
    if (transposed) {
      o.b += (nv - 1) * L, o.j += (nv - 1) * L;
      wgrad_transposed(&o, rows, partial);
    }
    b += in_place ? nv * L : kb * nv * L;
  }
}

/* n rows of C, `columns` columns of nv vectors: each element of a row of dz times a row of b. */
INLINE void outer_product(int nv, real *c, ptrdiff_t c_stride, const real *dz, ptrdiff_t n, const real *b,
                          ptrdiff_t vec_stride, ptrdiff_t columns) {
  V row[4];
  UNROLL for (int v = 0; v < nv; v++) row[v] = load_partial(b + v * vec_stride, columns - v * L);
  for (ptrdiff_t u = 0; u < n; u++, c += c_stride)
    UNROLL for (int v = 0; v < nv; v++)
      store_partial(c + v * L, vfma(splat(dz[u]), row[v], splat(0)), columns - v * L);
}

/* One slot of one panel of a term for K = 1: `units` rows of C. */
INLINE void wgrad_row_of_slot(const rnnfast_term *t, const real *dz, ptrdiff_t units, const real *b, real *c) {
  const ptrdiff_t n = t->n, c_stride = t->c_stride, vec = t->vec_stride;
  for (ptrdiff_t j = 0; j < n; j += 4 * L) {
    const real *columns = b + j / L * vec;
    switch (n - j < 4 * L ? vectors_for(n - j) : 4) {
      case 1: outer_product(1, c + j, c_stride, dz, units, columns, vec, n - j); break;
      case 2: outer_product(2, c + j, c_stride, dz, units, columns, vec, n - j); break;
      case 3: outer_product(3, c + j, c_stride, dz, units, columns, vec, n - j); break;
      case 4: outer_product(4, c + j, c_stride, dz, units, columns, vec, n - j); break;
    }
  }
}

/* The same for K = 1: C is written row by row, for which tiles would take longer. (M27) */
static NOINLINE void wgrad_row(const rnnfast_wgrad *g, ptrdiff_t panel0, ptrdiff_t panel1) {
  for (ptrdiff_t p = panel0; p < panel1; p++) {
    const ptrdiff_t units = g->H - p * L < L ? g->H - p * L : L, slot_stride = g->dense_tail ? units : L;
    const real *dz = (const real *)g->dz + p * g->slots * L;
    for (int s = 0; g->bias && s < g->slots; s++)
      store((real *)g->bias + (p * g->slots + s) * L, load(dz + s * slot_stride));
    for (int i = 0; i < g->terms; i++) {
      const rnnfast_term *t = &g->term[i];
      const real *b = (const real *)t->b + data_row(t->row_index, 0) * t->b_stride;
      for (int s = 0; s < t->slots; s++)
        wgrad_row_of_slot(t, dz + (t->first_slot + s) * slot_stride, units, b,
                          (real *)t->c + (t->gate[s] * g->H + p * L) * t->c_stride);
    }
  }
}

/* Where the rows k0 .. k0 + kb of each term's b are: in their place, or copied to `room`. */
static void b_of_terms(const rnnfast_wgrad *g, ptrdiff_t k0, ptrdiff_t kb, real *room, const real **b) {
  for (int i = 0; i < g->terms; i++) {
    const rnnfast_term *t = &g->term[i];
    b[i] = reads_in_place(t) ? (const real *)t->b + k0 * t->b_stride : room;
    if (!reads_in_place(t)) room = copy_b(room, t, k0, kb);
  }
}

/* Panels panel0 .. panel1 of dz in one block of k. Four vectors of dz at a time: the slots of a panel, or four panels
 * of one slot. */
static void wgrad_panels(const rnnfast_wgrad *g, ptrdiff_t panel0, ptrdiff_t panel1, ptrdiff_t k0, ptrdiff_t kb,
                         real *dz, const real **b) {
  const ptrdiff_t panel_reals = g->slots * L, group = 4 / g->slots;
  const real *block = (const real *)g->dz + k0 * g->dz_stride + panel0 * panel_reals;
  const int first = k0 == 0, last_k = k0 + K_BLOCK >= g->K;
  for (ptrdiff_t p = panel0; p < panel1; p += group) {
    const ptrdiff_t panels = panel1 - p < group ? panel1 - p : group;
    const ptrdiff_t units = g->H - p * L < panels * L ? g->H - p * L : panels * L;
    const ptrdiff_t stride = g->slots == 1 ? L : units, step = g->dense_tail ? stride : L;
    const real *from = block + (p - panel0) * panel_reals;
    real *bias = g->bias ? (real *)g->bias + p * panel_reals : 0;
    switch (panels * g->slots) {
      case 1: copy_dz(dz, stride, from, g->dz_stride, step, kb, bias, first, 1); break;
      case 2: copy_dz(dz, stride, from, g->dz_stride, step, kb, bias, first, 2); break;
      case 3: copy_dz(dz, stride, from, g->dz_stride, step, kb, bias, first, 3); break;
      case 4: copy_dz(dz, stride, from, g->dz_stride, step, kb, bias, first, 4); break;
    }
    const int last = p + group >= panel1;
    const real *next = !last ? from + group * panel_reals : !last_k ? block + K_BLOCK * g->dz_stride : NULL;
    for (int i = 0; i < g->terms; i++) {
      const rnnfast_term *t = &g->term[i];
      const int b_follows = last && !last_k && !t->row_index;
      wgrad_block(g, t, dz, panels * g->slots * stride, b[i], kb, p * L, units, first,
                  b_follows ? (const real *)t->b + (k0 + K_BLOCK) * t->b_stride : NULL,
                  prefetch_rows(i + 1 < g->terms ? NULL : next, g->dz_stride));
    }
  }
}

static void wgrad(const rnnfast_wgrad *g, ptrdiff_t panel0, ptrdiff_t panel1, void *scratch) {
  if (g->K == 1) {
    wgrad_row(g, panel0, panel1);
    return;
  }
  for (ptrdiff_t k0 = 0; k0 == 0 || k0 < g->K; k0 += K_BLOCK) {
    const ptrdiff_t kb = g->K - k0 < K_BLOCK ? g->K - k0 : K_BLOCK;
    const real *b[3];
    b_of_terms(g, k0, kb, (real *)scratch + (K_BLOCK * 4 + 1) * L, b);
    wgrad_panels(g, panel0, panel1, k0, kb, scratch, b);
  }
}

static void wgrad_plan(const rnnfast_packed *w, ptrdiff_t K, const void *dz, const void *x,
                       const ptrdiff_t *x_row_index, const void *h, ptrdiff_t h_stride, const ptrdiff_t *h_row_index,
                       void *dw_ih, void *dw_hh, void *bias, rnnfast_wgrad *g) {
  const rnnfast_cell *cell = &rnnfast_cells[w->cell];
  const ptrdiff_t dz_stride = vectors_for(w->H) * cell->slots * L;
  *g = (rnnfast_wgrad){.K = K, .H = w->H, .dz = dz, .dz_stride = dz_stride, .slots = cell->slots,
                       .dense_tail = w->dense_tail, .terms = 2, .bias = bias};
  g->term[0] = (rnnfast_term){.b = x, .row_index = x_row_index, .b_stride = w->I, .n = w->I, .vec_stride = L,
                              .c = dw_ih, .c_stride = w->I, .slots = cell->x_slots};
  g->term[1] = (rnnfast_term){.b = h, .row_index = h_row_index, .b_stride = h_stride, .n = w->P, .vec_stride = L,
                              .c = dw_hh, .c_stride = w->P, .first_slot = cell->first_h_slot,
                              .slots = cell->h_slots};
  memcpy(g->term[0].gate, cell->x_gate, sizeof cell->x_gate);
  memcpy(g->term[1].gate, cell->h_gate, sizeof cell->h_gate);
  if (cell->has_w_hn) /* u_n multiplies r h', which stands in slot 3 */
    g->term[g->terms++] = (rnnfast_term){.b = (const real *)dz + 3 * L, .b_stride = dz_stride, .n = w->H,
                                         .vec_stride = 4 * L, .c = dw_hh, .c_stride = w->H, .slots = 1,
                                         .gate = {gate_n[0]}};
}

/* From slots to the caller's order of gates. */
static void bias_grads(const rnnfast_packed *w, const void *bias, void *db_ih, void *db_hh) {
  const rnnfast_cell *cell = &rnnfast_cells[w->cell];
  for (int slot = 0; slot < cell->x_slots; slot++) {
    const int gate = cell->x_gate[slot];
    for (ptrdiff_t u = 0; u < w->H; u += L) {
      const real *panel = (const real *)bias + u * cell->slots;
      const ptrdiff_t first = gate * w->H + u, n = w->H - u < L ? w->H - u : L;
      if (db_ih) store_first((real *)db_ih + first, load(panel + slot * L), n);
      if (db_hh) store_first((real *)db_hh + first, load(panel + cell->b_hh_slot[gate] * L), n);
    }
  }
}
