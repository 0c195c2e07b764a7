/* Scaled dot-product attention, for each batch b and head h:

     s[i, j] = scale sum_d q[i, d] k[j, d]     where (i, j) attend, else -inf
     w       = softmax(s) over j
     out[i]  = sum_j dropout(w)[i, j] v[j]      lse[i] = log sum_j exp s[i, j]

   attention(q, k, v, [mask]) {causal} {scale, p}
     q:(B, H, Tq, D), k:(B, H, Tk, D), v:(B, H, Tk, E), of any strides; mask
     (bool, true attends) broadcasts to (B, H, Tq, Tk); where causal, key
     j <= query i + (Tk - Tq).
       -> out:(B, Tq, H, E), as an output projection reads it; lse:(B, H, Tq)
   packed_attention(qkv, [mask]) {causal} {scale, p}
     the same of q, k and v = qkv[:, :, 0..2], qkv:(B, T, 3, H, D)

   Where a query attends to nothing out and lse are 0.

   In bf16 all is computed in f32, out is rounded once and lse is f32.

   Dropout draws word 4 ceil(Tk / 4) r + j of the node's stream for key j of
   row r = (b H + h) Tq + i, and keeps and scales as the op dropout does.

   Backward reads q, k, v, out and lse: the weights are made again tile by
   tile, and the words drawn again, so nothing of Tq Tk elements exists (Dao et
   al., FlashAttention, 2022). out is read for sum_j dw w = dout . out alone,
   and lse for the softmax's denominator. Each gradient has its input's dims in
   the order in which it lies best: the packed one is one array. */
#include "graph/op.h"

extern const rp_op rp_op_attention_grad, rp_op_packed_attention_grad;

/* ---- shapes ------------------------------------------------------------- */

static rp_status check_options(const rp_node *node) {
  const double p = rp_real(node, 1, 0);
  if (!(p >= 0 && p <= 1))
    return rp_node_fail(node, RP_VALUE, "p is %g, not in 0 .. 1", p);
  return RP_OK;
}

/* Input `at`, when there is one, masks (B, H, Tq, Tk). */
static rp_status check_mask(const rp_node *node, int at, const rp_type *full) {
  if (node->n_inputs <= at) return RP_OK;
  if (node->n_inputs > at + 1)
    return rp_node_fail(node, RP_VALUE, "takes one mask, not %d tensors",
                        (int)node->n_inputs - at);
  const rp_type *mask = rp_in(node, at);
  if (mask->dtype != RP_BOOL)
    return rp_node_fail(node, RP_DTYPE, "a mask is bool (true: attend), not "
                        "%s; compare to get one",
                        rp_dtype_name((rp_dtype)mask->dtype));
  bool fits = mask->rank <= full->rank;
  for (int i = 1; fits && i <= mask->rank; i++) {
    const int64_t m = mask->dims[mask->rank - i];
    fits = m == 1 || m == full->dims[full->rank - i];
  }
  char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT];
  if (!fits)
    return rp_node_fail(node, RP_SHAPE, "mask %s does not broadcast to %s",
                        rp_dims_text(mask, a), rp_dims_text(full, b));
  return RP_OK;
}

static rp_type rank_4(int32_t dtype, int64_t a, int64_t b, int64_t c,
                      int64_t d) {
  return (rp_type){.dtype = dtype, .rank = 4, .dims = {a, b, c, d}};
}

static rp_type lse_type(const rp_type *q, int64_t heads, int64_t queries) {
  const int32_t dtype = q->dtype == RP_BF16 ? RP_F32 : q->dtype;
  return (rp_type){.dtype = dtype, .rank = 3,
                   .dims = {q->dims[0], heads, queries}};
}

static rp_status check_three(const rp_node *node, int first) {
  const rp_type *q = rp_in(node, first), *k = rp_in(node, first + 1),
                *v = rp_in(node, first + 2);
  if (k->dtype != q->dtype || v->dtype != q->dtype)
    return rp_node_fail(node, RP_DTYPE,
                        "%s, %s and %s differ; cast with :to'%s'",
                        rp_dtype_name((rp_dtype)q->dtype),
                        rp_dtype_name((rp_dtype)k->dtype),
                        rp_dtype_name((rp_dtype)v->dtype),
                        rp_dtype_name((rp_dtype)q->dtype));
  bool fits = q->rank == 4 && k->rank == 4 && v->rank == 4;
  for (int i = 0; fits && i < 2; i++)
    fits = q->dims[i] == k->dims[i] && q->dims[i] == v->dims[i];
  if (fits && q->dims[3] == k->dims[3] && k->dims[2] == v->dims[2])
    return RP_OK;
  char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT], c[RP_DIMS_TEXT];
  return rp_node_fail(node, RP_SHAPE, "q %s, k %s, v %s: needs (B,H,Tq,D), "
                      "(B,H,Tk,D) and (B,H,Tk,E)", rp_dims_text(q, a),
                      rp_dims_text(k, b), rp_dims_text(v, c));
}

static rp_status check_packed(const rp_node *node, int at) {
  const rp_type *x = rp_in(node, at);
  if (x->rank == 5 && x->dims[2] == 3) return RP_OK;
  char text[RP_DIMS_TEXT];
  return rp_node_fail(node, RP_SHAPE, "qkv is %s: needs (B,T,3,H,D)",
                      rp_dims_text(x, text));
}

static rp_status attention_type(const rp_node *node, rp_type *out) {
  rp_status status = check_three(node, 0);
  if (status == RP_OK) status = check_options(node);
  if (status != RP_OK) return status;
  const int64_t *q = rp_in(node, 0)->dims, *v = rp_in(node, 2)->dims;
  const int32_t dtype = rp_in(node, 0)->dtype;
  const rp_type full = rank_4(RP_BOOL, q[0], q[1], q[2], v[2]);
  out[0] = rank_4(dtype, q[0], q[2], q[1], v[3]);
  out[1] = lse_type(rp_in(node, 0), q[1], q[2]);
  return check_mask(node, 3, &full);
}

static rp_status packed_type(const rp_node *node, rp_type *out) {
  rp_status status = check_packed(node, 0);
  if (status == RP_OK) status = check_options(node);
  if (status != RP_OK) return status;
  const rp_type *x = rp_in(node, 0);
  const int64_t *d = x->dims;
  const rp_type full = rank_4(RP_BOOL, d[0], d[3], d[1], d[1]);
  out[0] = rank_4(x->dtype, d[0], d[1], d[3], d[4]);
  out[1] = lse_type(x, d[3], d[1]);
  return check_mask(node, 1, &full);
}

/* Inputs `a` and `b`: a gradient and what it is one of. */
static rp_status check_out(const rp_node *node, int out, int lse,
                           const rp_type *want, const rp_type *want_lse) {
  char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT];
  const int at[2] = {0, out};
  for (int i = 0; i < 2; i++)
    if (!rp_type_equal(rp_in(node, at[i]), want))
      return rp_node_fail(node, RP_SHAPE, "input %d is %s, not %s", at[i] + 1,
                          rp_dims_text(rp_in(node, at[i]), a),
                          rp_dims_text(want, b));
  if (!rp_type_equal(rp_in(node, lse), want_lse))
    return rp_node_fail(node, RP_SHAPE, "lse is %s, not %s",
                        rp_dims_text(rp_in(node, lse), a),
                        rp_dims_text(want_lse, b));
  return RP_OK;
}

/* dq, dk, dv: (B, T, H, D). */
static rp_status attention_grad_type(const rp_node *node, rp_type *out) {
  rp_status status = check_three(node, 1);
  if (status != RP_OK) return status;
  const int64_t *q = rp_in(node, 1)->dims, *v = rp_in(node, 3)->dims;
  const int32_t dtype = rp_in(node, 1)->dtype;
  const rp_type y = rank_4(dtype, q[0], q[2], q[1], v[3]);
  const rp_type lse = lse_type(rp_in(node, 1), q[1], q[2]);
  const rp_type full = rank_4(RP_BOOL, q[0], q[1], q[2], v[2]);
  out[0] = rank_4(dtype, q[0], q[2], q[1], q[3]);
  out[1] = rank_4(dtype, q[0], v[2], q[1], q[3]);
  out[2] = rank_4(dtype, q[0], v[2], q[1], v[3]);
  status = check_out(node, 4, 5, &y, &lse);
  if (status == RP_OK) status = check_options(node);
  return status == RP_OK ? check_mask(node, 6, &full) : status;
}

static rp_status packed_grad_type(const rp_node *node, rp_type *out) {
  rp_status status = check_packed(node, 1);
  if (status != RP_OK) return status;
  const rp_type *x = rp_in(node, 1);
  const int64_t *d = x->dims;
  const rp_type y = rank_4(x->dtype, d[0], d[1], d[3], d[4]);
  const rp_type lse = lse_type(x, d[3], d[1]);
  const rp_type full = rank_4(RP_BOOL, d[0], d[3], d[1], d[1]);
  out[0] = *x;
  status = check_out(node, 2, 3, &y, &lse);
  if (status == RP_OK) status = check_options(node);
  return status == RP_OK ? check_mask(node, 4, &full) : status;
}

/* ---- cost --------------------------------------------------------------- */

/* `products` products of 2 Tq Tk D FLOPs a head, half of it where causal;
   out and lse are inputs or outputs, at `out`. */
static rp_cost attention_cost_of(const rp_node *node, const rp_type *out,
                                 int64_t keys, int64_t width,
                                 double products) {
  rp_cost cost = rp_cost_elementwise(node);
  const double rows = (double)(out->dims[0] * out->dims[1] * out->dims[2]);
  cost.flops = products * 2 * rows * (double)keys * (double)width;
  if (rp_int(node, 0, 0)) cost.flops /= 2;
  return cost;
}
static rp_cost attention_cost(const rp_node *node) {
  return attention_cost_of(node, &node->outputs[0].type,
                           rp_in(node, 1)->dims[2], rp_in(node, 1)->dims[3], 2);
}
static rp_cost packed_cost(const rp_node *node) {
  return attention_cost_of(node, &node->outputs[0].type,
                           rp_in(node, 0)->dims[1], rp_in(node, 0)->dims[4], 2);
}
static rp_cost attention_grad_cost(const rp_node *node) {
  return attention_cost_of(node, rp_in(node, 0), rp_in(node, 2)->dims[2],
                           rp_in(node, 2)->dims[3], 5);
}
static rp_cost packed_grad_cost(const rp_node *node) {
  return attention_cost_of(node, rp_in(node, 0), rp_in(node, 1)->dims[1],
                           rp_in(node, 1)->dims[4], 5);
}

/* ---- the same from simpler ops ------------------------------------------ */

typedef struct parts {
  rp_tensor *q, *k, *v, *mask;
} parts;

/* Heads before positions, or back. */
static rp_tensor *swap(rp_tape *tape, rp_tensor *x) {
  return rp_transpose(tape, x, 1, 2);
}
static rp_tensor *across(rp_tape *tape, rp_tensor *x) {
  return rp_transpose(tape, x, 2, 3);
}

/* q, k or v of a packed array, as (B, H, T, D). */
static rp_tensor *unpack(rp_tape *tape, rp_tensor *qkv, int which) {
  const int64_t *d = qkv->type.dims;
  const rp_type part = rank_4(qkv->type.dtype, d[0], d[1], d[3], d[4]);
  return swap(tape, rp_reshape(tape, rp_narrow(tape, qkv, 2, which, 1),
                               &part));
}
/* The gradient of a packed array from those of its parts. */
static rp_tensor *pack(rp_tape *tape, const rp_type *qkv,
                       rp_tensor *const *parts) {
  rp_type slice = *qkv;
  slice.dims[2] = 1;
  rp_tensor *in[3];
  for (int i = 0; i < 3; i++)
    in[i] = rp_reshape(tape, swap(tape, parts[i]), &slice);
  const int64_t dim = 2;
  return rp_emit(tape, rp_op_find("cat"), in, 3, &dim, 1, NULL, 0);
}

/* softmax of the scores. */
static rp_tensor *weights_of(rp_tape *tape, const rp_node *node, parts x) {
  rp_tensor *in[2] = {rp_matmul(tape, x.q, across(tape, x.k)), x.mask};
  const int64_t causal = rp_int(node, 0, 0);
  const double scale = rp_real(node, 0, 1);
  return rp_emit(tape, rp_op_find("scaled_masked_softmax"), in,
                 x.mask ? 2 : 1, &causal, 1, &scale, 1);
}

/* The op dropout numbers words without gaps: rows are made longer for it. */
static rp_tensor *dropped(rp_tape *tape, const rp_node *node, rp_tensor *w) {
  const double p = rp_real(node, 1, 0);
  if (w == NULL || p == 0) return w;
  const int64_t keys = w->type.dims[3], more = -keys & 3;
  const int64_t pads[8] = {0, 0, 0, 0, 0, 0, 0, more};
  const double zero = 0;
  if (more) w = rp_emit(tape, rp_op_find("pad"), &w, 1, pads, 8, &zero, 1);
  w = rp_emit_stream(tape, rp_op_find("dropout"), &w, 1, NULL, 0, &p, 1,
                     node->stream);
  return more ? rp_narrow(tape, w, 3, 0, keys) : w;
}

/* bf16 as f32, which the kernels compute in and the softmax alone takes. */
static rp_tensor *wide(rp_tape *tape, rp_tensor *x) {
  return x && x->type.dtype == RP_BF16 ? rp_cast(tape, x, RP_F32) : x;
}
static parts wide_parts(rp_tape *tape, parts x) {
  return (parts){wide(tape, x.q), wide(tape, x.k), wide(tape, x.v), x.mask};
}

/* d[0..2] of q, k and v, (B, H, T, D) each, from dout:(B, Tq, H, E). */
static void gradients_of(rp_tape *tape, const rp_node *node, parts x,
                         rp_tensor *dout, rp_tensor **d) {
  x = wide_parts(tape, x);
  dout = wide(tape, dout);
  rp_tensor *w = weights_of(tape, node, x);
  rp_tensor *dy = swap(tape, dout);
  d[2] = rp_matmul(tape, across(tape, dropped(tape, node, w)), dy);
  rp_tensor *dw = rp_matmul(tape, dy, across(tape, x.v));
  rp_tensor *pair[2] = {dropped(tape, node, dw), w};
  const int64_t causal = rp_int(node, 0, 0);
  const double scale = rp_real(node, 0, 1);
  rp_tensor *ds = rp_emit(tape, rp_op_find("scaled_masked_softmax_grad"),
                          pair, 2, &causal, 1, &scale, 1);
  d[0] = rp_matmul(tape, ds, x.k);
  d[1] = rp_matmul(tape, across(tape, ds), x.q);
}

/* What a gradient of lse adds to those of q and k: ds = scale w dlse. */
static void through_lse(rp_tape *tape, const rp_node *node, parts x,
                        rp_tensor *dlse, rp_tensor **d) {
  if (dlse == NULL) return;
  x = wide_parts(tape, x);
  rp_type column = dlse->type;
  column.rank = 4;
  column.dims[3] = 1;
  rp_tensor *w = weights_of(tape, node, x);
  rp_tensor *ds = rp_scale(
      tape, rp_mul(tape, w, rp_reshape(tape, dlse, &column)),
      rp_real(node, 0, 1));
  rp_tensor *dq = rp_matmul(tape, ds, x.k);
  rp_tensor *dk = rp_matmul(tape, across(tape, ds), x.q);
  d[0] = d[0] ? rp_add(tape, d[0], dq) : dq;
  d[1] = d[1] ? rp_add(tape, d[1], dk) : dk;
}

/* ---- attention ---------------------------------------------------------- */

static void attention_grad(rp_tape *tape, const rp_node *node,
                           rp_tensor *const *dy, rp_tensor **dx) {
  const parts x = {rp_input(node, 0), rp_input(node, 1), rp_input(node, 2),
                   node->n_inputs > 3 ? rp_input(node, 3) : NULL};
  if (dy[0]) {
    rp_tensor *in[7] = {dy[0], x.q, x.k, x.v, rp_output(node, 0),
                        rp_output(node, 1), x.mask};
    rp_tensor *g = rp_emit_stream(tape, &rp_op_attention_grad, in,
                                  x.mask ? 7 : 6, node->ints, node->n_ints,
                                  node->reals, node->n_reals, node->stream);
    for (int i = 0; i < 3; i++) dx[i] = swap(tape, rp_emit_output(tape, g, i));
  }
  through_lse(tape, node, x, dy[1], dx);
}

const rp_op rp_op_attention = {
    .name = "attention", .inputs = 3, .outputs = 2,
    .flags = RP_RANDOM | RP_VARIADIC | RP_STRIDED | RP_COSTLY,
    .narrow = 1 | 2 | 4,
    .type = attention_type, .grad = attention_grad, .cost = attention_cost,
};

static void attention_grad_decompose(rp_tape *tape, const rp_node *node,
                                     rp_tensor **out) {
  const parts x = {rp_input(node, 1), rp_input(node, 2), rp_input(node, 3),
                   node->n_inputs > 6 ? rp_input(node, 6) : NULL};
  gradients_of(tape, node, x, rp_input(node, 0), out);
  for (int i = 0; i < 3; i++) out[i] = swap(tape, out[i]);
}

const rp_op rp_op_attention_grad = {
    .name = "attention_grad", .inputs = 6, .outputs = 3,
    .flags = RP_RANDOM | RP_VARIADIC | RP_STRIDED | RP_COSTLY,
    .type = attention_grad_type, .decompose = attention_grad_decompose,
    .cost = attention_grad_cost,
};

/* ---- packed_attention --------------------------------------------------- */

static parts packed_parts(rp_tape *tape, const rp_node *node, int at,
                          int mask) {
  rp_tensor *qkv = rp_input(node, at);
  return (parts){unpack(tape, qkv, 0), unpack(tape, qkv, 1),
                 unpack(tape, qkv, 2),
                 node->n_inputs > mask ? rp_input(node, mask) : NULL};
}

static void packed_grad(rp_tape *tape, const rp_node *node,
                        rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *qkv = rp_input(node, 0);
  if (dy[0]) {
    rp_tensor *in[5] = {dy[0], qkv, rp_output(node, 0), rp_output(node, 1),
                        node->n_inputs > 1 ? rp_input(node, 1) : NULL};
    dx[0] = rp_emit_stream(tape, &rp_op_packed_attention_grad, in,
                           node->n_inputs > 1 ? 5 : 4, node->ints,
                           node->n_ints, node->reals, node->n_reals,
                           node->stream);
  }
  if (dy[1]) {
    const parts x = packed_parts(tape, node, 0, 1);
    rp_tensor *d[3] = {NULL, NULL, NULL};
    through_lse(tape, node, x, dy[1], d);
    d[2] = d[0] ? rp_full_like(tape, &d[0]->type, 0) : NULL;
    rp_tensor *g = pack(tape, &qkv->type, d);
    dx[0] = dx[0] ? rp_add(tape, dx[0], g) : g;
  }
}

const rp_op rp_op_packed_attention = {
    .name = "packed_attention", .inputs = 1, .outputs = 2,
    .flags = RP_RANDOM | RP_VARIADIC | RP_STRIDED | RP_COSTLY,
    .narrow = 1,
    .type = packed_type, .grad = packed_grad, .cost = packed_cost,
};

static void packed_grad_decompose(rp_tape *tape, const rp_node *node,
                                  rp_tensor **out) {
  rp_tensor *d[3] = {NULL, NULL, NULL};
  gradients_of(tape, node, packed_parts(tape, node, 1, 4), rp_input(node, 0),
               d);
  out[0] = pack(tape, rp_in(node, 1), d);
}

const rp_op rp_op_packed_attention_grad = {
    .name = "packed_attention_grad", .inputs = 4, .outputs = 1,
    .flags = RP_RANDOM | RP_VARIADIC | RP_STRIDED | RP_COSTLY,
    .type = packed_grad_type, .decompose = packed_grad_decompose,
    .cost = packed_grad_cost,
};
