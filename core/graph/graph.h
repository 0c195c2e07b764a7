/* A closed graph: a dense copy of the recorded nodes that one program needs.
   It outlives them: a plan made from it serves every later recording of the
   same key, with other leaves bound.

   Invariants
     - nodes are in record order, forward ones (0..n_forward-1) first;
       operands refer to leaves or to values of earlier nodes.
     - views are resolved: an operand is a leaf or a value, seen through
       strides; only nodes that run are here, and each is needed by a target
       or is an effect. */
#ifndef RP_GRAPH_GRAPH_H
#define RP_GRAPH_GRAPH_H

#include "graph/op.h"

typedef struct rp_operand {
  int32_t value; /* >= 0: value; < 0: leaf -1 - value */
  rp_type type;
  rp_strides strides;
} rp_operand;

typedef struct rp_graph_node {
  const rp_op *op;
  int32_t first_operand, n_operands;
  int32_t first_value, n_values;
  int64_t *ints;
  double *reals;
  int32_t n_ints, n_reals;
  rp_fusion *fusion; /* owned; NULL: one op */
  uint32_t in_place; /* the op's, or what fusion leaves of it */
  int32_t stream; /* random: number of its stream, -1 */
  int32_t origin; /* backward: the forward node it is a gradient of, -1 */
  rp_place place; /* layer, entry and segment numbered from 1 in order of
                     appearance; scope and *_scope as interned */
  double flops, bytes;
} rp_graph_node;

typedef struct rp_graph_value {
  int32_t node, output;
  rp_type type;
  bool keep;
  bool target;
  bool light, unread; /* rp_graph_find_light */
} rp_graph_value;

typedef struct rp_graph_leaf {
  int32_t binding; /* index into the request's bindings; -1: constant */
  rp_role role;
  rp_type type;
  bool anywhere;   /* lies on no device: a number, an optimizer's numbers */
  _Alignas(8) char constant[16];
} rp_graph_leaf;

typedef struct rp_graph_range {
  int32_t leaf;
  rp_index_range range;
  int32_t node;
} rp_graph_range;

typedef struct rp_graph {
  RP_ARRAY(rp_graph_node) nodes;
  RP_ARRAY(rp_operand) operands;
  RP_ARRAY(rp_graph_value) values;
  RP_ARRAY(rp_graph_leaf) leaves;
  RP_ARRAY(rp_graph_range) ranges; /* index leaves to check before a run */
  RP_ARRAY(int32_t) targets;       /* operand-style: value or -1 - leaf */
  RP_ARRAY(int32_t) segment_parents; /* of mark i + 1: a mark, 0 none */
  int32_t n_forward, n_streams;
  bool effects_last; /* leaves are written when all else has run */
  int64_t alignment; /* of the device, in bytes; a multiple of RP_ALIGN */
} rp_graph;

static inline const rp_operand *rp_graph_in(const rp_graph *graph,
                                            const rp_graph_node *node, int i) {
  return &graph->operands.at[node->first_operand + i];
}
/* The leaf that an operand reads, or -1. */
static inline int32_t rp_operand_leaf(const rp_operand *operand) {
  return operand->value < 0 ? -1 - operand->value : -1;
}
/* What so many bytes take where the graph's programs run. */
static inline int64_t rp_graph_align(const rp_graph *graph, int64_t bytes) {
  const int64_t a = graph->alignment;
  return (bytes + a - 1) / a * a;
}
static inline int64_t rp_value_bytes(const rp_graph *graph, int32_t value) {
  return rp_graph_align(graph,
                        rp_type_bytes(&graph->values.at[value].type));
}

/* The leaves and held values that a program finds outside of itself, in an
   order that depends on the request's structure alone. */
typedef struct rp_bindings {
  RP_ARRAY(rp_tensor *) tensors; /* borrowed roots */
  RP_ARRAY(rp_stream) streams;   /* of the forward nodes, by number */
} rp_bindings;

/* Builds the graph of all nodes that the roots need. roots[i] is a tensor to
   be delivered (targets gets its operand) or an effect's handle. */
rp_status rp_graph_build(rp_graph *graph, rp_context *ctx,
                         rp_tensor *const *roots, int n_roots,
                         const rp_bindings *bindings);
/* What reading it moves: no more than there is, where a dim is broadcast. */
double rp_operand_bytes(const rp_graph *graph, const rp_operand *in);
bool rp_operand_equal(const rp_operand *a, const rp_operand *b);
/* `in` is a value as a whole, element for element. */
bool rp_operand_is_whole(const rp_graph *graph, const rp_operand *in);
/* Of one layer and mark; a backward node is where its origin is. */
bool rp_graph_same_stretch(const rp_graph *graph, const rp_graph_node *a,
                           const rp_graph_node *b);
/* readers[v]: the operands that read value v. */
void rp_graph_count_readers(const rp_graph *graph, int32_t *readers);
/* What nodes that moved are called by: values' makers, origins, ranges.
   moved[i]: where old node i, or what took its place, is now; -1: gone. */
void rp_graph_renumber(rp_graph *graph, const int32_t *moved);
/* Drops the nodes that went into an earlier one, moved[i] (-1: stays), which
   leaves moved as rp_graph_renumber takes it. */
void rp_graph_drop_moved(rp_graph *graph, int32_t *moved);
/* The parts' attributes too; NULL is nothing. */
void rp_fusion_free(rp_context *ctx, rp_fusion *fusion);
/* The node keeps none. */
void rp_graph_free_attributes(rp_context *ctx, rp_graph_node *node);
void rp_graph_free(rp_graph *graph, rp_context *ctx);

static inline const char *rp_graph_node_name(const rp_graph_node *node) {
  return node->fusion ? node->fusion->name : node->op->name;
}

#endif
