#include "graph/tape.h"

#include <string.h>

#include "base/context.h"
#include "graph/op.h"
#include "graph/record.h"

void rp_tape_open(rp_tape *tape, rp_context *ctx) {
  *tape = (rp_tape){.ctx = ctx, .status = RP_OK};
}

void rp_tape_close(rp_tape *tape) {
  for (int32_t i = tape->owned.n - 1; i >= 0; i--)
    rp_tensor_release(tape->owned.at[i]);
  rp_array_free(tape->ctx, &tape->owned, sizeof(rp_tensor *));
}

/* Takes t's reference; NULL travels. */
static rp_tensor *own(rp_tape *tape, rp_tensor *t) {
  if (t == NULL) {
    if (tape->status == RP_OK) tape->status = tape->ctx->status;
    return NULL;
  }
  if (!rp_array_room(tape->ctx, &tape->owned, sizeof t, 1)) {
    tape->status = RP_NOMEM;
    rp_tensor_release(t);
    return NULL;
  }
  return tape->owned.at[tape->owned.n++] = t;
}

static rp_tensor *emit(rp_tape *tape, const rp_op *op,
                       rp_tensor *const *inputs, int n_inputs,
                       const int64_t *ints, int n_ints, const double *reals,
                       int n_reals, const rp_stream *stream) {
  if (tape->status != RP_OK) return NULL;
  if (op == NULL) {
    tape->status = rp_fail(tape->ctx, RP_INTERNAL,
                           "a gradient rule names an op that does not exist");
    return NULL;
  }
  for (int i = 0; i < n_inputs; i++)
    if (inputs[i] == NULL) return NULL;
  return own(tape, rp_record_with_stream(tape->ctx, op, inputs, n_inputs, ints,
                                         n_ints, reals, n_reals, stream));
}

rp_tensor *rp_emit(rp_tape *tape, const rp_op *op, rp_tensor *const *inputs,
                   int n_inputs, const int64_t *ints, int n_ints,
                   const double *reals, int n_reals) {
  rp_tensor *guarded[16];
  if (tape->guard && op && op->flags & RP_GUARDABLE && n_inputs < 16) {
    memcpy(guarded, inputs, (size_t)n_inputs * sizeof *inputs);
    guarded[n_inputs++] = tape->guard;
    inputs = guarded;
  }
  return emit(tape, op, inputs, n_inputs, ints, n_ints, reals, n_reals, NULL);
}

rp_tensor *rp_emit_stream(rp_tape *tape, const rp_op *op,
                          rp_tensor *const *inputs, int n_inputs,
                          const int64_t *ints, int n_ints,
                          const double *reals, int n_reals,
                          rp_stream stream) {
  return emit(tape, op, inputs, n_inputs, ints, n_ints, reals, n_reals,
              &stream);
}

rp_tensor *rp_emit_output(rp_tape *tape, rp_tensor *t, int index) {
  (void)tape; /* whose reference on the node covers all its outputs */
  return t ? &t->node->outputs[index] : NULL;
}

rp_tensor *rp_constant(rp_tape *tape, double value, const rp_tensor *like) {
  if (tape->status != RP_OK || like == NULL) return NULL;
  return own(tape, rp_number(tape->ctx, value, (rp_dtype)like->type.dtype));
}

rp_tensor *rp_unary(rp_tape *tape, const char *op, rp_tensor *x) {
  return rp_emit(tape, rp_op_find(op), &x, 1, NULL, 0, NULL, 0);
}

rp_tensor *rp_binary(rp_tape *tape, const char *op, rp_tensor *a,
                     rp_tensor *b) {
  rp_tensor *pair[2] = {a, b};
  return rp_emit(tape, rp_op_find(op), pair, 2, NULL, 0, NULL, 0);
}

rp_tensor *rp_add(rp_tape *tape, rp_tensor *a, rp_tensor *b) {
  return rp_binary(tape, "add", a, b);
}
rp_tensor *rp_sub(rp_tape *tape, rp_tensor *a, rp_tensor *b) {
  return rp_binary(tape, "sub", a, b);
}
rp_tensor *rp_mul(rp_tape *tape, rp_tensor *a, rp_tensor *b) {
  return rp_binary(tape, "mul", a, b);
}
rp_tensor *rp_div(rp_tape *tape, rp_tensor *a, rp_tensor *b) {
  return rp_binary(tape, "div", a, b);
}
rp_tensor *rp_neg(rp_tape *tape, rp_tensor *x) {
  return rp_unary(tape, "neg", x);
}
rp_tensor *rp_exp(rp_tape *tape, rp_tensor *x) {
  return rp_unary(tape, "exp", x);
}

rp_tensor *rp_where(rp_tape *tape, rp_tensor *condition, rp_tensor *a,
                    rp_tensor *b) {
  rp_tensor *three[3] = {condition, a, b};
  return rp_emit(tape, rp_op_find("where"), three, 3, NULL, 0, NULL, 0);
}

rp_tensor *rp_scale(rp_tape *tape, rp_tensor *x, double factor) {
  if (tape->status != RP_OK || x == NULL) return NULL;
  const rp_dtype dtype = (rp_dtype)x->type.dtype;
  return rp_mul(tape, x, own(tape, rp_number(tape->ctx, factor,
                                             dtype == RP_BF16 ? RP_F32
                                                              : dtype)));
}

rp_tensor *rp_cast(rp_tape *tape, rp_tensor *x, rp_dtype dtype) {
  if (x && x->type.dtype == (int32_t)dtype) return x;
  const int64_t to = dtype;
  return rp_emit(tape, rp_op_find("cast"), &x, 1, &to, 1, NULL, 0);
}

bool rp_is_narrowed(const rp_tensor *t) {
  return t->type.dtype == RP_BF16 && t->node->op == rp_op_find("cast") &&
         t->node->inputs[0]->type.dtype == RP_F32;
}

rp_tensor *rp_sum(rp_tape *tape, rp_tensor *x, const int64_t *dims,
                  int n_dims, bool keep) {
  int64_t ints[1 + RP_RANK] = {keep};
  for (int i = 0; i < n_dims; i++) ints[1 + i] = dims[i];
  return rp_emit(tape, rp_op_find("sum"), &x, 1, ints, 1 + n_dims, NULL, 0);
}

rp_tensor *rp_sum_to(rp_tape *tape, rp_tensor *x, const rp_type *like) {
  if (x == NULL || rp_dims_equal(&x->type, like)) return x;
  return rp_emit(tape, rp_op_find("sum_to"), &x, 1, like->dims, like->rank,
                 NULL, 0);
}

rp_tensor *rp_reshape(rp_tape *tape, rp_tensor *x, const rp_type *like) {
  if (x == NULL || rp_dims_equal(&x->type, like)) return x;
  return rp_emit(tape, rp_op_find("reshape"), &x, 1, like->dims, like->rank,
                 NULL, 0);
}

rp_tensor *rp_expand(rp_tape *tape, rp_tensor *x, const rp_type *like) {
  if (x == NULL || rp_dims_equal(&x->type, like)) return x;
  return rp_emit(tape, rp_op_find("expand"), &x, 1, like->dims, like->rank,
                 NULL, 0);
}

rp_tensor *rp_transpose(rp_tape *tape, rp_tensor *x, int a, int b) {
  if (x == NULL) return NULL;
  int64_t perm[RP_RANK];
  for (int i = 0; i < x->type.rank; i++) perm[i] = i;
  perm[a] = b;
  perm[b] = a;
  return rp_emit(tape, rp_op_find("permute"), &x, 1, perm, x->type.rank, NULL,
                 0);
}

rp_tensor *rp_narrow(rp_tape *tape, rp_tensor *x, int dim, int64_t start,
                     int64_t length) {
  const int64_t ints[4] = {dim, start, length, 1};
  return rp_emit(tape, rp_op_find("narrow"), &x, 1, ints, 4, NULL, 0);
}

rp_tensor *rp_matmul(rp_tape *tape, rp_tensor *a, rp_tensor *b) {
  return rp_binary(tape, "matmul", a, b);
}

rp_tensor *rp_full_like(rp_tape *tape, const rp_type *like, double value) {
  if (tape->status != RP_OK) return NULL;
  rp_tensor *number =
      own(tape, rp_number(tape->ctx, value, (rp_dtype)like->dtype));
  return rp_expand(tape, number, like);
}
