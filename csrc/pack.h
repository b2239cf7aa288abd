/* Packed weights: the order in which the tiles read them, one panel after the other.
 *
 * Forward, gated cells: panel = L hidden units with their gates side by side, [panel][k][slot][lane], the
 * last one `dense_tail` if its units are so few that their gates fit fewer vectors when they stand without gaps.
 * At H = 100 an LSTM has 25 instead of 28 vectors and takes 7 to 10 per cent less time, at 130 5, at 20 20; a
 * single row at 20 and 40 11 to 14, a GRU's 4 to 11 (Zen 4).
 * RNN, projection and everything backward: panel = 4 vectors of plain columns, the last one fewer,
 * [panel][k][vector][lane]; backward then [column][k] if the last are few. Lanes beyond the matrix are zero.
 * Where the panel of units is narrow, dz has no gaps there either, so k ends with the units: at H = 100 400
 * instead of 448, and a step back takes 8 and dx 9 per cent less time, at 20 22 and 34. */

/* Which gate (row block of the public weights) stands in which slot. */
typedef struct { int slots, x_slots, h_first, h_slots; int x_gate[4], h_gate[4]; } layout_t;

static const layout_t layout[RNNFAST_CELLS] = {
  [RNNFAST_RNN] = {1, 1, 0, 1, {0}, {0}},
  [RNNFAST_GRU] = {4, 3, 1, 3, {2, 0, 1}, {0, 1, 2}},
  [RNNFAST_GRU_RESET_BEFORE] = {4, 3, 1, 2, {2, 0, 1}, {0, 1}},
  [RNNFAST_LSTM] = {4, 4, 0, 4, {0, 1, 2, 3}, {0, 1, 2, 3}},
};
static const int gate_n[1] = {2};

/* Vectors of the last panel, after others, of a cell whose gates stand there without gaps; else 0. */
static int dense_tail_of(int cell, ptrdiff_t H) {
  const int slots = cell == RNNFAST_LSTM ? 4 : cell == RNNFAST_GRU ? 3 : 0;
  const int vectors = (int)vectors_for(slots * (H % L));
  return H > L && vectors < slots ? vectors : 0;
}

/* How far apart the slots of panel p are. */
INLINE ptrdiff_t slot_stride_in(const rnnfast_packed *w, ptrdiff_t p) {
  return w->dense_tail && w->H - p * L < L ? w->H - p * L : L;
}

/* L columns of L rows (from the first NULL on zeros), `remaining` of them there, from column k on: a vector each. */
INLINE void load_square(V *a, const real *const *row, ptrdiff_t k, ptrdiff_t remaining) {
  if (row[L - 1] && remaining >= L)
    UNROLL for (int l = 0; l < L; l++) a[l] = load(row[l] + k);
  else
    UNROLL for (int l = 0; l < L; l++) a[l] = row[l] ? load_partial(row[l] + k, remaining) : splat(0);
  transpose(a);
}

/* Columns k0 .. k0 + L of L rows, K long (as above), to vectors `slot_stride` apart; zeros beyond Kp. */
static void pack_square(real *to, ptrdiff_t slot_stride, const real *const *row, ptrdiff_t K, ptrdiff_t k0,
                        ptrdiff_t Kp) {
  V a[L];
  load_square(a, row, k0, K - k0 < 0 ? 0 : K - k0);
  UNROLL for (int l = 0; l < L; l++)
    if (k0 + l < Kp) store(to + (k0 + l) * slot_stride, a[l]);
}

/* The panels of one of several parts that pack the same weights side by side. */
typedef struct { int part, parts; ptrdiff_t panel; } split_t;

/* Whether the next panel is among them. */
INLINE int owns_next_panel(split_t *split) { return split->panel++ % split->parts == split->part; }

/* Vectors along the rows of w (n x K), k the columns: a transpose, with zeros up to Kp columns. */
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

/* The same in panels of L units and their gates, of w (gates x H x K). */
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

/* Vectors along the first n columns of w, ld of them; k runs over its rows in the order of a dz row:
 * k = (panel, slot, lane), up to so many units. */
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

/* All n columns for a product with dz: the `edge` last ones each by itself, k as above up to a whole vector. */
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

/* The biases of one gate, summed, in slot `slot` of every panel; where slots stand without gaps, the next one
 * overwrites the zeros behind it. */
static void pack_bias_row(real *to, const rnnfast_packed *p, int slots, int slot, const real *b1,
                          const real *b2) {
  for (ptrdiff_t u = 0; u < p->H; u += L) {
    V sum = splat(0);
    if (b1) sum += load_partial(b1 + u, p->H - u);
    if (b2) sum += load_partial(b2 + u, p->H - u);
    store(to + u * slots + slot * slot_stride_in(p, u / L), sum);
  }
}

static void pack_bias(real *to, const rnnfast_weights *w, const rnnfast_packed *p) {
  const layout_t *lay = &layout[w->cell];
  const real *bi = w->b_ih, *bh = w->b_hh;
  const ptrdiff_t H = w->H;
  for (int s = 0; s < lay->x_slots; s++) {
    const int gate = lay->x_gate[s], slot_stride = w->cell == RNNFAST_GRU && s == 0;
    pack_bias_row(to, p, lay->slots, s, bi ? bi + gate * H : 0, bh && !slot_stride ? bh + gate * H : 0);
  }
  if (lay->slots > lay->x_slots) /* GRU: u_n's bias stays inside r * (...) */
    pack_bias_row(to, p, lay->slots, 3, w->cell == RNNFAST_GRU && bh ? bh + 2 * H : 0, 0);
}

static size_t packed_size(const rnnfast_weights *w, int use) {
  const layout_t *lay = &layout[w->cell];
  const ptrdiff_t Hp = vectors_for(w->H) * L, Ip = vectors_for(w->I) * L, Pp = vectors_for(w->P) * L;
  const ptrdiff_t before = w->cell == RNNFAST_GRU_RESET_BEFORE, projected = w->w_hr != 0;
  if (use == RNNFAST_ONE_STEP) return Hp * lay->slots;
  if (use == RNNFAST_BACKWARD)
    return Hp * (lay->x_slots * Ip + lay->h_slots * Pp + before * Hp + projected * w->P);
  return Hp * (lay->slots + lay->x_slots * w->I + lay->h_slots * w->P + before * Hp)
         + projected * Pp * w->H;
}

static void pack(const rnnfast_weights *w, int use, void *block, rnnfast_packed *out, int part, int parts) {
  split_t split = {.part = part, .parts = parts};
  const layout_t *lay = &layout[w->cell];
  const ptrdiff_t H = w->H, I = w->I, P = w->P, Hp = vectors_for(H) * L;
  const real *u_n = (const real *)w->w_hh + 2 * H * P;
  const int before = w->cell == RNNFAST_GRU_RESET_BEFORE;
  real *to = block;
  rnnfast_packed p = {.cell = w->cell, .act = w->act, .I = I, .H = H, .P = P};
  if (use != RNNFAST_ONE_STEP) p.dense_tail = dense_tail_of(w->cell, H);
  if (use == RNNFAST_BACKWARD) {
    const ptrdiff_t units = p.dense_tail ? H : Hp;
    p.w_ih = to, to = pack_columns(to, &split, w->w_ih, H, I, units, lay->x_slots, lay->x_gate);
    p.w_hh = to, to = pack_columns(to, &split, w->w_hh, H, P, units, lay->h_slots, lay->h_gate);
    if (before) p.w_hn = to, to = pack_columns(to, &split, w->w_hh, H, H, Hp, 1, gate_n);
    if (w->w_hr) p.w_hr = to, pack_rows(to, &split, w->w_hr, H, P, H, P, 1, layout[RNNFAST_RNN].x_gate);
  } else {
    p.bias = to, to += Hp * lay->slots;
    if (owns_next_panel(&split)) pack_bias((real *)block, w, &p);
    if (use == RNNFAST_ONE_STEP) {
      /* all else is read where it is */
    } else if (w->cell == RNNFAST_RNN) {
      p.w_ih = to, to = pack_transposed(to, &split, w->w_ih, H, I, I);
      p.w_hh = to, to = pack_transposed(to, &split, w->w_hh, H, P, P);
    } else {
      p.w_ih = to, to = pack_gates(to, &split, &p, w->w_ih, I, lay->x_slots, lay->x_gate);
      p.w_hh = to, to = pack_gates(to, &split, &p, w->w_hh, P, lay->h_slots, lay->h_gate);
    }
    if (before) p.w_hn = to, to = pack_transposed(to, &split, u_n, H, H, Hp);
    if (w->w_hr) p.w_hr = to, pack_transposed(to, &split, w->w_hr, P, H, H);
  }
  if (part == 0) *out = p;
}

/* sum += w x for one row, w (gates x H x K) as the caller has it: squares are turned as for packing, sums go on
 * in the same order of k. To write packed weights and read them once would cost more: forward and backward of
 * one step at I = 32, H = 64 5 (RNN) to 12 per cent, at I = 512, H = 1024 36 (Zen 4). */
static void add_matvec(real *sum, int slot_stride, const real *w, ptrdiff_t H, ptrdiff_t K, const real *x, int slots,
                        const int *gates) {
  for (ptrdiff_t u = 0; u < H; u += L, sum += slot_stride)
    for (int s = 0; s < slots; s++) {
      const real *from = w + (gates[s] * H + u) * K, *row[L];
      V acc = load(sum + s * L);
      for (int l = 0; l < L; l++) row[l] = u + l < H ? from + l * K : NULL;
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
                     void *min_sums) {
  const layout_t *lay = &layout[w->cell];
  const int slot_stride = lay->slots * L;
  memcpy(min_sums, p->bias, vectors_for(w->H) * slot_stride * sizeof(real));
  add_matvec(min_sums, slot_stride, w->w_ih, w->H, w->I, x, lay->x_slots, lay->x_gate);
  add_matvec((real *)min_sums + lay->h_first * L, slot_stride, w->w_hh, w->H, w->P, h, lay->h_slots, lay->h_gate);
}

/* bias + w_ih x for any number of rows, laid out as a gate buffer. */
static void project(const rnnfast_packed *w, ptrdiff_t rows, const void *x, const ptrdiff_t *row_index,
                    void *x_projected) {
  const layout_t *lay = &layout[w->cell];
  const ptrdiff_t panels = vectors_for(w->H), rnn = w->cell == RNNFAST_RNN, slots = lay->slots;
  const ptrdiff_t spared = w->dense_tail ? lay->x_slots - w->dense_tail : 0;
  matmul(&(matmul_t){
      .rows = rows, .n = (panels * lay->x_slots - spared) * L, .width = rnn ? 4 : lay->x_slots,
      .a = x, .a_row_index = row_index, .a_stride = w->I, .run = w->I, .runs = 1, .run_stride = w->I, .b = w->w_ih,
      .init = w->bias, .init_panel = 4 * L, .init_vec = L,
      .c = x_projected, .c_stride = panels * slots * L, .c_panel = 4 * L, .c_vec = L, .padded = 1});
}

/* The product of dz[first .. first + slots of every panel] and n columns, b. Not by value: a copy waits until
 * the last stores to the original, and all before them, are in the cache, 20 ns of a single row's step back. */
INLINE void dz_product(matmul_t *g, const rnnfast_packed *w, ptrdiff_t rows, const void *dz, ptrdiff_t dz_stride, int first,
                  int slots, const void *b, ptrdiff_t n) {
  const ptrdiff_t full = vectors_for(w->H) - (w->dense_tail > 0), wide = layout[w->cell].slots * L;
  const ptrdiff_t tail = w->dense_tail ? slots * (w->H % L) : 0;
  const int edge = edge_columns(n, full * slots * L + tail);
  *g = (matmul_t){.rows = rows, .a = (const real *)dz + first * L, .a_stride = dz_stride, .run = slots * L, .runs = full,
                .run_stride = wide, .tail = tail, .tail_a = (const real *)dz + full * wide + first * (w->H % L),
                .b = b, .n = n - edge, .edge = edge, .width = 4, .init_panel = 4 * L, .init_vec = L,
                .c_panel = 4 * L, .c_vec = L};
}

/* c (rows x n) = dz b, or c + dz b, a step back; in so many sums that 8 accumulators are busy when there is
 * one row; an RNN's, short as it is, in one. The last product of a step fetches the gates of the next one: at
 * H = 256 with 64 rows it takes 4 to 7 per cent less time (LSTM and GRU), at 512 up to 3, that of an RNN 1. */
static void multiply_dz(const rnnfast_packed *w, const rnnfast_dstep *s, int first, int slots, const void *b,
                     ptrdiff_t n, void *c, ptrdiff_t c_stride, int add) {
  matmul_t g;
  dz_product(&g, w, s->rows, s->gates, s->gates_stride, first, slots, b, n);
  g.c = c, g.c_stride = c_stride, g.padded = 1;
  if (add) g.init = c, g.init_stride = c_stride;
  g.min_sums = w->cell == RNNFAST_RNN ? 1 : n < 4 * L ? 4 : 2;
  if (b == w->w_hh && s->next) g.prefetch = s->next->gates, g.prefetch_reals = s->rows * s->gates_stride;
  matmul(&g);
}

static void dinput(const rnnfast_packed *w, ptrdiff_t rows, const void *dz, void *dx,
                   const ptrdiff_t *row_index) {
  const layout_t *lay = &layout[w->cell];
  matmul_t g;
  dz_product(&g, w, rows, dz, vectors_for(w->H) * lay->slots * L, 0, lay->x_slots, w->w_ih, w->I);
  g.c = dx, g.c_row_index = row_index, g.c_stride = w->I, g.cold = 1;
  matmul(&g);
}
