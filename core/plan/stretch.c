/* Blocks and the ways to run them: for each a ladder of kept sets, from
   everything down to the input alone, each the cheapest at some price of
   memory. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "plan/cut.h"
#include "plan/front.h"

enum { PRICES = 24, OPTIONS = 12 };

/* What a node's values are to the rest of the graph. */
typedef struct use {
  int64_t bytes;
  int32_t last_forward; /* its last forward reader but effects, -1 */
  bool backward;        /* read by a backward node ... */
  bool weighs;          /* ... and not light */
  bool held;            /* a result or kept by hand: there in any case */
  bool aside;           /* on no gradient's path: no input of a stretch */
} use;

static use *find_uses(const rp_plan *plan) {
  const rp_graph *graph = &plan->graph;
  use *uses = rp_alloc(plan->ctx, (size_t)graph->nodes.n * sizeof *uses);
  bool *on_path = rp_alloc(plan->ctx, (size_t)graph->n_forward);
  if (uses == NULL || on_path == NULL) {
    rp_free(plan->ctx, uses, (size_t)graph->nodes.n * sizeof *uses);
    rp_free(plan->ctx, on_path, (size_t)graph->n_forward);
    return NULL;
  }
  rp_find_paths(graph, on_path);
  for (int32_t i = 0; i < graph->n_forward; i++) uses[i].aside = !on_path[i];
  rp_free(plan->ctx, on_path, (size_t)graph->n_forward);
  for (int32_t v = 0; v < graph->values.n; v++) {
    const rp_graph_value *value = &graph->values.at[v];
    if (value->node < 0) continue;
    uses[value->node].bytes += rp_value_bytes(graph, v);
    uses[value->node].held |= value->keep || value->target;
  }
  for (int32_t i = 0; i < graph->nodes.n; i++) uses[i].last_forward = -1;
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    for (int32_t k = 0; k < node->n_operands; k++) {
      const int32_t v = rp_graph_in(graph, node, k)->value;
      if (v < 0) continue;
      use *u = &uses[graph->values.at[v].node];
      if (i >= graph->n_forward) {
        u->backward = true;
        u->weighs |= !graph->values.at[v].light;
      } else if (!(node->op->flags & RP_EFFECT)) {
        u->last_forward = i;
      }
    }
  }
  return uses;
}

static rp_status cut_stretches(rp_stretches *all, rp_plan *plan,
                               int32_t each) {
  const rp_view *view = rp_plan_view(plan);
  if (view == NULL) return RP_NOMEM;
  for (int32_t b = 0; b < view->n_blocks; b += each) {
    const int32_t end =
        b + each < view->n_blocks ? b + each - 1 : view->n_blocks - 1;
    if (!rp_array_room(plan->ctx, all, sizeof(rp_stretch), 1))
      return RP_NOMEM;
    all->at[all->n++] = (rp_stretch){.first = view->blocks[b].first,
                                     .last = view->blocks[end].last};
  }
  return RP_OK;
}

/* Bytes alive while the stretch runs once and keeps nothing, its output
   included, its input not. */
static int64_t forward_bytes(const rp_stretch *s, const rp_plan *plan,
                             const use *uses) {
  int64_t live = 0, most = 0;
  for (int32_t i = s->first; i <= s->last; i++) {
    live += uses[i].bytes;
    if (live + plan->workspace_bytes[i] > most)
      most = live + plan->workspace_bytes[i];
    for (int32_t j = s->first; j <= i; j++)
      if (uses[j].last_forward == i || (j == i && uses[j].last_forward < 0))
        live -= uses[j].bytes;
  }
  return most;
}

static void describe(rp_stretch *s, const rp_plan *plan, const use *uses) {
  for (int32_t i = s->first; i <= s->last; i++) {
    s->forward_seconds += plan->seconds[i];
    if (uses[i].last_forward > s->last) s->output_bytes += uses[i].bytes;
  }
  int64_t aside_bytes = 0;
  for (int32_t i = 0; i < s->first; i++)
    if (uses[i].last_forward >= s->first)
      *(uses[i].aside ? &aside_bytes : &s->input_bytes) += uses[i].bytes;
  /* Where only such values come in, they are the input. */
  if (s->input_bytes == 0) s->input_bytes = aside_bytes;
  s->forward_bytes = forward_bytes(s, plan, uses);
}

static bool same_keep(const rp_stretch *s, const int32_t *keep, int32_t n) {
  for (int32_t k = 0; k < s->n_options; k++)
    if (s->options[k].n == n &&
        memcmp(s->options[k].keep, keep, (size_t)n * sizeof *keep) == 0)
      return true;
  return false;
}

/* What a kept set costs: bytes held, bytes restored, seconds of replays (each
   missing ancestor of a needed node once). */
static void price_option(const rp_stretch *s, const rp_plan *plan,
                         const use *uses, const bool *keep, bool *again,
                         int64_t *kept, int64_t *restored, double *seconds) {
  const rp_graph *graph = &plan->graph;
  *kept = s->output_bytes;
  *restored = 0;
  *seconds = 0;
  for (int32_t i = s->last; i >= s->first; i--) {
    const int32_t at = i - s->first;
    const bool outside = uses[i].last_forward > s->last || uses[i].held;
    if (keep[at] && !outside) *kept += uses[i].bytes;
    if (keep[at] || outside || !(again[at] || uses[i].backward)) {
      again[at] = false;
      continue;
    }
    again[at] = true;
    *restored += uses[i].bytes;
    *seconds += plan->seconds[i];
    const rp_graph_node *node = &graph->nodes.at[i];
    for (int32_t k = 0; k < node->n_operands; k++) {
      const int32_t v = rp_graph_in(graph, node, k)->value;
      if (v >= 0 && graph->values.at[v].node >= s->first)
        again[graph->values.at[v].node - s->first] = true;
    }
  }
}

static rp_status add_option(rp_stretch *s, const rp_plan *plan,
                            const use *uses, const bool *keep) {
  rp_context *ctx = plan->ctx;
  const int32_t size = s->last - s->first + 1;
  int32_t *nodes = rp_alloc(ctx, (size_t)size * sizeof *nodes);
  bool *again = rp_alloc(ctx, (size_t)size);
  rp_status status = nodes && again ? RP_OK : RP_NOMEM;
  int32_t n = 0;
  for (int32_t i = 0; status == RP_OK && i < size; i++)
    if (keep[i]) nodes[n++] = s->first + i;
  if (status == RP_OK && s->n_options < OPTIONS && !same_keep(s, nodes, n)) {
    const int32_t at = s->n_options;
    int32_t *own = rp_alloc(ctx, (size_t)n * sizeof *own);
    if (own == NULL) {
      status = RP_NOMEM;
    } else {
      memcpy(own, nodes, (size_t)n * sizeof *own);
      s->options[at].keep = own;
      s->options[at].n = n;
      price_option(s, plan, uses, keep, again, &s->options[at].kept_bytes,
                   &s->options[at].restored_bytes, &s->options[at].seconds);
      s->n_options++;
    }
  }
  rp_free(ctx, nodes, (size_t)size * sizeof *nodes);
  rp_free(ctx, again, (size_t)size);
  return status;
}

/* The values of a stretch for the cut at a price in seconds a byte. */
static void cut_values(const rp_stretch *s, const rp_plan *plan,
                       const use *uses, double price, rp_cut_value *values,
                       int32_t *inputs) {
  const rp_graph *graph = &plan->graph;
  int32_t n_inputs = 0;
  for (int32_t i = s->first; i <= s->last; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    const bool outside = uses[i].last_forward > s->last || uses[i].held;
    rp_cut_value *value = &values[i - s->first];
    *value = (rp_cut_value){
        .needed = uses[i].backward,
        .keep_cost = outside ? 0 : price * (double)uses[i].bytes,
        .replay_cost = plan->seconds[i],
        .first_input = n_inputs};
    for (int32_t k = 0; k < node->n_operands; k++) {
      const int32_t v = rp_graph_in(graph, node, k)->value;
      if (v < 0 || graph->values.at[v].node < s->first) continue;
      inputs[n_inputs++] = graph->values.at[v].node - s->first;
      value->n_inputs++;
    }
  }
}

static rp_status add_options(rp_stretch *s, const rp_plan *plan,
                             const use *uses) {
  rp_context *ctx = plan->ctx;
  const int32_t size = s->last - s->first + 1;
  int32_t operands = 0;
  for (int32_t i = s->first; i <= s->last; i++)
    operands += plan->graph.nodes.at[i].n_operands;
  const size_t values_size = (size_t)size * sizeof(rp_cut_value);
  rp_cut_value *values = rp_alloc(ctx, values_size);
  int32_t *inputs = rp_alloc(ctx, (size_t)operands * sizeof *inputs);
  bool *keep = rp_alloc(ctx, (size_t)size);
  rp_status status = values && inputs && keep ? RP_OK : RP_NOMEM;
  if (status == RP_OK) { /* everything that backward reads and that weighs */
    for (int32_t i = 0; i < size; i++) keep[i] = uses[s->first + i].weighs;
    status = add_option(s, plan, uses, keep);
  }
  if (status == RP_OK) { /* the input alone */
    memset(keep, 0, (size_t)size);
    status = add_option(s, plan, uses, keep);
  }
  /* From 0.1 ps to 10 ns a byte: beyond either end nothing changes. */
  for (int32_t k = 0; k < PRICES && status == RP_OK; k++) {
    const double price = 1e-13 * pow(10, 5.0 * k / (PRICES - 1));
    cut_values(s, plan, uses, price, values, inputs);
    status = rp_cut_solve(ctx, values, size, inputs, keep);
    if (status == RP_OK) status = add_option(s, plan, uses, keep);
  }
  rp_free(ctx, values, values_size);
  rp_free(ctx, inputs, (size_t)operands * sizeof *inputs);
  rp_free(ctx, keep, (size_t)size);
  return status;
}

/* What backward needs besides forward values: the most that `none` has alive
   of it while the stretch's part runs. */
static rp_status backward_bytes(rp_stretches *all, const rp_plan *plan) {
  rp_context *ctx = plan->ctx;
  const rp_graph *graph = &plan->graph;
  if (all->n == 0) return RP_OK; /* a loss that backward makes, and no more */
  rp_tree tree = {0};
  rp_program program = {0};
  rp_status status = rp_tree_build(&tree, ctx, graph, NULL, 0);
  if (status == RP_OK) status = rp_schedule_tree(&program, ctx, graph, &tree);
  const size_t size = (size_t)(program.instructions.n + 2) * sizeof(int64_t);
  int64_t *change = status == RP_OK ? rp_alloc(ctx, size) : NULL;
  if (status == RP_OK && change == NULL) status = RP_NOMEM;
  for (int32_t v = 0; status == RP_OK && v < program.instances.n; v++) {
    const rp_instance *instance = &program.instances.at[v];
    const rp_graph_value *value = &graph->values.at[instance->value];
    if (value->target || value->node < graph->n_forward) continue;
    const int64_t bytes = rp_value_bytes(graph, instance->value);
    change[instance->born + (instance->shares >= 0)] += bytes;
    change[instance->last_read + 1] -= bytes;
  }
  int64_t live = 0;
  int32_t at = all->n - 1;
  for (int32_t i = 0; status == RP_OK && i < program.instructions.n; i++) {
    live += change[i];
    const rp_instruction *run = &program.instructions.at[i];
    if (run->opcode != RP_OP_RUN || run->node < graph->n_forward) continue;
    const int32_t origin = graph->nodes.at[run->node].origin;
    while (at > 0 && origin >= 0 && origin < all->at[at].first) at--;
    const int64_t most = live + rp_align(plan->workspace_bytes[run->node]);
    if (most > all->at[at].backward_bytes) all->at[at].backward_bytes = most;
  }
  rp_free(ctx, change, change ? size : 0);
  rp_program_free(&program, ctx);
  rp_tree_free(&tree, ctx);
  return status;
}

rp_status rp_stretches_make(rp_stretches *all, rp_plan *plan, int32_t each) {
  rp_context *ctx = plan->ctx;
  use *uses = find_uses(plan);
  rp_status status = uses ? cut_stretches(all, plan, each) : RP_NOMEM;
  for (int32_t i = 0; i < all->n && status == RP_OK; i++) {
    describe(&all->at[i], plan, uses);
    status = add_options(&all->at[i], plan, uses);
  }
  if (status == RP_OK) status = backward_bytes(all, plan);
  rp_free(ctx, uses, uses ? (size_t)plan->graph.nodes.n * sizeof *uses : 0);
  if (status != RP_OK) rp_stretches_free(all, ctx);
  return status;
}

void rp_stretches_free(rp_stretches *all, rp_context *ctx) {
  for (int32_t i = 0; i < all->n; i++)
    for (int32_t k = 0; k < all->at[i].n_options; k++)
      rp_free(ctx, all->at[i].options[k].keep,
              (size_t)all->at[i].options[k].n * sizeof(int32_t));
  rp_array_free(ctx, all, sizeof(rp_stretch));
}
