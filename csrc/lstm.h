/* LSTM (Hochreiter & Schmidhuber 1997, forget gate of Gers 2000, projection of Sak 2014):
 *   i, f, o = sigmoid(a), g = tanh(a), a = w_ih x + b_ih + w_hh h' + b_hh
 *   c = f c' + i g,  h = o tanh(c),  then h = w_hr h if projected */
enum { LSTM_I, LSTM_F, LSTM_G, LSTM_O, LSTM_SLOTS };

/* First half of n vectors of units: i, f, g and c from their pre-activations a[n][slot][lane]. */
INLINE void lstm_cell_states(const rnnfast_step *s, unit_t first, int n, const real *a, V *c) {
  V ifg[3 * 2];
  UNROLL for (int k = 0; k < n; k++)
    UNROLL for (int slot = LSTM_I; slot <= LSTM_G; slot++)
      ifg[3 * k + slot] = load(a + (LSTM_SLOTS * k + slot) * L);
  activate(3 * n, tanh_at(LSTM_G) | tanh_at(3 + LSTM_G), ifg);
  UNROLL for (int k = 0; k < n; k++) {
    const unit_t unit = unit_at(first, k);
    const V i = ifg[3 * k + LSTM_I], f = ifg[3 * k + LSTM_F], g = ifg[3 * k + LSTM_G];
    const V c_prev = starts_at_zero(s->reset, unit.row) ? splat(0) : load(units_in(s->c, s->c_stride, unit));
    c[k] = vfma(f, c_prev, i * g);
    store(units_in(s->c_next, s->c_stride, unit), c[k]);
    if (s->gates) {
      real *slots = slots_in(s->gates, s->gates_stride, LSTM_SLOTS, unit);
      store(slots + LSTM_I * L, i), store(slots + LSTM_F * L, f), store(slots + LSTM_G * L, g);
    }
  }
}

/* Second half: o beside tanh(c), which alone would wait for its latency (M31), and h. */
INLINE void lstm_outputs(const rnnfast_packed *w, const rnnfast_step *s, unit_t first, int n, const real *a,
                         const V *c) {
  V o_tanh_c[2 * 2];
  UNROLL for (int k = 0; k < n; k++)
    o_tanh_c[2 * k] = load(a + (LSTM_SLOTS * k + LSTM_O) * L), o_tanh_c[2 * k + 1] = c[k];
  activate(2 * n, tanh_at(1) | tanh_at(3), o_tanh_c);
  UNROLL for (int k = 0; k < n; k++) {
    const unit_t unit = unit_at(first, k);
    const V o = o_tanh_c[2 * k], h = o * o_tanh_c[2 * k + 1];
    if (s->gates) store(slots_in(s->gates, s->gates_stride, LSTM_SLOTS, unit) + LSTM_O * L, o);
    if (w->w_hr) {
      store(units_in(s->work, s->work_stride, unit), h);
    } else {
      store(units_in(s->h_next, s->h_next_stride, unit), h);
      store_partial(y_row(s, unit.row) + unit.panel * L, h, w->P - unit.panel * L);
    }
  }
}

/* gate: in the gates, out the gradients of their pre-activations; dc: in of c, out of c'. */
INLINE void lstm_gradients(V *gate, V c_prev, V tanh_c, V dh, V *dc) {
  const V i = gate[LSTM_I], f = gate[LSTM_F], g = gate[LSTM_G], o = gate[LSTM_O];
  const V do_ = dh * tanh_c, dh_o = dh * o;
  const V d = vfma(-tanh_c * tanh_c, dh_o, dh_o) + *dc;
  gate[LSTM_I] = d * g * (i - i * i);
  gate[LSTM_F] = d * c_prev * (f - f * f);
  gate[LSTM_G] = d * i * vfma(-g, g, splat(1));
  gate[LSTM_O] = do_ * (o - o * o);
  *dc = d * f;
}

/* n vectors of units of row r from unit u on, back. */
INLINE void lstm_units_back(const rnnfast_packed *w, const rnnfast_dstep *s, ptrdiff_t r, ptrdiff_t u, int n) {
  V t[4];
  UNROLL for (int i = 0; i < n; i++) t[i] = load((const real *)s->c_next + r * s->c_stride + u + i * L);
  activate(n, ALL_TANH, t);
  for (int i = 0; i < n; i++, u += L) {
    real *g = (real *)s->gates + r * s->gates_stride + LSTM_SLOTS * u;
    real *dc_out = (real *)s->dc + r * s->dc_stride + u;
    const ptrdiff_t slot_stride = slot_stride_in(w, u / L);
    V gate[LSTM_SLOTS] = {load(g), load(g + L), load(g + 2 * L), load(g + 3 * L)}, dc = load(dc_out);
    const V c = starts_at_zero(s->reset, r) ? splat(0) : load((const real *)s->c + r * s->c_stride + u);
    const V dh = w->w_hr ? load((real *)s->work + r * s->work_stride + u) : upstream_gradient(s, r, u, w->H);
    if (w->w_hr) store((real *)s->h_raw + r * s->h_raw_stride + u, gate[LSTM_O] * t[i]);
    lstm_gradients(gate, c, t[i], dh, &dc);
    UNROLL for (int v = 0; v < LSTM_SLOTS; v++) store(g + v * slot_stride, keep_first(gate[v], w->H - u));
    store(dc_out, dc);
  }
}
