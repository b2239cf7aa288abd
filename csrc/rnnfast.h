/* The C contract of rnnfast: what the layer above may call, and what every pointer means.
 *
 * Letters: T time steps, B batch rows, I input size, H hidden size, K length of a sum. P is the output size: that of a
 * projected LSTM, else H. L is the number of lanes of a vector of the instruction set in use. Xp is X rounded up to a
 * multiple of L.
 *
 * Every pointer to reals is `void *`, because one set of functions serves both precisions. All reals of one call have
 * the precision of the table that the function was taken from. Strides are in reals, between rows. No kernel
 * allocates, keeps a pointer, or knows of Python or threads. Functions are safe to call from many threads on disjoint
 * rows.
 *
 * Gate buffers hold one row of slots per batch row: [panel][slot][lane], where a panel is L hidden units.
 *   Slots by cell:   RNN  h            LSTM  i f g o            GRU  n r z and
 *     with reset_after      u_n h' + b_hn     without   r h'
 *   After the backward step the same memory holds the gradients of the pre-activations (dz):
 *                    RNN  dh           LSTM  di df dg do        GRU  dn dr dz and
 *     with reset_after      r dn              without   r h', unchanged
 * If the last panel has a dense tail (pack.h), its slots of dz stand there without gaps.
 */
#ifndef RNNFAST_H
#define RNNFAST_H

#include <stddef.h>
#include <stdint.h>

enum { RNNFAST_RNN, RNNFAST_GRU, RNNFAST_GRU_RESET_BEFORE, RNNFAST_LSTM, RNNFAST_CELLS };
enum { RNNFAST_TANH, RNNFAST_RELU, RNNFAST_SIGMOID, RNNFAST_IDENTITY };

/* What is different from cell to cell (cells.h has the list). */
typedef struct {
  const char *name;
  int gates;                         /* row blocks of w_ih and w_hh */
  int slots;                         /* vectors of a panel in a gate buffer */
  int x_slots;                       /* slots that w_ih x is added to, from the first on */
  int first_h_slot, h_slots;         /* slots that w_hh h is added to */
  int x_gate[4], h_gate[4];          /* the gate in each of these slots */
  int b_hh_slot[4];                  /* by gate: the slot that its b_hh is added to */
  int has_c;                         /* a cell state beside the output */
  int has_w_hn;                      /* the last gate of w_hh multiplies r h' in a second pass */
} rnnfast_cell;

/* What weights are packed for: all steps forward, one step of one row (which reads the caller's, see
 * `one_step`), or backward. */
enum { RNNFAST_FORWARD, RNNFAST_ONE_STEP, RNNFAST_BACKWARD };

/* The weights of one layer and direction as the caller has them, row-major; b_ih, b_hh and w_hr may
 * be NULL. */
typedef struct {
  int cell, act;     /* act: nonlinearity of the RNN */
  ptrdiff_t I, H, P;
  const void *w_ih, *w_hh, *b_ih, *b_hh, *w_hr;
} rnnfast_weights;

/* The same weights packed for one direction of the computation (see pack.h). All parts lie in one
 * block; offsets are in reals. */
typedef struct {
  int cell, act;
  int dense_tail;                    /* vectors of the last panel of a gated cell; 0: like the others */
  ptrdiff_t I, H, P;
  const void *bias, *w_ih, *w_hh, *w_hr;
  const void *w_hn;                  /* u_n of the GRU with the reset before */
} rnnfast_packed;

/* One time step of one block of rows, forward. */
typedef struct {
  ptrdiff_t rows;                    /* at least 1: kernels divide by it */
  const ptrdiff_t *row_index;        /* (rows,) which rows of x and y they are; NULL: those from 0 on */
  const void *x;                     /* rows of I; used when x_projected is NULL */
  const void *x_projected;           /* bias + w_ih x already summed, laid out as gates; or NULL */
  int preactivations_ready;          /* nonzero, for one row only: w_hh h too is in x_projected */
  void *h;                           /* (rows, Pp) previous output; rows with a reset are zeroed */
  void *h_next;                      /* (rows, Pp) written whole, padding included */
  void *y;                           /* rows of P: the same values for the user */
  const void *c;                     /* LSTM: (rows, Hp) previous cell state */
  void *c_next;                      /* LSTM: (rows, Hp); may be c itself */
  void *gates;                       /* (rows, slots) saved for backward; NULL: not saved
                                        (the GRU with the reset before always needs it) */
  const uint8_t *reset;              /* (rows,) nonzero: take the previous c as zero; or NULL */
  int outputs_cold;                  /* nonzero: x, y and what is saved are in no near cache */
  int reverse_panels;                /* differs from the step before: a single row then begins with the
                                        weights that the step before used last */
  void *work;                        /* LSTM with projection: (rows, Hp) scratch */
  ptrdiff_t x_stride, x_projected_stride, h_stride, h_next_stride;
  ptrdiff_t y_stride, c_stride, gates_stride, work_stride;
} rnnfast_step;

/* One time step of one block of rows, backward. */
typedef struct rnnfast_dstep {
  ptrdiff_t rows;                    /* at least 1 */
  const ptrdiff_t *row_index;        /* (rows,) which rows of dy they are; NULL: those from 0 on */
  void *gates;                       /* in: saved by forward; out: dz */
  const void *h;                     /* GRU: (rows, Pp) previous output */
  const void *c, *c_next;            /* LSTM: (rows, Hp) previous and new cell state */
  const void *dy;                    /* rows of P, or NULL */
  void *dh;                          /* (rows, Pp) in: gradient of the new state from later steps;
                                        out: of the previous state */
  void *dc;                          /* LSTM: (rows, Hp), likewise */
  const uint8_t *reset;              /* (rows,) nonzero: the previous state was zero; or NULL */
  void *h_raw, *dh_sum;              /* projection only, for the gradient of w_hr: (rows, Hp) gets the
                                        unprojected output, (rows, Pp) the whole gradient of h */
  void *work;                        /* (rows, Hp) scratch of projection and of reset-before */
  ptrdiff_t gates_stride, h_stride, c_stride, dy_stride, dh_stride, dc_stride;
  ptrdiff_t h_raw_stride, dh_sum_stride, work_stride;
  const struct rnnfast_dstep *next;  /* the next call, of no fewer rows: its data is fetched; or NULL */
} rnnfast_dstep;

/* Weight gradients: for each term, C[gate[s]*H + u][j] = sum over k of dz[k][slot s of u] * b[k][j]. */
typedef struct {
  const void *b;
  const ptrdiff_t *row_index;        /* which row of b belongs to each of dz; NULL: the one in its place */
  ptrdiff_t b_stride, n;             /* rows of n reals */
  ptrdiff_t vec_stride;              /* from one vector of a row to the next; L: contiguous */
  void *c;                           /* rows of n reals, c_stride apart; overwritten */
  ptrdiff_t c_stride;
  int first_slot, slots;             /* which slots of dz take part */
  int gate[4];                       /* the row block of C that each of these belongs to */
} rnnfast_term;

typedef struct {
  ptrdiff_t K, H;                    /* rows of dz; hidden units */
  const void *dz;
  ptrdiff_t dz_stride;
  int slots;                         /* per panel of dz */
  int dense_tail;                    /* nonzero: they have no gaps in the last panel */
  int terms;
  rnnfast_term term[3];
  void *bias;                        /* (panels, slots, L) sums of dz over k; or NULL */
} rnnfast_wgrad;

/* ---- Cells of the user's own: products, and programs between them (docs/architecture.md). */

/* The operations of a program, in the order of rnnfast/cells/_program.py. */
enum {
  RNNFAST_SPREAD, RNNFAST_ADD, RNNFAST_SUB, RNNFAST_MUL, RNNFAST_DIV, RNNFAST_MINIMUM, RNNFAST_MAXIMUM,
  RNNFAST_LESS, RNNFAST_LESS_EQUAL, RNNFAST_EQUAL, RNNFAST_NOT_EQUAL, RNNFAST_NEG, RNNFAST_SIGMOID_OF,
  RNNFAST_TANH_OF, RNNFAST_RELU_OF, RNNFAST_EXP, RNNFAST_LOG, RNNFAST_SQRT, RNNFAST_SOFTPLUS, RNNFAST_ABS,
  RNNFAST_WHERE, RNNFAST_MULTIPLY_ADD, RNNFAST_MULTIPLY_SUB, RNNFAST_SUBTRACT_PRODUCT, RNNFAST_SIGMOID_BACK,
  RNNFAST_TANH_BACK, RNNFAST_SIGMOID_BACK_PRODUCT, RNNFAST_TANH_BACK_PRODUCT, RNNFAST_OUTER, RNNFAST_OUTER_LEFT,
  RNNFAST_OUTER_RIGHT, RNNFAST_TOTAL, RNNFAST_LARGEST,
  RNNFAST_INVERSE_DEVIATION, RNNFAST_NORMALIZED, RNNFAST_NORMALIZED_BACK
};

/* A place for a value of each row: so many reals into the rows of an array. It has whole vectors, or one number in all
 * lanes of one vector. */
typedef struct { int32_t array, offset, is_vector; } rnnfast_place;
typedef struct {
  int32_t operation, size;           /* units of the result; of a reduction or product: of the larger operand */
  int32_t inner;                     /* outer products: units of the second factor */
  int32_t masked;                    /* units of the result, if lanes beyond them become zero; else 0 */
  rnnfast_place to, a, b, c;
} rnnfast_instruction;
/* The rows of an array in this step. `local`: scratch for the rows that are computed at a time. */
typedef struct { void *at; ptrdiff_t stride; int local; } rnnfast_array;

/* A factor of a product: rows of K reals, and the packed weights for them. */
typedef struct {
  const void *a;
  const ptrdiff_t *row_index;        /* where the rows are; NULL: one after the other */
  ptrdiff_t stride, K;
  const void *weights;
} rnnfast_factor;

/* c (rows x columns) = init + each factor's rows times its weights, one factor after the other. */
typedef struct {
  ptrdiff_t rows, columns;
  const rnnfast_factor *factor;
  ptrdiff_t factors;
  const void *init;                  /* NULL: zero; with init_stride 0 one row for all */
  ptrdiff_t init_stride;
  void *c;
  const ptrdiff_t *c_row_index;
  ptrdiff_t c_stride;
  int whole_vectors;                 /* the rows of c and init are whole vectors */
} rnnfast_product;

typedef struct {
  const char *isa;
  int size, lanes, tile_rows;        /* bytes of a real, lanes of a vector, rows of a full tile */
  size_t (*packed_size)(const rnnfast_weights *w, int use);      /* in reals */
  /* One of several parts, which may run side by side. The first one describes the whole in `out`. */
  void (*pack)(const rnnfast_weights *w, int use, void *block, rnnfast_packed *out, int part, int parts);
  void (*step[RNNFAST_CELLS])(const rnnfast_packed *w, const rnnfast_step *s);
  void (*dstep[RNNFAST_CELLS])(const rnnfast_packed *w, const rnnfast_dstep *s);
  /* x_projected of one step of one row with preactivations_ready, from weights packed for one step. Not for cells with
   * w_hr or w_hn. */
  void (*one_step)(const rnnfast_weights *w, const rnnfast_packed *p, const void *x, const void *h,
                   void *x_projected);
  /* x_projected of the steps whose rows of x are row_index[0 .. rows]. */
  void (*project)(const rnnfast_packed *w, ptrdiff_t rows, const void *x, const ptrdiff_t *row_index,
                  void *x_projected);
  /* Rows row_index[0 .. rows] of dx; NULL: those from 0 on. */
  void (*dinput)(const rnnfast_packed *w, ptrdiff_t rows, const void *dz, void *dx,
                 const ptrdiff_t *row_index);
  /* g for dw_ih (from x), dw_hh (from h, the previous outputs) and `bias`. */
  void (*wgrad_plan)(const rnnfast_packed *w, ptrdiff_t K, const void *dz, const void *x,
                     const ptrdiff_t *x_row_index, const void *h, ptrdiff_t h_stride,
                     const ptrdiff_t *h_row_index, void *dw_ih, void *dw_hh, void *bias, rnnfast_wgrad *g);
  void (*bias_grads)(const rnnfast_packed *w, const void *bias, void *db_ih, void *db_hh);
  size_t (*wgrad_scratch)(const rnnfast_wgrad *g);               /* in reals, per caller */
  void (*wgrad)(const rnnfast_wgrad *g, ptrdiff_t panel0, ptrdiff_t panel1, void *scratch);
  void (*math)(int act, ptrdiff_t n, const void *x, void *y);    /* y = act(x) */
  double (*peak)(long repeats);      /* runs independent FMAs, returns how many operations */
  /* n instructions for `rows` rows, some at a time. */
  void (*run_program)(const rnnfast_instruction *code, ptrdiff_t n, const rnnfast_array *arrays, ptrdiff_t rows,
                      ptrdiff_t rows_at_a_time);
  /* Rows of n reals to whole vectors; one real to all lanes of a vector. */
  void (*copy_rows)(ptrdiff_t rows, ptrdiff_t n, const void *from, ptrdiff_t from_stride,
                    const ptrdiff_t *row_index, void *to, ptrdiff_t to_stride);
  /* K reals of whole vectors for `columns` columns. Column c has the K weights row[c], or none (NULL). */
  void (*pack_weights)(const void *const *row, ptrdiff_t columns, ptrdiff_t K, void *block);
  /* The same for the transpose: `columns` reals of whole vectors for K columns. */
  void (*pack_weights_back)(const void *const *row, ptrdiff_t columns, ptrdiff_t K, void *block);
  void (*multiply)(const rnnfast_product *p);
} rnnfast_kernels;

/* The ISAs compiled in and runnable here, fastest first; NULL-terminated. */
const char *const *rnnfast_isas(void);
const rnnfast_cell *rnnfast_cell_of(int cell);
/* The table of one of them, by size of a real (4 or 8); NULL if it is not one of rnnfast_isas(). */
const rnnfast_kernels *rnnfast_table(const char *isa, int size);
/* 64-byte aligned, not cleared; NULL if there is no memory (memory.c). A result, which may live long, takes at
 * most a quarter more than its bytes. */
void *rnnfast_alloc(size_t bytes);
void *rnnfast_alloc_result(size_t bytes);
void rnnfast_free(void *block);
/* The next three are for tests. Bytes in use, headers included; bytes and number of the blocks kept for later. */
typedef struct { size_t used, kept; int blocks; } rnnfast_memory;
rnnfast_memory rnnfast_memory_now(void);
/* Let the n-th allocation from now on fail; 0: none. Returns how far the count of the last call had come: 0 or less
 * if its allocation has failed. */
long rnnfast_memory_refuse(long n);
/* Take the lock of the kept blocks, or release it. A fork may leave it taken. */
void rnnfast_memory_hold(int hold);
/* Tasks 0 .. n of a job on up to `threads` threads, at most MAX_THREADS, each task once; returns the OR of what they
 * return. `in_turn`: task i on thread i modulo threads, in every call, for what its cache holds; else on the next
 * free one. Without OpenMP on this thread alone. */
enum { RNNFAST_MAX_THREADS = 256 };
typedef int rnnfast_task(void *job, ptrdiff_t i);
int rnnfast_share(ptrdiff_t n, int threads, int in_turn, rnnfast_task *task, void *job);
/* Of all calls of rnnfast_share with more than one thread so far: how many there were, the tasks that they did, and
 * the threads that did one, summed over the calls. */
typedef struct { long calls, tasks, threads; } rnnfast_shared;
rnnfast_shared rnnfast_shared_so_far(void);
/* How many of `most` threads pay on a machine as busy as it lately was (parallel.c). */
int rnnfast_paying_threads(int most);
const char *rnnfast_compiler(void);

#endif
