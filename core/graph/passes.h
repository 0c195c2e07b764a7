/* What happens to a graph between being built and being planned. A pass
   rewrites it and leaves its invariants; it looks at the graph alone, never at
   a strategy, so every plan of a request starts from the same nodes. */
#ifndef RP_GRAPH_PASSES_H
#define RP_GRAPH_PASSES_H

#include "graph/graph.h"

/* Whether the device that `user` stands for has a row for the op. */
typedef bool rp_runs(const void *user, const rp_op *op, rp_dtype dtype);

/* All of the passes below that the request wants, in the order of the table in
   passes.c. fuses: several nodes may become one. After a failure the graph is
   good for rp_graph_free alone. */
rp_status rp_graph_pass(rp_graph *graph, rp_context *ctx, bool fuses,
                        rp_runs *runs, const void *user);

/* Merges nodes that compute the same (never random ones, never across the
   forward / backward border, a layer, a mark: that would stretch a value's
   life) and drops what nobody needs any more. */
rp_status rp_graph_simplify(rp_graph *graph, rp_context *ctx);
/* Lets gradients that make a forward node's values too run in its place. */
void rp_graph_join(rp_graph *graph);
/* In a graph with a backward part, puts the two parts of each forward op that
   has them (rp_op.parts) in its place. */
rp_status rp_graph_split(rp_graph *graph, rp_context *ctx);
/* Lets ops do what is behind them (rp_op.ends) where nobody else reads what is
   in between, and the op that does both runs for such an input 0. Bits stay. */
rp_status rp_graph_end(rp_graph *graph, rp_context *ctx, rp_runs *runs,
                       const void *user);
/* Lets forward ops write what an elementwise op makes of their output beside
   it (rp_op.beside), for readers that are not elementwise. Where backward reads
   both, it has the elementwise op once more, from the output: the two need not
   have the same bits, and which of them a reader gets does not depend on what
   is kept. */
rp_status rp_graph_beside(rp_graph *graph, rp_context *ctx, rp_runs *runs,
                          const void *user);
/* Makes chains and small trees of elementwise ops one node each, where nobody
   else reads what is in between: ops recorded one after the other, of one
   layer and mark, whose values have one shape. Bits stay. */
rp_status rp_graph_fuse(rp_graph *graph, rp_context *ctx);
/* Whether a node may be part of such a group; and nodes first .. root as one,
   at root's place. */
bool rp_graph_node_fuses(const rp_graph_node *node);
rp_status rp_graph_make_fused(rp_graph *graph, rp_context *ctx, int32_t first,
                              int32_t root);
/* Lets a reduction (RP_FOLDS) that alone reads what an elementwise op or a
   group of them makes run inside of it, where `runs` says so of
   rp_op_fused_fold: what is reduced is nowhere as a whole. Bits stay. */
rp_status rp_graph_fold(rp_graph *graph, rp_context *ctx, rp_runs *runs,
                        const void *user);
/* Whether `node` may run inside of `maker`, whose value it reads, if nobody
   else does. */
bool rp_graph_may_fold(const rp_graph *graph, const rp_graph_node *maker,
                       const rp_graph_node *node, rp_runs *runs,
                       const void *user);
/* Gives backward elementwise nodes of its own for light values that groups
   alone read, on both sides: then neither side writes them. Before
   rp_graph_fuse. */
rp_status rp_graph_repeat(rp_graph *graph, rp_context *ctx, rp_runs *runs,
                          const void *user);
/* Marks the forward values that no strategy keeps unless it says so. unread:
   backward does not read them. light: it does, and a short chain of cheap ops
   makes them again from leaves and from what backward reads anyway (an
   activation's output beside its input, a normalised value beside what was
   normalised). */
rp_status rp_graph_find_light(rp_graph *graph, rp_context *ctx);
/* Lets large elementwise work be done in tiles by the products beside it,
   where `runs` says so of rp_op_fused_product: what they read, or what they make, is
   then nowhere as a whole. After rp_graph_find_light, which it has run again
   where anything changed. Bits stay. */
rp_status rp_graph_tile(rp_graph *graph, rp_context *ctx, rp_runs *runs,
                        const void *user);

#endif
