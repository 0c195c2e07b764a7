/* Optimizer steps against PyTorch 2's own numbers, accumulate and assign; the
   rules' words. */
#include "blocks.h"

#include <math.h>
#include <omp.h>

#include "graph/op.h"

extern const rp_kernel_table rp_cpu_update;
extern const rp_op rp_op_sgd, rp_op_sgd_momentum, rp_op_adam, rp_op_adamw,
    rp_op_accumulate, rp_op_assign;

enum { WIDE = 3, STEPS = 3 };

static const double first[WIDE] = {0.5, -1.25, 2.0};
static const double grads[STEPS][WIDE] = {
    {0.1, -0.2, 0.3}, {-0.4, 0.05, 1e-3}, {2.0, 0.7, -0.6}};

/* Parameters after each step, by torch.optim in float64, foreach=False. */
static const struct {
  const rp_op *op;
  double numbers[6];
  double after[STEPS][WIDE];
} cases[] = {
    {&rp_op_sgd,
     {0.1, 0.01},
     {{0.4895, -1.22875, 1.968},
      {0.5290105, -1.23252125, 1.965932},
      {0.32848148950000006, -1.3012887287500001, 2.023966068}}},
    {&rp_op_sgd_momentum,
     {0.1, 0.9, 0.2, 0.01, 0},
     {{0.4895, -1.22875, 1.968},
      {0.5116584, -1.212642, 1.9375456},
      {0.37119163327999993, -1.2531746864, 1.95658660352}}},
    {&rp_op_sgd_momentum,
     {0.1, 0.9, 0, 0, 1},
     {{0.481, -1.212, 1.943},
      {0.5488999999999999, -1.2053, 1.9185100000000002},
      {0.1940099999999999, -1.3277700000000001, 2.010559}}},
    {&rp_op_adam,
     {0.1, 0.9, 0.99, 1e-8, 0.01},
     {{0.4000000095238086, -1.150000004705882, 1.900000003125},
      {0.4546580294049878, -1.0972290994273288, 1.8283195164227177},
      {0.40077466422447283, -1.1458473647929288, 1.8575421753168702}}},
    {&rp_op_adam, /* lerp from the far end */
     {0.1, 0.3, 0.99, 1e-3, 0},
     {{0.400990099009901, -1.150497512437811, 1.9003322259136213},
      {0.4980644357351447, -1.1452450072152125, 1.867406475030678},
      {0.3834440359522937, -1.2634820350230689, 1.9731955018361063}}},
    {&rp_op_adamw,
     {0.1, 0.9, 0.999, 1e-8, 0.05},
     {{0.397500009999999, -1.1437500049999998, 1.8900000033333333},
      {0.45146285743512843, -1.0910844410754468, 1.813296385354594},
      {0.3953666199583162, -1.1366697069259784, 1.838147588951837}}},
};

static double get(const rp_array *x, int64_t i) {
  return x->type.dtype == RP_F32 ? ((const float *)x->data)[i]
                                 : ((const double *)x->data)[i];
}

static void set(const rp_array *x, int64_t i, double value) {
  if (x->type.dtype == RP_F32) ((float *)x->data)[i] = (float)value;
  else ((double *)x->data)[i] = value;
}

static int count_numbers(const rp_op *op) {
  int n = 0;
  while (op->numbers[n]) n++;
  return n;
}

/* A parameter of n elements, the three of `first` again and again, after
   STEPS steps of case c; after_step sees each. */
static block train(rp_context *ctx, int c, rp_dtype dtype, int64_t n,
                   void (*after_step)(int c, int step, const rp_array *)) {
  const rp_op *op = cases[c].op;
  const int n_numbers = count_numbers(op);
  block param = block_of(dtype, 1, &n, 0, 1);
  block grad = block_of(dtype, 1, &n, 0, 2);
  block states[2] = {block_of(dtype, 1, &n, 0, 3), block_of(dtype, 1, &n, 0, 4)};
  block numbers = block_of(RP_F64, 1, (int64_t[]){n_numbers + 1}, 0, 5);
  for (int64_t i = 0; i < n; i++) {
    set(&param.array, i, first[i % WIDE]);
    /* Momentum's first step does not read its state. */
    for (int k = 0; k < 2; k++)
      set(&states[k].array, i, op == &rp_op_sgd_momentum ? 5 : 0);
  }
  for (int step = 0; step < STEPS; step++) {
    for (int64_t i = 0; i < n; i++)
      set(&grad.array, i, grads[step][i % WIDE]);
    for (int i = 0; i < n_numbers; i++)
      set(&numbers.array, i, cases[c].numbers[i]);
    set(&numbers.array, n_numbers, step + 1);
    rp_array in[5] = {param.array, grad.array};
    int n_in = 2;
    for (int k = 0; k < op->states; k++) in[n_in++] = states[k].array;
    in[n_in++] = numbers.array;
    assert_int_equal(n_in, op->inputs);
    assert_int_equal(kernel_run(row_of(&rp_cpu_update, op, dtype), ctx,
                                (rp_kernel_args){.in = in, .n_in = n_in}),
                     RP_OK);
    if (after_step) after_step(c, step, &param.array);
  }
  block_free(&grad);
  block_free(&states[0]);
  block_free(&states[1]);
  block_free(&numbers);
  return param;
}

/* A few roundings of the largest term: f64 of numbers near 1; in f32 the
   gradients and constants were rounded before. */
static void assert_as_pytorch(int c, int step, const rp_array *param) {
  const double bound = param->type.dtype == RP_F32 ? 2e-6 : 1e-15;
  for (int i = 0; i < WIDE; i++) {
    const double want = cases[c].after[step][i], got = get(param, i);
    if (!(fabs(got - want) <= bound * fabs(want)))
      fail_msg("%s step %d: %.17g, not %.17g", cases[c].op->name, step + 1,
               got, want);
  }
}

static void steps_as_pytorch_does(void **state) {
  for (int c = 0; c < (int)(sizeof cases / sizeof *cases); c++)
    for (rp_dtype dtype = RP_F32; dtype <= RP_F64; dtype++) {
      block p = train(*state, c, dtype, WIDE, assert_as_pytorch);
      block_free(&p);
    }
}

/* In lanes and tails, on any thread: an element's bits depend on that element
   alone. */
static void same_bits_everywhere(void **state) {
  enum { LONG = 50021 };
  const int before = omp_get_max_threads();
  for (int c = 0; c < (int)(sizeof cases / sizeof *cases); c++)
    for (rp_dtype dtype = RP_F32; dtype <= RP_F64; dtype++)
      for (int threads = 1; threads <= 5; threads += 2) {
        omp_set_num_threads(threads);
        block few = train(*state, c, dtype, WIDE, NULL);
        block many = train(*state, c, dtype, LONG, NULL);
        for (int64_t i = 0; i < LONG; i++)
          assert_true(get(&many.array, i) == get(&few.array, i % WIDE));
        block_free(&few);
        block_free(&many);
      }
  omp_set_num_threads(before);
}

static void accumulates(void **state) {
  enum { N = 40001 };
  for (rp_dtype dtype = RP_F32; dtype <= RP_F64; dtype++) {
    block leaf = block_of(dtype, 1, (int64_t[]){N}, 0, 1);
    block old = block_of(dtype, 1, (int64_t[]){N}, 0, 1);
    block g = block_of(dtype, 1, (int64_t[]){N}, 0, 2);
    const rp_array in[2] = {leaf.array, g.array};
    assert_int_equal(
        kernel_run(row_of(&rp_cpu_update, &rp_op_accumulate, dtype), *state,
                   (rp_kernel_args){.in = in, .n_in = 2}),
        RP_OK);
    for (int64_t i = 0; i < N; i++) {
      const double sum = get(&old.array, i) + get(&g.array, i);
      assert_true(get(&leaf.array, i) ==
                  (dtype == RP_F32 ? (double)(float)sum : sum));
    }
    block_free(&leaf);
    block_free(&old);
    block_free(&g);
  }
}

static void assigns_any_strides(void **state) {
  for (rp_dtype dtype = 0; dtype < RP_DTYPES; dtype++) {
    const size_t size = rp_dtype_size(dtype);
    block leaf = block_of(dtype, 2, (int64_t[]){70, 50}, 0, 1);
    block x = block_of(dtype, 2, (int64_t[]){50, 70}, 0, 2);
    rp_array transposed = x.array;
    transposed.type = leaf.array.type;
    transposed.strides[0] = 1, transposed.strides[1] = 70;
    const rp_array in[2] = {leaf.array, transposed};
    assert_int_equal(
        kernel_run(row_of(&rp_cpu_update, &rp_op_assign, dtype), *state,
                   (rp_kernel_args){.in = in, .n_in = 2}),
        RP_OK);
    for (size_t i = 0; i < 70; i++)
      for (size_t j = 0; j < 50; j++)
        assert_memory_equal((char *)leaf.array.data + (i * 50 + j) * size,
                            (char *)x.array.data + (j * 70 + i) * size, size);
    block_free(&leaf);
    block_free(&x);
  }
}

/* Every writes bit names a state or the parameter, and every name a number. */
static void records_say_what_they_write(void **state) {
  (void)state;
  const rp_op *const ops[] = {&rp_op_sgd, &rp_op_sgd_momentum, &rp_op_adam,
                              &rp_op_adamw};
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
    const rp_op *op = ops[i];
    assert_int_equal(op->inputs, 3 + op->states);
    assert_int_equal(op->writes, 1u | ((1u << op->states) - 1) << 2);
    assert_true(op->flags & RP_EFFECT);
    assert_string_equal(op->numbers[0], "lr");
  }
}

static int setup(void **state) {
  *state = rp_context_new();
  return *state == NULL;
}

static int teardown(void **state) {
  rp_context_free(*state);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(steps_as_pytorch_does),
      cmocka_unit_test(same_bits_everywhere),
      cmocka_unit_test(accumulates),
      cmocka_unit_test(assigns_any_strides),
      cmocka_unit_test(records_say_what_they_write),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
