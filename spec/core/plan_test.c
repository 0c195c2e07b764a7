/* Plan and exec: segments, restores, effects, peaks, proofs, failures. */
#include "support.h"

#include <string.h>

/* Values are too small to be light: what runs again is what segments say. */
enum { STEPS = 12, ROWS = 4, COLUMNS = 4 };

/* h <- sin(exp(h)) + h: three nodes a step; backward of sin reads exp's
   value, backward of exp reads it too, + reads nothing. */
typedef struct chain {
  rp_context *ctx;
  rp_tensor *w, *x, *loss;
  rp_tensor *made[4 * STEPS + 4];
  int n;
} chain;

static rp_tensor *keep(chain *c, rp_tensor *t) { return c->made[c->n++] = t; }

static void chain_open(chain *c) {
  memset(c, 0, sizeof *c);
  c->ctx = rp_context_new();
  rp_fusion_enable(c->ctx, false); /* nodes are counted */
  c->x = leaf(c->ctx, RP_INPUT, ROWS, COLUMNS, 0.1);
  c->w = leaf(c->ctx, RP_PARAMETER, ROWS, COLUMNS, 0.05);
}

static void chain_record(chain *c) {
  rp_tensor *h = keep(c, binary(c->ctx, "mul", c->x, c->w));
  for (int i = 0; i < STEPS; i++) {
    const rp_place place = rp_place_get(c->ctx);
    assert_int_equal(rp_layer_enter(c->ctx), RP_OK);
    rp_tensor *e = keep(c, unary(c->ctx, "exp", h));
    rp_tensor *s = keep(c, unary(c->ctx, "sin", e));
    h = keep(c, binary(c->ctx, "add", s, h));
    rp_place_set(c->ctx, place);
  }
  c->loss = keep(c, sum_all(c->ctx, h));
}

static void chain_release(chain *c) {
  while (c->n > 0) rp_tensor_release(c->made[--c->n]);
}

static void chain_close(chain *c) {
  chain_release(c);
  rp_tensor_release(c->x);
  rp_tensor_release(c->w);
  rp_context_free(c->ctx);
}

/* Gradient of w under these segments, into out. */
static rp_plan_info gradient(chain *c, const char *name,
                             const rp_segment *segments, int n,
                             double out[ROWS * COLUMNS]) {
  chain_record(c);
  rp_tensor_clear_grad(c->w);
  rp_request request = {.action = RP_BACKWARD, .loss = c->loss,
                        .strategy = name};
  const rp_plan_info info = run_planned(c->ctx, &request, segments, n);
  assert_int_equal(rp_tensor_read(rp_tensor_grad(c->w), out,
                                  ROWS * COLUMNS * sizeof *out), RP_OK);
  chain_release(c);
  return info;
}

/* Layer i is nodes 1 + 3i .. 3 + 3i. */
static rp_segment layers(int first, int last, int parent) {
  return (rp_segment){.first = 1 + 3 * first, .last = 3 + 3 * last,
                      .parent = parent};
}

static void segments_change_no_bit_and_save_what_they_say(void **state) {
  (void)state;
  chain c;
  chain_open(&c);
  double kept[ROWS * COLUMNS], other[ROWS * COLUMNS];
  const int64_t value_bytes = ROWS * COLUMNS * 8;
  const rp_plan_info none = gradient(&c, "none", NULL, 0, kept);
  assert_int_equal(none.n_replays, 0);
  /* exp's values, and no more than the transients of one step besides. */
  assert_true(none.arena_bytes >= STEPS * value_bytes);
  assert_true(none.arena_bytes <= (STEPS + 4) * value_bytes + 128);

  rp_segment every[STEPS];
  for (int i = 0; i < STEPS; i++) every[i] = layers(i, i, -1);
  const rp_plan_info all = gradient(&c, "every=1", every, STEPS, other);
  assert_memory_equal(kept, other, sizeof kept);
  assert_int_equal(all.n_replays, STEPS); /* exp alone, once a layer */

  rp_segment halves[2] = {layers(0, STEPS / 2 - 1, -1),
                          layers(STEPS / 2, STEPS - 1, -1)};
  const rp_plan_info two = gradient(&c, "segments=2", halves, 2, other);
  assert_memory_equal(kept, other, sizeof kept);
  /* Half the layers at a time: exp everywhere; sin and + (the way to the next
     exp) everywhere but in each half's last layer. */
  assert_int_equal(two.n_replays, 3 * STEPS - 2 * 2);

  rp_segment nested[3] = {layers(0, STEPS - 1, -1), layers(0, 5, 0),
                          layers(0, 2, 1)};
  gradient(&c, "nested", nested, 3, other);
  assert_memory_equal(kept, other, sizeof kept);
  chain_close(&c);
}

static void plans_are_found_again(void **state) {
  (void)state;
  chain c;
  chain_open(&c);
  double g[ROWS * COLUMNS];
  gradient(&c, "none", NULL, 0, g);
  rp_memory before, after;
  rp_memory_stats(c.ctx, -1, &before);
  for (int i = 0; i < 5; i++) gradient(&c, "none", NULL, 0, g);
  rp_memory_stats(c.ctx, -1, &after);
  assert_int_equal(after.plan_misses, before.plan_misses);
  assert_int_equal(after.recipe_bytes, before.recipe_bytes);
  assert_int_equal(after.storage_bytes, before.storage_bytes);
  chain_close(&c);
}

static void bad_segments_are_refused_with_the_reason(void **state) {
  (void)state;
  chain c;
  chain_open(&c);
  chain_record(&c);
  rp_request request = {.action = RP_BACKWARD, .loss = c.loss,
                        .strategy = "bad"};
  rp_plan *plan = rp_plan_prepare(c.ctx, &request);
  assert_non_null(plan);
  const rp_segment overlap[2] = {layers(0, 2, -1), layers(2, 3, -1)};
  assert_int_equal(rp_plan_set_segments(plan, overlap, 2), RP_VALUE);
  assert_non_null(strstr(rp_message(c.ctx), "overlap"));
  const rp_segment outside = {.first = 0, .last = 100000, .parent = -1};
  assert_int_equal(rp_plan_set_segments(plan, &outside, 1), RP_VALUE);
  const rp_segment child[2] = {layers(0, 1, -1), layers(1, 2, 0)};
  assert_int_equal(rp_plan_set_segments(plan, child, 2), RP_VALUE);
  assert_false(rp_plan_is_ready(plan));
  assert_int_equal(rp_plan_run(plan, &request), RP_STATE);
  /* After all that a good one still works. */
  assert_int_equal(rp_plan_set_segments(plan, NULL, 0), RP_OK);
  assert_int_equal(rp_plan_finish(plan), RP_OK);
  assert_int_equal(rp_plan_run(plan, &request), RP_OK);
  rp_plan_release(plan);
  chain_close(&c);
}

/* An explicit list that keeps everything is `none`; one that frees a value
   and reads it is refused. */
static void explicit_programs(void **state) {
  (void)state;
  chain c;
  chain_open(&c);
  double kept[ROWS * COLUMNS], other[ROWS * COLUMNS];
  gradient(&c, "none", NULL, 0, kept);
  chain_record(&c);
  rp_tensor_clear_grad(c.w);
  rp_request request = {.action = RP_BACKWARD, .loss = c.loss,
                        .strategy = "list"};
  rp_plan *plan = rp_plan_prepare(c.ctx, &request);
  const rp_view *view = rp_plan_view(plan);
  int32_t steps[1000];
  int n = 0;
  for (int32_t i = 0; i < view->n_nodes; i++) steps[n++] = i;
  steps[n++] = -1 - 1; /* node 1, the first exp */
  steps[n++] = 1;
  assert_int_equal(rp_plan_set_program(plan, steps, 2), RP_VALUE);
  int32_t early[2] = {0, 2}; /* sin before exp */
  assert_int_equal(rp_plan_set_program(plan, early, 2), RP_ILLEGAL);
  assert_int_equal(rp_plan_set_program(plan, steps, n), RP_OK);
  assert_int_equal(rp_plan_finish(plan), RP_OK);
  assert_int_equal(rp_plan_run(plan, &request), RP_OK);
  assert_int_equal(rp_tensor_read(rp_tensor_grad(c.w), other, sizeof other),
                   RP_OK);
  assert_memory_equal(kept, other, sizeof kept);
  rp_plan_release(plan);
  chain_close(&c);
}

static void the_view_tells_layers_and_blocks(void **state) {
  (void)state;
  chain c;
  chain_open(&c);
  chain_record(&c);
  rp_request request = {.action = RP_BACKWARD, .loss = c.loss,
                        .strategy = "view"};
  rp_plan *plan = rp_plan_prepare(c.ctx, &request);
  const rp_view *view = rp_plan_view(plan);
  assert_int_equal(view->n_layers, STEPS);
  assert_int_equal(view->n_forward, 3 * STEPS + 2);
  for (int i = 0; i < STEPS; i++) {
    assert_int_equal(view->layers[i].first, 1 + 3 * i);
    assert_int_equal(view->layers[i].last, 3 + 3 * i);
    assert_int_equal(view->layers[i].input_bytes, ROWS * COLUMNS * 8);
    assert_int_equal(view->layers[i].saved_bytes, ROWS * COLUMNS * 8);
  }
  /* One value crosses between steps, two within: a step is a block. */
  assert_int_equal(view->n_blocks, STEPS + 2);
  assert_string_equal(view->nodes[1].op, "exp");
  assert_true(view->nodes[1].read_by_backward);
  assert_false(view->nodes[2].read_by_backward);
  rp_plan_release(plan);
  chain_close(&c);
}

/* ---- a training step: tied weight, dropout, clipping -------------------- */

typedef struct step {
  rp_context *ctx;
  rp_tensor *x, *w, *v;
  rp_optimizer *opt;
} step;

static void step_open(step *s) {
  s->ctx = rp_context_new();
  s->x = leaf(s->ctx, RP_INPUT, 4, 6, 0.3);
  s->w = leaf(s->ctx, RP_PARAMETER, 6, 6, 0.1);
  s->v = leaf(s->ctx, RP_PARAMETER, 6, 6, 0.2);
  rp_tensor *params[2] = {s->w, s->v};
  s->opt = rp_optimizer_new(s->ctx, rp_op_find("adamw"));
  assert_int_equal(rp_optimizer_add_group(s->opt, params, 2), 0);
  const double numbers[5] = {1e-2, 0.9, 0.999, 1e-8, 0.01};
  assert_int_equal(rp_optimizer_set(s->opt, 0, numbers, 5), RP_OK);
  rp_optimizer_set_clip(s->opt, 0.5);
}

static void step_close(step *s) {
  rp_optimizer_free(s->opt);
  rp_tensor_release(s->x);
  rp_tensor_release(s->w);
  rp_tensor_release(s->v);
  rp_context_free(s->ctx);
}

/* One minimize, in two hand-made segments; RP_OK or the failure, after which
   nothing it made is left. loss may be NULL. */
static rp_status step_run(step *s, double *loss, rp_plan **plan_out) {
  rp_context *ctx = s->ctx;
  rp_tensor *made[16] = {0};
  int n = 0;
  rp_tensor *h = s->x;
  const rp_place place = rp_place_get(ctx);
  rp_status status = RP_OK;
  const double p = 0.25;
  for (int i = 0; i < 2 && status == RP_OK; i++) {
    status = rp_segment_enter(ctx);
    rp_tensor *pair[2] = {h, s->w}; /* w twice: tied */
    const struct { const char *op; rp_tensor *second; } ops[] = {
        {"matmul", s->w}, {"exp", NULL}, {"dropout", NULL},
        {"matmul", s->v}, {"sin", NULL}};
    for (size_t k = 0; k < 5 && status == RP_OK; k++) {
      pair[0] = h;
      pair[1] = ops[k].second;
      const bool drop = strcmp(ops[k].op, "dropout") == 0;
      h = rp_record(ctx, rp_op_find(ops[k].op), pair, ops[k].second ? 2 : 1,
                    NULL, 0, &p, drop ? 1 : 0);
      if (h == NULL) status = rp_last_status(ctx);
      else made[n++] = h;
    }
    rp_place_set(ctx, place);
  }
  const int64_t no_keep = 0;
  rp_tensor *total = NULL;
  if (status == RP_OK) {
    total = rp_record(ctx, rp_op_find("mean"), &h, 1, &no_keep, 1, NULL, 0);
    if (total == NULL) status = rp_last_status(ctx);
    else made[n++] = total;
  }
  rp_plan *plan = NULL;
  rp_request request = {.action = RP_MINIMIZE, .loss = total,
                        .optimizer = s->opt, .strategy = "none"};
  if (status == RP_OK) {
    plan = rp_plan_prepare(ctx, &request);
    if (plan == NULL) status = rp_last_status(ctx);
  }
  if (status == RP_OK && !rp_plan_is_ready(plan))
    status = rp_plan_finish(plan);
  if (status == RP_OK) status = rp_plan_run(plan, &request);
  if (status == RP_OK && loss)
    status = rp_tensor_read(total, loss, sizeof *loss);
  while (n > 0) rp_tensor_release(made[--n]);
  if (plan_out && status == RP_OK) *plan_out = plan;
  else rp_plan_release(plan);
  return status;
}

static void verify_rejects_every_mutant_that_matters(void **state) {
  (void)state;
  step s;
  step_open(&s);
  rp_plan *plan = NULL;
  assert_int_equal(step_run(&s, NULL, &plan), RP_OK);
  rp_plan_info info;
  rp_plan_describe(plan, &info);
  assert_int_equal(info.n_segments, 2);
  assert_true(info.n_replays > 0);
  enum { SEEDS = 400 };
  for (int kind = 0; kind < 6; kind++) {
    int harmful = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
      bool harmless;
      const bool rejected = rp_plan_mutate(plan, kind, seed, &harmless);
      if (!harmless && !rejected)
        fail_msg("mutation %d, seed %d was accepted", kind, (int)seed);
      harmful += !harmless;
    }
    /* Enough of each kind must have mattered for this to mean something. */
    assert_true(harmful > SEEDS / 20);
  }
  rp_plan_release(plan);
  step_close(&s);
}

/* Every allocation of a step fails once; the step says so, and done again it
   gives the bits of a run in which nothing failed. */
static void a_refused_allocation_changes_nothing(void **state) {
  (void)state;
  double want[2], w_want[36];
  step s;
  step_open(&s);
  rp_manual_seed(s.ctx, 5);
  for (int i = 0; i < 2; i++)
    assert_int_equal(step_run(&s, &want[i], NULL), RP_OK);
  assert_int_equal(rp_tensor_read(s.w, w_want, sizeof w_want), RP_OK);
  step_close(&s);
  int64_t k = 1;
  for (;; k++) {
    step_open(&s);
    double loss[2], w[36];
    rp_manual_seed(s.ctx, 5);
    rp_memory_fail_at(s.ctx, k);
    rp_status status = step_run(&s, &loss[0], NULL);
    rp_memory_fail_at(s.ctx, 0);
    if (status == RP_OK) break; /* k is past the last request */
    assert_int_equal(status, RP_NOMEM);
    assert_non_null(strstr(rp_message(s.ctx), "out of memory"));
    rp_manual_seed(s.ctx, 5);
    for (int i = 0; i < 2; i++)
      assert_int_equal(step_run(&s, &loss[i], NULL), RP_OK);
    assert_int_equal(rp_tensor_read(s.w, w, sizeof w), RP_OK);
    assert_memory_equal(loss, want, sizeof want);
    assert_memory_equal(w, w_want, sizeof w);
    step_close(&s);
  }
  assert_true(k > 200);
  step_close(&s);
}

/* A front's points, summed up; -1 when it was refused for want of memory. */
static double front_of(rp_context *ctx, rp_plan *plan) {
  const rp_segment whole = {.first = 0, .last = 3, .parent = -1};
  const rp_segment wrong = {.first = 3, .last = 1, .parent = -1};
  double sum = 0;
  if (rp_plan_front_offer(plan, "wrong", &wrong, 1) != RP_OK) return -1;
  if (rp_plan_front_offer(plan, "whole", &whole, 1) != RP_OK) return -1;
  const int n = rp_plan_front(plan);
  if (n < 0) return -1;
  assert_non_null(strstr(rp_plan_front_left_out(plan, 0), "wrong: "));
  for (int i = 0; i < n; i++) {
    rp_front_point point;
    assert_int_equal(rp_plan_front_point(plan, i, &point), RP_OK);
    sum += (double)point.peak_bytes * (i + 1) + point.seconds;
  }
  return sum;
}

/* Every allocation that making a front asks for fails once; asked again, the
   same plan gives the same front, and nothing is left behind. */
static void a_front_survives_every_refusal(void **state) {
  (void)state;
  double want = 0;
  int64_t k = 0;
  for (;; k++) {
    rp_context *ctx = rp_context_new();
    rp_fusion_enable(ctx, false); /* nodes are counted */
    rp_tensor *x = leaf(ctx, RP_INPUT, 4, 6, 0.3);
    rp_tensor *w = leaf(ctx, RP_PARAMETER, 4, 6, 0.1);
    const rp_place place = rp_place_get(ctx);
    assert_int_equal(rp_segment_enter(ctx), RP_OK);
    rp_tensor *a = binary(ctx, "mul", x, w), *b = unary(ctx, "exp", a);
    rp_tensor *c = unary(ctx, "sin", b);
    rp_place_set(ctx, place);
    rp_tensor *loss = sum_all(ctx, c);
    rp_request request = {.action = RP_BACKWARD, .loss = loss,
                          .strategy = "front"};
    rp_plan *plan = rp_plan_prepare(ctx, &request);
    assert_non_null(plan);
    rp_memory_fail_at(ctx, k);
    const double found = front_of(ctx, plan);
    rp_memory_fail_at(ctx, 0);
    const bool refused = found < 0;
    if (refused) assert_int_equal(rp_last_status(ctx), RP_NOMEM);
    if (k == 0) want = found;
    assert_true((refused ? front_of(ctx, plan) : found) == want);
    rp_plan_release(plan);
    rp_tensor *made[6] = {loss, c, b, a, w, x};
    for (int i = 0; i < 6; i++) rp_tensor_release(made[i]);
    rp_memory after;
    rp_memory_stats(ctx, -1, &after);
    assert_int_equal(after.nodes, 0);
    rp_context_free(ctx);
    if (k > 0 && !refused) break;
  }
  assert_true(k > 100);
  print_message("%d requests, each refused once\n", (int)k - 1);
}

static void steps_hold_their_memory(void **state) {
  (void)state;
  step s;
  step_open(&s);
  for (int i = 0; i < 100; i++)
    assert_int_equal(step_run(&s, NULL, NULL), RP_OK);
  rp_memory before, after;
  rp_memory_stats(s.ctx, -1, &before);
  for (int i = 0; i < 1000; i++)
    assert_int_equal(step_run(&s, NULL, NULL), RP_OK);
  rp_memory_stats(s.ctx, -1, &after);
  assert_int_equal(after.storage_bytes, before.storage_bytes);
  assert_int_equal(after.recipe_bytes, before.recipe_bytes);
  assert_int_equal(after.nodes, before.nodes);
  assert_int_equal(after.plan_misses, before.plan_misses);
  step_close(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(segments_change_no_bit_and_save_what_they_say),
      cmocka_unit_test(plans_are_found_again),
      cmocka_unit_test(bad_segments_are_refused_with_the_reason),
      cmocka_unit_test(explicit_programs),
      cmocka_unit_test(the_view_tells_layers_and_blocks),
      cmocka_unit_test(verify_rejects_every_mutant_that_matters),
      cmocka_unit_test(a_refused_allocation_changes_nothing),
      cmocka_unit_test(a_front_survives_every_refusal),
      cmocka_unit_test(steps_hold_their_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
