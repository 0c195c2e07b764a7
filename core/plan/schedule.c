/* From graph and tree to a program.

   The forward nodes run in order. Then the backward nodes do; before each,
   the values it reads that were dropped are restored: exactly their missing
   ancestors run again, in order. A restored value whose segment is being
   differentiated (it encloses the one that was asked for) stays until that
   segment's part of backward ends; the others, of segments only run through,
   are dropped with the restore. So are light values on the way, where a costly
   op runs again too and dwarfs them, and segments do not nest (revolve counts
   their replays). What is in between is decided by liveness (plan/lives.c).

   Invariant while RUNs are emitted: now[v] is the instance that a reader of v
   would read, -1 when v must be restored first; until[v] is the last backward
   node for which that holds. */
#include <string.h>

#include "base/context.h"
#include "plan/plan.h"

typedef struct scheduler {
  rp_context *ctx;
  const rp_graph *graph;
  const rp_tree *tree;
  rp_program *program;
  int32_t *now, *until;      /* by value */
  int32_t *part_end;         /* by segment: last node of its part */
  bool is_nested;            /* a segment lies in another */
  int32_t *by_end, n_ended;  /* segments by part_end; how many are over */
  bool *wanted;              /* by node: in the restore being made */
  RP_ARRAY(int32_t) stack;   /* nodes to look at */
  RP_ARRAY(int32_t) missing; /* nodes to run again */
  RP_ARRAY(int32_t) passing; /* values that end with this restore */
} scheduler;

static const rp_graph_node *node_at(const scheduler *s, int32_t node) {
  return &s->graph->nodes.at[node];
}

/* ---- emitting RUNs ------------------------------------------------------ */

static rp_status emit_run(scheduler *s, int32_t index, bool replay) {
  rp_program *p = s->program;
  const rp_graph_node *node = node_at(s, index);
  if (!rp_array_room(s->ctx, &p->instructions, sizeof(rp_instruction), 1) ||
      !rp_array_room(s->ctx, &p->refs, sizeof(int32_t),
                     node->n_operands + node->n_values) ||
      !rp_array_room(s->ctx, &p->instances, sizeof(rp_instance),
                     node->n_values))
    return RP_NOMEM;
  const int32_t at = p->instructions.n;
  p->instructions.at[p->instructions.n++] =
      (rp_instruction){.opcode = RP_OP_RUN, .node = index,
                       .first_ref = p->refs.n, .instance = -1,
                       .replay = replay};
  for (int32_t k = 0; k < node->n_operands; k++) {
    const int32_t v = rp_graph_in(s->graph, node, k)->value;
    p->refs.at[p->refs.n++] = v < 0 ? v : s->now[v];
    if (v >= 0 && s->now[v] < 0)
      return rp_fail(s->ctx, RP_ILLEGAL, "%s (node %d) would run before its "
                     "input %d (node %d) is there",
                     rp_graph_node_name(node), index + 1, k + 1,
                     s->graph->values.at[v].node + 1);
  }
  for (int32_t k = 0; k < node->n_values; k++) {
    const int32_t v = node->first_value + k;
    p->refs.at[p->refs.n++] = p->instances.n;
    /* A value that is still there keeps its instance; this one is spare. */
    if (s->now[v] < 0) s->now[v] = p->instances.n;
    p->instances.at[p->instances.n++] = (rp_instance){
        .value = v, .born = at, .last_read = at, .dead = -1, .shares = -1,
        .replay = replay};
  }
  p->n_runs++;
  p->n_replays += replay;
  return RP_OK;
}

/* ---- restores ----------------------------------------------------------- */

static bool push(scheduler *s, void *array, int32_t x) {
  RP_ARRAY(int32_t) *a = array;
  if (!rp_array_room(s->ctx, a, sizeof(int32_t), 1)) return false;
  a->at[a->n++] = x;
  return true;
}

/* The missing ancestors of value v, in node order, into s->missing. */
static rp_status find_missing(scheduler *s, int32_t v) {
  s->missing.n = s->stack.n = 0;
  const int32_t first = s->graph->values.at[v].node;
  s->wanted[first] = true;
  int32_t lowest = first;
  if (!push(s, &s->stack, first)) return RP_NOMEM;
  while (s->stack.n > 0) {
    const int32_t at = s->stack.at[--s->stack.n];
    if (at < lowest) lowest = at;
    const rp_graph_node *node = node_at(s, at);
    for (int32_t k = 0; k < node->n_operands; k++) {
      const int32_t w = rp_graph_in(s->graph, node, k)->value;
      if (w < 0 || s->now[w] >= 0) continue;
      const int32_t producer = s->graph->values.at[w].node;
      if (s->wanted[producer]) continue;
      s->wanted[producer] = true;
      if (!push(s, &s->stack, producer)) return RP_NOMEM;
    }
  }
  for (int32_t i = lowest; i <= first; i++)
    if (s->wanted[i]) {
      s->wanted[i] = false;
      if (!push(s, &s->missing, i)) return RP_NOMEM;
    }
  return RP_OK;
}

static rp_status restore(scheduler *s, int32_t v, int32_t reader) {
  rp_status status = find_missing(s, v);
  const int32_t asked = s->tree->effective[v];
  s->passing.n = 0;
  bool has_costly = false;
  for (int32_t i = 0; i < s->missing.n; i++)
    has_costly |= (node_at(s, s->missing.at[i])->op->flags & RP_COSTLY) != 0;
  for (int32_t i = 0; i < s->missing.n && status == RP_OK; i++) {
    const int32_t index = s->missing.at[i];
    const rp_graph_node *node = node_at(s, index);
    int32_t before[16];
    for (int32_t k = 0; k < node->n_values; k++)
      before[k] = s->now[node->first_value + k];
    status = emit_run(s, index, true);
    for (int32_t k = 0; k < node->n_values && status == RP_OK; k++) {
      const int32_t w = node->first_value + k;
      if (before[k] >= 0) continue;
      const int32_t segment = s->tree->effective[w];
      const bool on_the_way = has_costly && !s->is_nested &&
                              s->graph->values.at[w].light &&
                              index != s->graph->values.at[v].node;
      const bool stays =
          segment < 0 ||
          (rp_tree_encloses(s->tree, segment, asked) && !on_the_way);
      const int32_t end = segment < 0 ? INT32_MAX : s->part_end[segment];
      s->until[w] = end > reader ? end : reader;
      if (!stays && !push(s, &s->passing, w)) status = RP_NOMEM;
    }
  }
  for (int32_t i = 0; i < s->passing.n; i++) s->now[s->passing.at[i]] = -1;
  return status;
}

/* Runs backward node `index`, restoring what it reads. */
static rp_status run_backward(scheduler *s, int32_t index) {
  const rp_graph_node *node = node_at(s, index);
  for (int32_t k = 0; k < node->n_operands; k++) {
    const int32_t v = rp_graph_in(s->graph, node, k)->value;
    if (v < 0) continue;
    if (s->now[v] >= 0 && s->until[v] < index) s->now[v] = -1;
    if (s->now[v] >= 0) continue;
    const rp_status status = restore(s, v, index);
    if (status != RP_OK) return status;
  }
  return emit_run(s, index, false);
}

/* Ends what belongs to parts that are over, so that no restore builds on it. */
static void expire(scheduler *s, int32_t index) {
  for (; s->n_ended < s->tree->segments.n; s->n_ended++) {
    const int32_t g = s->by_end[s->n_ended];
    if (s->part_end[g] >= index) break;
    if (s->part_end[g] < 0) continue;
    const rp_segment *segment = &s->tree->segments.at[g];
    for (int32_t i = segment->first; i <= segment->last; i++) {
      const rp_graph_node *node = node_at(s, i);
      for (int32_t k = 0; k < node->n_values; k++)
        if (s->until[node->first_value + k] < index)
          s->now[node->first_value + k] = -1;
    }
  }
}

/* Segments in the order of part_end, by counting. */
static void sort_by_end(scheduler *s) {
  const int32_t n = s->tree->segments.n, n_nodes = s->graph->nodes.n;
  int32_t *from = s->by_end + n; /* by part_end + 1: where those begin */
  for (int32_t g = 0; g < n; g++) from[s->part_end[g] + 1]++;
  int32_t at = 0;
  for (int32_t e = 0; e <= n_nodes; e++) {
    const int32_t count = from[e];
    from[e] = at;
    at += count;
  }
  for (int32_t g = 0; g < n; g++)
    s->by_end[from[s->part_end[g] + 1]++] = g;
}

/* part_end[g]: the last backward node that is a gradient of a node in g. */
static void find_parts(scheduler *s) {
  for (int32_t g = 0; g < s->tree->segments.n; g++) s->part_end[g] = -1;
  for (int32_t i = s->graph->n_forward; i < s->graph->nodes.n; i++) {
    const int32_t origin = node_at(s, i)->origin;
    if (origin < 0) continue;
    for (int32_t g = s->tree->innermost[origin]; g >= 0;
         g = s->tree->segments.at[g].parent)
      s->part_end[g] = i;
  }
  sort_by_end(s);
}

/* ---- effects ------------------------------------------------------------- */

/* The first RUN (by position among non-effects) after which effect `e` may
   run: all it reads is made and nobody else reads its leaves any more. */
static int32_t effect_position(const rp_graph *graph, int32_t e,
                               const int32_t *made_at,
                               const int32_t *leaf_read_at) {
  const rp_graph_node *node = &graph->nodes.at[e];
  int32_t at = -1;
  for (int32_t k = 0; k < node->n_operands; k++) {
    const rp_operand *in = rp_graph_in(graph, node, k);
    const int32_t leaf = rp_operand_leaf(in);
    int32_t after = -1;
    if (leaf < 0) after = made_at[in->value];
    else if (node->op->writes >> k & 1u) after = leaf_read_at[leaf];
    if (after > at) at = after;
  }
  return at;
}

/* Puts the effects into the list of RUNs, which is rebuilt: an effect goes
   right behind the last RUN it must wait for; effects of one position keep
   their order. */
static rp_status place_effects(scheduler *s) {
  rp_program *p = s->program;
  const rp_graph *graph = s->graph;
  rp_context *ctx = s->ctx;
  const int32_t n_runs = p->instructions.n, n_nodes = graph->nodes.n;
  int32_t *made_at = rp_alloc(ctx, (size_t)graph->values.n * sizeof(int32_t));
  int32_t *read_at = rp_alloc(ctx, (size_t)graph->leaves.n * sizeof(int32_t));
  int32_t *first = rp_alloc(ctx, (size_t)(n_runs + 1) * sizeof(int32_t));
  int32_t *next = rp_alloc(ctx, (size_t)n_nodes * sizeof(int32_t));
  rp_status status = made_at && read_at && first && next ? RP_OK : RP_NOMEM;
  RP_ARRAY(rp_instruction) old = {0};
  for (int32_t v = 0; status == RP_OK && v < graph->values.n; v++)
    made_at[v] = -1;
  for (int32_t l = 0; status == RP_OK && l < graph->leaves.n; l++)
    read_at[l] = -1;
  for (int32_t i = 0; status == RP_OK && i < n_runs; i++) {
    const rp_graph_node *node = node_at(s, p->instructions.at[i].node);
    for (int32_t k = 0; k < node->n_operands; k++) {
      const int32_t leaf = rp_operand_leaf(rp_graph_in(graph, node, k));
      if (leaf >= 0) read_at[leaf] = i;
    }
    for (int32_t k = 0; k < node->n_values; k++)
      made_at[node->first_value + k] = i;
  }
  if (status == RP_OK) {
    memset(first, 0xff, (size_t)(n_runs + 1) * sizeof(int32_t));
    for (int32_t e = 0; e < n_nodes; e++) {
      const rp_graph_node *node = &graph->nodes.at[e];
      if (!(node->op->flags & RP_EFFECT)) continue;
      const int32_t at = graph->effects_last
                             ? n_runs - 1
                             : effect_position(graph, e, made_at, read_at);
      next[e] = 1 + at;
      /* Effects on one leaf run in their order. */
      for (int32_t k = 0; k < node->n_operands; k++) {
        const int32_t leaf = rp_operand_leaf(rp_graph_in(graph, node, k));
        if (leaf >= 0 && node->op->writes >> k & 1u) read_at[leaf] = at;
      }
    }
    for (int32_t e = n_nodes - 1; e >= 0; e--) {
      if (!(graph->nodes.at[e].op->flags & RP_EFFECT)) continue;
      const int32_t at = next[e];
      next[e] = first[at];
      first[at] = e;
    }
    old.at = p->instructions.at;
    old.n = p->instructions.n;
    old.capacity = p->instructions.capacity;
    p->instructions.at = NULL;
    p->instructions.n = p->instructions.capacity = 0;
  }
  for (int32_t i = 0; status == RP_OK && i <= n_runs; i++) {
    for (int32_t e = first[i]; e >= 0 && status == RP_OK; e = next[e])
      status = emit_run(s, e, false);
    if (i == n_runs || status != RP_OK) break;
    if (!rp_array_room(ctx, &p->instructions, sizeof(rp_instruction), 1)) {
      status = RP_NOMEM;
      break;
    }
    const rp_instruction run = old.at[i];
    const rp_graph_node *node = node_at(s, run.node);
    for (int32_t k = 0; k < node->n_values; k++) {
      const int32_t out = p->refs.at[run.first_ref + node->n_operands + k];
      p->instances.at[out].born = p->instances.at[out].last_read =
          p->instructions.n;
      /* Effects read the instance made last: the program ends with it. */
      s->now[node->first_value + k] = out;
    }
    p->instructions.at[p->instructions.n++] = run;
  }
  rp_array_free(ctx, &old, sizeof(rp_instruction));
  rp_free(ctx, made_at, (size_t)graph->values.n * sizeof(int32_t));
  rp_free(ctx, read_at, (size_t)graph->leaves.n * sizeof(int32_t));
  rp_free(ctx, first, (size_t)(n_runs + 1) * sizeof(int32_t));
  rp_free(ctx, next, (size_t)n_nodes * sizeof(int32_t));
  return status;
}

/* ---- entry points ------------------------------------------------------- */

static size_t by_end_size(const scheduler *s) {
  const int32_t segments = s->tree ? s->tree->segments.n : 0;
  return (size_t)(segments + s->graph->nodes.n + 1) * sizeof(int32_t);
}

static rp_status scheduler_open(scheduler *s) {
  const rp_graph *graph = s->graph;
  const size_t values = (size_t)graph->values.n * sizeof(int32_t);
  s->now = rp_alloc(s->ctx, values);
  s->until = rp_alloc(s->ctx, values);
  s->wanted = rp_alloc(s->ctx, (size_t)graph->nodes.n);
  const int32_t segments = s->tree ? s->tree->segments.n : 0;
  s->part_end = rp_alloc(s->ctx, (size_t)segments * sizeof(int32_t));
  s->by_end = rp_alloc(s->ctx, by_end_size(s));
  if (!s->now || !s->until || !s->wanted || !s->part_end || !s->by_end)
    return RP_NOMEM;
  for (int32_t v = 0; v < graph->values.n; v++) {
    s->now[v] = -1;
    s->until[v] = INT32_MAX;
  }
  return RP_OK;
}

static rp_status scheduler_close(scheduler *s, rp_status status) {
  const rp_graph *graph = s->graph;
  const size_t values = (size_t)graph->values.n * sizeof(int32_t);
  rp_free(s->ctx, s->now, values);
  rp_free(s->ctx, s->until, values);
  rp_free(s->ctx, s->wanted, (size_t)graph->nodes.n);
  const int32_t segments = s->tree ? s->tree->segments.n : 0;
  rp_free(s->ctx, s->part_end, (size_t)segments * sizeof(int32_t));
  rp_free(s->ctx, s->by_end, by_end_size(s));
  rp_array_free(s->ctx, &s->stack, sizeof(int32_t));
  rp_array_free(s->ctx, &s->missing, sizeof(int32_t));
  rp_array_free(s->ctx, &s->passing, sizeof(int32_t));
  if (status != RP_OK) rp_program_free(s->program, s->ctx);
  return status;
}

static bool is_effect(const scheduler *s, int32_t node) {
  return node_at(s, node)->op->flags & RP_EFFECT;
}

rp_status rp_schedule_tree(rp_program *program, rp_context *ctx,
                           const rp_graph *graph, const rp_tree *tree) {
  scheduler s = {.ctx = ctx, .graph = graph, .tree = tree, .program = program};
  rp_status status = scheduler_open(&s);
  for (int32_t i = 0; i < graph->n_forward && status == RP_OK; i++)
    if (!is_effect(&s, i)) status = emit_run(&s, i, false);
  for (int32_t g = 0; g < tree->segments.n; g++)
    s.is_nested |= tree->segments.at[g].parent >= 0;
  if (status == RP_OK) {
    find_parts(&s);
    for (int32_t v = 0; v < graph->values.n; v++)
      if (tree->effective[v] >= 0) s.now[v] = -1;
  }
  for (int32_t i = graph->n_forward; i < graph->nodes.n && status == RP_OK;
       i++) {
    expire(&s, i);
    if (!is_effect(&s, i)) status = run_backward(&s, i);
  }
  if (status == RP_OK) status = place_effects(&s);
  if (status == RP_OK) status = rp_lives_find(program, ctx, graph, true);
  return scheduler_close(&s, status);
}

rp_status rp_schedule_list(rp_program *program, rp_context *ctx,
                           const rp_graph *graph, const int32_t *steps,
                           int n_steps) {
  scheduler s = {.ctx = ctx, .graph = graph, .program = program};
  rp_status status = scheduler_open(&s);
  for (int i = 0; i < n_steps && status == RP_OK; i++) {
    const int32_t index = steps[i] >= 0 ? steps[i] : -1 - steps[i];
    if (index < 0 || index >= graph->nodes.n) {
      status = rp_fail(ctx, RP_VALUE, "step %d names node %d: the nodes are "
                       "1..%d", i + 1, index + 1, (int)graph->nodes.n);
      break;
    }
    const rp_graph_node *node = &graph->nodes.at[index];
    if (node->op->flags & RP_EFFECT) continue;
    if (steps[i] < 0) {
      for (int32_t k = 0; k < node->n_values; k++)
        if (!graph->values.at[node->first_value + k].target)
          s.now[node->first_value + k] = -1;
      continue;
    }
    if (s.wanted[index] && graph->values.at[node->first_value].target) {
      status = rp_fail(ctx, RP_VALUE, "step %d runs node %d again, whose value "
                       "is a result", i + 1, index + 1);
      break;
    }
    for (int32_t k = 0; k < node->n_values; k++)
      s.now[node->first_value + k] = -1;
    status = emit_run(&s, index, s.wanted[index]);
    s.wanted[index] = true;
  }
  for (int32_t i = 0; i < graph->nodes.n && status == RP_OK; i++)
    if (!s.wanted[i] && !(graph->nodes.at[i].op->flags & RP_EFFECT))
      status = rp_fail(ctx, RP_VALUE, "the program never runs node %d (%s)",
                       i + 1, rp_graph_node_name(&graph->nodes.at[i]));
  if (status == RP_OK) status = place_effects(&s);
  if (status == RP_OK) status = rp_lives_find(program, ctx, graph, true);
  return scheduler_close(&s, status);
}

void rp_program_free(rp_program *program, rp_context *ctx) {
  rp_array_free(ctx, &program->instructions, sizeof(rp_instruction));
  rp_array_free(ctx, &program->instances, sizeof(rp_instance));
  rp_array_free(ctx, &program->refs, sizeof(int32_t));
  *program = (rp_program){0};
}
