/* The list of built-in cells. Kernels and the layers above read it; nothing else knows how many gates a cell has.
 *
 * A gate is a row block of the caller's w_ih and w_hh. A slot is a vector of a panel in a gate buffer (rnnfast.h).
 * w_ih x is added to the first slots, w_hh h to `h_slots` slots from `first_h_slot` on. */
static const rnnfast_cell rnnfast_cells[RNNFAST_CELLS] = {
  [RNNFAST_RNN] = {.name = "RNN", .gates = 1, .slots = 1, .x_slots = 1, .h_slots = 1},
  [RNNFAST_GRU] = {.name = "GRU", .gates = 3, .slots = 4, .x_slots = 3, .first_h_slot = 1, .h_slots = 3,
                   .x_gate = {2, 0, 1}, .h_gate = {0, 1, 2}, .b_hh_slot = {1, 2, 3}},
  [RNNFAST_GRU_RESET_BEFORE] = {.name = "GRU", .gates = 3, .slots = 4, .x_slots = 3, .first_h_slot = 1,
                                .h_slots = 2, .x_gate = {2, 0, 1}, .h_gate = {0, 1}, .b_hh_slot = {1, 2, 0},
                                .has_w_hn = 1},
  [RNNFAST_LSTM] = {.name = "LSTM", .gates = 4, .slots = 4, .x_slots = 4, .h_slots = 4, .x_gate = {0, 1, 2, 3},
                    .h_gate = {0, 1, 2, 3}, .b_hh_slot = {0, 1, 2, 3}, .has_c = 1},
};
