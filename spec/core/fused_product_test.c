/* Products in tiles by hand: to the bits of the ops one by one, for what is
   made in front and behind, on any number of threads, inside the workspace that
   was asked for. */
#include "kernel.h"

enum { OPERANDS = 8, MOST_RUNS = 4 };

/* What one case is: parts in front of the operand `made`, the product, one part
   behind. Sizes that no tile divides. */
typedef struct fused_case {
  const char *front, *product, *behind;
  int made; /* the product's operand; -1 none */
  bool turned;
  int64_t m, k, n;
} fused_case;

static const fused_case cases[] = {
    {"gelu", "linear", NULL, 0, false, 1100, 517, 96},
    {"mul", "linear", "add", 0, false, 1029, 400, 310},
    {"gelu", "matmul", "mul", 0, false, 800, 1200, 64},
    {"gelu", "matmul", NULL, 0, true, 1500, 333, 96},
    {"mul", "matmul", "gelu_grad", 0, true, 1000, 700, 120},
    {"gelu", "matmul", NULL, 1, false, 200, 901, 1201},
    {"mul", "matmul", NULL, 1, false, 61, 1203, 1021},
    {NULL, "matmul", "gelu_grad", -1, false, 2051, 100, 515},
    {NULL, "linear", "gelu", -1, false, 1300, 64, 1000},
    {NULL, "linear", "add", -1, false, 1300, 64, 1000},
};

static rp_array seen_turned(rp_array x) {
  const int64_t rows = x.type.dims[0];
  x.type.dims[0] = x.type.dims[1];
  x.type.dims[1] = rows;
  x.strides[0] = 1;
  x.strides[1] = x.type.dims[0];
  return x;
}

static rp_array matrix(int64_t rows, int64_t columns, uint64_t seed) {
  return array_random(RP_F32, 2, (int64_t[]){rows, columns}, seed);
}

/* The op alone. */
static rp_array apply(rp_context *ctx, const char *op, rp_array a,
                      const rp_array *b, const rp_array *c, int threads) {
  call one = {.op = op, .in = {a}, .n_in = 1, .over = -1, .ctx = ctx};
  if (b) one.in[one.n_in++] = *b;
  if (c) one.in[one.n_in++] = *c;
  assert_int_equal(call_run(&one, threads), RP_OK);
  return one.out[0];
}

typedef struct built {
  rp_fusion fusion;
  rp_array in[OPERANDS], out;
  int n_in;
  int behind_in; /* the operand that the output may lie over, -1 */
} built;

static int add_operand(built *b, rp_array x) {
  b->in[b->n_in] = x;
  return b->n_in++;
}

static bool is_pair(const char *op) {
  return strcmp(op, "gelu") != 0;
}

/* Builds the case and computes what it must give. */
static rp_array build(rp_context *ctx, const fused_case *c, built *b,
                      int threads) {
  memset(b, 0, sizeof *b);
  b->behind_in = -1;
  const bool linear = strcmp(c->product, "linear") == 0;
  rp_array made = {0}, source = {0}, with = {0};
  rp_array x[3] = {c->turned ? seen_turned(matrix(c->k, c->m, 1))
                             : matrix(c->m, c->k, 1),
                   linear ? matrix(c->n, c->k, 2) : matrix(c->k, c->n, 2)};
  rp_part product = {.op = rp_op_find(c->product), .n_in = 2};
  if (linear) {
    x[2] = array_random(RP_F32, 1, &c->n, 3);
    product.n_in = 3;
  }
  for (int k = 0; k < product.n_in; k++)
    product.in[k] = k == c->made ? -1 : add_operand(b, x[k]);
  if (c->front) {
    const rp_array seen = x[c->made];
    source = c->turned ? seen_turned(seen) : seen;
    rp_part part = {.op = rp_op_find(c->front), .n_in = 1,
                    .type = source.type};
    part.in[0] = add_operand(b, source);
    if (is_pair(c->front)) { /* a row for all */
      with = array_random(RP_F32, 1, &source.type.dims[1], 4);
      part.in[part.n_in++] = add_operand(b, with);
    }
    b->fusion.parts[b->fusion.n++] = part;
    b->fusion.product = 1;
    b->fusion.made = seen.type;
    memcpy(b->fusion.made_strides.at, seen.strides, sizeof seen.strides);
    made = apply(ctx, c->front, source, is_pair(c->front) ? &with : NULL, NULL,
                 threads);
    x[c->made] = c->turned ? seen_turned(made) : made;
  }
  rp_array y = apply(ctx, c->product, x[0], &x[1], linear ? &x[2] : NULL,
                     threads);
  free(made.data);
  product.type = y.type;
  b->fusion.parts[b->fusion.n++] = product;
  if (c->behind) {
    rp_part part = {.op = rp_op_find(c->behind), .n_in = 1, .type = y.type};
    part.in[0] = -1 - b->fusion.product;
    rp_array other = {0};
    if (is_pair(c->behind)) {
      other = matrix(c->m, c->n, 5);
      b->behind_in = add_operand(b, other);
      part.in[part.n_in++] = b->behind_in;
    }
    b->fusion.parts[b->fusion.n++] = part;
    const rp_array whole = apply(ctx, c->behind, y,
                                 is_pair(c->behind) ? &other : NULL, NULL,
                                 threads);
    free(y.data);
    y = whole;
  }
  return y;
}

static void check(rp_context *ctx, const built *b, const rp_array *want,
                  int threads, bool over) {
  rp_array in[OPERANDS], out = array_like(&want->type);
  memcpy(in, b->in, sizeof in);
  if (over) {
    memcpy(out.data, in[b->behind_in].data,
           (size_t)rp_type_bytes(&want->type));
    in[b->behind_in].data = out.data;
  }
  const rp_kernel *row = kernel_of(&rp_op_fused_product, RP_F32);
  rp_kernel_args args = {.in = in, .out = &out, .n_in = b->n_in, .n_out = 1,
                         .fusion = &b->fusion, .ctx = ctx};
  int64_t bytes = 0;
  omp_set_num_threads(threads);
  assert_int_equal(row->prepare(&args, &args.state, &bytes), RP_OK);
  args.workspace = guarded_alloc(bytes);
  assert_int_equal(row->run(&args), RP_OK);
  guard_check(args.workspace, bytes);
  guard_check(out.data, rp_type_bytes(&want->type));
  assert_memory_equal(out.data, want->data,
                      (size_t)rp_type_bytes(&want->type));
  free(args.workspace);
  row->destroy(args.state);
  free(out.data);
}

static void has_the_bits_of_the_ops(void **state) {
  (void)state;
  static const int threads[MOST_RUNS] = {1, 2, 3, 8};
  const int before = omp_get_max_threads();
  rp_context *ctx = rp_context_new();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (int t = 0; t < MOST_RUNS; t++) {
      built b;
      omp_set_num_threads(threads[t]);
      rp_array want = build(ctx, &cases[i], &b, threads[t]);
      check(ctx, &b, &want, threads[t], false);
      if (b.behind_in >= 0) check(ctx, &b, &want, threads[t], true);
      for (int j = 0; j < b.n_in; j++) free(b.in[j].data);
      free(want.data);
    }
  omp_set_num_threads(before);
  rp_context_free(ctx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(has_the_bits_of_the_ops),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
