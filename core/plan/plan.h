/* What planning makes: tree, program, layout, and the plan that holds them
   together. Each stage takes the ones before it and returns a new one. */
#ifndef RP_PLAN_PLAN_H
#define RP_PLAN_PLAN_H

#include "exec/backend.h"
#include "graph/graph.h"
#include "graph/key.h"

/* ---- segment tree (plan/tree.c) ----------------------------------------- */

/* Segments over forward nodes; parents come before children; siblings are
   disjoint and ordered. effective[v]: the innermost segment that drops value
   v, -1 for a value that is kept: v's own segment, or the first outside of it
   where v is neither kept nor read by a forward node from outside.
   Forward nodes in no segment are covered by gaps, segments of our own that
   drop their light values alone, whoever reads them; they come last. */
typedef struct rp_tree {
  RP_ARRAY(rp_segment) segments; /* keep lists point into keeps */
  int32_t n_given;               /* segments that are no gaps */
  RP_ARRAY(int32_t) keeps;
  int32_t *innermost; /* by forward node, -1 */
  int32_t *effective; /* by value */
  int32_t n_innermost, n_effective;
} rp_tree;

/* Marks recorded by hand and the strategy's segments together: marks stand,
   a segment of the strategy that cuts through one is clipped. RP_VALUE with
   the reason for segments that are out of range, out of order or overlap. */
rp_status rp_tree_build(rp_tree *tree, rp_context *ctx, const rp_graph *graph,
                        const rp_segment *segments, int n_segments);
void rp_tree_free(rp_tree *tree, rp_context *ctx);
static inline bool rp_tree_encloses(const rp_tree *tree, int32_t outer,
                                    int32_t inner) {
  while (inner >= 0 && inner != outer) inner = tree->segments.at[inner].parent;
  return inner == outer;
}

/* ---- program (plan/schedule.c) ------------------------------------------ */

/* One value made by one RUN. */
typedef struct rp_instance {
  int32_t value;
  int32_t born;      /* its RUN */
  int32_t last_read; /* the RUN that reads it last; born when none does */
  int32_t dead;      /* its FREE; instructions.n for a target */
  int32_t shares;    /* the instance whose bytes it takes over, -1 */
  bool replay;
} rp_instance;

typedef struct rp_instruction {
  int32_t opcode; /* rp_opcode */
  int32_t node;   /* RUN */
  int32_t first_ref; /* RUN: operands' instances (-1 - leaf for leaves), then
                        outputs' instances */
  int32_t instance; /* FREE */
  bool replay;
  bool joins; /* RUN: an effect handed over in one call with the RUN right
                 before it, which is of the same kind */
} rp_instruction;

typedef struct rp_program {
  RP_ARRAY(rp_instruction) instructions;
  RP_ARRAY(rp_instance) instances;
  RP_ARRAY(int32_t) refs;
  int32_t n_runs, n_replays;
} rp_program;

/* The program of a tree: restores on demand, effects as early as everything
   that reads their leaves' older version allows (or last, where the graph says
   so), each FREE right after the last read. */
rp_status rp_schedule_tree(rp_program *program, rp_context *ctx,
                           const rp_graph *graph, const rp_tree *tree);
/* The program of an explicit list (see rp_plan_set_program). */
rp_status rp_schedule_list(rp_program *program, rp_context *ctx,
                           const rp_graph *graph, const int32_t *steps,
                           int n_steps);
void rp_program_free(rp_program *program, rp_context *ctx);
/* Of a list of RUNs alone, whose instances know their RUNs: last reads, FREEs,
   and, where asked, in-place pairs (those that are there stay). RP_NOMEM: the
   list is as it was. */
rp_status rp_lives_find(rp_program *program, rp_context *ctx,
                        const rp_graph *graph, bool shares);

/* ---- layout (plan/layout.c) --------------------------------------------- */

typedef struct rp_layout {
  int64_t *offsets;    /* by instance; -1: a target, outside the arena */
  int64_t *workspaces; /* by instruction; -1: none */
  int32_t n_offsets, n_workspaces;
  int64_t arena_bytes;
  int64_t live_bytes;  /* the most that is ever live: the lower bound */
  int32_t peak_instruction;
} rp_layout;

/* workspace_bytes: by graph node. Greedy by size, by start and by area, at
   the lowest offset free over the whole life; the best of the three, or the
   first within 1/256 of live_bytes. Where that needs more than most_bytes,
   arena_bytes is INT64_MAX and the offsets mean nothing. */
rp_status rp_layout_make(rp_layout *layout, rp_context *ctx,
                         const rp_graph *graph, const rp_program *program,
                         const int64_t *workspace_bytes, int64_t most_bytes);
/* The live_bytes that a layout of the program would have: no arena can be
   smaller. */
rp_status rp_layout_bound(int64_t *live_bytes, rp_context *ctx,
                          const rp_graph *graph, const rp_program *program,
                          const int64_t *workspace_bytes);
void rp_layout_free(rp_layout *layout, rp_context *ctx);
/* Whether an output of node may lie where its operand `input` lies. */
bool rp_may_share(const rp_graph *graph, const rp_graph_node *node,
                  int32_t input);

/* ---- gather (plan/gather.c) --------------------------------------------- */

/* Lets effects wait for later ones that one call can take with them, as far as
   neither live_bytes nor the arena grows; program and layout are replaced where
   that gains a call. kinds, by node: NULL, or what nodes of one call have in
   common; effects alone, without workspace. RP_NOMEM: both are as before. */
rp_status rp_gather(rp_program *program, rp_layout *layout, rp_context *ctx,
                    const rp_graph *graph, const int64_t *workspace_bytes,
                    const void *const *kinds);

/* ---- verify (plan/verify.c) --------------------------------------------- */

/* Executes the program symbolically; RP_ILLEGAL with the instruction and the
   reason unless every RUN finds its inputs alive, unspoilt and of the version
   its recipe recorded, every target is made, each effect runs once, nothing
   is freed twice or used after, live values do not overlap but for declared
   in-place pairs, what one call runs does not touch the same leaves, and the
   arena is empty at the end. Knows nothing of the scheduler. */
rp_status rp_verify(rp_context *ctx, const rp_graph *graph,
                    const rp_program *program, const rp_layout *layout,
                    const int64_t *workspace_bytes);

/* ---- the plan (plan/plan.c) --------------------------------------------- */

typedef struct rp_plan_kernel {
  const rp_kernel *kernel;
  void *state;
} rp_plan_kernel;

struct rp_plan {
  rp_context *ctx;
  int32_t refs;
  bool ready, is_list; /* is_list: the program is an explicit list */
  rp_key key;
  rp_graph graph;
  rp_tree tree;
  rp_program program;
  rp_layout layout;
  rp_plan_kernel *kernels;  /* by node */
  int64_t *workspace_bytes; /* by node */
  double *seconds;          /* by node: what planning takes a RUN to cost */
  int32_t n_kernels;
  struct rp_view_data *view; /* plan/view.c, made when asked for */
  struct rp_front *front;    /* plan/front.c, made when asked for */
  struct rp_front *offered;  /* candidates from outside, until then */
  rp_device *device;
  int64_t bound_bytes; /* what each run writes to the device (exec/bound.h) */
  /* What exec keeps with the plan (exec/run.c); freed by free_run. */
  struct rp_run_data *run;
  void (*free_run)(rp_plan *plan);
  int64_t measured_peak;
  double launch_seconds; /* the last run, by the host's clock */
  void *timer;           /* the backend's, of the last run; NULL: none */
};

/* Takes the graph and the key. Prepares the kernels; NULL on failure, graph
   and key freed. */
rp_plan *rp_plan_new(rp_context *ctx, rp_graph *graph, rp_key *key,
                     rp_device *device);
void rp_view_free(rp_plan *plan);
/* on_path[i], by forward node: whether a gradient passes through node i, or
   node i comes after one through which one does. The others are computed from
   leaves alone, so they are no link of a chain. */
void rp_find_paths(const rp_graph *graph, bool *on_path);
void rp_plan_front_free(rp_plan *plan);

#endif
