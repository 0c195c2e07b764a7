/* Pooling and resizing of planes x:(..., H, W) -> y:(..., OH, OW).

   max_pool2d(x)             the greatest of each window; the first of equals
   max_pool2d_grad(dy, x)    dx: dy at that place
   max_pool2d_take(v, x)     v:(as x) at x's greatest places: the adjoint of
                             max_pool2d_grad in dy
     ints {kernel, kernel, stride, stride, pad, pad, dilation, dilation,
     ceiling}, rows' before columns'

   avg_pool2d(x)             the mean of each window
   avg_pool2d_grad(dy)       dx, the adjoint
     ints like max_pool2d's, then {include_pad, divisor}: whether what lies in
     the padding counts, and 0 or what to divide by instead of counting;
     grad: then {H, W}

   adaptive_avg_pool2d(x)    ints {OH, OW}: output i is the mean of rows
                             floor(i H / OH) .. ceil((i + 1) H / OH) - 1
   upsample_nearest2d(x)     ints {OH, OW}: output i is row floor(i H / OH)
   their _grad(dy)           ints {H, W}: the adjoints

   All but max_pool2d are linear in their first input and each other's
   adjoints: backward reads nothing. A gradient of bf16 is f32: values that
   fall on one place are added up in it. max_pool2d's backward finds the places
   again in x, which the op behind or in front mostly keeps anyway (a ReLU, a
   convolution); indices would be one more array. */
#include "base/window.h"
#include "graph/op.h"

extern const rp_op rp_op_max_pool2d_grad, rp_op_max_pool2d_take,
    rp_op_avg_pool2d, rp_op_avg_pool2d_grad, rp_op_adaptive_avg_pool2d,
    rp_op_adaptive_avg_pool2d_grad, rp_op_upsample_nearest2d,
    rp_op_upsample_nearest2d_grad;

enum { CEILING = 8, MAX_ATTRS = 9, AVG_ATTRS = 11 };

static rp_status check_planes(const rp_node *node, const rp_type *x) {
  char text[RP_DIMS_TEXT];
  if (x->rank >= 2) return RP_OK;
  return rp_node_fail(node, RP_SHAPE, "%s: needs (..., height, width)",
                      rp_dims_text(x, text));
}

static int32_t sum_dtype(const rp_type *dy) {
  return dy->dtype == RP_BF16 ? RP_F32 : dy->dtype;
}

/* ---- windows ------------------------------------------------------------ */

static rp_status windows_type(const rp_node *node, const rp_type *x,
                              rp_type *out) {
  char text[RP_DIMS_TEXT];
  const rp_status status = check_planes(node, x);
  if (status != RP_OK) return status;
  *out = *x;
  rp_window w;
  for (int d = 0; d < 2; d++) {
    w.kernel[d] = rp_int(node, d, 1);
    w.stride[d] = rp_int(node, 2 + d, 1);
    w.pad[d] = rp_int(node, 4 + d, 0);
    w.dilation[d] = rp_int(node, 6 + d, 1);
    if (w.kernel[d] < 1 || w.stride[d] < 1 || w.dilation[d] < 1 ||
        w.pad[d] < 0 || w.pad[d] > w.kernel[d] / 2)
      return rp_node_fail(node, RP_VALUE, "kernel %lld, stride %lld, padding "
                          "%lld: padding is from 0 to half of the kernel, the "
                          "others are at least 1", (long long)w.kernel[d],
                          (long long)w.stride[d], (long long)w.pad[d]);
    int64_t *size = &out->dims[out->rank - 2 + d];
    *size = rp_window_count(&w, d, *size, rp_int(node, CEILING, 0) != 0);
    if (*size < 1)
      return rp_node_fail(node, RP_SHAPE, "%s with its padding is smaller than "
                          "a window of %lld", rp_dims_text(x, text),
                          (long long)rp_window_reach(&w, d));
  }
  return RP_OK;
}

static rp_status check_same(const rp_node *node, const rp_type *a,
                            const rp_type *b, const char *what) {
  char a_text[RP_DIMS_TEXT], b_text[RP_DIMS_TEXT];
  if (rp_type_equal(a, b)) return RP_OK;
  return rp_node_fail(node, RP_SHAPE, "%s is %s, not %s, or of another dtype",
                      what, rp_dims_text(a, a_text), rp_dims_text(b, b_text));
}

static rp_cost window_cost(const rp_node *node) {
  rp_cost cost = rp_cost_elementwise(node);
  cost.flops *= (double)(rp_int(node, 0, 1) * rp_int(node, 1, 1));
  return cost;
}

/* op(a[, b]) with the attributes of node; the last two may be x's H and W. */
static rp_tensor *emit(rp_tape *tape, const rp_op *op, const rp_node *node,
                       int n_ints, rp_tensor *a, rp_tensor *b,
                       const rp_type *sizes) {
  if (a == NULL) return NULL;
  rp_tensor *in[2] = {a, b};
  int64_t ints[AVG_ATTRS + 2];
  for (int i = 0; i < n_ints; i++)
    ints[i] = rp_int(node, i, i < 4 || (i >= 6 && i < 8));
  for (int d = 0; sizes && d < 2; d++)
    ints[n_ints++] = sizes->dims[sizes->rank - 2 + d];
  return rp_emit(tape, op, in, b ? 2 : 1, ints, n_ints, NULL, 0);
}

/* ---- max_pool2d --------------------------------------------------------- */

static rp_status max_pool_type(const rp_node *node, rp_type *out) {
  return windows_type(node, rp_in(node, 0), out);
}

static void max_pool_grad(rp_tape *tape, const rp_node *node,
                          rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = emit(tape, &rp_op_max_pool2d_grad, node, MAX_ATTRS, dy[0],
               rp_input(node, 0), NULL);
}

const rp_op rp_op_max_pool2d = {
    .name = "max_pool2d", .inputs = 1, .outputs = 1,
    .type = max_pool_type, .grad = max_pool_grad, .cost = window_cost,
};

static rp_status max_pool_grad_type(const rp_node *node, rp_type *out) {
  rp_type y;
  rp_status status = windows_type(node, rp_in(node, 1), &y);
  if (status == RP_OK)
    status = check_same(node, rp_in(node, 0), &y, "the gradient");
  *out = *rp_in(node, 1);
  out->dtype = sum_dtype(out);
  return status;
}

/* Where x's greatest places move, nothing is differentiable; elsewhere x does
   not matter. */
static void max_pool_grad_grad(rp_tape *tape, const rp_node *node,
                               rp_tensor *const *g, rp_tensor **dx) {
  rp_tensor *x = rp_input(node, 1);
  dx[0] = emit(tape, &rp_op_max_pool2d_take, node, MAX_ATTRS,
               rp_cast(tape, g[0], (rp_dtype)x->type.dtype), x, NULL);
}

const rp_op rp_op_max_pool2d_grad = {
    .name = "max_pool2d_grad", .inputs = 2, .outputs = 1,
    .type = max_pool_grad_type, .grad = max_pool_grad_grad,
    .cost = window_cost,
};

static rp_status max_pool_take_type(const rp_node *node, rp_type *out) {
  const rp_status status =
      check_same(node, rp_in(node, 0), rp_in(node, 1), "what is taken from");
  return status == RP_OK ? windows_type(node, rp_in(node, 1), out) : status;
}

static void max_pool_take_grad(rp_tape *tape, const rp_node *node,
                               rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = emit(tape, &rp_op_max_pool2d_grad, node, MAX_ATTRS, dy[0],
               rp_input(node, 1), NULL);
}

const rp_op rp_op_max_pool2d_take = {
    .name = "max_pool2d_take", .inputs = 2, .outputs = 1,
    .type = max_pool_take_type, .grad = max_pool_take_grad,
    .cost = window_cost,
};

/* ---- avg_pool2d --------------------------------------------------------- */

static void avg_pool_grad(rp_tape *tape, const rp_node *node,
                          rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = emit(tape, &rp_op_avg_pool2d_grad, node, AVG_ATTRS, dy[0], NULL,
               rp_in(node, 0));
}

const rp_op rp_op_avg_pool2d = {
    .name = "avg_pool2d", .inputs = 1, .outputs = 1,
    .type = max_pool_type, .grad = avg_pool_grad, .cost = window_cost,
};

/* The type of an adjoint's output: dy's with the sizes in the attributes. */
static rp_status resized_type(const rp_node *node, int at, rp_type *out) {
  const rp_status status = check_planes(node, rp_in(node, 0));
  if (status != RP_OK) return status;
  *out = *rp_in(node, 0);
  for (int d = 0; d < 2; d++) {
    const int64_t size = rp_int(node, at + d, 0);
    const int64_t from = out->dims[out->rank - 2 + d];
    if (size < 1 || from < 1)
      return rp_node_fail(node, RP_SHAPE, "a size of %lld from %lld: at least "
                          "1 is needed", (long long)size, (long long)from);
    out->dims[out->rank - 2 + d] = size;
  }
  return RP_OK;
}

static rp_status avg_pool_grad_type(const rp_node *node, rp_type *out) {
  rp_type y;
  rp_status status = resized_type(node, AVG_ATTRS, out);
  if (status == RP_OK) status = windows_type(node, out, &y);
  if (status == RP_OK)
    status = check_same(node, rp_in(node, 0), &y, "the gradient");
  out->dtype = sum_dtype(out);
  return status;
}

static void avg_pool_grad_grad(rp_tape *tape, const rp_node *node,
                               rp_tensor *const *g, rp_tensor **dx) {
  dx[0] = emit(tape, &rp_op_avg_pool2d, node, AVG_ATTRS, g[0], NULL, NULL);
}

const rp_op rp_op_avg_pool2d_grad = {
    .name = "avg_pool2d_grad", .inputs = 1, .outputs = 1,
    .type = avg_pool_grad_type, .grad = avg_pool_grad_grad,
    .cost = window_cost,
};

/* ---- to given sizes ----------------------------------------------------- */

static rp_status to_size_type(const rp_node *node, rp_type *out) {
  return resized_type(node, 0, out);
}
static rp_status from_size_type(const rp_node *node, rp_type *out) {
  const rp_status status = resized_type(node, 0, out);
  out->dtype = sum_dtype(rp_in(node, 0));
  return status;
}

/* The adjoint, back to input 0's sizes. */
static void adaptive_grad(rp_tape *tape, const rp_node *node,
                          rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = emit(tape, &rp_op_adaptive_avg_pool2d_grad, node, 0, dy[0], NULL,
               rp_in(node, 0));
}
static void adaptive_grad_grad(rp_tape *tape, const rp_node *node,
                               rp_tensor *const *g, rp_tensor **dx) {
  dx[0] = emit(tape, &rp_op_adaptive_avg_pool2d, node, 0, g[0], NULL,
               rp_in(node, 0));
}
static void upsample_grad(rp_tape *tape, const rp_node *node,
                          rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = emit(tape, &rp_op_upsample_nearest2d_grad, node, 0, dy[0], NULL,
               rp_in(node, 0));
}
static void upsample_grad_grad(rp_tape *tape, const rp_node *node,
                               rp_tensor *const *g, rp_tensor **dx) {
  dx[0] = emit(tape, &rp_op_upsample_nearest2d, node, 0, g[0], NULL,
               rp_in(node, 0));
}

const rp_op rp_op_adaptive_avg_pool2d = {
    .name = "adaptive_avg_pool2d", .inputs = 1, .outputs = 1,
    .type = to_size_type, .grad = adaptive_grad,
};
const rp_op rp_op_adaptive_avg_pool2d_grad = {
    .name = "adaptive_avg_pool2d_grad", .inputs = 1, .outputs = 1,
    .type = from_size_type, .grad = adaptive_grad_grad,
};
const rp_op rp_op_upsample_nearest2d = {
    .name = "upsample_nearest2d", .inputs = 1, .outputs = 1,
    .type = to_size_type, .grad = upsample_grad,
};
const rp_op rp_op_upsample_nearest2d_grad = {
    .name = "upsample_nearest2d_grad", .inputs = 1, .outputs = 1,
    .type = from_size_type, .grad = upsample_grad_grad,
};
