/* What an op is. One record says everything the rest of the tree knows of
   an op; ops/registry.def lists the records; each backend has a row for each
   dtype it can run (exec/backend.h).

   Rules are pure. They read the node (inputs' types, strides, attributes),
   never values. */
#ifndef RP_GRAPH_OP_H
#define RP_GRAPH_OP_H

#include "base/status.h"
#include "graph/node.h"
#include "graph/tape.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  /* Output element i depends on element i of each (broadcast) input alone. */
  RP_ELEMENTWISE = 1 << 0,
  /* Draws from node->stream. */
  RP_RANDOM = 1 << 1,
  /* Output k aliases an input's bytes (record.view); never runs. Inputs
     beyond those aliased are recipes only. */
  RP_VIEW = 1 << 2,
  /* Writes leaves (record.writes); runs exactly once; has no outputs. */
  RP_EFFECT = 1 << 3,
  /* Has no gradient by nature (comparisons, argmax, integer results). */
  RP_NOT_DIFFERENTIABLE = 1 << 4,
  /* Accepts more than `inputs` inputs. */
  RP_VARIADIC = 1 << 5,
  /* The kernel takes inputs of any strides (broadcast ones too, stride 0);
     other ops get a `contiguous` recorded in front where needed. */
  RP_STRIDED = 1 << 6,
  /* A library's or a fused kernel whose time is counted in FLOPs: strategies
     that keep what is costly keep its output. */
  RP_COSTLY = 1 << 7,
  /* The leaf's own record: rp_leaf makes it, rp_record does not. */
  RP_LEAF = 1 << 8,
  /* Effects: may have one input more than `inputs`, a bool of rank 0 (the
     guard): where it is false nothing is written. */
  RP_GUARDABLE = 1 << 9,
  /* The gradient rule takes dy in f32 where the output is bf16. Others get it
     rounded first. */
  RP_WIDE_GRAD = 1 << 10,
  /* Takes f32 inputs beside bf16 ones as they are (elementwise ops do too:
     the result is then f32). */
  RP_MIXED = 1 << 11,
  /* Updates: may have one input more before the guard, a number of rank 0 and
     of the gradient's dtype (the factor): the gradient is multiplied by it. */
  RP_SCALABLE = 1 << 12,
  /* Folds its only input into what it makes. Its kernels take one that is
     nowhere as a whole, too (graph/edge.c): in pieces, with the same bits. */
  RP_FOLDS = 1 << 13
};

typedef struct rp_cost {
  double flops;
  double bytes; /* memory traffic: read + written */
} rp_cost;

/* Index inputs: values of `input` must be in 0..limit-1 (or == allowed when
   has_allowed), checked before the first instruction where it is a leaf. */
typedef struct rp_index_range {
  int32_t input;
  int64_t limit;
  bool has_allowed;
  int64_t allowed;
  const char *what; /* "label", "index" */
} rp_index_range;

/* An elementwise op, and the op that does its work too on output 0 while it
   writes that: `whole` takes an op's inputs, then what `behind` reads beside
   its output, and the attributes of the one, then of the other. It is in no
   registry; its bits are those of the two. */
typedef struct rp_ending {
  const rp_op *behind, *whole;
  /* For input 0, output 0 and what `behind` makes of it. */
  bool (*fits)(const rp_type *in, const rp_type *made, const rp_type *out);
  /* Output 0 is input 0 of `behind`, there perhaps in other dims with the same
     last one; bits may be those of `behind` on what is not rounded yet. */
  bool rows;
} rp_ending;

/* An elementwise op of one input, without attributes, and the op that writes
   what it makes of output 0: `whole` has this op's inputs and attributes, and
   either output 0 and that or, where nobody reads output 0, that alone. It is
   in no registry; bits may be those of `behind` on what is not rounded yet. */
typedef struct rp_beside {
  const rp_op *behind, *whole;
} rp_beside;

enum { RP_ENDINGS = 2 };

/* What a matrix product multiplies: its first two inputs, the leading dims of
   the first as more rows, with a bias behind them or not. */
typedef enum rp_product_form {
  RP_NO_PRODUCT,
  RP_PRODUCT,           /* a b */
  RP_PRODUCT_TRANSPOSED /* a b^T */
} rp_product_form;

struct rp_op {
  const char *name;
  int8_t inputs, outputs; /* outputs -1: as many as ints[0] says */
  uint32_t flags;

  /* Bit i: output 0 may take over input i's bytes, provided input i is
     contiguous, of output 0's dims and dtype, and dead after. */
  uint32_t in_place;
  /* Effects: bit i: input i is a leaf that this node writes. */
  uint32_t writes;
  /* Products: bit i: input i is taken in bf16 under rp_autocast. */
  uint32_t narrow;
  rp_product_form product;

  /* Fills out[0..outputs-1] from the inputs' types and the attributes.
     Says RP_SHAPE, RP_DTYPE or RP_VALUE through rp_fail. */
  rp_status (*type)(const rp_node *node, rp_type *out);

  /* Views: strides of output k over *root input's root. NULL message,
     RP_UNSUPPORTED: these strides cannot be aliased; record then makes the
     input contiguous and asks again. Output k aliases input k (input 0 for
     single-output views). */
  rp_status (*view)(const rp_node *node, int k, rp_strides *out);

  /* RP_STRIDED ops that take some strides only: whether input i's will do. */
  bool (*accepts)(const rp_node *node, int input);

  /* dx[i] for each input i that rp_tape_needs; dy[k] is NULL where output k
     gets no gradient. Emits nodes through the tape; NULL results travel. dx
     may be f32 for a bf16 input: it is not rounded before it must be. */
  void (*grad)(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
               rp_tensor **dx);

  /* The same values from simpler ops: out[k] for each output. Ops without
     `grad` are differentiated through it. */
  void (*decompose)(rp_tape *tape, const rp_node *node, rp_tensor **out);

  /* Bit i of `units`: where input i is the constant `unit` (1 of a product),
     the output is the other input, bit for bit. */
  uint32_t units;
  double unit;

  /* Gradients that make a forward op's outputs too, first of their own, from
     its very inputs; ints[1..] begin with its ints. Where a program has both,
     this one alone runs. */
  const rp_op *makes;
  /* Ops whose result may go into a sum: the op(sum, inputs...) that adds it
     to `sum` in place. Its attributes are this op's. */
  const rp_op *adds;
  /* The op as two that are in no registry, for output 0 to be cheap to make
     again: parts[0] makes outputs 1.. from the same inputs, parts[1] output 0
     from the inputs and those. Same attributes, same bits. */
  const rp_op *parts[2];
  /* What may run with this op, up to the first without an op. */
  rp_ending ends[RP_ENDINGS];
  /* What may be written with output 0. */
  rp_beside beside;

  /* NULL: one FLOP an output element, every input and output touched once. */
  rp_cost (*cost)(const rp_node *node);

  /* Returns the number of ranges written to out (at most 2). */
  int (*ranges)(const rp_node *node, rp_index_range *out);

  /* Effects of a forward node (running statistics): emits them, at most 4,
     into out and returns their number. They run once, with the program that
     first runs the node, however often that is replayed. Bit i of
     effect_inputs: input i is for them alone (a leaf that they write): the
     kernel does not see it, and its version does not bind the node. */
  int (*effects)(rp_tape *tape, const rp_node *node, rp_tensor **out);
  uint32_t effect_inputs;

  /* Effects that are optimizers: states a parameter, numbers a group, and
     their names ("lr", ...), NULL-ended. Inputs are parameter, gradient,
     states..., numbers (f64 vector: the names' values, then the step count
     as double). */
  int8_t states;
  const char *const *numbers;
};

/* ---- fused nodes (graph/fuse.c) ----------------------------------------- */

enum { RP_PARTS = 8, RP_PART_INPUTS = 3 };

/* One op of a fused node. in[k] >= 0: operand of the node; < 0: what part
   -1 - in[k] made. What a part makes has the node's dims (of
   rp_op_fused_product: each side of the product has its own). */
typedef struct rp_part {
  const rp_op *op;
  int64_t *ints;
  double *reals;
  int32_t n_ints, n_reals, n_in;
  int32_t in[RP_PART_INPUTS];
  rp_type type;
} rp_part;

/* Elementwise ops in the order they run; the last makes the node's output, or
   what `fold` makes it of. Of rp_op_fused_product (graph/tiled.c) one part is a
   product: those before it make one of its operands, which it reads as `made`,
   those behind it read its result element for element. */
typedef struct rp_fusion {
  int32_t n, product;
  rp_part parts[RP_PARTS];
  rp_type made;
  rp_strides made_strides;
  rp_part fold;    /* op NULL: none */
  rp_type folded;  /* what the last part makes, as fold reads it */
  char name[(RP_PARTS + 1) * 16]; /* "dropout+add", "sub+square+mean" */
} rp_fusion;

extern const rp_op rp_op_fused, rp_op_fused_fold, rp_op_fused_product;

/* Shape rules that many records share. */
rp_status rp_type_like_first(const rp_node *node, rp_type *out);
/* RP_DTYPE where the inputs' dtypes are not all one. */
rp_status rp_type_one_dtype(const rp_node *node);
/* All inputs broadcast against each other. One dtype, but that bf16 and f32
   give f32; numbers do not count there. RP_SHAPE, RP_DTYPE. */
rp_status rp_type_broadcast(const rp_node *node, rp_type *out);
rp_cost rp_cost_elementwise(const rp_node *node);
/* rp_fail with "[op] " in front, "[op] in scope: " where there is one, for use
   in rules. */
rp_status rp_node_fail(const rp_node *node, rp_status status,
                       const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* RP_DTYPE: a and b differ, and which of them to cast to. */
rp_status rp_node_fail_dtypes(const rp_node *node, rp_dtype a, rp_dtype b);

static inline const rp_type *rp_in(const rp_node *node, int i) {
  return &node->inputs[i]->type;
}
/* Attribute i, or fallback when the node was recorded with fewer. */
static inline int64_t rp_int(const rp_node *node, int i, int64_t fallback) {
  return i < node->n_ints ? node->ints[i] : fallback;
}
static inline double rp_real(const rp_node *node, int i, double fallback) {
  return i < node->n_reals ? node->reals[i] : fallback;
}

#ifdef __cplusplus
}
#endif

#endif
