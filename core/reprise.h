/* Reprise: tensors, automatic differentiation and planned activation
   checkpointing. This is the whole public C interface.

   The text between the two `ffi` marks is macro-free and is what LuaJIT's
   ffi.cdef is given (rp_cdef returns it), so C and Lua cannot disagree.

   Conventions
     - A function that returns a pointer returns NULL on failure, one that
       returns rp_status returns RP_OK or the error; the text is then in
       rp_message(ctx), and everything is as it was before the call.
     - "returns a reference" means the caller owes one rp_tensor_release.
     - Dims, positions and indices are 0-based in C.
     - A context and all that belongs to it are used from one thread. */
#ifndef REPRISE_H
#define REPRISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)
/* ffi begin */
typedef enum rp_status {
  RP_OK,
  RP_SHAPE,       /* shapes that do not fit */
  RP_DTYPE,       /* a dtype the op does not take */
  RP_VALUE,       /* an argument out of its range */
  RP_NOMEM,       /* an allocation was refused */
  RP_STALE,       /* a recipe reads a leaf's older version */
  RP_STATE,       /* the call does not fit the present state */
  RP_UNSUPPORTED, /* no kernel, no gradient */
  RP_ILLEGAL,     /* verify rejected a program */
  RP_INTERNAL     /* our own bug, or a library's refusal */
} rp_status;

typedef enum rp_dtype {
  RP_F32, RP_F64, RP_BF16, RP_I32, RP_I64, RP_BOOL, RP_DTYPES
} rp_dtype;

/* What a leaf's bytes are, for accounting and for keys. */
typedef enum rp_role {
  RP_INPUT, RP_PARAMETER, RP_BUFFER, RP_GRADIENT, RP_OPTIMIZER, RP_NUMBER,
  RP_ROLES
} rp_role;

typedef struct rp_context rp_context;
typedef struct rp_op rp_op;
typedef struct rp_tensor rp_tensor;
typedef struct rp_optimizer rp_optimizer;
typedef struct rp_plan rp_plan;

/* dtype and dims of an array; rank 0 is a scalar. */
typedef struct rp_type {
  int32_t dtype, rank;
  int64_t dims[8];
} rp_type;

int rp_abi_version(void);
const char *rp_cdef(void);

/* ---- context ---------------------------------------------------------- */

/* A fresh context, or NULL. rp_context_free releases all it still owns;
   handles that outlive it must not be used. */
rp_context *rp_context_new(void);
void rp_context_free(rp_context *ctx);

/* The last failure's text and code; "" and RP_OK when there was none. */
const char *rp_message(const rp_context *ctx);
rp_status rp_last_status(const rp_context *ctx);
const char *rp_status_name(rp_status status);

/* Takes the oldest unread notice (a warning that needs no answer), or NULL.
   The text is valid until the next call. */
const char *rp_notice_take(rp_context *ctx);

/* Of what is recorded from here on: recipes made before draw what they would
   have drawn. */
void rp_manual_seed(rp_context *ctx, uint64_t seed);
void rp_set_num_threads(rp_context *ctx, int threads);
int rp_num_threads(const rp_context *ctx);
/* Whether new nodes record gradients; returns the previous setting. */
bool rp_grad_enable(rp_context *ctx, bool on);
/* Mixed precision, as torch.autocast(bfloat16): what rp_record records from
   here on multiplies in bf16 (accumulating in f32), with casts recorded where
   an input is f32; elementwise ops go on in the dtype they are given, and
   what is sensitive to rounding takes f32. Returns the previous setting. */
bool rp_autocast(rp_context *ctx, bool on);

/* Whether programs planned from here on fuse elementwise ops, and leave out
   products with the constant 1 (on at first); returns the previous setting.
   Values are the same, to the last bit. A program that is watched (the next
   two) fuses nothing: each op is looked at. */
bool rp_fusion_enable(rp_context *ctx, bool on);
/* Whether programs planned from here on let updates wait for each other, to be
   handed over together, where the device gains by it and no byte of the peak is
   lost (on at first); returns the previous setting. Values are the same, to the
   last bit. */
bool rp_gathering_enable(rp_context *ctx, bool on);

/* What makes a run fail: nothing, a NaN in a value just made, or an infinity
   too. */
typedef enum rp_anomaly {
  RP_ANOMALY_NONE, RP_ANOMALY_NAN, RP_ANOMALY_ANY
} rp_anomaly;
/* Looks at every value of every run from here on; RP_VALUE then names the
   first node that made such a value. Returns the previous setting. Programs
   planned while this or the next is on run their effects last, so that a run
   that fails has changed no leaf: gradients live until the end, and the plan
   shows it. */
rp_anomaly rp_detect_anomaly(rp_context *ctx, rp_anomaly what);
/* Fingerprints every recomputed value when it is first made and compares at
   each replay; RP_INTERNAL then names the node. Returns the previous
   setting. */
bool rp_verify_replay(rp_context *ctx, bool on);

/* Rates of the analytic cost model: a costly op (matmul, ...) takes the longer
   of its FLOPs and its bytes over these, any other op its bytes'. */
typedef struct rp_rates {
  double flops_per_second, bytes_per_second;
} rp_rates;
/* Those in use: the backend's, until others are set. Set ones hold for plans
   made from here on, and are part of their keys. RP_VALUE unless both are
   above 0. */
rp_rates rp_rates_get(const rp_context *ctx);
rp_status rp_rates_set(rp_context *ctx, rp_rates rates);

/* SIGINT sets a flag instead of ending the process. */
void rp_interrupt_install(void);
bool rp_interrupt_take(void);

typedef struct rp_memory {
  int64_t storage_bytes;      /* leaves, held values, arena, now */
  int64_t storage_peak_bytes; /* their high-water mark */
  int64_t arena_bytes;        /* of which the arena */
  int64_t recipe_bytes;       /* nodes, plans, tables: everything else */
  int64_t recipe_peak_bytes;
  int64_t requests;           /* allocations asked for so far */
  int64_t nodes;              /* live nodes */
  int64_t plans;              /* plans in the cache */
  int64_t plan_misses;        /* plans made so far */
} rp_memory;

/* Of the device in that slot; -1: the default one. */
void rp_memory_stats(const rp_context *ctx, int slot, rp_memory *out);
void rp_memory_reset_peak(rp_context *ctx);
/* The k-th allocation from now on fails, once (k = 1 is the next one);
   0 switches it off. For tests. */
void rp_memory_fail_at(rp_context *ctx, int64_t k);
/* Gives the arenas back; the next program allocates its own anew. */
void rp_arena_release(rp_context *ctx);

/* ---- devices ------------------------------------------------------------ */

/* A tensor lies on one device, and a recipe runs where its inputs lie; numbers
   go wherever they are read. Devices are known by slots: 0 is the CPU. */

/* The slot of "cpu", "cuda" or "cuda:1", taken into use when it is asked for
   first; -1: RP_VALUE for a name that is none, RP_UNSUPPORTED with what is
   missing (library, driver, device). */
int rp_device_open(rp_context *ctx, const char *name);
/* How many there are of "cpu" or "cuda"; -1 with what is missing. */
int rp_device_count(rp_context *ctx, const char *backend);
const char *rp_device_name(const rp_context *ctx, int slot);

typedef struct rp_device_info {
  const char *name, *text;         /* "cuda", "NVIDIA H100, 132 SMs, ..." */
  int64_t total_bytes, free_bytes; /* the device's own figures; 0: not told */
} rp_device_info;
rp_status rp_device_describe(rp_context *ctx, int slot, rp_device_info *out);

/* What is in use on a device since it was taken into use, by its driver's
   account, in bytes; all 0 where nobody keeps one. What no plan counts is
   measured where it comes into being: fixed_bytes. driver_bytes less that is
   what is accounted (rp_memory_stats), in whole pages: page_bytes, but for
   what others do on the device. */
typedef struct rp_device_usage {
  int64_t driver_bytes, page_bytes;
  int64_t fixed_bytes; /* the sum of the parts */
  struct {
    const char *name; /* "context" */
    int64_t bytes;
  } parts[8];
  int32_t n_parts;
} rp_device_usage;
void rp_device_usage_of(rp_context *ctx, int slot, rp_device_usage *out);

/* Leaves, and random and other recipes without inputs, that are made from
   here on lie in that slot (-1: no change); returns the previous one. */
int rp_device_default(rp_context *ctx, int slot);
/* Whether programs are recorded (CUDA graphs) when they run a second time, and
   then replayed: on where the device can. Returns the previous setting. */
bool rp_device_record(rp_context *ctx, int slot, bool on);
/* Waits until everything has run there; what went wrong since the last time. */
rp_status rp_synchronize(rp_context *ctx, int slot);

/* The slot t lies in, or will; the default one for a number. */
int rp_tensor_device(const rp_tensor *t);
/* A leaf of t's value (run if need be) in that slot; returns a reference. */
rp_tensor *rp_tensor_to(rp_tensor *t, int slot);
/* Moves a leaf, and its gradient, there: its next version. RP_STATE for a
   recipe. */
rp_status rp_leaf_to(rp_tensor *leaf, int slot);

/* ---- the op registry ---------------------------------------------------- */

typedef struct rp_op_info {
  const char *name;
  int32_t inputs;         /* least number of inputs */
  bool variadic;          /* takes more than `inputs` */
  int32_t outputs;
  bool elementwise, random, view, effect, differentiable, decomposes;
} rp_op_info;

int rp_op_count(void);
const rp_op *rp_op_at(int i);
const rp_op *rp_op_find(const char *name); /* NULL: no such op */
void rp_op_describe(const rp_op *op, rp_op_info *out);
bool rp_op_has_kernel(const rp_op *op, rp_dtype dtype);

/* ---- recording ---------------------------------------------------------- */

/* Records one node; nothing runs. `ints` and `reals` are the op's
   attributes, laid out as its record says. Borrows the inputs; returns a
   reference to output 0, or NULL (RP_SHAPE, RP_DTYPE, RP_VALUE, RP_NOMEM,
   RP_UNSUPPORTED) with the graph as before. */
rp_tensor *rp_record(rp_context *ctx, const rp_op *op,
                     rp_tensor *const *inputs, int n_inputs,
                     const int64_t *ints, int n_ints,
                     const double *reals, int n_reals);
/* A rank-0 leaf of role RP_NUMBER, bound at run time. Returns a reference. */
rp_tensor *rp_number(rp_context *ctx, double value, rp_dtype dtype);
/* op(x, number) or, when swapped, op(number, x); the number takes x's dtype.
   Returns a reference. */
rp_tensor *rp_record_number(rp_context *ctx, const rp_op *op, rp_tensor *x,
                            double number, bool swapped);
/* y = f(xs) with a gradient of the user's: y[i] are outputs of nodes
   recorded from xs, d_y[i] placeholder inputs of y[i]'s type, d_x[j] nodes
   recorded from d_y (NULL: no gradient for xs[j]). Returns a reference to
   the first of n_y outputs that carry y's values and this gradient. */
rp_tensor *rp_custom_vjp(rp_context *ctx, rp_tensor *const *y,
                         rp_tensor *const *d_y, int n_y,
                         rp_tensor *const *xs, rp_tensor *const *d_x,
                         int n_x);

/* The recipes that t's value comes from, t's own last, in record order: the
   first `room` of them go to out, as borrowed output 0. Nothing runs. Returns
   their number, -1 on failure: RP_STALE when a leaf among what they read has
   changed since, RP_NOMEM. */
int rp_tensor_history(rp_tensor *t, rp_tensor **out, int room);

void rp_tensor_retain(rp_tensor *t);
void rp_tensor_release(rp_tensor *t);
/* Another output of t's node; returns a reference. */
rp_tensor *rp_tensor_output(rp_tensor *t, int index);
const rp_type *rp_tensor_type(const rp_tensor *t);
const rp_op *rp_tensor_op(const rp_tensor *t); /* of a leaf: "leaf" */
rp_context *rp_tensor_context(const rp_tensor *t);
const char *rp_tensor_scope(const rp_tensor *t); /* "" at top level */
bool rp_tensor_is_leaf(const rp_tensor *t);
bool rp_tensor_is_held(const rp_tensor *t); /* its bytes are there now */
bool rp_tensor_is_contiguous(const rp_tensor *t);
bool rp_tensor_requires_grad(const rp_tensor *t);
/* RP_STATE when t is no leaf, RP_DTYPE when t is not floating point. */
rp_status rp_tensor_set_requires_grad(rp_tensor *t, bool on);
/* Kept whatever the strategy says. */
void rp_tensor_keep(rp_tensor *t);
/* Delivered (held) by any program that runs it, as if it were a target. */
void rp_tensor_tap(rp_tensor *t);

/* ---- leaves ------------------------------------------------------------- */

/* A leaf without bytes; they come (zeroed, or from its recipe) when first
   needed. Returns a reference. */
rp_tensor *rp_leaf(rp_context *ctx, rp_role role, const rp_type *type);
/* A leaf whose first bytes are the value of `recipe`, which is let go once
   run. Borrows recipe; returns a reference. */
rp_tensor *rp_leaf_from(rp_role role, rp_tensor *recipe);
rp_role rp_leaf_role(const rp_tensor *leaf);
/* Names the leaf in messages and reports; copied. */
rp_status rp_leaf_set_name(rp_tensor *leaf, const char *name);
const char *rp_leaf_name(const rp_tensor *leaf); /* "" when it has none */
/* Copies size_bytes (all of it, contiguous) into the leaf: its next
   version. */
rp_status rp_leaf_write(rp_tensor *leaf, const void *data,
                        size_t size_bytes);
/* The next version is the present value of src (same type), which is run
   when it is not held. */
rp_status rp_leaf_assign(rp_tensor *leaf, rp_tensor *src);
/* Drops the bytes: next use finds zeros. */
void rp_leaf_clear(rp_tensor *leaf);
int64_t rp_leaf_version(const rp_tensor *leaf);
/* The accumulated gradient leaf of t: borrowed, NULL when there is none. */
rp_tensor *rp_tensor_grad(const rp_tensor *t);
void rp_tensor_clear_grad(rp_tensor *t);

/* Copies t's value, contiguous, into out; runs t when it is not held. */
rp_status rp_tensor_read(rp_tensor *t, void *out, size_t size_bytes);

/* ---- where nodes are recorded ------------------------------------------- */

/* The present place: read it, change it, put it back. An error between the
   two is repaired by putting the saved place back. */
typedef struct rp_place {
  int32_t scope;   /* dotted name, interned */
  int32_t layer, layer_scope; /* layer instance, 0 none, and its scope */
  int32_t entry, entry_scope; /* outermost Sequential's child, likewise */
  int32_t segment; /* innermost rp.checkpoint, 0 none */
} rp_place;

rp_place rp_place_get(const rp_context *ctx);
void rp_place_set(rp_context *ctx, rp_place place);
/* Appends a name to the scope. */
rp_status rp_scope_enter(rp_context *ctx, const char *name);
/* Nodes recorded from here on belong to a new layer instance, named by the
   present scope; inside another layer this changes nothing. */
rp_status rp_layer_enter(rp_context *ctx);
/* The same for an outermost Sequential's child: counts where no layer is. */
rp_status rp_entry_enter(rp_context *ctx);
/* Nodes recorded from here on form a segment inside the present one. */
rp_status rp_segment_enter(rp_context *ctx);

/* ---- gradients as recipes ----------------------------------------------- */

/* d_x[i] = gradient of sum(y * d_y) with respect to x[i], as new recorded
   nodes; nothing runs. d_y NULL means 1 for a scalar y. d_x[i] is a
   reference, or zeros when y does not depend on x[i]. */
rp_status rp_grad(rp_tensor *y, rp_tensor *d_y, rp_tensor *const *x, int n_x,
                  rp_tensor **d_x);

/* ---- optimizers --------------------------------------------------------- */

/* An optimizer is an update op ("sgd", "adam", "adamw") over parameters in
   groups; each group has the op's numbers (learning rate, ...), read when a
   step runs. State leaves come lazily. */
rp_optimizer *rp_optimizer_new(rp_context *ctx, const rp_op *update);
void rp_optimizer_free(rp_optimizer *opt);
/* Returns the group's index, or -1. */
int rp_optimizer_add_group(rp_optimizer *opt, rp_tensor *const *params,
                           int n_params);
/* numbers as the update op's record lists them. */
rp_status rp_optimizer_set(rp_optimizer *opt, int group,
                           const double *numbers, int n_numbers);
/* Scales all gradients so that their global 2-norm is at most max_norm;
   0 switches it off. */
void rp_optimizer_set_clip(rp_optimizer *opt, double max_norm);
int rp_optimizer_size(const rp_optimizer *opt);      /* parameters */
int rp_optimizer_states(const rp_optimizer *opt);    /* states a parameter */
rp_tensor *rp_optimizer_param(const rp_optimizer *opt, int i);  /* borrowed */
rp_tensor *rp_optimizer_state(const rp_optimizer *opt, int i, int k);
int64_t rp_optimizer_step_count(const rp_optimizer *opt);
void rp_optimizer_set_step_count(rp_optimizer *opt, int64_t step);

/* ---- plans -------------------------------------------------------------- */

typedef enum rp_action {
  RP_RUN,      /* targets only */
  RP_BACKWARD, /* loss, and gradients accumulated into .grad */
  RP_MINIMIZE, /* loss, gradients, updates: one program */
  RP_STEP      /* updates from .grad */
} rp_action;

/* What is asked for. All pointers are borrowed for the call. */
typedef struct rp_request {
  int32_t action;
  rp_tensor *loss;            /* RP_BACKWARD, RP_MINIMIZE: rank 0 or 1 value */
  rp_tensor *const *targets;  /* delivered too (`also`) */
  int32_t n_targets;
  rp_tensor *const *wrt;      /* RP_BACKWARD: leaves; NULL: every trainable
                                 leaf the loss reaches */
  int32_t n_wrt;
  rp_optimizer *optimizer;    /* RP_MINIMIZE, RP_STEP */
  const char *strategy;       /* its identity; part of the key */
  bool if_finite;             /* RP_MINIMIZE: writes no leaf, and counts no
                                 step, unless the loss and all gradients are
                                 finite. .grad is used up either way. */
} rp_request;

/* The plan for the request: found by its key, or new. A new one whose action
   has a backward part waits for rp_plan_set_segments (or _set_program) and
   rp_plan_finish; others are ready. Returns a counted plan, or NULL. */
rp_plan *rp_plan_prepare(rp_context *ctx, const rp_request *request);
void rp_plan_release(rp_plan *plan);
bool rp_plan_is_ready(const rp_plan *plan);

/* The graph as a strategy sees it. Forward nodes come first, in record
   order; indices are 0-based and dense; views are not nodes. */
typedef struct rp_view_node {
  const char *op, *scope;
  const int32_t *inputs; /* producing nodes; -1 - k is leaf k */
  int32_t n_inputs;
  int32_t layer, block;  /* index into the spans, -1 none */
  int32_t mark;          /* innermost rp.checkpoint, 0 none */
  rp_type type;          /* of output 0 */
  int64_t bytes;         /* of all outputs */
  int64_t workspace_bytes;
  double flops, seconds;
  bool random, kept, backward, effect, costly;
  bool read_by_backward;
} rp_view_node;

/* A layer or a block: nodes first..last. */
typedef struct rp_view_span {
  const char *name;
  int32_t first, last;
  int64_t input_bytes, saved_bytes;
  double flops, seconds;
} rp_view_span;

typedef struct rp_view {
  int32_t n_nodes, n_forward, n_layers, n_blocks, n_leaves;
  const rp_view_node *nodes;
  const rp_view_span *layers, *blocks;
} rp_view;

const rp_view *rp_plan_view(rp_plan *plan);

/* What planning takes each of the view's n nodes to cost from here on, in
   place of the analytic model: a profile's. Before segments, program and
   front; the view is made anew. Not in the key: the request's strategy names
   the profile. RP_VALUE for another n, or seconds below 0. */
rp_status rp_plan_set_seconds(rp_plan *plan, const double *seconds, int n);

/* A segment: forward nodes first..last, the kept nodes, and the segment it
   is inside of (an index before its own, or -1). */
typedef struct rp_segment {
  int32_t first, last, parent;
  const int32_t *keep;
  int32_t n_keep;
} rp_segment;

/* The time-memory front: plans that no other beats in both exact peak and
   predicted step time, found without looking at a budget (chain dynamic
   programme over the blocks, kept sets by minimum cut, layers, what
   rp_plan_front_offer was given, local search on segments and on single
   values, judged by the laid-out program). Made once a plan; peak rises,
   seconds fall. Returns the number of points, -1 on failure. */
int rp_plan_front(rp_plan *plan);
bool rp_plan_has_front(const rp_plan *plan);
/* A candidate from outside, for a front that has not been made yet; later ones
   are not looked at. The segments are copied. One that _set_segments would
   refuse is left out. */
rp_status rp_plan_front_offer(rp_plan *plan, const char *name,
                              const rp_segment *segments, int n_segments);
/* The same with an explicit list, as for rp_plan_set_program. */
rp_status rp_plan_front_offer_program(rp_plan *plan, const char *name,
                                      const int32_t *steps, int n_steps);
/* Notes a candidate that was found to be none before it could be offered. */
rp_status rp_plan_front_leave_out(rp_plan *plan, const char *name,
                                  const char *reason);
/* The i-th candidate that was left out and why, "every=2: ..."; NULL from
   their number on. */
const char *rp_plan_front_left_out(rp_plan *plan, int i);
/* The peak of `none`, a point of the front or not; -1 on failure. */
int64_t rp_plan_none_bytes(rp_plan *plan);
typedef struct rp_front_point {
  int64_t peak_bytes;         /* persistent + arena, exactly */
  double seconds;             /* of a step, predicted */
  const rp_segment *segments; /* the plan's, for rp_plan_set_segments */
  int32_t n_segments;
  const int32_t *steps; /* or, when n_steps is not 0, for _set_program */
  int32_t n_steps;
} rp_front_point;
rp_status rp_plan_front_point(rp_plan *plan, int i, rp_front_point *out);
/* How the chain of blocks was solved. Equal stretches are solved once; where
   too many differ, neighbours are merged before (n_solved < n_blocks). What
   that loses is measured on the first blocks, solved both ways: the mean over
   all memory that serves both of what their step takes longer, as a share, and
   the share by which the least memory grows. */
typedef struct rp_front_chain {
  int32_t n_blocks, n_solved, n_kinds, slots;
  double lost_time, lost_memory;
} rp_front_chain;
rp_status rp_plan_front_chain(rp_plan *plan, rp_front_chain *out);

/* Exact peak and predicted seconds of the point's segments or steps, into the
   point: schedule and layout, nothing is kept. Errors as _set_segments and
   _set_program have them. */
rp_status rp_plan_evaluate(rp_plan *plan, rp_front_point *point);

rp_status rp_plan_set_segments(rp_plan *plan, const rp_segment *segments,
                               int n_segments);
/* An explicit list: node i runs (i >= 0), or the values of node -1 - i are
   freed (i < 0). Effects may be left out: they are placed where they fit. */
rp_status rp_plan_set_program(rp_plan *plan, const int32_t *steps,
                              int n_steps);
/* Schedule, layout, verify. */
rp_status rp_plan_finish(rp_plan *plan);

typedef struct rp_plan_info {
  int64_t peak_bytes;       /* persistent + arena */
  int64_t persistent_bytes; /* everything below but the arena */
  int64_t arena_bytes;
  int64_t live_bytes;       /* the lower bound of arena_bytes */
  int64_t role_bytes[6];    /* persistent, by rp_role */
  int64_t target_bytes;     /* delivered values */
  /* what the arena holds at the instruction where most is live */
  int64_t kept_bytes, recomputed_bytes, gradient_bytes, workspace_bytes,
      other_bytes;
  int32_t peak_instruction, n_instructions, n_runs, n_replays;
  int32_t n_segments;
  int32_t device;           /* its slot */
  double forward_flops, replay_flops, step_flops;
  double forward_seconds, replay_seconds, step_seconds;
} rp_plan_info;

void rp_plan_describe(const rp_plan *plan, rp_plan_info *out);

typedef enum rp_opcode { RP_OP_RUN, RP_OP_FREE } rp_opcode;

typedef struct rp_instruction_info {
  int32_t opcode;
  int32_t node;       /* RUN: index into the view; FREE: the producer */
  int32_t output;     /* FREE: which output */
  int32_t instance;   /* FREE: which value instance */
  bool replay;
  bool light;         /* a replay in no segment, of what no strategy keeps */
  bool joins;         /* an update handed over together with the one before */
  int64_t live_bytes; /* in the arena once it has run */
} rp_instruction_info;
rp_status rp_plan_instruction(const rp_plan *plan, int i,
                              rp_instruction_info *out);

typedef struct rp_instance_info {
  int32_t node, output;
  int32_t born, dead;  /* instructions; dead is its FREE */
  int32_t read_by;     /* the instruction that reads it last, -1 none */
  int64_t offset, size_bytes;
  rp_type type;        /* of a value */
  bool replay, workspace, in_arena;
} rp_instance_info;
/* Value instances and workspaces of the laid-out program. */
int rp_plan_instances(const rp_plan *plan);
rp_status rp_plan_instance(const rp_plan *plan, int i,
                           rp_instance_info *out);

/* The segments that came out of marks and strategy together, in view
   indices. */
rp_status rp_plan_segment(const rp_plan *plan, int i, rp_segment *out);

/* Runs the plan for the request it was prepared for (or one of the same
   key). Afterwards the loss and all targets are held. On RP_NOMEM, RP_STALE,
   RP_VALUE, and on a replay that differed, no leaf has changed. */
rp_status rp_plan_run(rp_plan *plan, const rp_request *request);
/* The accounted high-water mark of the last run's storage: equals
   peak_bytes. */
int64_t rp_plan_measured_peak(const rp_plan *plan);
/* Seconds the last run took where it ran; waits for a device's. */
double rp_plan_measured_seconds(const rp_plan *plan);
/* Seconds until the last run had been handed over, by the host's clock. */
double rp_plan_launch_seconds(const rp_plan *plan);

/* From now on every run notes when its instructions start and end; off by
   default, and then it costs nothing. */
rp_status rp_trace_set(rp_context *ctx, bool on);
/* Of the last run: entries 2i and 2i + 1 are instruction i's start and end, in
   nanoseconds of the monotonic clock, 0 for a FREE. Borrowed until the next
   run; NULL, and *n 0, where nothing was noted. */
const int64_t *rp_trace_stamps(const rp_context *ctx, int32_t *n);

/* Breaks a copy of the program on purpose and asks verify: true when it was
   rejected. *harmless: whether the mutant would still have computed the same,
   by a judge that shares no code with verify. kind: 0 drop a RUN, 1 swap two
   instructions, 2 move a FREE up, 3 move an effect up, 4 run an effect twice,
   5 overlap two offsets. For tests of verify. */
bool rp_plan_mutate(rp_plan *plan, int kind, uint64_t seed, bool *harmless);
/* ffi end */
#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif
#endif
