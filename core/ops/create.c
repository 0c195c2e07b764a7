/* Values from nothing, and dropout.

   arange(start, step) {n}             start + i step, i < n; start and step
                                       are rank 0
   rand {dtype, dims...}               uniform in [0, 1)
   randn {dtype, dims...}              normal, mean 0, variance 1
   randint {dtype, low, high, dims...} uniform in low .. high - 1
   dropout(x) {; p}                    x/(1 - p) with probability 1 - p, else 0

   Random words are Philox4x32-10's (base/random.h): the words of a node's
   stream are numbered, word w being number w % 4 of counter w / 4, and element
   e of the value, in row-major order, is made of

     f32 rand, dropout   word e: u = (word >> 8) 2^-24
     f64 rand, randint   words 2e and 2e+1 as one of 64 bits, high half first:
                         u = (bits >> 11) 2^-53, low + floor(bits range 2^-64)
     randn               the uniforms of elements e and e+1, e even, by Box and
                         Muller: r cos t, r sin t, r = sqrt(-2 log u),
                         t = 2 pi v, u of all 32 bits (f32) or 53 and off 0

   so a value does not depend on threads, on strategy or on what else is
   drawn, and a replay makes the same bits. */
#include "ops/elementwise.h"

/* Reads dims from ints[first] on. */
static rp_status created_type(const rp_node *node, int first, rp_type *out) {
  const int64_t dtype = rp_int(node, 0, -1);
  const int rank = node->n_ints - first;
  if (dtype < 0 || dtype >= RP_DTYPES)
    return rp_node_fail(node, RP_VALUE, "%lld is no dtype", (long long)dtype);
  if (rank < 0 || rank > RP_RANK)
    return rp_node_fail(node, RP_VALUE, "%d dims: at most %d are possible",
                        rank, RP_RANK);
  out->dtype = (int32_t)dtype;
  out->rank = rank;
  for (int d = 0; d < rank; d++) out->dims[d] = node->ints[first + d];
  return RP_OK;
}

/* ---- arange -------------------------------------------------------------- */

static rp_status arange_type(const rp_node *node, rp_type *out) {
  const int64_t n = rp_int(node, 0, -1);
  if (n < 0)
    return rp_node_fail(node, RP_VALUE, "%lld elements", (long long)n);
  const rp_type *start = rp_in(node, 0), *step = rp_in(node, 1);
  if (start->rank != 0 || step->rank != 0)
    return rp_node_fail(node, RP_SHAPE, "start and step are scalars");
  if (start->dtype != step->dtype)
    return rp_node_fail(node, RP_DTYPE, "start is %s and step %s",
                        rp_dtype_name((rp_dtype)start->dtype),
                        rp_dtype_name((rp_dtype)step->dtype));
  *out = (rp_type){.dtype = start->dtype, .rank = 1, .dims = {n}};
  return RP_OK;
}
const rp_op rp_op_arange = {
    .name = "arange", .inputs = 2, .outputs = 1,
    .flags = RP_NOT_DIFFERENTIABLE, .type = arange_type,
};

/* ---- rand, randn, randint ------------------------------------------------ */

static rp_status random_type(const rp_node *node, rp_type *out) {
  return created_type(node, 1, out);
}
const rp_op rp_op_rand = {
    .name = "rand", .inputs = 0, .outputs = 1,
    .flags = RP_RANDOM | RP_NOT_DIFFERENTIABLE, .type = random_type,
};
const rp_op rp_op_randn = {
    .name = "randn", .inputs = 0, .outputs = 1,
    .flags = RP_RANDOM | RP_NOT_DIFFERENTIABLE, .type = random_type,
    .cost = rp_cost_function,
};

static rp_status randint_type(const rp_node *node, rp_type *out) {
  const int64_t low = rp_int(node, 1, 0), high = rp_int(node, 2, 0);
  if (low >= high)
    return rp_node_fail(node, RP_VALUE, "no integer is in %lld .. %lld - 1",
                        (long long)low, (long long)high);
  const rp_status status = created_type(node, 3, out);
  if (status == RP_OK && out->dtype == RP_I32 &&
      (low < INT32_MIN || high - 1 > INT32_MAX))
    return rp_node_fail(node, RP_VALUE, "%lld .. %lld - 1 does not fit in i32",
                        (long long)low, (long long)high);
  return status;
}
const rp_op rp_op_randint = {
    .name = "randint", .inputs = 0, .outputs = 1,
    .flags = RP_RANDOM | RP_NOT_DIFFERENTIABLE, .type = randint_type,
};

/* ---- dropout ------------------------------------------------------------- */

static rp_status dropout_type(const rp_node *node, rp_type *out) {
  const double p = rp_real(node, 0, -1);
  if (!(p >= 0 && p <= 1))
    return rp_node_fail(node, RP_VALUE, "p is %g, not in 0 .. 1", p);
  *out = *rp_in(node, 0);
  return RP_OK;
}

/* Dropout of dy with the same stream: backward reads neither x nor a mask,
   the words are drawn again. */
static void dropout_grad(rp_tape *tape, const rp_node *node,
                         rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = rp_emit_stream(tape, node->op, dy, 1, NULL, 0, node->reals, 1,
                         node->stream);
}
const rp_op rp_op_dropout = {
    .name = "dropout", .inputs = 1, .outputs = 1,
    .flags = RP_POINTWISE | RP_RANDOM, .in_place = RP_OVER_FIRST,
    .type = dropout_type, .grad = dropout_grad, .cost = rp_cost_function,
};
