/* Packed weights: the order in which the tiles read them, one panel after the other.
 *
 * Forward, gated cells: a panel is L hidden units with their gates side by side, [panel][k][slot][lane]. The last panel
 * has a dense tail if its units are so few that their gates, without gaps, fit fewer vectors. (M19)
 * RNN, projection and everything backward: a panel is 4 vectors of plain columns, the last one fewer,
 * [panel][k][vector][lane]. Backward, a few last columns stand behind them as [column][k] (matmul_edges.h). Lanes
 * beyond the matrix are zero. With a dense tail dz has no gaps there either, so k ends with the units. */

/* Vectors of the dense tail of a cell with H units; 0 if it has none. */
static int dense_tail_of(const rnnfast_cell *cell, ptrdiff_t H) {
  const int slots = cell->slots > 1 && !cell->has_w_hn ? cell->x_slots : 0;
  const int vectors = (int)vectors_for(slots * (H % L));
  return H > L && vectors < slots ? vectors : 0;
}

/* The stride from slot to slot in panel p. */
INLINE ptrdiff_t slot_stride_in(const rnnfast_packed *w, ptrdiff_t p) {
  return w->dense_tail && w->H - p * L < L ? w->H - p * L : L;
}

/* L columns of L rows from column k on, `columns` of them in the matrix, as a vector each. Rows from the first NULL on
 * are zeros. */
INLINE void load_square(V *a, const real *const *row, ptrdiff_t k, ptrdiff_t columns) {
  if (row[L - 1] && columns >= L)
    UNROLL for (int l = 0; l < L; l++) a[l] = load(row[l] + k);
  else
    UNROLL for (int l = 0; l < L; l++) a[l] = row[l] ? load_partial(row[l] + k, columns) : splat(0);
  transpose(a);
}

/* Columns k0 .. k0 + L of L rows of K reals to vectors, `stride` from one to the next; none beyond Kp. */
static void pack_square(real *to, ptrdiff_t stride, const real *const *row, ptrdiff_t K, ptrdiff_t k0,
                        ptrdiff_t Kp) {
  V a[L];
  load_square(a, row, k0, K - k0 < 0 ? 0 : K - k0);
  UNROLL for (int l = 0; l < L; l++)
    if (k0 + l < Kp) store(to + (k0 + l) * stride, a[l]);
}

/* One of several parts that pack the same weights side by side, each its own panels. `panel` counts all panels. */
typedef struct { int part, parts; ptrdiff_t panel; } split_t;

/* Whether the next panel belongs to this part. */
INLINE int owns_next_panel(split_t *split) { return split->panel++ % split->parts == split->part; }

/* Vectors along the rows of w (n x K), k along its columns: a transpose, with zeros up to Kp columns. */
static real *pack_transposed(real *to, split_t *split, const real *w, ptrdiff_t n, ptrdiff_t K, ptrdiff_t Kp) {
  for (ptrdiff_t j = 0; j < n; j += 4 * L) {
    const ptrdiff_t nv = n - j < 4 * L ? vectors_for(n - j) : 4, own = owns_next_panel(split) ? nv : 0;
    for (ptrdiff_t v = 0; v < own; v++) {
      const real *row[L];
      for (int l = 0; l < L; l++) row[l] = j + v * L + l < n ? w + (j + v * L + l) * K : NULL;
      for (ptrdiff_t k = 0; k < Kp; k += L) pack_square(to + v * L, nv * L, row, K, k, Kp);
    }
    to += Kp * nv * L;
  }
  return to;
}

/* The same in panels of L units and their gates, from w (gates x H x K). */
static real *pack_gates(real *to, split_t *split, const rnnfast_packed *p, const real *w, ptrdiff_t K,
                        int slots, const int *gates) {
  for (ptrdiff_t u0 = 0; u0 < p->H; u0 += L) {
    const ptrdiff_t slot_stride = slot_stride_in(p, u0 / L), nv = slot_stride < L ? p->dense_tail : slots;
    const ptrdiff_t own = owns_next_panel(split) ? nv : 0;
    ptrdiff_t slot = 0, u = 0; /* of a lane */
    for (ptrdiff_t v = 0; v < own; v++) {
      const real *row[L];
      for (int l = 0; l < L; l++) {
        row[l] = slot < slots && u0 + u < p->H ? w + (gates[slot] * p->H + u0 + u) * K : NULL;
        if (++u == slot_stride) u = 0, slot++;
      }
      for (ptrdiff_t k = 0; k < K; k += L) pack_square(to + v * L, nv * L, row, K, k, K);
    }
    to += K * nv * L;
  }
  return to;
}

/* Vectors along the first n of the columns of w. k runs over its rows in the order of a dz row, (panel, slot, lane), up
 * to so many units. */
static real *pack_rows(real *to, split_t *split, const real *w, ptrdiff_t stride, ptrdiff_t H, ptrdiff_t n,
                       ptrdiff_t units, int slots, const int *gates) {
  for (ptrdiff_t j = 0; j < n; j += 4 * L) {
    const ptrdiff_t remaining = n - j, nv = remaining < 4 * L ? vectors_for(remaining) : 4;
    if (!owns_next_panel(split)) {
      to += units * slots * nv * L;
      continue;
    }
    for (ptrdiff_t i = 0; i < vectors_for(units) * slots; i++) {
      const ptrdiff_t unit = i / slots * L, gate = gates[i % slots];
      const real *from = w + (gate * H + unit) * stride + j;
      for (ptrdiff_t k = 0; k < L && unit + k < units; k++, from += stride, to += nv * L)
        if (unit + k >= H)
          memset(to, 0, nv * VECTOR_BYTES);
        else if (remaining >= 4 * L)
          UNROLL for (int v = 0; v < 4; v++) store(to + v * L, load(from + v * L));
        else
          for (ptrdiff_t v = 0; v < nv; v++) store(to + v * L, load_partial(from + v * L, remaining - v * L));
    }
  }
  return to;
}

/* All n columns for a product with dz. Those of the edge stand each by itself, k as above, filled up to a vector. */
static real *pack_columns(real *to, split_t *split, const real *w, ptrdiff_t H, ptrdiff_t n, ptrdiff_t units,
                          int slots, const int *gates) {
  const ptrdiff_t K = units * slots, body = n - edge_columns(n, K);
  to = pack_rows(to, split, w, n, H, body, units, slots, gates);
  for (ptrdiff_t j = body; j < n; j++) {
    if (!owns_next_panel(split)) {
      to += vectors_for(K) * L;
      continue;
    }
    for (ptrdiff_t unit = 0; unit < units; unit += L)
      for (int s = 0; s < slots; s++)
        for (ptrdiff_t u = unit; u < unit + L && u < units; u++)
          *to++ = u < H ? w[(gates[s] * H + u) * n + j] : 0;
    for (ptrdiff_t k = K; k % L; k++) *to++ = 0;
  }
  return to;
}

/* The biases of slot `slot`, summed, in every panel. In a dense tail the next slot overwrites the zeros behind it. */
static void pack_bias_slot(real *to, const rnnfast_packed *p, int slots, int slot, const real *b_ih,
                           const real *b_hh) {
  for (ptrdiff_t u = 0; u < p->H; u += L) {
    V sum = splat(0);
    if (b_ih) sum += load_partial(b_ih + u, p->H - u);
    if (b_hh) sum += load_partial(b_hh + u, p->H - u);
    store(to + u * slots + slot * slot_stride_in(p, u / L), sum);
  }
}

static void pack_bias(real *to, const rnnfast_weights *w, const rnnfast_packed *p) {
  const rnnfast_cell *cell = &rnnfast_cells[w->cell];
  for (int slot = 0; slot < cell->slots; slot++) {
    const real *b_ih = NULL, *b_hh = NULL;
    if (w->b_ih && slot < cell->x_slots) b_ih = (const real *)w->b_ih + cell->x_gate[slot] * w->H;
    for (int gate = 0; w->b_hh && gate < cell->gates; gate++)
      if (cell->b_hh_slot[gate] == slot) b_hh = (const real *)w->b_hh + gate * w->H;
    pack_bias_slot(to, p, cell->slots, slot, b_ih, b_hh);
  }
}

static size_t packed_size(const rnnfast_weights *w, int use) {
  const rnnfast_cell *cell = &rnnfast_cells[w->cell];
  const ptrdiff_t Hp = vectors_for(w->H) * L, Ip = vectors_for(w->I) * L, Pp = vectors_for(w->P) * L;
  const ptrdiff_t has_w_hn = cell->has_w_hn, projected = w->w_hr != 0;
  if (use == RNNFAST_ONE_STEP) return Hp * cell->slots;
  if (use == RNNFAST_BACKWARD)
    return Hp * (cell->x_slots * Ip + cell->h_slots * Pp + has_w_hn * Hp + projected * w->P);
  return Hp * (cell->slots + cell->x_slots * w->I + cell->h_slots * w->P + has_w_hn * Hp)
         + projected * Pp * w->H;
}

/* The gate blocks of single matrices: that of u_n in w_hh, and that of a matrix with one block. */
static const int gate_n[1] = {2}, only_gate[1] = {0};

static void pack_forward(const rnnfast_weights *w, real *to, rnnfast_packed *p, split_t *split) {
  const rnnfast_cell *cell = &rnnfast_cells[w->cell];
  const ptrdiff_t H = w->H, Hp = vectors_for(H) * L;
  p->bias = to;
  if (owns_next_panel(split)) pack_bias(to, w, p);
  to += Hp * cell->slots;
  if (cell->slots == 1) {
    p->w_ih = to, to = pack_transposed(to, split, w->w_ih, H, w->I, w->I);
    p->w_hh = to, to = pack_transposed(to, split, w->w_hh, H, w->P, w->P);
  } else {
    p->w_ih = to, to = pack_gates(to, split, p, w->w_ih, w->I, cell->x_slots, cell->x_gate);
    p->w_hh = to, to = pack_gates(to, split, p, w->w_hh, w->P, cell->h_slots, cell->h_gate);
  }
  if (cell->has_w_hn) {
    const real *u_n = (const real *)w->w_hh + gate_n[0] * H * w->P;
    p->w_hn = to, to = pack_transposed(to, split, u_n, H, H, Hp);
  }
  if (w->w_hr) p->w_hr = to, pack_transposed(to, split, w->w_hr, w->P, H, H);
}

static void pack_backward(const rnnfast_weights *w, real *to, rnnfast_packed *p, split_t *split) {
  const rnnfast_cell *cell = &rnnfast_cells[w->cell];
  const ptrdiff_t H = w->H, I = w->I, P = w->P, Hp = vectors_for(H) * L, units = p->dense_tail ? H : Hp;
  p->w_ih = to, to = pack_columns(to, split, w->w_ih, H, I, units, cell->x_slots, cell->x_gate);
  p->w_hh = to, to = pack_columns(to, split, w->w_hh, H, P, units, cell->h_slots, cell->h_gate);
  if (cell->has_w_hn) p->w_hn = to, to = pack_columns(to, split, w->w_hh, H, H, Hp, 1, gate_n);
  if (w->w_hr) p->w_hr = to, pack_rows(to, split, w->w_hr, H, P, H, P, 1, only_gate);
}

/* One of several parts. The first one describes the whole in `out`. For one step there are only biases (add_matvec). */
static void pack(const rnnfast_weights *w, int use, void *block, rnnfast_packed *out, int part, int parts) {
  split_t split = {.part = part, .parts = parts};
  rnnfast_packed p = {.cell = w->cell, .act = w->act, .I = w->I, .H = w->H, .P = w->P};
  if (use != RNNFAST_ONE_STEP) p.dense_tail = dense_tail_of(&rnnfast_cells[w->cell], w->H);
  if (use == RNNFAST_BACKWARD) {
    pack_backward(w, block, &p, &split);
  } else if (use == RNNFAST_FORWARD) {
    pack_forward(w, block, &p, &split);
  } else {
    p.bias = block;
    if (owns_next_panel(&split)) pack_bias(block, w, &p);
  }
  if (part == 0) *out = p;
}

/* sum += w x for one row, with w (gates x H x K) as the caller has it. Squares are transposed as for packing, and sums
 * go on in the same order of k. Packing first, for a single use, would cost more. (M20) */
static void add_matvec(real *sum, int stride, const real *w, ptrdiff_t H, ptrdiff_t K, const real *x, int slots,
                       const int *gates) {
  for (ptrdiff_t u = 0; u < H; u += L, sum += stride)
    for (int s = 0; s < slots; s++) {
      const real *block = w + (gates[s] * H + u) * K, *row[L];
      V acc = load(sum + s * L);
      for (int l = 0; l < L; l++) row[l] = u + l < H ? block + l * K : NULL;
      for (ptrdiff_t k = 0; k < K; k += L) {
        V a[L];
        load_square(a, row, k, K - k);
        UNROLL for (int l = 0; l < L; l++)
          if (k + l < K) acc = vfma(splat(x[k + l]), a[l], acc);
      }
      store(sum + s * L, acc);
    }
}

/* The sums of a single step of one row, laid out as a gate buffer. */
static void one_step(const rnnfast_weights *w, const rnnfast_packed *p, const void *x, const void *h,
                     void *sums) {
  const rnnfast_cell *cell = &rnnfast_cells[w->cell];
  const int stride = cell->slots * L;
  memcpy(sums, p->bias, vectors_for(w->H) * stride * sizeof(real));
  add_matvec(sums, stride, w->w_ih, w->H, w->I, x, cell->x_slots, cell->x_gate);
  add_matvec((real *)sums + cell->first_h_slot * L, stride, w->w_hh, w->H, w->P, h, cell->h_slots, cell->h_gate);
}

/* bias + w_ih x for any number of rows, laid out as a gate buffer. */
static void project(const rnnfast_packed *w, ptrdiff_t rows, const void *x, const ptrdiff_t *row_index,
                    void *x_projected) {
  const rnnfast_cell *cell = &rnnfast_cells[w->cell];
  const ptrdiff_t panels = vectors_for(w->H);
  const ptrdiff_t spared = w->dense_tail ? cell->x_slots - w->dense_tail : 0;
  matmul(&(matmul_t){
      .rows = rows, .n = (panels * cell->x_slots - spared) * L, .width = cell->slots == 1 ? 4 : cell->x_slots,
      .a = x, .a_row_index = row_index, .a_stride = w->I, .run = w->I, .runs = 1, .run_stride = w->I, .b = w->w_ih,
      .init = w->bias, .init_panel = 4 * L, .init_vec = L,
      .c = x_projected, .c_stride = panels * cell->slots * L, .c_panel = 4 * L, .c_vec = L, .padded = 1});
}

/* The product of dz[first .. first + slots of every panel] and n columns, b. Not returned by value: a copy would wait
 * until the last stores to the original are in the cache. (M21) */
INLINE void dz_product(matmul_t *g, const rnnfast_packed *w, ptrdiff_t rows, const void *dz, ptrdiff_t dz_stride,
                       int first, int slots, const void *b, ptrdiff_t n) {
  const ptrdiff_t full = vectors_for(w->H) - (w->dense_tail > 0), width = rnnfast_cells[w->cell].slots * L;
  const ptrdiff_t tail = w->dense_tail ? slots * (w->H % L) : 0;
  const int edge = edge_columns(n, full * slots * L + tail);
  *g = (matmul_t){.rows = rows, .a = (const real *)dz + first * L, .a_stride = dz_stride, .run = slots * L,
                  .runs = full, .run_stride = width, .tail = tail,
                  .tail_a = (const real *)dz + full * width + first * (w->H % L), .b = b, .n = n - edge,
                  .edge = edge, .width = 4, .init_panel = 4 * L, .init_vec = L, .c_panel = 4 * L, .c_vec = L};
}

/* c (rows x n) = dz b, or c + dz b, for a step back. One row has so many sums that 8 accumulators are busy; an RNN's
 * sum is too short for that. The last product of a step fetches the gates of the next one. (M22) */
static void multiply_dz(const rnnfast_packed *w, const rnnfast_dstep *s, int first, int slots, const void *b,
                        ptrdiff_t n, void *c, ptrdiff_t c_stride, int add) {
  matmul_t g;
  dz_product(&g, w, s->rows, s->gates, s->gates_stride, first, slots, b, n);
  g.c = c, g.c_stride = c_stride, g.padded = 1;
  if (add) g.init = c, g.init_stride = c_stride;
  g.min_sums = rnnfast_cells[w->cell].slots == 1 ? 1 : n < 4 * L ? 4 : 2;
  if (b == w->w_hh && s->next) g.prefetch = s->next->gates, g.prefetch_reals = s->rows * s->gates_stride;
  matmul(&g);
}

static void dinput(const rnnfast_packed *w, ptrdiff_t rows, const void *dz, void *dx, const ptrdiff_t *row_index) {
  const rnnfast_cell *cell = &rnnfast_cells[w->cell];
  matmul_t g;
  dz_product(&g, w, rows, dz, vectors_for(w->H) * cell->slots * L, 0, cell->x_slots, w->w_ih, w->I);
  g.c = dx, g.c_row_index = row_index, g.c_stride = w->I, g.cold = 1;
  matmul(&g);
}
