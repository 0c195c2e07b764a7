/* Which dtype an op is computed in, as torch.autocast has it:

     products take what they multiply in bf16 (op.narrow);
     elementwise ops, views and copies keep their inputs' dtype, f32 where
     bf16 and f32 meet, and cast nothing;
     what has no kernel for bf16, or gets both and cannot mix, takes f32:
     that is how softmax, reductions and losses stay f32.

   Only the user's own recording is cast. Gradient rules see the casts as
   nodes and give each value's gradient in its dtype. */
#include "graph/autocast.h"

#include "base/context.h"
#include "graph/op.h"
#include "graph/record.h"
#include "graph/recorder.h"

static bool has(const rp_tensor *t, rp_dtype dtype) {
  return t->type.dtype == (int32_t)dtype;
}

static bool takes_bf16(const rp_op *op, rp_tensor *const *inputs, int n) {
  bool narrow = false, wide = false;
  for (int i = 0; i < n; i++) {
    narrow |= has(inputs[i], RP_BF16);
    wide |= has(inputs[i], RP_F32);
  }
  if (!narrow || op->flags & RP_VIEW) return true;
  if (has(inputs[0], RP_BF16) && !rp_op_has_kernel(op, RP_BF16))
    return !rp_op_has_kernel(op, RP_F32);
  return !wide || op->flags & (RP_ELEMENTWISE | RP_MIXED);
}

/* inputs[i], or a reference to its cast. */
static rp_tensor *cast(rp_tensor *x, rp_dtype dtype) {
  static const rp_op *op;
  if (op == NULL) op = rp_op_find("cast");
  const int64_t to = dtype;
  return rp_record_with_stream(x->node->ctx, op, &x, 1, &to, 1, NULL, 0, NULL);
}

rp_tensor *rp_autocast_record(rp_context *ctx, const rp_op *op,
                              rp_tensor *const *inputs, int n_inputs,
                              const int64_t *ints, int n_ints,
                              const double *reals, int n_reals) {
  rp_tensor *taken[RP_INPUTS_MAX];
  bool fits = n_inputs > 0 && n_inputs <= RP_INPUTS_MAX;
  for (int i = 0; fits && i < n_inputs; i++) fits = inputs[i] != NULL;
  if (!fits) /* which says what is wrong */
    return rp_record_with_stream(ctx, op, inputs, n_inputs, ints, n_ints,
                                 reals, n_reals, NULL);
  const bool as_is = op->narrow || takes_bf16(op, inputs, n_inputs);
  bool whole = true;
  int n = 0;
  for (; n < n_inputs && whole; n++) {
    taken[n] = inputs[n];
    if (op->narrow >> (n & 31) & 1u && has(inputs[n], RP_F32))
      taken[n] = cast(inputs[n], RP_BF16);
    else if (!as_is && has(inputs[n], RP_BF16))
      taken[n] = cast(inputs[n], RP_F32);
    whole = taken[n] != NULL;
  }
  rp_tensor *y = NULL;
  if (whole)
    y = rp_record_with_stream(ctx, op, taken, n_inputs, ints, n_ints, reals,
                              n_reals, NULL);
  for (int i = 0; i < n; i++)
    if (taken[i] != inputs[i]) rp_tensor_release(taken[i]);
  return y;
}

bool rp_autocast(rp_context *ctx, bool on) {
  const bool before = ctx->recorder->autocast;
  ctx->recorder->autocast = on;
  return before;
}
