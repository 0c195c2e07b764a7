/* Matrix products: f32 and bf16 by oneDNN, f64 by CBLAS, over the operands'
   own strides. */
#include <cblas.h>
#include <limits.h>

#include "base/memory.h"
#include "base/status.h"
#include "cpu/dnnl.h"
#include "cpu/mixed_product.h"
#include "cpu/parallel.h"
#include "exec/product.h"
#include "graph/op.h"

/* y = a b (+ bias) as arrays. */
typedef struct operands {
  rp_array a, b, y;
  const rp_array *bias;
} operands;

static operands matmul_operands(const rp_kernel_args *args) {
  return (operands){args->in[0], args->in[1], args->out[0], NULL};
}

static operands linear_operands(const rp_kernel_args *args) {
  return (operands){rp_at_least_a_row(args->in[0]),
                    rp_matrix_transposed(args->in[1]),
                    rp_at_least_a_row(args->out[0]),
                    args->n_in > 2 ? &args->in[2] : NULL};
}

/* ---- f32 ---------------------------------------------------------------- */

static rp_status prepare_f32(const rp_kernel_args *args, const operands *o,
                             void **state, int64_t *workspace_bytes) {
  *state = rp_dnnl_product_new(args->ctx, &o->a, &o->b, o->bias, &o->y,
                               workspace_bytes);
  return *state ? RP_OK : rp_last_status(args->ctx);
}

static rp_status matmul_prepare_f32(const rp_kernel_args *args, void **state,
                                    int64_t *workspace_bytes) {
  const operands o = matmul_operands(args);
  return prepare_f32(args, &o, state, workspace_bytes);
}

static rp_status linear_prepare_f32(const rp_kernel_args *args, void **state,
                                    int64_t *workspace_bytes) {
  const operands o = linear_operands(args);
  return prepare_f32(args, &o, state, workspace_bytes);
}

static rp_status run_f32(const rp_kernel_args *args) {
  return rp_dnnl_product_run(args->state, args->ctx, args->in[0].data,
                             args->in[1].data,
                             args->n_in > 2 ? args->in[2].data : NULL,
                             args->out[0].data, args->workspace);
}

static void destroy_f32(void *state) { rp_dnnl_product_free(state); }

/* ---- bf16 --------------------------------------------------------------- */

static rp_status prepare_bf16(const rp_kernel_args *args, const operands *o,
                              void **state, int64_t *workspace_bytes) {
  *state = rp_mixed_product_new(args->ctx, &o->a, &o->b, o->bias, &o->y,
                                false, workspace_bytes);
  return *state ? RP_OK : rp_last_status(args->ctx);
}

static rp_status matmul_prepare_bf16(const rp_kernel_args *args, void **state,
                                     int64_t *workspace_bytes) {
  const operands o = matmul_operands(args);
  return prepare_bf16(args, &o, state, workspace_bytes);
}

static rp_status linear_prepare_bf16(const rp_kernel_args *args, void **state,
                                     int64_t *workspace_bytes) {
  const operands o = linear_operands(args);
  return prepare_bf16(args, &o, state, workspace_bytes);
}

static rp_status matmul_bf16(const rp_kernel_args *args) {
  const operands o = matmul_operands(args);
  return rp_mixed_product_run(args->state, args->ctx, &o.a, &o.b, NULL, &o.y,
                              args->workspace);
}

static rp_status linear_bf16(const rp_kernel_args *args) {
  const operands o = linear_operands(args);
  return rp_mixed_product_run(args->state, args->ctx, &o.a, &o.b, o.bias,
                              &o.y, args->workspace);
}

static void destroy_bf16(void *state) { rp_mixed_product_free(state); }

/* ---- f64 ---------------------------------------------------------------- */

typedef struct product_f64 {
  rp_product product;
  const double *a, *b, *bias;
  double *y;
} product_f64;

/* Bias after the product, as a sum of its own: its bits are those of the
   separate ops. */
static rp_status matrix_f64(void *user, int64_t a, int64_t b, int64_t y) {
  const product_f64 *f = user;
  const rp_product *p = &f->product;
  double *out = f->y + y;
  if (p->k == 0) {
    for (int64_t i = 0; i < p->m; i++)
      for (int64_t j = 0; j < p->n; j++) out[i * p->y[0] + j] = 0;
  } else {
    const bool ta = p->a[1] != 1, tb = p->b[1] != 1;
    cblas_dgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans,
                tb ? CblasTrans : CblasNoTrans, (int)p->m, (int)p->n,
                (int)p->k, 1.0, f->a + a, (int)p->a[ta ? 1 : 0], f->b + b,
                (int)p->b[tb ? 1 : 0], 0.0, out, (int)p->y[0]);
  }
  if (f->bias == NULL) return RP_OK;
#pragma omp parallel for schedule(static) if (rp_worth(p->m * p->n))
  for (int64_t i = 0; i < p->m; i++)
    for (int64_t j = 0; j < p->n; j++) out[i * p->y[0] + j] += f->bias[j];
  return RP_OK;
}

static rp_status run_f64(const operands *o) {
  product_f64 f = {.product = rp_product_from(&o->a, &o->b, &o->y),
                   .a = o->a.data, .b = o->b.data, .y = o->y.data,
                   .bias = o->bias ? o->bias->data : NULL};
  if (f.product.empty) return RP_OK;
  return rp_product_loop(&f.product, f.product.n_batch, matrix_f64, &f);
}

/* CBLAS counts in int. */
static rp_status prepare_f64(const rp_kernel_args *args, const operands *o) {
  const rp_product p = rp_product_from(&o->a, &o->b, &o->y);
  const int64_t sizes[] = {p.m,    p.n,    p.k,    p.a[0], p.a[1],
                           p.b[0], p.b[1], p.y[0], p.y[1]};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (sizes[i] > INT_MAX)
      return rp_fail(args->ctx, RP_UNSUPPORTED,
                     "a product of f64 matrices with a dim or stride of %lld: "
                     "at most %d", (long long)sizes[i], INT_MAX);
  return RP_OK;
}

static rp_status matmul_prepare_f64(const rp_kernel_args *args, void **state,
                                    int64_t *workspace_bytes) {
  *state = NULL;
  *workspace_bytes = 0;
  const operands o = matmul_operands(args);
  return prepare_f64(args, &o);
}

static rp_status linear_prepare_f64(const rp_kernel_args *args, void **state,
                                    int64_t *workspace_bytes) {
  *state = NULL;
  *workspace_bytes = 0;
  const operands o = linear_operands(args);
  return prepare_f64(args, &o);
}

static rp_status matmul_f64(const rp_kernel_args *args) {
  const operands o = matmul_operands(args);
  return run_f64(&o);
}

static rp_status linear_f64(const rp_kernel_args *args) {
  const operands o = linear_operands(args);
  return run_f64(&o);
}

extern const rp_op rp_op_matmul, rp_op_linear;

static const rp_kernel rows[] = {
    {&rp_op_matmul, RP_F32, run_f32, matmul_prepare_f32, destroy_f32},
    {&rp_op_matmul, RP_F64, matmul_f64, matmul_prepare_f64, NULL},
    {&rp_op_matmul, RP_BF16, matmul_bf16, matmul_prepare_bf16, destroy_bf16},
    {&rp_op_linear, RP_BF16, linear_bf16, linear_prepare_bf16, destroy_bf16},
    {&rp_op_linear, RP_F32, run_f32, linear_prepare_f32, destroy_f32},
    {&rp_op_linear, RP_F64, linear_f64, linear_prepare_f64, NULL},
};

const rp_kernel_table rp_cpu_matmul = {rows, sizeof rows / sizeof *rows};
