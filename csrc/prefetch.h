/* All prefetching: what is fetched ahead of its use, when, and why.
 *
 * Nothing here changes a result. Without the calls of these functions every bit is the same, and large layers are
 * slower. Addresses may lie past the end of an array: a prefetch of memory that is not there does nothing. */

enum { LINE = 64 }; /* bytes of a cache line */

/* The lines of n reals to the second-level cache, to be read or written. */
INLINE void prefetch_lines(const real *p, ptrdiff_t n, int write) {
  const char *at = (const char *)p, *end = (const char *)(p + n);
  for (; at < end; at += LINE)
    if (write) __builtin_prefetch(at, 1, 2);
    else __builtin_prefetch(at, 0, 2);
}

/* Whether weights leave the second-level cache before the next step: so many reals of weights, and what each row
 * reads and writes besides them. Asking again for weights that stay there only costs. (M05) */
INLINE int exceeds_l2(ptrdiff_t weights, ptrdiff_t rows, ptrdiff_t per_row) {
  return (weights + rows * per_row) * (ptrdiff_t)sizeof(real) > 1700000;
}

/* ---- What the tiles of one panel fetch for later, each a share of it. */

/* Memory that is needed next: so many bytes of it for each row of a tile, from `first` on, and as many from `second`
 * on. Either may be NULL. */
typedef struct { const real *first, *second; ptrdiff_t bytes_per_row; } prefetch_request_t;

/* n reals for `rows` rows: the bytes of one row. */
INLINE ptrdiff_t bytes_per_row(ptrdiff_t n, ptrdiff_t rows) {
  return (n * (ptrdiff_t)sizeof(real) + rows - 1) / rows;
}

/* The weights of the panel after the one at b, of so many reals. After the last panel it is the first one, which the
 * next step needs. NULL where weights stay in the cache. */
INLINE const real *next_weights(const real *b, ptrdiff_t reals, ptrdiff_t panels, const real *first_panel,
                                int weights_leave_l2) {
  return !weights_leave_l2 ? NULL : panels > 1 ? b + reals : first_panel;
}

/* Two things at once: weights, if they need to be fetched, and data. */
INLINE prefetch_request_t request_both(const real *weights, const real *data, ptrdiff_t per_row) {
  return weights ? (prefetch_request_t){weights, data, per_row} : (prefetch_request_t){data, NULL, per_row};
}

/* The part of n reals of data that a panel fetches, `part` of them, as the last panels do. */
INLINE const real *prefetch_part(const void *data, ptrdiff_t n, ptrdiff_t part, ptrdiff_t panels_after) {
  return data && panels_after * part < n ? (const real *)data + panels_after * part : NULL;
}

/* How a tile spreads its share over the steps k of its sum: `bytes_per_k` from `at` on, and as many from `second`
 * bytes behind it, unless that is 0.
 *
 * Weights beyond the second-level cache arrive at a fixed rate. So every tile asks for a share in proportion to its
 * rows, spread evenly over k. Asking for several lines at once, or by the first tiles only, is slower. (M06) */
typedef struct { const char *at; ptrdiff_t bytes_per_k, second; } prefetch_t;

/* The share of rows r .. r + mr in a sum over K. A stream asks for at most a line per k; if the share is larger, it
 * is cut into two streams. */
INLINE prefetch_t plan_prefetch(const prefetch_request_t *q, ptrdiff_t K, ptrdiff_t r, int mr) {
  const ptrdiff_t step = (q->bytes_per_row * mr + K - 1) / K;
  const char *at = (const char *)q->first + q->bytes_per_row * r;
  if (step <= LINE)
    return (prefetch_t){at, step, q->second ? (const char *)q->second - (const char *)q->first : 0};
  return (prefetch_t){at, step / 2 < LINE ? step / 2 : LINE, step / 2 * K};
}

/* Which bits of k must be zero for a request: where a k's share is small, most requests would repeat a line. A few
 * repetitions cost nothing, ten do. (M07) */
INLINE ptrdiff_t skipped_bits(prefetch_t p) { return p.bytes_per_k <= 8 ? 3 : 0; }

/* Step k of one or two streams; none does nothing. */
INLINE void prefetch_share(prefetch_t *p, int streams, ptrdiff_t k, ptrdiff_t skipped) {
  if (!streams) return;
  if (!(k & skipped)) {
    __builtin_prefetch(p->at, 0, 2);
    if (streams > 1) __builtin_prefetch(p->at + p->second, 0, 2);
  }
  p->at += p->bytes_per_k;
}

/* ---- What one step fetches of the data of rows. */

/* The lines that a tile will store to: nv vectors of units from unit u on, rows r .. r + mr.
 *
 * Stores retire in order: some 40 that miss the second-level cache would stall the tile after this one. When the
 * outputs are in that cache, prefetching only costs; hence outputs_cold. (M08) */
INLINE void prefetch_outputs(const rnnfast_packed *w, const rnnfast_step *s, ptrdiff_t u, int nv, int slots,
                             ptrdiff_t r, int mr) {
  const rnnfast_cell *cell = &rnnfast_cells[w->cell];
  if (!s->outputs_cold) return;
  for (ptrdiff_t row = r; row < r + mr; row++) {
    prefetch_lines(y_row(s, row) + u, nv * L, 1);
    if (!s->gates) continue;
    prefetch_lines((real *)s->gates + row * s->gates_stride + slots * u, slots * nv * L, 1);
    prefetch_lines((real *)s->h_next + row * s->h_next_stride + u, nv * L, 1);
    if (cell->has_c) prefetch_lines((real *)s->c_next + row * s->c_stride + u, nv * L, 1);
  }
}

/* What row r of the next step back reads besides its gates, which the last product fetches (pack.h). (M09) */
INLINE void prefetch_next_step(const rnnfast_packed *w, const rnnfast_dstep *s, ptrdiff_t r) {
  const rnnfast_dstep *next = s->next;
  const rnnfast_cell *cell = &rnnfast_cells[w->cell];
  if (!next) return;
  if (next->dy) prefetch_lines((const real *)next->dy + data_row(next->row_index, r) * next->dy_stride, w->P, 0);
  if (cell->has_c) prefetch_lines((const real *)next->c + r * next->c_stride, w->H, 0);
  else if (cell->slots > 1) prefetch_lines((const real *)next->h + r * next->h_stride, w->H, 0);
}

/* ---- What the tiles of weight gradients fetch. */

/* Rows, so many bytes from each other, of which 4 vectors are needed next; `at` NULL: none. */
typedef struct { const char *at; ptrdiff_t stride; } prefetch_rows_t;

INLINE prefetch_rows_t prefetch_rows(const real *at, ptrdiff_t stride) {
  return (prefetch_rows_t){(const char *)at, stride * (ptrdiff_t)sizeof(real)};
}

/* What tile number i fetches: a line of each row that is copied next. Four tiles fetch those of b, four those of dz.
 * (M10) */
INLINE prefetch_t prefetch_of_tile(const prefetch_rows_t *b_and_dz, ptrdiff_t i) {
  const ptrdiff_t line = i % 4 * LINE;
  const prefetch_rows_t rows = i < 8 && line < 4 * VECTOR_BYTES ? b_and_dz[i / 4] : (prefetch_rows_t){0};
  return rows.at ? (prefetch_t){rows.at + line, rows.stride, 0} : (prefetch_t){0};
}

/* The rows of C for the next tile, which left the caches during the last block of k. (M11) */
INLINE void prefetch_results(real *const *row, ptrdiff_t j, int nv, int mr) {
  UNROLL for (int m = 0; m < mr; m++)
    UNROLL for (int v = 0; v < nv; v++) __builtin_prefetch(row[mr + m] + j + v * L, 1);
}
