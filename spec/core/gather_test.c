/* Updates in few calls (plan/gather.c): as few as can be, none too many bytes,
   nothing out of order; the same bits. */
#include "support.h"

#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "graph/op.h"
#include "plan/plan.h"

enum { LAYERS = 3, MADE = 8 * LAYERS, PARAMETERS = 2 * LAYERS };

/* ---- a device that takes many updates in one call ----------------------- */

static struct {
  rp_kernel rows[1024];
  rp_kernel_table table;
  const rp_kernel_table *tables[1];
  rp_backend backend;
  int calls, runs; /* run_many's, and those in them */
} device;

static rp_status run_many(const rp_kernel_args *args, int32_t n) {
  device.calls++;
  device.runs += n;
  rp_status status = RP_OK;
  for (int32_t k = n - 1; k >= 0 && status == RP_OK; k--)
    for (int i = 0; i < device.table.n; i++) {
      const rp_kernel *row = &device.rows[i];
      if (strcmp(row->op->name, "sgd_momentum") == 0 &&
          (int)row->dtype == args[k].in[0].type.dtype)
        status = row->run(&args[k]);
    }
  return status;
}

/* The CPU's rows; those of sgd_momentum run many at once, last first. */
static void use_device(rp_context *ctx) {
  device.backend = rp_cpu;
  device.table = (rp_kernel_table){.rows = device.rows};
  for (int32_t t = 0; t < rp_cpu.n_tables; t++)
    for (int32_t i = 0; i < rp_cpu.tables[t]->n; i++) {
      rp_kernel *row = &device.rows[device.table.n++];
      assert_true(device.table.n < 1024);
      *row = rp_cpu.tables[t]->rows[i];
      if (strcmp(row->op->name, "sgd_momentum") == 0) row->run_many = run_many;
    }
  device.tables[0] = &device.table;
  device.backend.tables = device.tables;
  device.backend.n_tables = 1;
  ctx->devices[RP_CPU]->backend = &device.backend;
}

/* ---- networks of all sizes ---------------------------------------------- */

typedef struct network {
  rp_context *ctx;
  rp_tensor *x, *params[PARAMETERS];
  rp_optimizer *opt;
  rp_tensor *made[MADE], *loss;
  int n_made, n_layers;
  uint64_t state;
} network;

static int draw(network *net, int below) {
  net->state = net->state * 6364136223846793005u + 1442695040888963407u;
  return (int)((net->state >> 33) % (uint64_t)below);
}

static void network_open(network *net, uint64_t seed, bool clips) {
  *net = (network){.ctx = rp_context_new(), .state = seed};
  use_device(net->ctx);
  net->n_layers = 2 + draw(net, LAYERS - 1);
  int width = 1 + draw(net, 40);
  net->x = leaf(net->ctx, RP_INPUT, 1 + draw(net, 40), width, 0.1);
  for (int i = 0; i < net->n_layers; i++) {
    const int next = 1 + draw(net, 40);
    net->params[2 * i] = leaf(net->ctx, RP_PARAMETER, width, next, 0.05);
    net->params[2 * i + 1] = leaf(net->ctx, RP_PARAMETER, 1, next, 0.1);
    width = next;
  }
  net->opt = rp_optimizer_new(net->ctx, rp_op_find("sgd_momentum"));
  assert_int_equal(
      rp_optimizer_add_group(net->opt, net->params, 2 * net->n_layers), 0);
  const double numbers[5] = {1e-2, 0.9, 0, 0.01, 0};
  assert_int_equal(rp_optimizer_set(net->opt, 0, numbers, 5), RP_OK);
  if (clips) rp_optimizer_set_clip(net->opt, 0.5);
}

static rp_tensor *keep(network *net, rp_tensor *t) {
  return net->made[net->n_made++] = t;
}

static void network_record(network *net, bool segments) {
  rp_tensor *h = net->x;
  for (int i = 0; i < net->n_layers; i++) {
    const rp_place place = rp_place_get(net->ctx);
    if (segments && draw(net, 2))
      assert_int_equal(rp_segment_enter(net->ctx), RP_OK);
    h = keep(net, binary(net->ctx, "matmul", h, net->params[2 * i]));
    h = keep(net, binary(net->ctx, "add", h, net->params[2 * i + 1]));
    h = keep(net, unary(net->ctx, "tanh", h));
    rp_place_set(net->ctx, place);
  }
  net->loss = keep(net, sum_all(net->ctx, h));
}

static void network_release(network *net) {
  while (net->n_made > 0) rp_tensor_release(net->made[--net->n_made]);
}

static void network_close(network *net) {
  network_release(net);
  rp_optimizer_free(net->opt);
  rp_tensor_release(net->x);
  for (int i = 0; i < 2 * net->n_layers; i++)
    rp_tensor_release(net->params[i]);
  rp_context_free(net->ctx);
}

/* One plan of a step, ready, not run. */
static rp_plan *planned(network *net, int action) {
  rp_request request = {.action = action, .optimizer = net->opt,
                        .loss = action == RP_STEP ? NULL : net->loss};
  rp_plan *plan = rp_plan_prepare(net->ctx, &request);
  assert_non_null(plan);
  if (!rp_plan_is_ready(plan)) assert_int_equal(rp_plan_finish(plan), RP_OK);
  return plan;
}

static void run(network *net, int action) {
  rp_request request = {.action = action,
                        .optimizer = action == RP_BACKWARD ? NULL : net->opt,
                        .loss = action == RP_STEP ? NULL : net->loss};
  run_planned(net->ctx, &request, NULL, 0);
}

static bool is_update(const rp_plan *plan, const rp_instruction *at) {
  return at->opcode == RP_OP_RUN &&
         strcmp(plan->graph.nodes.at[at->node].op->name, "sgd_momentum") == 0;
}

static int calls_of(const rp_plan *plan, const rp_program *program) {
  int n = 0;
  for (int32_t i = 0; i < program->instructions.n; i++)
    n += is_update(plan, &program->instructions.at[i]) &&
         !program->instructions.at[i].joins;
  return n;
}

/* ---- by brute force ----------------------------------------------------- */

typedef struct search {
  const rp_plan *plan;
  int32_t at[PARAMETERS]; /* where updates stand */
  int n, runs_with[PARAMETERS];
  int best;
} search;

/* The most live bytes where update j runs at at[runs_with[j]]; -1 where that is
   no legal program. */
static int64_t live_bytes(const search *s) {
  const rp_program *p = &s->plan->program;
  const int32_t n = p->instructions.n;
  int64_t live[n];
  memset(live, 0, sizeof live);
  for (int32_t v = 0; v < p->instances.n; v++) {
    int32_t last = p->instances.at[v].born, taken = n;
    for (int32_t i = 0; i < n; i++) {
      const rp_instruction *run = &p->instructions.at[i];
      if (run->opcode != RP_OP_RUN) continue;
      const rp_graph_node *node = &s->plan->graph.nodes.at[run->node];
      int32_t when = i;
      for (int j = 0; j < s->n; j++)
        if (s->at[j] == i) when = s->at[s->runs_with[j]];
      for (int32_t k = 0; k < node->n_operands; k++)
        if (p->refs.at[run->first_ref + k] == v && when > last) last = when;
    }
    for (int32_t w = 0; w < p->instances.n; w++)
      if (p->instances.at[w].shares == v) taken = p->instances.at[w].born;
    if (last > taken) return -1;
    if (s->plan->graph.values.at[p->instances.at[v].value].target) continue;
    for (int32_t i = p->instances.at[v].born; i <= last && i < taken; i++)
      live[i] += rp_value_bytes(&s->plan->graph, p->instances.at[v].value);
  }
  int64_t most = 0;
  for (int32_t i = 0; i < n; i++) {
    if (p->instructions.at[i].opcode == RP_OP_RUN)
      live[i] +=
          rp_align(s->plan->workspace_bytes[p->instructions.at[i].node]);
    if (live[i] > most) most = live[i];
  }
  return most;
}

/* The fewest calls of all ways to let updates j.. wait. */
static void try_all(search *s, int j) {
  if (j < 0) {
    int calls = 0;
    for (int k = 0; k < s->n; k++) calls += s->runs_with[k] == k;
    if (calls >= s->best) return;
    const int64_t most = live_bytes(s);
    if (most >= 0 && most <= s->plan->layout.live_bytes) s->best = calls;
    return;
  }
  for (int with = j; with < s->n; with++) {
    if (with != j && s->runs_with[with] != with) continue;
    s->runs_with[j] = with;
    try_all(s, j - 1);
  }
}

static int fewest_calls(const rp_plan *plan) {
  search s = {.plan = plan};
  for (int32_t i = 0; i < plan->program.instructions.n; i++)
    if (is_update(plan, &plan->program.instructions.at[i])) s.at[s.n++] = i;
  s.best = s.n + 1;
  try_all(&s, s.n - 1);
  return s.best;
}

/* ---- the pass alone ----------------------------------------------------- */

typedef struct copy {
  rp_program program;
  rp_layout layout;
} copy;

static void *copied(rp_context *ctx, const void *from, size_t size) {
  void *to = rp_alloc(ctx, size);
  assert_non_null(to);
  memcpy(to, from, size);
  return to;
}

static copy copy_of(const rp_plan *plan) {
  copy c = {.program = plan->program, .layout = plan->layout};
  rp_program *p = &c.program;
  p->instructions.capacity = p->instructions.n;
  p->instances.capacity = p->instances.n;
  p->refs.capacity = p->refs.n;
  p->instructions.at = copied(plan->ctx, p->instructions.at,
                              (size_t)p->instructions.n *
                                  sizeof(rp_instruction));
  p->instances.at = copied(plan->ctx, p->instances.at,
                           (size_t)p->instances.n * sizeof(rp_instance));
  p->refs.at = copied(plan->ctx, p->refs.at,
                      (size_t)p->refs.n * sizeof(int32_t));
  c.layout.offsets = copied(plan->ctx, c.layout.offsets,
                            (size_t)c.layout.n_offsets * sizeof(int64_t));
  c.layout.workspaces =
      copied(plan->ctx, c.layout.workspaces,
             (size_t)c.layout.n_workspaces * sizeof(int64_t));
  return c;
}

static void copy_free(copy *c, rp_context *ctx) {
  rp_program_free(&c->program, ctx);
  rp_layout_free(&c->layout, ctx);
}

static rp_status gather(copy *c, const rp_plan *plan) {
  const void *kinds[plan->n_kernels];
  for (int32_t i = 0; i < plan->n_kernels; i++)
    kinds[i] = strcmp(plan->graph.nodes.at[i].op->name, "sgd_momentum") == 0
                   ? &device : NULL;
  return rp_gather(&c->program, &c->layout, plan->ctx, &plan->graph,
                   plan->workspace_bytes, kinds);
}

static rp_status verify(const copy *c, const rp_plan *plan) {
  return rp_verify(plan->ctx, &plan->graph, &c->program, &c->layout,
                   plan->workspace_bytes);
}

static void calls_are_as_few_as_live_bytes_allow(void **state) {
  (void)state;
  int apart = 0, together = 0, fewest = 0, some = 0;
  for (uint64_t seed = 1; seed <= 60; seed++) {
    network net;
    network_open(&net, seed, seed % 5 == 0);
    rp_gathering_enable(net.ctx, false);
    network_record(&net, seed % 2);
    rp_plan *plan = planned(&net, RP_MINIMIZE);
    const int before = calls_of(plan, &plan->program);
    assert_int_equal(before, 2 * net.n_layers);
    copy c = copy_of(plan);
    c.layout.arena_bytes = INT64_MAX / 2; /* live bytes alone count */
    assert_int_equal(gather(&c, plan), RP_OK);
    assert_int_equal(verify(&c, plan), RP_OK);
    assert_true(c.layout.live_bytes <= plan->layout.live_bytes);
    const int after = calls_of(plan, &c.program), best = fewest_calls(plan);
    assert_int_equal(after, best);
    apart += before;
    together += after;
    fewest += best;
    some += after > 1;
    copy_free(&c, net.ctx);
    rp_plan_release(plan);
    network_close(&net);
  }
  assert_true(2 * together < apart);
  assert_true(some > 10); /* and there was something to choose */
}

static void a_plan_pays_no_byte(void **state) {
  (void)state;
  int apart = 0, together = 0;
  for (uint64_t seed = 1; seed <= 60; seed++) {
    network net;
    network_open(&net, seed, seed % 5 == 0);
    network_record(&net, seed % 2);
    rp_gathering_enable(net.ctx, false);
    rp_plan *one = planned(&net, RP_MINIMIZE);
    rp_gathering_enable(net.ctx, true);
    rp_plan *many = planned(&net, RP_MINIMIZE);
    assert_ptr_not_equal(one, many);
    assert_true(many->layout.live_bytes <= one->layout.live_bytes);
    assert_true(many->layout.arena_bytes <= one->layout.arena_bytes);
    apart += calls_of(one, &one->program);
    together += calls_of(many, &many->program);
    rp_plan_release(one);
    rp_plan_release(many);
    network_close(&net);
  }
  assert_true(2 * together < apart);
}

static void the_bits_are_those_of_one_by_one(void **state) {
  (void)state;
  enum { STEPS = 3 };
  for (uint64_t seed = 1; seed <= 12; seed++) {
    double want[40 * 40], got[40 * 40];
    network nets[2];
    for (int on = 0; on < 2; on++) {
      network_open(&nets[on], seed, seed % 3 == 0);
      rp_gathering_enable(nets[on].ctx, on);
      device.calls = device.runs = 0;
      for (int i = 0; i < STEPS; i++) {
        network_record(&nets[on], seed % 2);
        run(&nets[on], RP_MINIMIZE);
        network_release(&nets[on]);
      }
      network_record(&nets[on], false);
      run(&nets[on], RP_BACKWARD);
      const int calls = device.calls, runs = device.runs;
      run(&nets[on], RP_STEP);
      /* Behind backward all gradients are held: one call takes them all. */
      assert_int_equal(device.calls - calls, on);
      assert_int_equal(device.runs - runs, on ? 2 * nets[on].n_layers : 0);
    }
    for (int i = 0; i < 2 * nets[0].n_layers; i++) {
      const size_t size = (size_t)rp_type_bytes(&nets[0].params[i]->type);
      assert_int_equal(rp_tensor_read(nets[0].params[i], want, size), RP_OK);
      assert_int_equal(rp_tensor_read(nets[1].params[i], got, size), RP_OK);
      assert_memory_equal(want, got, size);
    }
    network_close(&nets[0]);
    network_close(&nets[1]);
  }
}

static void verify_looks_into_calls(void **state) {
  (void)state;
  network net;
  network_open(&net, 7, false);
  network_record(&net, false);
  rp_plan *plan = planned(&net, RP_MINIMIZE);
  int rejected = 0, joined = 0;
  for (int32_t i = 0; i < plan->program.instructions.n; i++) {
    if (plan->program.instructions.at[i].opcode != RP_OP_RUN) continue;
    copy c = copy_of(plan);
    rp_instruction *at = &c.program.instructions.at[i];
    joined += at->joins;
    /* What does not join is first of its call: what is before it is of
       another kind, or a FREE. */
    if (!at->joins) {
      at->joins = true;
      assert_int_equal(verify(&c, plan), RP_ILLEGAL);
      assert_non_null(strstr(rp_message(net.ctx), "it joins"));
      rejected++;
    }
    copy_free(&c, net.ctx);
  }
  assert_true(joined > 0 && rejected > 10);
  /* Two of a call that write one leaf. */
  copy c = copy_of(plan);
  rp_graph_node *before = NULL;
  int met = 0;
  for (int32_t i = 0; i < c.program.instructions.n && !met; i++) {
    const rp_instruction *at = &c.program.instructions.at[i];
    rp_graph_node *node =
        at->opcode == RP_OP_RUN ? &plan->graph.nodes.at[at->node] : NULL;
    if (node && at->joins) {
      rp_operand *state_of = &plan->graph.operands.at[node->first_operand + 2];
      const rp_operand own = *state_of;
      *state_of = plan->graph.operands.at[before->first_operand + 2];
      c.program.refs.at[at->first_ref + 2] = state_of->value;
      assert_int_equal(verify(&c, plan), RP_ILLEGAL);
      assert_non_null(strstr(rp_message(net.ctx), "others of its call"));
      *state_of = own;
      met++;
    }
    before = node;
  }
  assert_int_equal(met, 1);
  copy_free(&c, net.ctx);
  rp_plan_release(plan);
  network_close(&net);
}

static void a_refused_allocation_leaves_the_program_as_it_was(void **state) {
  (void)state;
  network net;
  network_open(&net, 7, false);
  rp_gathering_enable(net.ctx, false);
  network_record(&net, false);
  rp_plan *plan = planned(&net, RP_MINIMIZE);
  const rp_program *p = &plan->program;
  int64_t k = 1;
  for (bool refused = true; refused; k++) {
    copy c = copy_of(plan);
    rp_memory before, after;
    rp_memory_stats(net.ctx, -1, &before);
    rp_memory_fail_at(net.ctx, k);
    const rp_status status = gather(&c, plan);
    rp_memory_fail_at(net.ctx, 0);
    refused = status != RP_OK;
    if (refused) {
      assert_int_equal(status, RP_NOMEM);
      assert_int_equal(c.program.instructions.n, p->instructions.n);
      assert_memory_equal(c.program.instructions.at, p->instructions.at,
                          (size_t)p->instructions.n * sizeof(rp_instruction));
      rp_memory_stats(net.ctx, -1, &after);
      assert_int_equal(after.recipe_bytes, before.recipe_bytes);
    } else {
      assert_true(calls_of(plan, &c.program) < 2 * net.n_layers);
    }
    copy_free(&c, net.ctx);
  }
  assert_true(k > 10);
  rp_plan_release(plan);
  network_close(&net);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(calls_are_as_few_as_live_bytes_allow),
      cmocka_unit_test(a_plan_pays_no_byte),
      cmocka_unit_test(the_bits_are_those_of_one_by_one),
      cmocka_unit_test(verify_looks_into_calls),
      cmocka_unit_test(a_refused_allocation_leaves_the_program_as_it_was),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
