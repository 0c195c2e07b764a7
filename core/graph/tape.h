/* The tape: what gradient rules and decompositions record through. It owns
   what it returns until rp_tape_close, so rules compose freely; after the
   first failure every call returns NULL and the status sticks. NULL inputs
   give NULL.

   A rule reads:  dx[0] = rp_mul(tape, dy[0], rp_sub(tape, one, y)); */
#ifndef RP_GRAPH_TAPE_H
#define RP_GRAPH_TAPE_H

#include "graph/node.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rp_tape {
  rp_context *ctx;
  rp_status status;
  RP_ARRAY(rp_tensor *) owned;
  const rp_node *node;   /* whose rule runs */
  uint64_t needs;        /* bit i: input i of node wants a gradient */
  rp_tensor *guard;      /* emitted effects get it as last input; NULL: none */
} rp_tape;

void rp_tape_open(rp_tape *tape, rp_context *ctx);
void rp_tape_close(rp_tape *tape);

static inline bool rp_tape_needs(const rp_tape *tape, int input) {
  return input < 64 ? (tape->needs >> input) & 1u : true;
}

/* Records any op; for random ops `stream` is a copy of another node's. */
rp_tensor *rp_emit(rp_tape *tape, const rp_op *op, rp_tensor *const *inputs,
                   int n_inputs, const int64_t *ints, int n_ints,
                   const double *reals, int n_reals);
rp_tensor *rp_emit_stream(rp_tape *tape, const rp_op *op,
                          rp_tensor *const *inputs, int n_inputs,
                          const int64_t *ints, int n_ints,
                          const double *reals, int n_reals,
                          rp_stream stream);
/* Another output of t's node, borrowed from the tape like t. */
rp_tensor *rp_emit_output(rp_tape *tape, rp_tensor *t, int index);

/* Output k of a node, and its input i, as borrowed tensors. */
static inline rp_tensor *rp_output(const rp_node *node, int k) {
  return (rp_tensor *)&node->outputs[k];
}
static inline rp_tensor *rp_input(const rp_node *node, int i) {
  return node->inputs[i];
}

/* A constant of like's dtype. */
rp_tensor *rp_constant(rp_tape *tape, double value, const rp_tensor *like);

/* Ops by name, for rules: inputs only, no attributes. */
rp_tensor *rp_unary(rp_tape *tape, const char *op, rp_tensor *x);
rp_tensor *rp_binary(rp_tape *tape, const char *op, rp_tensor *a,
                     rp_tensor *b);
rp_tensor *rp_add(rp_tape *tape, rp_tensor *a, rp_tensor *b);
rp_tensor *rp_sub(rp_tape *tape, rp_tensor *a, rp_tensor *b);
rp_tensor *rp_mul(rp_tape *tape, rp_tensor *a, rp_tensor *b);
rp_tensor *rp_div(rp_tape *tape, rp_tensor *a, rp_tensor *b);
rp_tensor *rp_neg(rp_tape *tape, rp_tensor *x);
rp_tensor *rp_exp(rp_tape *tape, rp_tensor *x);
/* condition ? a : b */
rp_tensor *rp_where(rp_tape *tape, rp_tensor *condition, rp_tensor *a,
                    rp_tensor *b);
/* x scaled by a constant. */
rp_tensor *rp_scale(rp_tape *tape, rp_tensor *x, double factor);
rp_tensor *rp_cast(rp_tape *tape, rp_tensor *x, rp_dtype dtype);
/* Whether t is the bf16 copy of an f32 value, whose gradient had better come
   in f32: the cast's own gradient then has nothing to do. */
bool rp_is_narrowed(const rp_tensor *t);
/* sum over dims (0-based; n_dims 0: over all), kept as 1s when keep. */
rp_tensor *rp_sum(rp_tape *tape, rp_tensor *x, const int64_t *dims,
                  int n_dims, bool keep);
/* Sums x over the dims in which `like` was broadcast to x: of like's dims. */
rp_tensor *rp_sum_to(rp_tape *tape, rp_tensor *x, const rp_type *like);
/* Views. */
rp_tensor *rp_reshape(rp_tape *tape, rp_tensor *x, const rp_type *like);
rp_tensor *rp_expand(rp_tape *tape, rp_tensor *x, const rp_type *like);
rp_tensor *rp_transpose(rp_tape *tape, rp_tensor *x, int a, int b);
rp_tensor *rp_narrow(rp_tape *tape, rp_tensor *x, int dim, int64_t start,
                     int64_t length);
/* 2-D or batched product. */
rp_tensor *rp_matmul(rp_tape *tape, rp_tensor *a, rp_tensor *b);
/* A tensor of like's type, all `value`. */
rp_tensor *rp_full_like(rp_tape *tape, const rp_type *like, double value);

#ifdef __cplusplus
}
#endif

#endif
