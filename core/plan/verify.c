/* The proof that a program may run. See rp_verify in plan.h.

   Invariant of the simulation: live lists exactly the instances that have
   been made and not freed; state[i] is ABSENT, ALIVE, SPOILT (alive, but
   another instance has taken its bytes over) or FREED. taken has those that
   are ALIVE and have bytes in the arena; no two of them overlap, but that an
   instance and the one that it takes over lie on the very same bytes until
   the latter is SPOILT. So what a range overlaps, if anything, is the last
   one that begins in front of its end. */
#include <string.h>

#include "base/context.h"
#include "plan/plan.h"
#include "plan/taken.h"

typedef enum state { ABSENT, ALIVE, SPOILT, FREED } state;

typedef struct proof {
  rp_context *ctx;
  const rp_graph *graph;
  const rp_program *program;
  const rp_layout *layout;
  const int64_t *workspace_bytes;
  uint8_t *states;
  RP_ARRAY(int32_t) live;
  int32_t *live_at;      /* by instance: where live has it */
  rp_taken taken;
  int32_t *effect_runs;  /* by node */
  int32_t *leaf_writer;  /* by leaf: the effect, or -1 */
  int32_t *leaf_call;    /* by leaf: the last call of effects to touch it */
  int32_t at, call;      /* call: of one RUN, or of those that join it */
} proof;

static rp_status reject(const proof *p, const char *what, int32_t instance) {
  const rp_instruction *at = &p->program->instructions.at[p->at];
  const char *op = at->opcode == RP_OP_RUN
                       ? rp_graph_node_name(&p->graph->nodes.at[at->node])
                       : "free";
  return rp_fail(p->ctx, RP_ILLEGAL,
                 "program rejected at instruction %d (%s): %s (instance %d)",
                 p->at + 1, op, what, instance + 1);
}

static bool in_arena(const proof *p, int32_t instance) {
  return p->layout->offsets[instance] >= 0;
}

static int64_t size_of(const proof *p, int32_t instance) {
  return rp_value_bytes(p->graph, p->program->instances.at[instance].value);
}

static bool meet(int64_t a, int64_t a_size, int64_t b, int64_t b_size) {
  return a_size > 0 && b_size > 0 && a < b + b_size && b < a + a_size;
}

/* Does offset..+size lie in the arena, aligned, clear of what is alive? The
   one instance that may be met is `allowed` (-1: none). */
static rp_status check_room(const proof *p, int64_t offset, int64_t size,
                            int32_t allowed, int32_t instance) {
  if (offset % RP_ALIGN != 0 || offset < 0 ||
      offset + size > p->layout->arena_bytes)
    return reject(p, "its bytes do not lie in the arena", instance);
  int32_t other = rp_taken_below(&p->taken, offset + size);
  if (other >= 0 && other == allowed)
    other = rp_taken_before(&p->taken, other);
  if (other < 0 ||
      !meet(offset, size, p->layout->offsets[other], size_of(p, other)))
    return RP_OK;
  return reject(p, "it overlaps a live value", instance);
}

static rp_status check_inputs(const proof *p, const rp_instruction *run) {
  const rp_graph_node *node = &p->graph->nodes.at[run->node];
  const bool effect = node->op->flags & RP_EFFECT;
  for (int32_t k = 0; k < node->n_operands; k++) {
    const int32_t ref = p->program->refs.at[run->first_ref + k];
    const rp_operand *in = rp_graph_in(p->graph, node, k);
    if (in->value < 0) {
      if (ref != in->value) return reject(p, "it reads another leaf", -1);
      /* Every recipe here recorded the version from before the program; only
         forward effects (running statistics) follow each other. */
      const int32_t writer = p->leaf_writer[rp_operand_leaf(in)];
      const bool follows = node->op->writes >> k & 1u && writer < run->node &&
                           run->node < p->graph->n_forward;
      if (writer >= 0 && !follows)
        return reject(p, effect ? "it updates a leaf that is already updated"
                                : "it reads a leaf that is already updated",
                      -1);
      continue;
    }
    if (ref < 0 || ref >= p->program->instances.n ||
        p->program->instances.at[ref].value != in->value)
      return reject(p, "it reads another value", ref);
    if (p->states[ref] != ALIVE)
      return reject(p, p->states[ref] == ABSENT ? "its input is not there yet"
                       : p->states[ref] == SPOILT
                           ? "its input is overwritten"
                           : "its input is freed",
                    ref);
  }
  return RP_OK;
}

/* The input that output 0 lies on by the op's leave, or -1. */
static int32_t taken_over(const proof *p, const rp_instruction *run) {
  const rp_graph_node *node = &p->graph->nodes.at[run->node];
  if (node->n_values == 0) return -1;
  const int32_t *refs = p->program->refs.at + run->first_ref;
  const int32_t out = refs[node->n_operands];
  if (!in_arena(p, out) || size_of(p, out) == 0) return -1;
  for (int32_t k = 0; k < node->n_operands; k++) {
    if (refs[k] < 0 || !in_arena(p, refs[k])) continue;
    if (p->layout->offsets[refs[k]] != p->layout->offsets[out]) continue;
    bool declared = true;
    for (int32_t j = 0; j < node->n_operands; j++)
      if (refs[j] == refs[k]) declared &= rp_may_share(p->graph, node, j);
    if (declared) return refs[k];
  }
  return -1;
}

static rp_status make_outputs(proof *p, const rp_instruction *run) {
  const rp_graph_node *node = &p->graph->nodes.at[run->node];
  const int32_t *refs = p->program->refs.at + run->first_ref;
  const int32_t over = taken_over(p, run);
  rp_status status = RP_OK;
  for (int32_t k = 0; k < node->n_values && status == RP_OK; k++) {
    const int32_t out = refs[node->n_operands + k];
    if (out < 0 || out >= p->program->instances.n ||
        p->program->instances.at[out].value != node->first_value + k)
      return reject(p, "it makes another value", out);
    if (p->states[out] != ABSENT)
      return reject(p, "it makes a value that was already made", out);
    if (in_arena(p, out))
      status = check_room(p, p->layout->offsets[out], size_of(p, out),
                          k == 0 ? over : -1, out);
    else if (!p->graph->values.at[node->first_value + k].target)
      status = reject(p, "its value has no place", out);
    if (status != RP_OK) break;
    if (!rp_array_room(p->ctx, &p->live, sizeof(int32_t), 1)) return RP_NOMEM;
    p->live_at[out] = p->live.n;
    p->live.at[p->live.n++] = out;
    p->states[out] = ALIVE;
    if (in_arena(p, out) && size_of(p, out) > 0)
      rp_taken_put(&p->taken, out);
  }
  if (status == RP_OK && over >= 0) {
    p->states[over] = SPOILT;
    rp_taken_drop(&p->taken, over);
  }
  return status;
}

/* What runs in one call runs in any order, or at once. */
static rp_status check_call(proof *p, const rp_instruction *run) {
  const rp_graph_node *node = &p->graph->nodes.at[run->node];
  if (!run->joins) p->call = p->at;
  if (run->joins) {
    const rp_instruction *before = p->at > 0 ? run - 1 : run;
    if (p->at == 0 || before->opcode != RP_OP_RUN ||
        p->graph->nodes.at[before->node].op != node->op)
      return reject(p, "it joins what is not of its kind", -1);
    if (!(node->op->flags & RP_EFFECT) || p->workspace_bytes[run->node] > 0 ||
        p->workspace_bytes[before->node] > 0)
      return reject(p, "it joins others and is no plain effect", -1);
  }
  if (!(node->op->flags & RP_EFFECT)) return RP_OK;
  /* A call that writes a leaf is noted as 2 call + 1, one that reads it as
     2 call: the same leaf may be read by all of them. */
  for (int32_t k = 0; k < node->n_operands; k++) {
    const int32_t leaf = rp_operand_leaf(rp_graph_in(p->graph, node, k));
    if (leaf < 0 || p->leaf_call[leaf] < 2 * p->call) continue;
    if (node->op->writes >> k & 1u || p->leaf_call[leaf] % 2)
      return reject(p, "others of its call touch a leaf that is written", -1);
  }
  for (int32_t k = 0; k < node->n_operands; k++) {
    const int32_t leaf = rp_operand_leaf(rp_graph_in(p->graph, node, k));
    const int32_t noted = 2 * p->call + (int32_t)(node->op->writes >> k & 1u);
    if (leaf >= 0 && noted > p->leaf_call[leaf]) p->leaf_call[leaf] = noted;
  }
  return RP_OK;
}

static rp_status do_run(proof *p, const rp_instruction *run) {
  const rp_graph_node *node = &p->graph->nodes.at[run->node];
  rp_status status = check_call(p, run);
  if (status == RP_OK) status = check_inputs(p, run);
  if (status == RP_OK) status = make_outputs(p, run);
  const int64_t workspace = p->workspace_bytes[run->node];
  /* The workspace must be clear of inputs and outputs: all of them alive or
     spoilt by this very RUN, whose bytes are the output's. */
  if (status == RP_OK && workspace > 0)
    status = check_room(p, p->layout->workspaces[p->at], rp_align(workspace),
                        -1, -1);
  if (status != RP_OK || !(node->op->flags & RP_EFFECT)) return status;
  if (p->effect_runs[run->node]++)
    return reject(p, "this effect has already run", -1);
  for (int32_t k = 0; k < node->n_operands; k++)
    if (node->op->writes >> k & 1u) {
      const int32_t leaf = rp_operand_leaf(rp_graph_in(p->graph, node, k));
      if (leaf < 0) return reject(p, "it updates what is no leaf", -1);
      p->leaf_writer[leaf] = run->node;
    }
  return RP_OK;
}

static rp_status do_free(proof *p, int32_t instance) {
  if (instance < 0 || instance >= p->program->instances.n ||
      p->states[instance] == ABSENT || p->states[instance] == FREED)
    return reject(p, "it frees what is not alive", instance);
  if (!in_arena(p, instance))
    return reject(p, "it frees a result", instance);
  if (p->states[instance] == ALIVE) rp_taken_drop(&p->taken, instance);
  p->states[instance] = FREED;
  const int32_t last = p->live.at[--p->live.n];
  p->live.at[p->live_at[instance]] = last;
  p->live_at[last] = p->live_at[instance];
  return RP_OK;
}

static rp_status check_end(proof *p) {
  p->at = p->program->instructions.n - 1;
  for (int32_t i = 0; i < p->live.n; i++)
    if (in_arena(p, p->live.at[i]))
      return reject(p, "a value is still in the arena at the end",
                    p->live.at[i]);
  for (int32_t i = 0; i < p->graph->nodes.n; i++)
    if (p->graph->nodes.at[i].op->flags & RP_EFFECT && p->effect_runs[i] != 1)
      return reject(p, "an effect has not run", -1);
  for (int32_t t = 0; t < p->graph->targets.n; t++) {
    const int32_t v = p->graph->targets.at[t];
    bool made = v < 0;
    for (int32_t i = 0; i < p->live.n && !made; i++)
      made = p->program->instances.at[p->live.at[i]].value == v;
    if (!made) return reject(p, "a result has not been made", -1);
  }
  return RP_OK;
}

rp_status rp_verify(rp_context *ctx, const rp_graph *graph,
                    const rp_program *program, const rp_layout *layout,
                    const int64_t *workspace_bytes) {
  proof p = {.ctx = ctx, .graph = graph, .program = program, .layout = layout,
             .workspace_bytes = workspace_bytes};
  const size_t instances = (size_t)program->instances.n;
  const size_t runs = (size_t)graph->nodes.n * sizeof(int32_t);
  const size_t leaves = (size_t)graph->leaves.n * sizeof(int32_t);
  const size_t places = instances * sizeof(int32_t);
  p.states = rp_alloc(ctx, instances);
  p.live_at = rp_alloc(ctx, places);
  p.effect_runs = rp_alloc(ctx, runs);
  p.leaf_writer = rp_alloc(ctx, leaves);
  p.leaf_call = rp_alloc(ctx, leaves);
  rp_status status = p.states && p.live_at && p.effect_runs &&
                             p.leaf_writer && p.leaf_call
                         ? RP_OK : RP_NOMEM;
  if (status == RP_OK)
    status = rp_taken_open(&p.taken, ctx, layout->offsets,
                           program->instances.n);
  for (int32_t l = 0; l < graph->leaves.n && status == RP_OK; l++)
    p.leaf_writer[l] = p.leaf_call[l] = -1;
  for (; p.at < program->instructions.n && status == RP_OK; p.at++) {
    const rp_instruction *at = &program->instructions.at[p.at];
    if (at->opcode == RP_OP_FREE)
      status = do_free(&p, at->instance);
    else if (at->node < 0 || at->node >= graph->nodes.n)
      status = rp_fail(ctx, RP_ILLEGAL, "program rejected: instruction %d "
                       "runs no node", p.at + 1);
    else
      status = do_run(&p, at);
  }
  if (status == RP_OK) status = check_end(&p);
  rp_taken_close(&p.taken, ctx);
  rp_free(ctx, p.states, instances);
  rp_free(ctx, p.live_at, places);
  rp_free(ctx, p.effect_runs, runs);
  rp_free(ctx, p.leaf_writer, leaves);
  rp_free(ctx, p.leaf_call, leaves);
  rp_array_free(ctx, &p.live, sizeof(int32_t));
  return status;
}
