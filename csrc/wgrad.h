/* Weight gradients, C = dz^T B summed over all K = T*B rows, in blocks of KB rows. With 16 registers tiles are
 * small and read a panel of B twice as often, so it had better fit the first cache: 192 rows take 2 to 5 per cent less
 * time than 256 at H = 128 (AVX2, Zen 4).
 *
 * A row of dz and a row of B are contiguous along the outputs, so nothing is transposed: the tile
 * broadcasts dz and reads B in vectors. Both are copied first, because dz rows lie 4 or 8 KiB apart
 * and would share a few cache sets: B as [4 vectors][k], dz as [k][4 vectors]. Short rows of B are read
 * where they are. Work is split by panels of dz, i.e. by rows of C, so the sums do not depend on the
 * number of threads. */

enum { KB = MR < 6 ? 192 : 256 };

static size_t wgrad_scratch(const rnnfast_wgrad *g) {
  size_t reals = (KB * 4 + 1) * L;
  for (int i = 0; i < g->terms; i++) reals += KB * panels_of(g->term[i].n) * L;
  return reals;
}

/* b[k0 .. k0 + kb] as panels of 4 vectors, read in the order of memory. */
static real *wgrad_pack(real *to, const rnnfast_term *t, ptrdiff_t k0, ptrdiff_t kb) {
  const ptrdiff_t vectors = panels_of(t->n);
  for (ptrdiff_t k = 0; k < kb; k++) {
    const real *b = (const real *)t->b + (t->rows ? t->rows[k0 + k] : k0 + k) * t->ldb;
    for (ptrdiff_t q = 0; q < vectors; q += 4) {
      const ptrdiff_t nv = vectors - q < 4 ? vectors - q : 4, left = t->n - q * L;
      const real *from = b + q * t->vec;
      real *row = to + (q * kb + k * nv) * L;
      if (left >= 4 * L)
        UNROLL for (int v = 0; v < 4; v++) store(row + v * L, load(from + v * t->vec));
      else
        for (ptrdiff_t v = 0; v < nv; v++) store(row + v * L, load_up_to(from + v * t->vec, left - v * L));
    }
  }
  return to + vectors * kb * L;
}

/* n vectors of dz, `step` apart, and their sums over k. With less than L units to a slot they get closer than
 * L: each overwrites the padding of the one before, the last one's is room behind the block. Side by side the
 * sums are n chains: one after the other they would wait for each addition, up to 4 per cent of the whole. */
INLINE void wgrad_dz(real *to, ptrdiff_t apart, const real *dz, ptrdiff_t lddz, ptrdiff_t step, ptrdiff_t kb,
                     real *bias, int first, int n) {
  V sum[4];
  EACH sum[i] = first || !bias ? splat(0) : load(bias + i * L);
  for (ptrdiff_t k = 0; k < kb; k++, dz += lddz)
    EACH {
      const V d = load(dz + i * step);
      store(to, d), sum[i] += d, to += apart;
    }
  if (bias) EACH store(bias + i * L, sum[i]);
}

/* Whether tiles read b's rows where they are: whole vectors, near each other. Up to 512 bytes apart it takes 0
 * to 15 per cent less time, the more the fewer outputs share a copy; from 1 KiB on, up to 17 per cent more.
 *
 * NumPy's arrays begin at any 16 bytes. The small tiles of 16 registers have no loads to spare for vectors that
 * cross a line: with such an x a backward pass at I = H = 128 takes 12 per cent more time, that of a copy 2; with
 * 32 registers it makes no difference (Zen 4). */
static int in_place(const rnnfast_term *t) {
  const int aligned = MR >= 6 || (uintptr_t)t->b % VBYTES == 0;
  return aligned && !t->rows && t->vec == L && t->n % L == 0 && t->ldb * (ptrdiff_t)sizeof(real) <= 512;
}

/* Rows, `apart` bytes from each other, of which 4 vectors are to be fetched; `at` NULL: none. */
typedef struct { const char *at; ptrdiff_t apart; } rows_t;

INLINE rows_t rows_from(const real *at, ptrdiff_t apart) {
  return (rows_t){(const char *)at, apart * (ptrdiff_t)sizeof(real)};
}

/* What the tiles of one panel of b have in common: kb rows of a, lda apart, and of b, ldb apart. Row m of C
 * begins at row[m], the panel at column j, with `valid` columns left. */
typedef struct {
  const real *a, *b;
  ptrdiff_t lda, ldb, kb, j, valid;
  real *const *row;
  int first;
  rows_t next[2];                    /* of b and of dz */
} outputs_t;

/* Columns r .. r + mr of a x nv vectors of b. Fetched meanwhile: the rows of C for the next tile, which have
 * been out of the near caches since the last block of k (3 per cent of the time at H = 512, 6 at 1,024), and a
 * line of each row that is copied next: 4 tiles those of b (up to 2 per cent, Zen 4), 4 those of dz (8). */
INLINE void wgrad_tile(const outputs_t *o, int nv, ptrdiff_t r, int mr) {
  real *const *row = o->row + r;
  const ptrdiff_t j = o->j;
  V acc[2 * MR_2];
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < nv; v++)
      acc[m * nv + v] = o->first ? splat(0) : load_up_to(row[m] + j + v * L, o->valid - v * L);
  if (!o->first)
    UNROLL for (int m = 0; m < mr; m++)
      UNROLL for (int v = 0; v < nv; v++) __builtin_prefetch(row[mr + m] + j + v * L, 1);
  const real *a[MR_2];
  UNROLL for (int m = 0; m < mr; m++) a[m] = o->a + r + m;
  const ptrdiff_t i = r / height_of(nv), line = i % 4 * 64;
  const rows_t next = i < 8 && line < 4 * VBYTES ? o->next[i / 4] : (rows_t){0};
  if (next.at) madd(mr, nv, acc, a, o->lda, o->kb, o->b, o->ldb, 1, (share_t){next.at + line, next.apart, 0});
  else madd(mr, nv, acc, a, o->lda, o->kb, o->b, o->ldb, 0, (share_t){0});
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < nv; v++)
      store_up_to(row[m] + j + v * L, acc[m * nv + v], o->valid - v * L);
}

#define WGRAD_TILE(mr, nv)                                                        \
  static NOINLINE void wgrad_##nv##_##mr(const outputs_t *o, ptrdiff_t r) {     \
    wgrad_tile(o, nv, r, mr);                                                      \
  }
#define WGRAD_TILE_AT(mr, nv) [nv][mr] = wgrad_##nv##_##mr,
ALL_SIZES(WGRAD_TILE)
static void (*const wgrad_sizes[5][MR_2 + 1])(const outputs_t *, ptrdiff_t) = {ALL_SIZES(WGRAD_TILE_AT)};

INLINE void wgrad_tiles(const outputs_t *o, int nv, ptrdiff_t r, int mr) { wgrad_sizes[nv][mr](o, r); }

/* The last n columns, less than a vector, of `rows` rows of C: in vectors of dz, a tile's rows are the columns.
 * It is the same sum. At I = 1 an LSTM's term of x would take 16 times as many FMAs the other way. */
static NOINLINE void wgrad_across(const outputs_t *o, ptrdiff_t rows, int n) {
  const int nv = (int)panels_of(rows);
  const ptrdiff_t ld = nv * L;
  real t[L * 4 * L] __attribute__((aligned(VBYTES))), *row[L + MR_2];
  V a[L];
  for (int m = 0; m < L + MR_2; m++) row[m] = t + m % L * ld;
  for (ptrdiff_t r = 0; !o->first && r < rows; r += L) {
    const real *c[L];
    for (int l = 0; l < L; l++) c[l] = r + l < rows ? o->row[r + l] : NULL;
    load_square(a, c, o->j, n);
    UNROLL for (int m = 0; m < L; m++) store(row[m] + r, a[m]);
  }
  const outputs_t of = {.a = o->b, .b = o->a, .lda = o->ldb, .ldb = o->lda, .kb = o->kb, .valid = ld,
                        .row = row, .first = o->first};
  FOR_TILES(n, height_of(nv), wgrad_tiles, &of, nv)
  for (ptrdiff_t r = 0; r < rows; r += L) {
    UNROLL for (int m = 0; m < L; m++) a[m] = m < n ? load(row[m] + r) : splat(0);
    transpose(a);
    for (ptrdiff_t l = 0; l < L && r + l < rows; l++) store_n(o->row[r + l] + o->j, a[l], n);
  }
}

/* One term, `units` units from u0 on, one block of k; `next_b` and `next_dz` are copied after it. */
static void wgrad_block(const rnnfast_wgrad *g, const rnnfast_term *t, const real *dz, ptrdiff_t lda,
                        const real *b, ptrdiff_t kb, ptrdiff_t u0, ptrdiff_t units, int first,
                        const real *next_b, rows_t next_dz) {
  const ptrdiff_t rows = t->slots * units;
  const int whole = in_place(t);
  real *row[4 * L + MR_2];
  for (int s = 0; s < t->slots; s++) {
    real *c = (real *)t->c + (t->gate[s] * g->H + u0) * t->ldc;
    for (ptrdiff_t u = 0; u < units; u++) row[s * units + u] = c + u * t->ldc;
  }
  for (int m = 0; m < MR_2; m++) row[rows + m] = row[m] + 4 * L; /* after the last tile the next columns */
  for (ptrdiff_t j = 0; j < t->n; j += 4 * L) {
    const int nv = t->n - j < 4 * L ? (int)panels_of(t->n - j) : 4, left = (int)(t->n - j) % L;
    const int across = nv * L > t->n - j && left * (panels_of(rows) * kb + rows) < rows * kb;
    outputs_t o = {.a = dz + t->first * units, .lda = lda, .b = b, .ldb = whole ? t->ldb : nv * L,
                   .kb = kb, .j = j, .valid = t->n - j, .row = row, .first = first};
    if (next_b) o.next[0] = rows_from(next_b + j / L * t->vec, t->ldb);
    if (j + 4 * L >= t->n) o.next[1] = next_dz;
    if (nv > across) FOR_TILES(rows, height_of(nv - across), wgrad_tiles, &o, nv - across)
    if (across) {
      o.b += (nv - 1) * L, o.j += (nv - 1) * L;
      wgrad_across(&o, rows, left);
    }
    b += whole ? nv * L : kb * nv * L;
  }
}

/* n rows of C of nv vectors, `left` columns of them there, from as many of a single row of dz and that of b. */
INLINE void outer(int nv, real *c, ptrdiff_t ldc, const real *dz, ptrdiff_t n, const real *b, ptrdiff_t vec,
                  ptrdiff_t left) {
  V row[4];
  UNROLL for (int v = 0; v < nv; v++) row[v] = load_up_to(b + v * vec, left - v * L);
  for (ptrdiff_t u = 0; u < n; u++, c += ldc)
    UNROLL for (int v = 0; v < nv; v++)
      store_up_to(c + v * L, fma_(splat(dz[u]), row[v], splat(0)), left - v * L);
}

/* The same for K = 1: C is written row by row, where tiles would take 20 to 60 per cent more time (at
 * I = 32, H = 64, Zen 4). */
static NOINLINE void wgrad_row(const rnnfast_wgrad *g, ptrdiff_t panel0, ptrdiff_t panel1) {
  for (ptrdiff_t p = panel0; p < panel1; p++) {
    const ptrdiff_t left = g->H - p * L, units = left < L ? left : L, apart = g->narrow ? units : L;
    const real *dz = (const real *)g->dz + p * g->slots * L;
    for (int s = 0; g->bias && s < g->slots; s++)
      store((real *)g->bias + (p * g->slots + s) * L, load(dz + s * apart));
    for (int i = 0; i < g->terms; i++) {
      const rnnfast_term *t = &g->term[i];
      const real *b = (const real *)t->b + (t->rows ? t->rows[0] : 0) * t->ldb;
      for (int s = 0; s < t->slots; s++) {
        real *c = (real *)t->c + (t->gate[s] * g->H + p * L) * t->ldc;
        for (ptrdiff_t j = 0; j < t->n; j += 4 * L) {
#define OUTER(d, nv) outer(nv, c + j, t->ldc, d, units, b + j / L * t->vec, t->vec, t->n - j)
          switch (t->n - j < 4 * L ? panels_of(t->n - j) : 4) { UP_TO_4(CASE, OUTER, dz + (t->first + s) * apart) }
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
    const real *block = (const real *)g->dz + k0 * g->lddz + panel0 * wide;
    real *dz = scratch, *room = dz + (KB * 4 + 1) * L;
    const real *b[3];
    for (int i = 0; i < g->terms; i++) {
      const rnnfast_term *t = &g->term[i];
      b[i] = in_place(t) ? (const real *)t->b + k0 * t->ldb : room;
      if (!in_place(t)) room = wgrad_pack(room, t, k0, kb);
    }
    for (ptrdiff_t p = panel0; p < panel1; p += group) {
      const ptrdiff_t panels = panel1 - p < group ? panel1 - p : group, left = g->H - p * L;
      const ptrdiff_t units = left < panels * L ? left : panels * L, apart = g->slots == 1 ? L : units;
      const real *from = block + (p - panel0) * wide;
      real *bias = g->bias ? (real *)g->bias + p * wide : 0;
      const ptrdiff_t step = g->narrow ? apart : L;
      switch (panels * g->slots) {
        case 1: wgrad_dz(dz, apart, from, g->lddz, step, kb, bias, k0 == 0, 1); break;
        case 2: wgrad_dz(dz, apart, from, g->lddz, step, kb, bias, k0 == 0, 2); break;
        case 3: wgrad_dz(dz, apart, from, g->lddz, step, kb, bias, k0 == 0, 3); break;
        case 4: wgrad_dz(dz, apart, from, g->lddz, step, kb, bias, k0 == 0, 4); break;
      }
      const int last = p + group >= panel1, more = k0 + KB < g->K;
      const real *next = !last ? from + group * wide : more ? block + KB * g->lddz : NULL;
      for (int i = 0; i < g->terms; i++) {
        const rnnfast_term *t = &g->term[i];
        const real *next_b = last && more && !t->rows ? (const real *)t->b + (k0 + KB) * t->ldb : NULL;
        wgrad_block(g, t, dz, panels * g->slots * apart, b[i], kb, p * L, units, k0 == 0, next_b,
                    rows_from(i + 1 < g->terms ? NULL : next, g->lddz));
      }
    }
  }
}

static void wgrad_plan(const rnnfast_packed *w, ptrdiff_t K, const void *dz, const void *x,
                       const ptrdiff_t *x_rows, const void *h, ptrdiff_t ldh, const ptrdiff_t *h_rows,
                       void *dw_ih, void *dw_hh, void *bias, rnnfast_wgrad *g) {
  const layout_t *lay = &layout[w->cell];
  const ptrdiff_t lddz = panels_of(w->H) * lay->slots * L;
  *g = (rnnfast_wgrad){.K = K, .H = w->H, .dz = dz, .lddz = lddz, .slots = lay->slots,
                       .narrow = w->narrow, .terms = 2, .bias = bias};
  g->term[0] = (rnnfast_term){.b = x, .rows = x_rows, .ldb = w->I, .n = w->I, .vec = L, .c = dw_ih,
                              .ldc = w->I, .first = 0, .slots = lay->x_slots};
  g->term[1] = (rnnfast_term){.b = h, .rows = h_rows, .ldb = ldh, .n = w->P, .vec = L, .c = dw_hh,
                              .ldc = w->P, .first = lay->h_first, .slots = lay->h_slots};
  memcpy(g->term[0].gate, lay->x_gate, sizeof lay->x_gate);
  memcpy(g->term[1].gate, lay->h_gate, sizeof lay->h_gate);
  if (w->cell == RNNFAST_GRU_RESET_BEFORE) /* u_n multiplies r h', which stands in slot 3 */
    g->term[g->terms++] = (rnnfast_term){.b = (const real *)dz + 3 * L, .ldb = lddz, .n = w->H,
                                         .vec = 4 * L, .c = dw_hh, .ldc = w->H, .first = 0, .slots = 1,
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
      if (db_ih) store_n((real *)db_ih + at, load(panel + s * L), n);
      if (db_hh) store_n((real *)db_hh + at, load(panel + own * L), n);
    }
  }
}
