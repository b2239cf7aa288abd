/* Drives a time step over panels of weights and tiles of rows, the same for every cell. A cell gives the equations of
 * some units; this file says which units, in which order. */

/* ---- What a step multiplies. */

/* What a step's sums begin with, from row r on: the projected input, or the bias. */
INLINE const real *initial_sums(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t r) {
  return s->x_projected ? (const real *)s->x_projected + r * s->x_projected_stride : w->bias;
}
INLINE ptrdiff_t initial_sums_stride(const rnnfast_step *s) { return s->x_projected ? s->x_projected_stride : 0; }

/* How many k a step sums over: those of x, unless it is projected, and those of h. */
INLINE ptrdiff_t k_of_step(const rnnfast_packed *w, const rnnfast_step *s) {
  return (s->x_projected ? 0 : w->I) + w->P;
}

/* The operands of a step on one panel after the other: x, unless it is projected, then h. */
typedef struct {
  operand_t operand[2];
  const real *first_panel[2];
  ptrdiff_t panel_reals[2], panels;  /* panels to come, this one included */
  int n, weights_leave_l2;
} step_operands_t;

/* The tiles fetch the next panel of weights. Without weights to fetch, those of the first panel fetch x, each the rows
 * of the tile after it. (M28) */
INLINE step_operands_t step_operands(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t panels, int x_vectors,
                                     int h_vectors) {
  const ptrdiff_t x = x_vectors * L * w->I, h = h_vectors * L * w->P, tile_rows = tile_rows_for(x_vectors);
  const int weights_leave_l2 = exceeds_l2(panels * (x + h), s->rows, w->I + w->P + 6 * w->H);
  const int fetch_x = !weights_leave_l2 && s->outputs_cold && !s->row_index && s->rows > tile_rows;
  const real *wx = w->w_ih, *wh = w->w_hh;
  const real *after_x = fetch_x ? (const real *)s->x + tile_rows * s->x_stride
                                : next_weights(wx, x, panels, wx, weights_leave_l2);
  const operand_t of_x = {.a = s->x, .row_index = s->row_index, .a_stride = s->x_stride, .run = w->I, .runs = 1,
                          .b = wx,
                          .prefetch = {after_x, NULL, bytes_per_row(fetch_x ? s->rows * s->x_stride : x, s->rows)}};
  const operand_t of_h = {.a = s->h, .a_stride = s->h_stride, .run = w->P, .runs = 1, .b = wh,
                          .prefetch = {next_weights(wh, h, panels, wh, weights_leave_l2), NULL,
                                       bytes_per_row(h, s->rows)}};
  if (s->x_projected) return (step_operands_t){{of_h}, {wh}, {h}, panels, 1, weights_leave_l2};
  return (step_operands_t){{of_x, of_h}, {wx, wh}, {x, h}, panels, 2, weights_leave_l2};
}

INLINE void advance_panel(step_operands_t *xh) {
  xh->panels--;
  for (int i = 0; i < xh->n; i++) {
    operand_t *o = &xh->operand[i];
    o->b += xh->panel_reals[i];
    o->prefetch.first =
        next_weights(o->b, xh->panel_reals[i], xh->panels, xh->first_panel[i], xh->weights_leave_l2);
  }
}

/* ---- The drive. */

/* A cell forward. A panel has `units` vectors of hidden units and w_ih so many vectors for it, w_hh so many. */
typedef struct {
  int units, x_vectors, h_vectors;
  int tiles_together;                /* tiles whose activations run together */
  int longest_tail;                  /* vectors of a dense tail, or of an RNN's last panel */
  /* The rows of a tile on a panel of nv vectors. */
  int (*tile_rows)(const rnnfast_packed *w, const rnnfast_step *s, int nv);
  /* Panel p, nv vectors wide, for `rows` rows from r on: tiles_together tiles at most. */
  void (*tiles)(const rnnfast_packed *w, const rnnfast_step *s, const step_operands_t *xh, ptrdiff_t p, int nv,
                int tile_rows, ptrdiff_t r, ptrdiff_t rows);
  /* A single row: np panels from panel p on and a last one with `tail` vectors behind them. */
  void (*row)(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t p, int np, int tail);
} cell_t;

/* The usual `tile_rows` of a cell: the tallest tile. */
INLINE int tallest_tile(const rnnfast_packed *w, const rnnfast_step *s, int nv) {
  (void)w, (void)s;
  return tile_rows_for(nv);
}

/* The vectors of panel p: fewer in the last one, if it has a dense tail or an RNN's last units. */
INLINE int vectors_of_panel(const cell_t *cell, const rnnfast_packed *w, ptrdiff_t p) {
  const ptrdiff_t remaining = vectors_for(w->H) - p * cell->units;
  if (cell->units > 1) return (int)(remaining < cell->units ? remaining : cell->units);
  return w->dense_tail && remaining == 1 ? w->dense_tail : cell->x_vectors;
}

/* One time step of many rows: panel after panel, tile after tile. */
INLINE void step_rows(const cell_t *cell, const rnnfast_packed *w, const rnnfast_step *s) {
  const ptrdiff_t panels = (vectors_for(w->H) + cell->units - 1) / cell->units;
  step_operands_t xh = step_operands(w, s, panels, cell->x_vectors, cell->h_vectors);
  for (ptrdiff_t p = 0; p < panels; p++, advance_panel(&xh)) {
    const int nv = vectors_of_panel(cell, w, p), tile_rows = cell->tile_rows(w, s, nv);
    const ptrdiff_t group = cell->tiles_together * tile_rows;
    if (cell->tiles_together == 1)
      for (tile_t t = first_tile(s->rows, tile_rows); t.rows; t = next_tile(t))
        cell->tiles(w, s, &xh, p, nv, tile_rows, t.row, t.rows);
    else
      for (ptrdiff_t r = 0; r < s->rows; r += group)
        cell->tiles(w, s, &xh, p, nv, tile_rows, r, s->rows - r < group ? s->rows - r : group);
  }
}

/* How many of the full panels of a single row have the dense tail beside them. */
INLINE ptrdiff_t panels_beside_tail(const rnnfast_packed *w, ptrdiff_t full) {
  return !w->dense_tail ? 0 : full % 2 ? 1 : 2;
}

/* The full panels of a single row, 0 to `panels`, by twos and threes: two fill the ports of the FMAs. Weights beyond
 * the first-level cache (32 KiB) come as fast as the chains of one panel use them. Then it is one panel at a time.
 * Every other step goes in reverse, so that it begins with weights that are still in that cache. (M29) */
INLINE void row_panels(const cell_t *cell, const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t panels) {
  const ptrdiff_t bytes = panels * cell->x_vectors * L * k_of_step(w, s) * (ptrdiff_t)sizeof(real);
  if (bytes > 32768) {
    for (ptrdiff_t p = 0; p < panels; p++)
      NOT_MERGED cell->row(w, s, s->reverse_panels ? panels - 1 - p : p, 1, 0);
    return;
  }
  ptrdiff_t p = 0;
  while (p < panels) {
    const ptrdiff_t remaining = panels - p;
    if (remaining == 3 && VECTOR_REGISTERS == 32) NOT_MERGED cell->row(w, s, p, 3, 0), p += 3;
    else if (remaining > 1) NOT_MERGED cell->row(w, s, p, 2, 0), p += 2;
    else NOT_MERGED cell->row(w, s, p, 1, 0), p += 1;
  }
}

/* One time step of a single row. */
INLINE void step_one_row(const cell_t *cell, const rnnfast_packed *w, const rnnfast_step *s) {
  const ptrdiff_t vectors = vectors_for(w->H);
  ptrdiff_t full, last = 0;
  int tail;
  if (cell->units > 1) {
    full = vectors / cell->units, tail = (int)(vectors % cell->units);
  } else {
    full = vectors - (w->dense_tail > 0), tail = w->dense_tail;
    last = panels_beside_tail(w, full);
  }
  const ptrdiff_t p = full - last;
  row_panels(cell, w, s, p);
  if (cell->units > 1)
    switch (tail) {
      case 1: NOT_MERGED cell->row(w, s, p, 0, 1); break;
      case 2: NOT_MERGED cell->row(w, s, p, 0, 2); break;
      case 3: NOT_MERGED cell->row(w, s, p, 0, 3); break;
    }
  else
    switch (4 * last + tail) {
      case 4 + 1: NOT_MERGED cell->row(w, s, p, 1, 1); break;
      case 4 + 2: NOT_MERGED cell->row(w, s, p, 1, 2); break;
      case 8 + 1: NOT_MERGED cell->row(w, s, p, 2, 1); break;
      case 8 + 2: NOT_MERGED cell->row(w, s, p, 2, 2); break;
      case 4 + 3:
        if (cell->longest_tail == 3) NOT_MERGED cell->row(w, s, p, 1, 3);
        break;
      case 8 + 3:
        if (cell->longest_tail == 3) NOT_MERGED cell->row(w, s, p, 2, 3);
        break;
    }
}

/* Zero the rows of a state, or of its gradient, that an episode boundary cuts off. */
static NOINLINE void reset_rows(ptrdiff_t rows, const uint8_t *reset, real *h, ptrdiff_t stride, ptrdiff_t n) {
  for (ptrdiff_t r = 0; r < rows; r++)
    if (reset[r]) memset(h + r * stride, 0, n * sizeof(real));
}

/* ---- Helpers of the cells. */

/* Put the pre-activations of n vectors of slots where a loop can read them: still the first-level cache, and the
 * activations need the registers. */
INLINE void store_preactivations(real *to, const V *acc, int n) {
  UNROLL for (int i = 0; i < 4 * n; i++) store(to + i * L, acc[i]);
}

/* From mr rows of 4 slots of so many units, without gaps, to slots of whole vectors. */
INLINE void expand_dense_tail(real *a, int mr, ptrdiff_t units) {
  for (int m = 0; m < mr; m++, a += 4 * L)
    for (int v = 3; v >= 0; v--) store(a + v * L, load_first(a + v * units, units));
}

/* The same of a single row in registers: from its `tail` vectors to as many slots. */
INLINE void expand_dense_tail_row(V *slot, int slots, int tail, ptrdiff_t units) {
  V dense[3];
  UNROLL for (int v = 0; v < tail; v++) dense[v] = slot[v];
  UNROLL for (int v = 0; v < slots; v++) slot[v] = select_lanes(dense, tail, v * units, units);
}

/* Whether the cell's previous state counts as zero. */
INLINE int starts_at_zero(const uint8_t *reset, ptrdiff_t row) { return reset && reset[row]; }

/* The gradient that reaches units u .. u + L of row r: from later steps and from y. */
INLINE V upstream_gradient(const rnnfast_dstep *s, ptrdiff_t r, ptrdiff_t u, ptrdiff_t P) {
  const V dh = load((const real *)s->dh + r * s->dh_stride + u);
  const real *dy = (const real *)s->dy + data_row(s->row_index, r) * s->dy_stride + u;
  if (!s->dy) return dh;
  return dh + load_partial(dy, P - u);
}
