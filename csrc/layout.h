/* Where things lie: vectors and panels, rows by index, hidden units, and rows cut into tiles. */

/* How many vectors n reals take. */
INLINE ptrdiff_t vectors_for(ptrdiff_t n) { return (n + L - 1) / L; }

/* Where row r of a step is in data with a row index. Without one it is in its place. */
INLINE ptrdiff_t data_row(const ptrdiff_t *row_index, ptrdiff_t r) { return row_index ? row_index[r] : r; }

/* Row r of a step in x and in y. */
INLINE const real *x_row(const rnnfast_step *s, ptrdiff_t r) {
  return (const real *)s->x + data_row(s->row_index, r) * s->x_stride;
}
INLINE real *y_row(const rnnfast_step *s, ptrdiff_t r) {
  return (real *)s->y + data_row(s->row_index, r) * s->y_stride;
}

/* A vector of hidden units: its row and its panel of L units. In a batch the next one is in the row below, in a
 * single row in the panel beside it. */
typedef struct { ptrdiff_t row, panel; int next_is_below; } unit_t;

INLINE unit_t unit_at(unit_t first, ptrdiff_t i) {
  return (unit_t){first.row + i * first.next_is_below, first.panel + i * !first.next_is_below, first.next_is_below};
}

/* A vector of units in an array with that stride between rows. */
INLINE real *units_in(const void *array, ptrdiff_t stride, unit_t unit) {
  return (real *)array + unit.row * stride + unit.panel * L;
}

/* The slots of a vector of units in the gate buffer of a step. */
INLINE real *slots_in(const void *gates, ptrdiff_t stride, int slots, unit_t unit) {
  return (real *)gates + unit.row * stride + unit.panel * slots * L;
}

/* Rows cut into tiles as even as can be: 13 rows are 7 + 6, not 12 + 1. */
typedef struct { ptrdiff_t row, low, taller, tiles, number; int rows; } tile_t;

INLINE tile_t first_tile(ptrdiff_t rows, ptrdiff_t max_rows) {
  const ptrdiff_t tiles = (rows + max_rows - 1) / max_rows, low = tiles ? rows / tiles : 0;
  const ptrdiff_t taller = rows - low * tiles;
  return (tile_t){0, low, taller, tiles, 0, (int)(low + (taller > 0))};
}
INLINE tile_t next_tile(tile_t t) {
  t.row += t.rows, t.number++;
  t.rows = t.number < t.tiles ? (int)(t.low + (t.number < t.taller)) : 0;
  return t;
}
