/* Gated recurrent unit (Cho 2014; Chung 2014; the reset after the product as in cuDNN and PyTorch):
 *   r, z = sigmoid(w x + b_i + u h' + b_h),  h = (1 - z) n + z h'
 *   n = tanh(w_n x + b_in + r (u_n h' + b_hn))
 * With the reset before the product: gru_reset_before.h. */
enum { GRU_N, GRU_R, GRU_Z, GRU_UH, GRU_SLOTS }; /* UH: u_n h' + b_hn */

/* (1 - z) n + z h' */
INLINE V gru_state(V n, V z, V h) { return vfma(z, h - n, n); }

/* From dh: the gradients of the pre-activations of n and z. */
INLINE void gru_gradients(V n, V z, V h, V dh, V *dn, V *dz) {
  const V dn_out = dh - z * dh;
  *dn = vfma(-n * n, dn_out, dn_out);
  *dz = dh * (h - n) * (z - z * z);
}

/* n vectors of units from the pre-activations a[n][slot][lane] of n, r and z, and u_n h' + b_hn. */
INLINE void gru_unit_vectors(const rnnfast_packed *w, const rnnfast_step *s, unit_t first, int n, const real *a) {
  V rz[2 * 4], nt[4];
  UNROLL for (int i = 0; i < n; i++)
    rz[2 * i] = load(a + (GRU_SLOTS * i + GRU_R) * L), rz[2 * i + 1] = load(a + (GRU_SLOTS * i + GRU_Z) * L);
  activate(2 * n, ALL_SIGMOID, rz);
  UNROLL for (int i = 0; i < n; i++)
    nt[i] = vfma(rz[2 * i], load(a + (GRU_SLOTS * i + GRU_UH) * L), load(a + (GRU_SLOTS * i + GRU_N) * L));
  activate(n, ALL_TANH, nt);
  UNROLL for (int i = 0; i < n; i++) {
    const unit_t unit = unit_at(first, i);
    const V h = gru_state(nt[i], rz[2 * i + 1], load(units_in(s->h, s->h_stride, unit)));
    if (s->gates) {
      real *g = slots_in(s->gates, s->gates_stride, GRU_SLOTS, unit);
      store(g + GRU_N * L, nt[i]), store(g + GRU_R * L, rz[2 * i]), store(g + GRU_Z * L, rz[2 * i + 1]);
      store(g + GRU_UH * L, load(a + (GRU_SLOTS * i + GRU_UH) * L));
    }
    store(units_in(s->h_next, s->h_next_stride, unit), h);
    store_partial(y_row(s, unit.row) + unit.panel * L, h, w->H - unit.panel * L);
  }
}

/* A vector of units of row r from unit u on, back. */
INLINE void gru_unit_back(const rnnfast_packed *w, const rnnfast_dstep *s, ptrdiff_t r, ptrdiff_t u) {
  real *g = (real *)s->gates + r * s->gates_stride + GRU_SLOTS * u, *dh_out = (real *)s->dh + r * s->dh_stride + u;
  const V n = load(g), rg = load(g + GRU_R * L), z = load(g + GRU_Z * L), uh = load(g + GRU_UH * L);
  const V dh = upstream_gradient(s, r, u, w->H), h = load((const real *)s->h + r * s->h_stride + u);
  V dn, dz;
  gru_gradients(n, z, h, dh, &dn, &dz);
  const ptrdiff_t slot_stride = slot_stride_in(w, u / L), units = w->H - u;
  store(g, keep_first(dn, units));
  store(g + GRU_R * slot_stride, keep_first(dn * uh * (rg - rg * rg), units));
  store(g + GRU_Z * slot_stride, keep_first(dz, units));
  store(g + GRU_UH * slot_stride, keep_first(dn * rg, units));
  store(dh_out, dh * z);
}
