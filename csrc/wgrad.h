/* Weight gradients, C = dz^T B summed over all K = T*B rows, in blocks of KB rows.
 *
 * A row of dz and a row of B are contiguous along the outputs, so nothing is transposed: the tile
 * broadcasts dz and reads B in vectors. Both are copied first, because dz rows lie 4 or 8 KiB apart
 * and would share a few cache sets: B as [4 vectors][k], dz as [k][slots of one panel]. Work is
 * split by panels of dz, i.e. by rows of C, so the sums do not depend on the number of threads. */

enum { KB = 256 };

static size_t wgrad_scratch(const rnnfast_wgrad *g) {
  size_t reals = KB * g->slots * L;
  for (int i = 0; i < g->terms; i++) reals += KB * panels_of(g->term[i].n) * L;
  return reals;
}

/* b[k0 .. k0 + kb] as panels of 4 vectors. */
static REAL *wgrad_pack(REAL *to, const rnnfast_term *t, ptrdiff_t k0, ptrdiff_t kb) {
  const REAL *b = (const REAL *)t->b + k0 * t->ldb;
  const ptrdiff_t vectors = panels_of(t->n);
  for (ptrdiff_t q = 0; q < vectors; q += 4)
    for (ptrdiff_t k = 0; k < kb; k++)
      for (ptrdiff_t v = q; v < vectors && v < q + 4; v++, to += L) {
        const REAL *from = b + k * t->ldb + v * t->vec;
        store(to, load_up_to(from, t->n - v * L));
      }
  return to;
}

/* Tile: rows a[.][m] of one slot (its unit `r`) x nv vectors of one panel of b. */
INLINE void wgrad_tile(const REAL *a, ptrdiff_t lda, const REAL *b, ptrdiff_t kb, REAL *c, ptrdiff_t ldc,
                       ptrdiff_t valid, int first, int nv, ptrdiff_t tile, ptrdiff_t r, int mr) {
  (void)tile;
  V acc[4 * MR];
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < nv; v++) {
      const REAL *from = c + (r + m) * ldc + v * L;
      acc[4 * m + v] = first ? splat(0) : load_up_to(from, valid - v * L);
    }
  madd(mr, nv, acc, a + r, 1, lda, kb, b, b); /* b is near already */
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < nv; v++) {
      REAL *to = c + (r + m) * ldc + v * L;
      store_up_to(to, acc[4 * m + v], valid - v * L);
    }
}

#define WGRAD_PANEL(nv) FOR_TILES(units, wgrad_tile, a, lda, b, kb, c, t->ldc, valid, first, nv)

/* One term, one panel of dz, one block of k. */
static void wgrad_block(const rnnfast_term *t, const REAL *dz, ptrdiff_t lda, const REAL *b, ptrdiff_t kb,
                        ptrdiff_t H, ptrdiff_t p, int first) {
  const ptrdiff_t units = H - p * L < L ? H - p * L : L;
  for (ptrdiff_t j = 0; j < t->n; j += 4 * L) {
    const ptrdiff_t valid = t->n - j;
    for (int s = 0; s < t->slots; s++) {
      const REAL *a = dz + (t->first + s) * L;
      REAL *c = (REAL *)t->c + (t->gate[s] * H + p * L) * t->ldc + j;
      switch (panels_of(valid)) {
        case 1: WGRAD_PANEL(1); break;
        case 2: WGRAD_PANEL(2); break;
        case 3: WGRAD_PANEL(3); break;
        default: WGRAD_PANEL(4); break;
      }
    }
    b += kb * (panels_of(valid) < 4 ? panels_of(valid) : 4) * L;
  }
}

static void wgrad(const rnnfast_wgrad *g, ptrdiff_t panel0, ptrdiff_t panel1, void *scratch) {
  const ptrdiff_t wide = g->slots * L;
  for (ptrdiff_t k0 = 0; k0 == 0 || k0 < g->K; k0 += KB) {
    const ptrdiff_t kb = g->K - k0 < KB ? g->K - k0 : KB;
    REAL *packed[4] = {(REAL *)scratch + KB * wide};
    for (int i = 0; i < g->terms; i++) packed[i + 1] = wgrad_pack(packed[i], &g->term[i], k0, kb);
    for (ptrdiff_t p = panel0; p < panel1; p++) {
      REAL *dz = scratch;
      for (int s = 0; s < g->slots; s++) {
        const REAL *from = (const REAL *)g->dz + k0 * g->lddz + p * wide + s * L;
        REAL *bias = (REAL *)g->bias + p * wide + s * L;
        V sum = k0 && g->bias ? load(bias) : splat(0);
        for (ptrdiff_t k = 0; k < kb; k++) {
          const V d = load(from + k * g->lddz);
          store(dz + k * wide + s * L, d);
          sum += d;
        }
        if (g->bias) store(bias, sum);
      }
      for (int i = 0; i < g->terms; i++)
        wgrad_block(&g->term[i], dz, wide, packed[i], kb, g->H, p, k0 == 0);
    }
  }
}

static void wgrad_plan(const rnnfast_packed *w, ptrdiff_t K, const void *dz, const void *x, const void *h,
                       ptrdiff_t ldh, void *dw_ih, void *dw_hh, void *bias, rnnfast_wgrad *g) {
  const layout_t *lay = &layout[w->cell];
  const ptrdiff_t lddz = panels_of(w->H) * lay->slots * L;
  *g = (rnnfast_wgrad){.K = K, .H = w->H, .dz = dz, .lddz = lddz, .slots = lay->slots, .terms = 2,
                       .bias = bias};
  g->term[0] = (rnnfast_term){.b = x, .ldb = w->I, .n = w->I, .vec = L, .c = dw_ih, .ldc = w->I, .first = 0,
                              .slots = lay->x_slots};
  g->term[1] = (rnnfast_term){.b = h, .ldb = ldh, .n = w->P, .vec = L, .c = dw_hh, .ldc = w->P,
                              .first = lay->h_first, .slots = lay->h_slots};
  memcpy(g->term[0].gate, lay->x_gate, sizeof lay->x_gate);
  memcpy(g->term[1].gate, lay->h_gate, sizeof lay->h_gate);
  if (w->cell == RNNFAST_GRU_RESET_BEFORE) /* u_n multiplies r h', which stands in slot 3 */
    g->term[g->terms++] = (rnnfast_term){.b = (const REAL *)dz + 3 * L, .ldb = lddz, .n = w->H,
                                         .vec = 4 * L, .c = dw_hh, .ldc = w->H, .first = 0, .slots = 1,
                                         .gate = {2}};
}

/* From slots to the public gate order. The GRU's u_n has a bias of its own when it is inside r. */
static void bias_grads(const rnnfast_packed *w, const void *bias, void *db_ih, void *db_hh) {
  const layout_t *lay = &layout[w->cell];
  for (int s = 0; s < lay->x_slots; s++) {
    const int own = w->cell == RNNFAST_GRU && s == 0 ? 3 : s;
    for (ptrdiff_t u = 0; u < w->H; u += L) {
      const REAL *panel = (const REAL *)bias + u * lay->slots;
      const ptrdiff_t at = lay->x_gate[s] * w->H + u, n = w->H - u < L ? w->H - u : L;
      if (db_ih) store_n((REAL *)db_ih + at, load(panel + s * L), n);
      if (db_hh) store_n((REAL *)db_hh + at, load(panel + own * L), n);
    }
  }
}
