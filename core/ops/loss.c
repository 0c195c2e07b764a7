/* cross_entropy(logits:(..., V), labels:(...)) {ignore_index, reduction}

     lse = log(sum(exp(logits))) over V
     loss = sum of (lse - logits[label]) over the labels that are not
            ignore_index, divided by their number when reduction is 0 (mean;
            NaN when all are ignored, as in PyTorch); 1 is the sum, 2 none of
            both: loss:(...), 0 where ignored

   Labels are i32 or i64. Outputs are loss (rank 0) and lse:(...), f32 where
   logits are bf16. Backward reads logits, labels and lse: the probabilities are
   exp(logits - lse), one pass, and dlogits is written over the logits. */
#include "graph/op.h"

extern const rp_op rp_op_cross_entropy_grad;

enum { MEAN, SUM, NONE, IGNORE_NOTHING = -100 };

static int64_t ignored(const rp_node *node) {
  return rp_int(node, 0, IGNORE_NOTHING);
}

static rp_type leading(const rp_type *logits) {
  rp_type n = *logits;
  n.rank--;
  return n;
}

/* logits is input i, labels i + 1. */
static rp_status check(const rp_node *node, int i) {
  const rp_type *x = rp_in(node, i), *labels = rp_in(node, i + 1);
  char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT];
  if (!rp_dtype_is_index((rp_dtype)labels->dtype))
    return rp_node_fail(node, RP_DTYPE,
                        "labels are %s; cast them with :to'i64'",
                        rp_dtype_name((rp_dtype)labels->dtype));
  bool fits = x->rank >= 1;
  if (fits) {
    const rp_type n = leading(x);
    fits = rp_dims_equal(&n, labels);
  }
  if (!fits)
    return rp_node_fail(node, RP_SHAPE, "labels %s for logits %s: the "
                        "logits have one dim more, the classes, at the end",
                        rp_dims_text(labels, a), rp_dims_text(x, b));
  const int64_t reduction = rp_int(node, 1, MEAN);
  if (reduction < MEAN || reduction > NONE)
    return rp_node_fail(node, RP_VALUE, "reduction %lld: 0 (mean), 1 (sum) or "
                        "2 (none)", (long long)reduction);
  return RP_OK;
}

static rp_status cross_entropy_type(const rp_node *node, rp_type *out) {
  const rp_status status = check(node, 0);
  if (status != RP_OK) return status;
  out[1] = leading(rp_in(node, 0));
  if (out[1].dtype == RP_BF16) out[1].dtype = RP_F32;
  out[0] = rp_int(node, 1, MEAN) == NONE
               ? out[1]
               : rp_type_scalar((rp_dtype)out[1].dtype);
  return RP_OK;
}

static int label_ranges(const rp_node *node, int labels, rp_index_range *out) {
  const rp_type *x = rp_in(node, labels - 1);
  *out = (rp_index_range){.input = labels, .limit = x->dims[x->rank - 1],
                          .has_allowed = true, .allowed = ignored(node),
                          .what = "label"};
  return 1;
}

static int cross_entropy_ranges(const rp_node *node, rp_index_range *out) {
  return label_ranges(node, 1, out);
}

static int grad_ranges(const rp_node *node, rp_index_range *out) {
  return label_ranges(node, 2, out);
}

/* Greatest, difference, exponential (about 15), sum. */
static rp_cost cross_entropy_cost(const rp_node *node) {
  rp_cost cost = rp_cost_elementwise(node);
  cost.flops = 18 * (double)rp_type_count(rp_in(node, 0));
  return cost;
}

static rp_cost grad_cost(const rp_node *node) {
  rp_cost cost = rp_cost_elementwise(node);
  cost.flops = 17 * (double)rp_type_count(rp_in(node, 1));
  return cost;
}

/* ---- gradients ---------------------------------------------------------- */

/* t:(...) as (..., 1). */
static rp_tensor *beside(rp_tape *tape, rp_tensor *t) {
  if (t == NULL) return NULL;
  rp_type like = t->type;
  like.dims[like.rank++] = 1;
  return rp_reshape(tape, t, &like);
}

static rp_tensor *probabilities(rp_tape *tape, rp_tensor *logits,
                                rp_tensor *lse) {
  return rp_exp(tape, rp_sub(tape, logits, beside(tape, lse)));
}

static void cross_entropy_grad(rp_tape *tape, const rp_node *node,
                               rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *logits = rp_input(node, 0), *lse = rp_output(node, 1);
  const int64_t ints[2] = {ignored(node), rp_int(node, 1, MEAN)};
  if (dy[0]) {
    rp_tensor *in[4] = {dy[0], logits, rp_input(node, 1), lse};
    dx[0] =
        rp_emit(tape, &rp_op_cross_entropy_grad, in, 4, ints, 2, NULL, 0);
  }
  /* Only second derivatives reach lse. */
  if (dy[1]) {
    rp_tensor *d = rp_mul(tape, probabilities(tape, logits, lse),
                          beside(tape, dy[1]));
    dx[0] = dx[0] ? rp_add(tape, dx[0], d) : d;
  }
}

const rp_op rp_op_cross_entropy = {
    .name = "cross_entropy", .inputs = 2, .outputs = 2,
    .type = cross_entropy_type, .grad = cross_entropy_grad,
    .cost = cross_entropy_cost, .ranges = cross_entropy_ranges,
};

static rp_status cross_entropy_grad_type(const rp_node *node, rp_type *out) {
  const rp_type *dloss = rp_in(node, 0), *x = rp_in(node, 1),
                *lse = rp_in(node, 3);
  const rp_status status = check(node, 1);
  if (status != RP_OK) return status;
  rp_type n = leading(x);
  if (n.dtype == RP_BF16) n.dtype = RP_F32;
  const rp_type loss = rp_int(node, 1, MEAN) == NONE
                           ? n
                           : rp_type_scalar((rp_dtype)n.dtype);
  if (!rp_type_equal(dloss, &loss) || !rp_type_equal(lse, &n))
    return rp_node_fail(node, RP_SHAPE, "takes the loss's gradient and the "
                        "forward pass's second output");
  *out = *x;
  return RP_OK;
}

/* dlogits = (exp(logits - lse) - [j == label]) dloss / count, 0 where the
   label is ignored. */
static void cross_entropy_grad_decompose(rp_tape *tape, const rp_node *node,
                                         rp_tensor **out) {
  rp_tensor *dloss = rp_input(node, 0), *x = rp_input(node, 1),
            *labels = rp_input(node, 2), *lse = rp_input(node, 3);
  const rp_dtype dtype = (rp_dtype)lse->type.dtype;
  const int64_t classes = x->type.dims[x->type.rank - 1];
  rp_tensor *steps[2] = {rp_constant(tape, 0, labels),
                         rp_constant(tape, 1, labels)};
  rp_tensor *class = rp_emit(tape, rp_op_find("arange"), steps, 2, &classes, 1,
                             NULL, 0);
  rp_tensor *is_label = rp_cast(
      tape, rp_binary(tape, "eq", class, beside(tape, labels)), dtype);
  rp_tensor *counts =
      rp_cast(tape, rp_binary(tape, "ne", labels,
                              rp_constant(tape, (double)ignored(node),
                                          labels)), dtype);
  rp_tensor *share = dloss;
  if (rp_int(node, 1, MEAN) == MEAN)
    share = rp_div(tape, dloss, rp_sum(tape, counts, NULL, 0, false));
  rp_tensor *weight = rp_mul(tape, counts, share);
  rp_tensor *off = rp_sub(tape, probabilities(tape, x, lse), is_label);
  out[0] = rp_cast(tape, rp_mul(tape, off, beside(tape, weight)),
                   (rp_dtype)x->type.dtype);
}

const rp_op rp_op_cross_entropy_grad = {
    .name = "cross_entropy_grad", .inputs = 4, .outputs = 1, .in_place = 2,
    .type = cross_entropy_grad_type,
    .decompose = cross_entropy_grad_decompose,
    .cost = grad_cost, .ranges = grad_ranges,
};
