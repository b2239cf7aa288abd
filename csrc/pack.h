/* Packed weights: the order in which the tiles read them, one panel after the other.
 *
 * Forward, gated cells: panel = L hidden units with their gates side by side, [panel][k][slot][lane].
 * RNN, projection and everything backward: panel = 4 vectors of plain columns, the last one fewer,
 * [panel][k][vector][lane]. Lanes beyond the matrix are zero. */

/* Which gate (row block of the public weights) stands in which slot. */
typedef struct { int slots, x_slots, h_first, h_slots; int x_gate[4], h_gate[4]; } layout_t;

static const layout_t layout[RNNFAST_CELLS] = {
  [RNNFAST_RNN] = {1, 1, 0, 1, {0}, {0}},
  [RNNFAST_GRU] = {4, 3, 1, 3, {2, 0, 1}, {0, 1, 2}},
  [RNNFAST_GRU_RESET_BEFORE] = {4, 3, 1, 2, {2, 0, 1}, {0, 1}},
  [RNNFAST_LSTM] = {4, 4, 0, 4, {0, 1, 2, 3}, {0, 1, 2, 3}},
};
static const int gate_n[1] = {2};

/* Columns k0 .. k0 + L of `rows` rows, K long and apart, to vectors `apart` apart; zeros beyond Kp. */
static void pack_square(REAL *to, ptrdiff_t apart, const REAL *from, ptrdiff_t rows, ptrdiff_t K,
                        ptrdiff_t k0, ptrdiff_t Kp) {
  const ptrdiff_t left = K - k0 < 0 ? 0 : K - k0;
  V a[L];
  UNROLL for (int l = 0; l < L; l++) {
    const REAL *row = from + l * K + k0;
    a[l] = l >= rows ? splat(0) : load_up_to(row, left);
  }
  transpose(a);
  UNROLL for (int l = 0; l < L; l++)
    if (k0 + l < Kp) store(to + (k0 + l) * apart, a[l]);
}

/* Vectors along the rows of w (n x K), k the columns: a transpose, with zeros up to Kp columns.
 * `gates` NULL: plain rows. */
static REAL *pack_t(REAL *to, const REAL *w, ptrdiff_t n, ptrdiff_t K, ptrdiff_t Kp, int width,
                    const int *gates) {
  const ptrdiff_t vectors = panels_of(n) * (gates ? width : 1);
  for (ptrdiff_t q0 = 0; q0 < vectors; q0 += width) {
    const ptrdiff_t nv = vectors - q0 < width ? vectors - q0 : width;
    for (ptrdiff_t v = 0; v < nv; v++) {
      const ptrdiff_t unit = gates ? q0 / width * L : (q0 + v) * L;
      const REAL *from = w + ((gates ? gates[v] * n : 0) + unit) * K;
      for (ptrdiff_t k = 0; k < Kp; k += L) pack_square(to + v * L, nv * L, from, n - unit, K, k, Kp);
    }
    to += Kp * nv * L;
  }
  return to;
}

/* Vectors along the columns of w (rows x n); k runs over its rows in the order of a dz row:
 * k = (panel, slot, lane). `K` may end within a panel when there is one slot. */
static REAL *pack_rows(REAL *to, const REAL *w, ptrdiff_t H, ptrdiff_t n, ptrdiff_t K, int slots,
                       const int *gates) {
  for (ptrdiff_t j = 0; j < n; j += 4 * L) {
    const ptrdiff_t left = n - j, nv = left < 4 * L ? panels_of(left) : 4;
    for (ptrdiff_t k0 = 0; k0 < K; k0 += L) {
      const ptrdiff_t unit = k0 / (slots * L) * L, gate = gates[k0 / L % slots];
      const REAL *from = w + (gate * H + unit) * n + j;
      for (ptrdiff_t k = 0; k < L && k0 + k < K; k++, from += n, to += nv * L)
        if (unit + k >= H)
          memset(to, 0, nv * VBYTES);
        else if (left >= 4 * L)
          UNROLL for (int v = 0; v < 4; v++) store(to + v * L, load(from + v * L));
        else
          for (ptrdiff_t v = 0; v < nv; v++) store(to + v * L, load_up_to(from + v * L, left - v * L));
    }
  }
  return to;
}

/* The biases of one gate, summed, in slot `slot` of every panel. */
static void pack_bias_row(REAL *to, ptrdiff_t H, int slots, int slot, const REAL *b1, const REAL *b2) {
  for (ptrdiff_t u = 0; u < H; u += L) {
    V sum = splat(0);
    if (b1) sum += load_up_to(b1 + u, H - u);
    if (b2) sum += load_up_to(b2 + u, H - u);
    store(to + u * slots + slot * L, sum);
  }
}

static REAL *pack_bias(REAL *to, const rnnfast_weights *w) {
  const layout_t *lay = &layout[w->cell];
  const REAL *bi = w->b_ih, *bh = w->b_hh;
  const ptrdiff_t H = w->H;
  for (int s = 0; s < lay->x_slots; s++) {
    const int gate = lay->x_gate[s], apart = w->cell == RNNFAST_GRU && s == 0;
    pack_bias_row(to, H, lay->slots, s, bi ? bi + gate * H : 0, bh && !apart ? bh + gate * H : 0);
  }
  if (lay->slots > lay->x_slots) /* GRU: u_n's bias stays inside r * (...) */
    pack_bias_row(to, H, lay->slots, 3, w->cell == RNNFAST_GRU && bh ? bh + 2 * H : 0, 0);
  return to + panels_of(H) * lay->slots * L;
}

static size_t packed_size(const rnnfast_weights *w, int backward) {
  const layout_t *lay = &layout[w->cell];
  const ptrdiff_t Hp = panels_of(w->H) * L, Ip = panels_of(w->I) * L, Pp = panels_of(w->P) * L;
  const ptrdiff_t before = w->cell == RNNFAST_GRU_RESET_BEFORE, projected = w->w_hr != 0;
  if (backward)
    return Hp * (lay->x_slots * Ip + lay->h_slots * Pp + before * Hp + projected * w->P);
  return Hp * (lay->slots + lay->x_slots * w->I + lay->h_slots * w->P + before * Hp)
         + projected * Pp * w->H;
}

static void pack(const rnnfast_weights *w, int backward, void *block, rnnfast_packed *out) {
  const layout_t *lay = &layout[w->cell];
  const int width = w->cell == RNNFAST_RNN ? 4 : lay->x_slots;
  const int *xg = w->cell == RNNFAST_RNN ? 0 : lay->x_gate, *hg = xg ? lay->h_gate : 0;
  const ptrdiff_t H = w->H, I = w->I, P = w->P, Hp = panels_of(H) * L;
  const REAL *u_n = (const REAL *)w->w_hh + 2 * H * P;
  const int before = w->cell == RNNFAST_GRU_RESET_BEFORE;
  REAL *to = block;
  *out = (rnnfast_packed){.cell = w->cell, .act = w->act, .I = I, .H = H, .P = P};
  if (backward) {
    out->x = to, to = pack_rows(to, w->w_ih, H, I, lay->x_slots * Hp, lay->x_slots, lay->x_gate);
    out->h = to, to = pack_rows(to, w->w_hh, H, P, lay->h_slots * Hp, lay->h_slots, lay->h_gate);
    if (before) out->h2 = to, to = pack_rows(to, w->w_hh, H, H, Hp, 1, gate_n);
    if (w->w_hr) out->r = to, pack_rows(to, w->w_hr, P, H, P, 1, layout[RNNFAST_RNN].x_gate);
  } else {
    out->bias = to, to = pack_bias(to, w);
    out->x = to, to = pack_t(to, w->w_ih, H, I, I, width, xg);
    out->h = to, to = pack_t(to, w->w_hh, H, P, P, xg ? lay->h_slots : width, hg);
    if (before) out->h2 = to, to = pack_t(to, u_n, H, H, Hp, 4, 0);
    if (w->w_hr) out->r = to, pack_t(to, w->w_hr, P, H, H, 4, 0);
  }
}

/* bias + w_ih x for any number of rows, laid out as a gate buffer. */
static void project(const rnnfast_packed *w, ptrdiff_t rows, const void *x, const ptrdiff_t *data_rows,
                    void *init) {
  const layout_t *lay = &layout[w->cell];
  const ptrdiff_t panels = panels_of(w->H), rnn = w->cell == RNNFAST_RNN, slots = lay->slots;
  gemm(&(gemm_t){
      .rows = rows, .n = panels * lay->x_slots * L, .width = rnn ? 4 : lay->x_slots,
      .a = x, .a_rows = data_rows, .lda = w->I, .run = w->I, .runs = 1, .stride = w->I, .b = w->x,
      .init = w->bias, .init_panel = 4 * L, .init_vec = L,
      .c = init, .ldc = panels * slots * L, .c_panel = 4 * L, .c_vec = L, .whole = 1});
}

/* dz[first .. first + slots of every panel] as the first factor of a product. */
INLINE gemm_t dz_of(const rnnfast_packed *w, ptrdiff_t rows, const void *dz, ptrdiff_t lddz, int first,
                    int slots) {
  return (gemm_t){.rows = rows, .a = (const REAL *)dz + first * L, .lda = lddz, .run = slots * L,
                  .runs = panels_of(w->H), .stride = layout[w->cell].slots * L, .width = 4,
                  .init_panel = 4 * L, .init_vec = L, .c_panel = 4 * L, .c_vec = L};
}

/* c (rows x n) = dz b, or c + dz b, a step back; in so many sums that 8 accumulators are busy when there is
 * one row. The last product of a step fetches the gates of the next one: with 64 rows at H = 256 the step takes
 * 4 to 7 per cent less time (LSTM and GRU), at 512 up to 3, that of an RNN 1. */
static void dz_times(const rnnfast_packed *w, const rnnfast_dstep *s, int first, int slots, const void *b,
                     ptrdiff_t n, void *c, ptrdiff_t ldc, int add) {
  gemm_t g = dz_of(w, s->rows, s->gates, s->ldgates, first, slots);
  g.n = n, g.b = b, g.c = c, g.ldc = ldc, g.whole = 1;
  if (add) g.init = c, g.ldinit = ldc;
  if (w->cell != RNNFAST_RNN) g.sums = n < 4 * L ? 4 : 2;
  if (b == w->h) g.later = s->next_gates, g.later_reals = s->rows * s->ldgates;
  gemm(&g);
}

static void dinput(const rnnfast_packed *w, ptrdiff_t rows, const void *dz, void *dx,
                   const ptrdiff_t *data_rows) {
  const layout_t *lay = &layout[w->cell];
  gemm_t g = dz_of(w, rows, dz, panels_of(w->H) * lay->slots * L, 0, lay->x_slots);
  g.n = w->I, g.b = w->x, g.c = dx, g.c_rows = data_rows, g.ldc = w->I, g.fresh = 1;
  gemm(&g);
}
