/* Runs that are watched: an anomaly is named, and so is a replay that differs.
   Ops that lie are made by putting another kernel into the plan. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "exec/watch.h"
#include "support.h"

/* loss = sum(h h), h = tanh(log(x) w + b): everything before the sum
   in one segment, so backward replays it. */
typedef struct fixture {
  rp_context *ctx;
  rp_tensor *x, *w, *b, *product, *h, *loss;
  rp_optimizer *opt;
  rp_request request;
} fixture;

static rp_plan *planned;

static fixture open_fixture(double first) {
  fixture f = {.ctx = rp_context_new()};
  rp_fusion_enable(f.ctx, false); /* nodes are counted */
  assert_non_null(f.ctx);
  f.x = leaf(f.ctx, RP_INPUT, 4, 4, 1);
  double values[16];
  for (int i = 0; i < 16; i++) values[i] = 1 + 0.25 * i;
  values[5] = first;
  assert_int_equal(rp_leaf_write(f.x, values, sizeof values), RP_OK);
  f.w = leaf(f.ctx, RP_PARAMETER, 4, 4, 0.125);
  f.b = leaf(f.ctx, RP_BUFFER, 4, 4, 0.5);
  assert_int_equal(rp_leaf_set_name(f.b, "statistics"), RP_OK);
  assert_int_equal(rp_leaf_set_name(f.x, "x"), RP_OK);
  rp_tensor_set_requires_grad(f.w, true);
  const rp_place place = rp_place_get(f.ctx);
  assert_int_equal(rp_scope_enter(f.ctx, "net"), RP_OK);
  rp_tensor *logs = unary(f.ctx, "log", f.x);
  f.product = binary(f.ctx, "mul", logs, f.w);
  rp_tensor *sum = binary(f.ctx, "add", f.product, f.b);
  f.h = unary(f.ctx, "tanh", sum);
  rp_tensor *square = binary(f.ctx, "mul", f.h, f.h);
  rp_place_set(f.ctx, place);
  f.loss = sum_all(f.ctx, square);
  rp_tensor_release(logs);
  rp_tensor_release(sum);
  rp_tensor_release(square);
  f.opt = rp_optimizer_new(f.ctx, rp_op_find("sgd"));
  assert_int_equal(rp_optimizer_add_group(f.opt, &f.w, 1), 0);
  const double numbers[2] = {0.1, 0};
  assert_int_equal(rp_optimizer_set(f.opt, 0, numbers, 2), RP_OK);
  f.request = (rp_request){.action = RP_MINIMIZE, .loss = f.loss,
                           .optimizer = f.opt};
  return f;
}

static void close_fixture(fixture *f) {
  rp_plan_release(planned);
  planned = NULL;
  rp_optimizer_free(f->opt);
  rp_tensor *const all[] = {f->x, f->w, f->b, f->product, f->h, f->loss};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    rp_tensor_release(all[i]);
  rp_context_free(f->ctx);
}

static rp_plan *plan_of(fixture *f) {
  const rp_segment segment = {.first = 0, .last = 4, .parent = -1};
  planned = rp_plan_prepare(f->ctx, &f->request);
  assert_non_null(planned);
  assert_int_equal(rp_plan_set_segments(planned, &segment, 1), RP_OK);
  assert_int_equal(rp_plan_finish(planned), RP_OK);
  assert_true(planned->program.n_replays > 0);
  return planned;
}

static void assert_says(const fixture *f, const char *const *texts) {
  const char *message = rp_message(f->ctx);
  for (; *texts; texts++)
    if (strstr(message, *texts) == NULL)
      fail_msg("'%s' lacks '%s'", message, *texts);
}

/* The run fails so, and is as if it had not been. */
static void assert_refused(fixture *f, rp_status want,
                           const char *const *texts) {
  double before[16], after[16];
  assert_int_equal(rp_tensor_read(f->w, before, sizeof before), RP_OK);
  const int64_t version = rp_leaf_version(f->w);
  rp_memory memory, later;
  assert_int_equal(rp_plan_run(planned, &f->request), want);
  assert_says(f, texts);
  assert_int_equal(rp_tensor_read(f->w, after, sizeof after), RP_OK);
  assert_memory_equal(before, after, sizeof before);
  assert_int_equal(rp_leaf_version(f->w), version);
  assert_int_equal(rp_optimizer_step_count(f->opt), 0);
  assert_false(rp_tensor_is_held(f->loss));
  /* Again: nothing stays behind. */
  rp_memory_stats(f->ctx, -1, &memory);
  assert_int_equal(rp_plan_run(planned, &f->request), want);
  rp_memory_stats(f->ctx, -1, &later);
  assert_int_equal(later.storage_bytes, memory.storage_bytes);
  assert_int_equal(later.recipe_bytes, memory.recipe_bytes);
}

/* ---- kernels that lie --------------------------------------------------- */

static const rp_kernel *honest;
static int calls, spoilt_call;
static double spoil;
static rp_tensor *victim;

/* Adds `spoil` to element 2 of its output when called for the time that
   spoilt_call says. */
static rp_status lie(const rp_kernel_args *args) {
  const rp_status status = honest->run(args);
  if (++calls == spoilt_call) ((double *)args->out[0].data)[2] += spoil;
  return status;
}

/* Writes a leaf in passing, behind the library's back. */
static rp_status tamper(const rp_kernel_args *args) {
  ((double *)rp_root_data(victim))[7] += 1;
  return honest->run(args);
}

/* The kernel of the nth node of that op becomes `run`. */
static void replace(rp_plan *plan, const char *op, int n,
                    rp_status (*run)(const rp_kernel_args *)) {
  static rp_kernel fake;
  for (int32_t i = 0; i < plan->graph.nodes.n; i++) {
    if (strcmp(plan->graph.nodes.at[i].op->name, op) != 0 || n-- > 0) continue;
    honest = plan->kernels[i].kernel;
    fake = *honest;
    fake.run = run;
    plan->kernels[i].kernel = &fake;
    calls = 0;
    return;
  }
  fail_msg("no node %s", op);
}

/* ---- anomalies ---------------------------------------------------------- */

static void names_the_first_infinity(void **state) {
  (void)state;
  fixture f = open_fixture(0); /* log 0 */
  assert_int_equal(rp_detect_anomaly(f.ctx, RP_ANOMALY_ANY), RP_ANOMALY_NONE);
  plan_of(&f);
  assert_refused(&f, RP_VALUE, (const char *const[]){
      "log in net made an infinity", "f64 (4,4), element 6",
      "a first run of the forward pass", NULL});
  close_fixture(&f);
}

static void names_the_first_nan(void **state) {
  (void)state;
  fixture f = open_fixture(-1); /* log -1 */
  rp_detect_anomaly(f.ctx, RP_ANOMALY_NAN);
  plan_of(&f);
  assert_refused(&f, RP_VALUE, (const char *const[]){
      "log in net made a NaN", "element 6", "first run", NULL});
  close_fixture(&f);
}

static void lets_infinities_pass_where_only_nans_count(void **state) {
  (void)state;
  fixture f = open_fixture(0);
  rp_detect_anomaly(f.ctx, RP_ANOMALY_NAN);
  plan_of(&f);
  /* tanh(-inf or inf) is finite, and so is the loss; 0 times infinity is the
     first NaN, in the gradient of w. */
  assert_refused(&f, RP_VALUE, (const char *const[]){
      "mul in net made a NaN", "element 6", "of the backward pass", NULL});
  close_fixture(&f);
}

static void blames_a_leaf(void **state) {
  (void)state;
  fixture f = open_fixture(INFINITY);
  rp_detect_anomaly(f.ctx, RP_ANOMALY_ANY);
  plan_of(&f);
  assert_refused(&f, RP_VALUE, (const char *const[]){
      "log in net made an infinity", "it reads x, which holds one already",
      NULL});
  close_fixture(&f);
}

static void tells_a_replay(void **state) {
  (void)state;
  fixture f = open_fixture(2);
  rp_detect_anomaly(f.ctx, RP_ANOMALY_ANY);
  replace(plan_of(&f), "tanh", 0, lie);
  spoilt_call = 2;
  spoil = INFINITY;
  double w[16], before[16];
  assert_int_equal(rp_tensor_read(f.w, before, sizeof before), RP_OK);
  assert_int_equal(rp_plan_run(planned, &f.request), RP_VALUE);
  assert_says(&f, (const char *const[]){
      "tanh in net made an infinity", "element 3",
      "a replay of the forward pass", NULL});
  assert_int_equal(rp_tensor_read(f.w, w, sizeof w), RP_OK);
  assert_memory_equal(w, before, sizeof w);
  close_fixture(&f);
}

static void finds_nothing_where_nothing_is(void **state) {
  (void)state;
  fixture f = open_fixture(2);
  rp_detect_anomaly(f.ctx, RP_ANOMALY_ANY);
  assert_false(rp_verify_replay(f.ctx, true));
  plan_of(&f);
  assert_int_equal(rp_plan_run(planned, &f.request), RP_OK);
  assert_int_equal(rp_optimizer_step_count(f.opt), 1);
  assert_int_equal(rp_detect_anomaly(f.ctx, RP_ANOMALY_NONE), RP_ANOMALY_ANY);
  assert_true(rp_verify_replay(f.ctx, false));
  close_fixture(&f);
}

static void finds_it_in_every_place(void **state) {
  (void)state;
  rp_context *ctx = rp_context_new();
  rp_detect_anomaly(ctx, RP_ANOMALY_NAN);
  enum { N = 50000 };
  static float data[N];
  const rp_type type = {.dtype = RP_F32, .rank = 1, .dims = {N}};
  const int at[] = {0, 1, 8191, 8192, 20000, 49151, 49152, N - 1};
  for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
    rp_tensor *x = rp_leaf(ctx, RP_INPUT, &type);
    memset(data, 0, sizeof data);
    data[at[i]] = NAN;
    if (at[i] + 3 < N) data[at[i] + 3] = NAN;
    assert_int_equal(rp_leaf_write(x, data, sizeof data), RP_OK);
    rp_tensor *y = unary(ctx, "neg", x);
    char want[64];
    snprintf(want, sizeof want, "element %d,", at[i] + 1);
    assert_int_equal(rp_tensor_read(y, data, sizeof data), RP_VALUE);
    assert_non_null(strstr(rp_message(ctx), want));
    rp_tensor_release(y);
    rp_tensor_release(x);
  }
  rp_context_free(ctx);
}

/* ---- replays ------------------------------------------------------------ */

static void catches_an_op_that_is_not_deterministic(void **state) {
  (void)state;
  fixture f = open_fixture(2);
  rp_verify_replay(f.ctx, true);
  replace(plan_of(&f), "tanh", 0, lie);
  double before[16], after[16];
  assert_int_equal(rp_tensor_read(f.w, before, sizeof before), RP_OK);
  spoilt_call = 2;
  spoil = 0x1p-50; /* the least difference there */
  assert_int_equal(rp_plan_run(planned, &f.request), RP_INTERNAL);
  assert_says(&f, (const char *const[]){
      "[verify_replay] tanh in net", "f64 (4,4)", "not deterministic", NULL});
  assert_int_equal(rp_tensor_read(f.w, after, sizeof after), RP_OK);
  assert_memory_equal(before, after, sizeof before);
  assert_int_equal(rp_optimizer_step_count(f.opt), 0);
  close_fixture(&f);
}

static void does_not_see_the_lie_when_off(void **state) {
  (void)state;
  fixture f = open_fixture(2);
  replace(plan_of(&f), "tanh", 0, lie);
  spoilt_call = 2;
  spoil = 1;
  assert_int_equal(rp_plan_run(planned, &f.request), RP_OK);
  close_fixture(&f);
}

static void catches_a_changed_buffer(void **state) {
  (void)state;
  fixture f = open_fixture(2);
  rp_verify_replay(f.ctx, true);
  victim = f.b;
  replace(plan_of(&f), "sum", 0, tamper); /* between first runs and replays */
  assert_int_equal(rp_plan_run(planned, &f.request), RP_INTERNAL);
  assert_says(&f, (const char *const[]){
      "[verify_replay] add in net", "it reads statistics, whose bytes were "
      "changed", NULL});
  close_fixture(&f);
}

static void catches_a_changed_parameter(void **state) {
  (void)state;
  fixture f = open_fixture(2);
  assert_int_equal(rp_leaf_set_name(f.w, "weight"), RP_OK);
  rp_verify_replay(f.ctx, true);
  victim = f.w;
  replace(plan_of(&f), "sum", 0, tamper);
  assert_int_equal(rp_plan_run(planned, &f.request), RP_INTERNAL);
  assert_says(&f, (const char *const[]){
      "[verify_replay] mul in net", "it reads weight, whose bytes were "
      "changed", NULL});
  close_fixture(&f);
}

/* ---- what it stands on -------------------------------------------------- */

static void fingerprints_see_every_bit(void **state) {
  (void)state;
  enum { BYTES = 3 * 65536 + 77 };
  static unsigned char bytes[BYTES];
  for (int i = 0; i < BYTES; i++) bytes[i] = (unsigned char)(i * 131 + i / 7);
  const uint64_t want = rp_fingerprint(bytes, BYTES);
  assert_int_equal(rp_fingerprint(bytes, BYTES), want);
  assert_int_not_equal(rp_fingerprint(bytes, BYTES - 1), want);
  for (int i = 0; i < BYTES; i += i % 4 ? 61 : 1) {
    bytes[i] ^= (unsigned char)(1 << i % 8);
    assert_int_not_equal(rp_fingerprint(bytes, BYTES), want);
    bytes[i] ^= (unsigned char)(1 << i % 8);
  }
  /* Pieces that change places are seen too. */
  static unsigned char swapped[2 * 65536];
  memcpy(swapped, bytes + 65536, 65536);
  memcpy(swapped + 65536, bytes, 65536);
  assert_int_not_equal(rp_fingerprint(swapped, sizeof swapped),
                       rp_fingerprint(bytes, sizeof swapped));
}

static void effects_come_last(void **state) {
  (void)state;
  fixture f = open_fixture(2);
  rp_verify_replay(f.ctx, true);
  const rp_plan *plan = plan_of(&f);
  bool effect = false;
  for (int32_t i = 0; i < plan->program.instructions.n; i++) {
    const rp_instruction *at = &plan->program.instructions.at[i];
    if (at->opcode != RP_OP_RUN) continue;
    if (plan->graph.nodes.at[at->node].op->flags & RP_EFFECT) effect = true;
    else assert_false(effect);
  }
  assert_true(effect);
  rp_plan *other = planned;
  rp_verify_replay(f.ctx, false);
  assert_ptr_not_equal(plan_of(&f), other);
  rp_plan_release(other);
  close_fixture(&f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names_the_first_infinity),
      cmocka_unit_test(names_the_first_nan),
      cmocka_unit_test(lets_infinities_pass_where_only_nans_count),
      cmocka_unit_test(blames_a_leaf),
      cmocka_unit_test(tells_a_replay),
      cmocka_unit_test(finds_nothing_where_nothing_is),
      cmocka_unit_test(finds_it_in_every_place),
      cmocka_unit_test(catches_an_op_that_is_not_deterministic),
      cmocka_unit_test(does_not_see_the_lie_when_off),
      cmocka_unit_test(catches_a_changed_buffer),
      cmocka_unit_test(catches_a_changed_parameter),
      cmocka_unit_test(fingerprints_see_every_bit),
      cmocka_unit_test(effects_come_last),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
