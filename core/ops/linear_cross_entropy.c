/* linear_cross_entropy(x:(..., C), w:(V, C), labels:(...)[, bias:(V)])
       {ignore_index, reduction}

     cross_entropy(linear(x, w, bias), labels), reduction 0 the mean over the
     labels that are not ignore_index, 1 their sum. Output: loss (rank 0).

   linear_cross_entropy_grad(the same) {n_outputs, ignore_index, reduction,
                                        wants}

     outputs: the loss again, then its gradient by x, w and bias, as many as
     the bits 1, 2, 4 of wants ask for

   Neither holds the logits, (..., V): kernels make them in chunks of rows,
   and the gradient op takes each chunk from logits to its share of dx and dw
   at once, so nothing of the forward pass but x is kept, and nothing is
   multiplied twice. That is possible because the loss is a number: what flows
   into it is one factor, which multiplies dx and dw afterwards (and is 1
   where the loss is what backward starts from).

   Where x and w are bf16 a bias is f32, and so are the logits, the loss and
   the gradients; dlogits are rounded for the products.

   The forward op is what is recorded, and alone it runs where only the loss
   is wanted. Where a program wants both, the gradient op runs in its place
   (record.makes). */
#include "graph/op.h"

extern const rp_op rp_op_linear_cross_entropy, rp_op_linear_cross_entropy_grad;

enum { MEAN, SUM, IGNORE_NOTHING = -100 };
enum { WANTS_X = 1, WANTS_W = 2, WANTS_BIAS = 4 };
enum { X, W, LABELS, BIAS };

static rp_type leading(const rp_type *x) {
  rp_type n = *x;
  n.rank--;
  return n;
}

/* Of bias, loss and gradients. */
static int32_t wide_dtype(const rp_type *x) {
  return x->dtype == RP_BF16 ? RP_F32 : x->dtype;
}

static rp_type widened(const rp_type *x) {
  rp_type wide = *x;
  wide.dtype = wide_dtype(x);
  return wide;
}

static rp_status check_factors(const rp_node *node) {
  const rp_type *x = rp_in(node, X), *w = rp_in(node, W);
  char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT];
  if (x->rank < 1 || w->rank != 2)
    return rp_node_fail(node, RP_SHAPE, "x %s, weight %s: needs x (..., in) "
                        "and weight (classes, in)", rp_dims_text(x, a),
                        rp_dims_text(w, b));
  if (x->dims[x->rank - 1] != w->dims[1])
    return rp_node_fail(node, RP_SHAPE, "x %s, weight %s: x has %lld "
                        "features, the weight takes %lld", rp_dims_text(x, a),
                        rp_dims_text(w, b),
                        (long long)x->dims[x->rank - 1],
                        (long long)w->dims[1]);
  const rp_type *bias = node->n_inputs > BIAS ? rp_in(node, BIAS) : NULL;
  const rp_type *odd = w->dtype != x->dtype                ? w
                       : bias && bias->dtype != wide_dtype(x) ? bias
                                                              : NULL;
  if (odd)
    return rp_node_fail_dtypes(node, (rp_dtype)x->dtype, (rp_dtype)odd->dtype);
  if (bias && (bias->rank != 1 || bias->dims[0] != w->dims[0]))
    return rp_node_fail(node, RP_SHAPE, "bias %s, weight %s: needs a bias "
                        "(%lld)", rp_dims_text(bias, a), rp_dims_text(w, b),
                        (long long)w->dims[0]);
  return RP_OK;
}

static rp_status check(const rp_node *node, int64_t reduction) {
  if (node->n_inputs > BIAS + 1)
    return rp_node_fail(node, RP_VALUE, "takes x, weight, labels and bias, "
                        "not %d tensors", node->n_inputs);
  const rp_status status = check_factors(node);
  if (status != RP_OK) return status;
  const rp_type *x = rp_in(node, X), *labels = rp_in(node, LABELS);
  char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT];
  if (!rp_dtype_is_index((rp_dtype)labels->dtype))
    return rp_node_fail(node, RP_DTYPE,
                        "labels are %s; cast them with :to'i64'",
                        rp_dtype_name((rp_dtype)labels->dtype));
  const rp_type n = leading(x);
  if (!rp_dims_equal(&n, labels))
    return rp_node_fail(node, RP_SHAPE, "labels %s for x %s: x has one dim "
                        "more, the features, at the end",
                        rp_dims_text(labels, a), rp_dims_text(x, b));
  if (reduction != MEAN && reduction != SUM)
    return rp_node_fail(node, RP_VALUE, "reduction %lld: 0 (mean) or 1 (sum)",
                        (long long)reduction);
  return RP_OK;
}

static rp_status forward_type(const rp_node *node, rp_type *out) {
  const rp_status status = check(node, rp_int(node, 1, MEAN));
  if (status == RP_OK)
    *out = rp_type_scalar((rp_dtype)wide_dtype(rp_in(node, X)));
  return status;
}

static int label_range(const rp_node *node, int64_t ignored,
                       rp_index_range *out) {
  *out = (rp_index_range){.input = LABELS, .limit = rp_in(node, W)->dims[0],
                          .has_allowed = true, .allowed = ignored,
                          .what = "label"};
  return 1;
}

static int forward_ranges(const rp_node *node, rp_index_range *out) {
  return label_range(node, rp_int(node, 0, IGNORE_NOTHING), out);
}

static int grad_ranges(const rp_node *node, rp_index_range *out) {
  return label_range(node, node->ints[1], out);
}

/* A product, or as many as there are, and for each logit its exponential
   (about 18, as in cross_entropy). */
static rp_cost cost_of(const rp_node *node, int products) {
  rp_cost cost = rp_cost_elementwise(node);
  const rp_type *x = rp_in(node, X), *w = rp_in(node, W);
  const double width = (double)w->dims[1];
  const rp_type n = leading(x);
  const double logits = (double)rp_type_count(&n) * (double)w->dims[0];
  cost.flops = logits * (2 * width * products + 18);
  return cost;
}

static rp_cost forward_cost(const rp_node *node) { return cost_of(node, 1); }

static rp_cost grad_cost(const rp_node *node) {
  const int64_t wants = node->ints[3];
  return cost_of(node, 1 + !!(wants & WANTS_X) + !!(wants & WANTS_W));
}

/* ---- gradients ---------------------------------------------------------- */

static void forward_grad(rp_tape *tape, const rp_node *node,
                         rp_tensor *const *dy, rp_tensor **dx) {
  static const int inputs[3] = {X, W, BIAS};
  int64_t ints[4] = {1, rp_int(node, 0, IGNORE_NOTHING), rp_int(node, 1, MEAN),
                     0};
  for (int i = 0; i < 3; i++)
    if (inputs[i] < node->n_inputs && rp_tape_needs(tape, inputs[i])) {
      ints[0]++;
      ints[3] |= (int64_t)1 << i;
    }
  rp_tensor *made = rp_emit(tape, &rp_op_linear_cross_entropy_grad,
                            node->inputs, node->n_inputs, ints, 4, NULL, 0);
  int output = 1;
  for (int i = 0; i < 3; i++)
    if (ints[3] >> i & 1)
      dx[inputs[i]] =
          rp_mul(tape, rp_emit_output(tape, made, output++), dy[0]);
}

static rp_tensor *logits_of(rp_tape *tape, const rp_node *node) {
  rp_tensor *in[3] = {rp_input(node, X), rp_input(node, W)};
  const bool has_bias = node->n_inputs > BIAS;
  if (has_bias) in[2] = rp_input(node, BIAS);
  const int64_t dtype = wide_dtype(rp_in(node, X));
  return rp_emit(tape, rp_op_find("linear"), in, has_bias ? 3 : 2, &dtype, 1,
                 NULL, 0);
}

static rp_tensor *loss_of(rp_tape *tape, const rp_node *node,
                          rp_tensor *logits, const int64_t *ints) {
  rp_tensor *in[2] = {logits, rp_input(node, LABELS)};
  return rp_emit(tape, rp_op_find("cross_entropy"), in, 2, ints, 2, NULL, 0);
}

static void forward_decompose(rp_tape *tape, const rp_node *node,
                              rp_tensor **out) {
  const int64_t ints[2] = {rp_int(node, 0, IGNORE_NOTHING),
                           rp_int(node, 1, MEAN)};
  out[0] = loss_of(tape, node, logits_of(tape, node), ints);
}

const rp_op rp_op_linear_cross_entropy = {
    .name = "linear_cross_entropy", .inputs = 3, .outputs = 1,
    .flags = RP_VARIADIC | RP_COSTLY | RP_MIXED, .narrow = 1 << X | 1 << W,
    .type = forward_type, .grad = forward_grad,
    .decompose = forward_decompose, .cost = forward_cost,
    .ranges = forward_ranges,
};

static rp_status grad_type(const rp_node *node, rp_type *out) {
  const rp_status status = check(node, rp_int(node, 2, MEAN));
  if (status != RP_OK) return status;
  const int64_t wants = rp_int(node, 3, 0);
  const int64_t known = WANTS_X | WANTS_W |
                        (node->n_inputs > BIAS ? WANTS_BIAS : 0);
  const int n = 1 + __builtin_popcountll((unsigned long long)(wants & known));
  if ((wants & ~known) || n != node->n_outputs)
    return rp_node_fail(node, RP_VALUE, "wants %lld, outputs %d: a bit for "
                        "each of x, weight and bias, and an output for each "
                        "bit after the loss", (long long)wants,
                        (int)node->n_outputs);
  *out++ = rp_type_scalar((rp_dtype)wide_dtype(rp_in(node, X)));
  if (wants & WANTS_X) *out++ = widened(rp_in(node, X));
  if (wants & WANTS_W) *out++ = widened(rp_in(node, W));
  if (wants & WANTS_BIAS) *out++ = *rp_in(node, BIAS);
  return RP_OK;
}

static rp_tensor *as_rows(rp_tape *tape, rp_tensor *x, int64_t columns) {
  if (x == NULL) return NULL;
  const rp_type n = leading(&x->type);
  const rp_type flat = {x->type.dtype, 2, {rp_type_count(&n), columns}};
  return rp_reshape(tape, x, &flat);
}

/* a b in f32 where they are bf16. */
static rp_tensor *product(rp_tape *tape, rp_tensor *a, rp_tensor *b) {
  if (a == NULL || b == NULL) return NULL;
  rp_tensor *in[2] = {a, b};
  const int64_t dtype = wide_dtype(&a->type);
  return rp_emit(tape, rp_op_find("matmul"), in, 2, &dtype, 1, NULL, 0);
}

/* dlogits as cross_entropy's gradient has it, then linear's. */
static void grad_decompose(rp_tape *tape, const rp_node *node,
                           rp_tensor **out) {
  const int64_t wants = node->ints[3];
  rp_tensor *x = rp_input(node, X), *w = rp_input(node, W);
  rp_tensor *logits = logits_of(tape, node);
  rp_tensor *loss = loss_of(tape, node, logits, node->ints + 1);
  rp_tensor *in[4] = {rp_constant(tape, 1, logits), logits,
                      rp_input(node, LABELS), rp_emit_output(tape, loss, 1)};
  rp_tensor *dlogits = rp_emit(tape, rp_op_find("cross_entropy_grad"), in, 4,
                               node->ints + 1, 2, NULL, 0);
  rp_tensor *rows = as_rows(tape, dlogits, w->type.dims[0]);
  rp_tensor *narrow = rp_cast(tape, rows, (rp_dtype)x->type.dtype);
  *out++ = loss;
  if (wants & WANTS_X)
    *out++ = rp_reshape(tape, product(tape, narrow, w), &x->type);
  if (wants & WANTS_W)
    *out++ = product(tape, rp_transpose(tape, narrow, 0, 1),
                     as_rows(tape, x, w->type.dims[1]));
  if (wants & WANTS_BIAS) *out++ = rp_sum_to(tape, rows, rp_in(node, BIAS));
}

const rp_op rp_op_linear_cross_entropy_grad = {
    .name = "linear_cross_entropy_grad", .inputs = 3, .outputs = -1,
    .flags = RP_VARIADIC | RP_COSTLY,
    .makes = &rp_op_linear_cross_entropy,
    .type = grad_type, .decompose = grad_decompose, .cost = grad_cost,
    .ranges = grad_ranges,
};
