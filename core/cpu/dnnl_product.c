/* oneDNN 2.6 multiplies matrices whose dims lie densely, in any order of
   dims, with its BRGEMM kernels, whose scratch is the workspace. Where an
   operand's leading stride leaves a gap (a narrowed view) it uses its packed
   GEMM, just as fast, whose pack buffers (a few MiB while it runs) are its
   own. What neither takes it would do by reference, 1000 times slower; then
   outer batch dims become a loop here until one of them does. */
#include "cpu/dnnl.h"

#include <stdatomic.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "cpu/dnnl_library.h"
#include "exec/product.h"

typedef enum operand { OPERAND_A, OPERAND_B, OPERAND_Y } operand;

struct rp_dnnl_product {
  rp_context *ctx;
  rp_product product;
  dnnl_data_type_t type[3]; /* by operand */
  dnnl_data_type_t bias_type;
  bool has_bias, adds; /* adds: to what y holds */
  int32_t loops;              /* the first batch dims, looped over here */
  dnnl_primitive_t primitive; /* NULL: empty, or k is 0 */
  dnnl_memory_t a, b, bias, y, scratchpad;
};

/* ---- descriptors -------------------------------------------------------- */

static int64_t step(const rp_product_dim *dim, operand which) {
  return which == OPERAND_A ? dim->a : which == OPERAND_B ? dim->b : dim->y;
}

/* The descriptor of one operand: the batch dims from `loops` on, then the
   matrix. A dim over which the operand stays has size 1 there. */
static dnnl_status_t describe(const rp_dnnl_product *product, int loops,
                              operand which, dnnl_memory_desc_t *out) {
  const rp_product *p = &product->product;
  const int64_t *matrix = which == OPERAND_A   ? p->a
                          : which == OPERAND_B ? p->b
                                               : p->y;
  dnnl_dims_t dims, strides;
  const int rank = p->n_batch - loops + 2;
  dims[rank - 2] = which == OPERAND_B ? p->k : p->m;
  dims[rank - 1] = which == OPERAND_A ? p->k : p->n;
  strides[rank - 2] = matrix[0];
  strides[rank - 1] = matrix[1];
  int64_t extent = matrix[1] == 1 ? dims[rank - 2] * matrix[0]
                                  : dims[rank - 1] * matrix[1];
  for (int i = rank - 3; i >= 0; i--) {
    const rp_product_dim *dim = &p->batch[loops + i];
    const int64_t s = step(dim, which);
    dims[i] = s == 0 ? 1 : dim->count;
    strides[i] = s == 0 ? extent : s;
    if (dims[i] * strides[i] > extent) extent = dims[i] * strides[i];
  }
  return dnnl_memory_desc_init_by_strides(out, rank, dims,
                                          product->type[which], strides);
}

static dnnl_status_t describe_bias(const rp_dnnl_product *product, int loops,
                                   dnnl_memory_desc_t *out) {
  const rp_product *p = &product->product;
  dnnl_dims_t dims, strides;
  const int rank = p->n_batch - loops + 2;
  for (int i = 0; i < rank; i++) dims[i] = 1, strides[i] = p->n;
  dims[rank - 1] = p->n;
  strides[rank - 1] = 1;
  return dnnl_memory_desc_init_by_strides(out, rank, dims, product->bias_type,
                                          strides);
}

/* ---- primitives --------------------------------------------------------- */

static bool is_reference(const_dnnl_primitive_desc_t descriptor) {
  const char *name = "";
  const dnnl_status_t status = dnnl_primitive_desc_query(
      descriptor, dnnl_query_impl_info_str, 0, &name);
  return status == dnnl_success && strncmp(name, "ref", 3) == 0;
}

static void release(rp_dnnl_product *p) {
  if (p->primitive) dnnl_primitive_destroy(p->primitive);
  dnnl_memory_t *const memories[] = {&p->a, &p->b, &p->bias, &p->y,
                                     &p->scratchpad};
  for (size_t i = 0; i < sizeof memories / sizeof *memories; i++) {
    if (*memories[i]) dnnl_memory_destroy(*memories[i]);
    *memories[i] = NULL;
  }
  p->primitive = NULL;
}

/* The primitive writes y += a b. */
static dnnl_status_t set_adding(dnnl_primitive_attr_t attr) {
  dnnl_post_ops_t post_ops = NULL;
  dnnl_status_t status = dnnl_post_ops_create(&post_ops);
  if (!status) status = dnnl_post_ops_append_sum(post_ops, 1);
  if (!status) status = dnnl_primitive_attr_set_post_ops(attr, post_ops);
  if (post_ops) dnnl_post_ops_destroy(post_ops);
  return status;
}

/* Makes the primitive and its memory objects with the first `loops` batch
   dims left to the loop. dnnl_unimplemented: looping over one dim more would
   be better; nothing is made then. */
static dnnl_status_t make_primitive(rp_dnnl_product *p, int loops,
                                    int64_t *scratchpad_bytes) {
  const bool last_chance = loops == p->product.n_batch;
  dnnl_memory_desc_t a, b, bias, y;
  dnnl_matmul_desc_t operation;
  dnnl_primitive_attr_t attr = NULL;
  dnnl_primitive_desc_t descriptor = NULL;

  dnnl_status_t status = describe(p, loops, OPERAND_A, &a);
  if (!status) status = describe(p, loops, OPERAND_B, &b);
  if (!status) status = describe(p, loops, OPERAND_Y, &y);
  if (!status) status = describe_bias(p, loops, &bias);
  if (!status)
    status = dnnl_matmul_desc_init(&operation, &a, &b,
                                   p->has_bias ? &bias : NULL, &y);
  if (!status) status = dnnl_primitive_attr_create(&attr);
  if (!status)
    status = dnnl_primitive_attr_set_scratchpad_mode(
        attr, dnnl_scratchpad_mode_user);
  if (!status && p->adds) status = set_adding(attr);
  if (!status)
    status = dnnl_primitive_desc_create(&descriptor, &operation, attr,
                                        rp_dnnl.engine, NULL);
  if (!status && !last_chance && is_reference(descriptor))
    status = dnnl_unimplemented;
  if (!status) {
    const dnnl_memory_desc_t *scratchpad = dnnl_primitive_desc_query_md(
        descriptor, dnnl_query_scratchpad_md, 0);
    *scratchpad_bytes = (int64_t)dnnl_memory_desc_get_size(scratchpad);
    if (*scratchpad_bytes > 0)
      status = rp_dnnl_memory(scratchpad, &p->scratchpad);
  }
  if (!status) status = rp_dnnl_memory(&a, &p->a);
  if (!status) status = rp_dnnl_memory(&b, &p->b);
  if (!status) status = rp_dnnl_memory(&y, &p->y);
  if (!status && p->has_bias) status = rp_dnnl_memory(&bias, &p->bias);
  if (!status) status = dnnl_primitive_create(&p->primitive, descriptor);
  if (descriptor) dnnl_primitive_desc_destroy(descriptor);
  if (attr) dnnl_primitive_attr_destroy(attr);
  if (status) release(p);
  /* Overlapping batch strides, and a dim over which neither a nor b moves,
     are refused as an invalid argument. */
  if (status == dnnl_invalid_arguments && !last_chance)
    status = dnnl_unimplemented;
  return status;
}

static rp_dnnl_product *product_new(rp_context *ctx, const rp_array *a,
                                    const rp_array *b, const rp_array *bias,
                                    const rp_array *y, bool adds,
                                    int64_t *workspace_bytes) {
  if (rp_dnnl_open(ctx) != RP_OK) return NULL;
  rp_dnnl_product *p = rp_alloc(ctx, sizeof *p);
  if (p == NULL) return NULL;
  p->ctx = ctx;
  p->product = rp_product_from(a, b, y);
  p->type[OPERAND_A] = rp_dnnl_type(&a->type);
  p->type[OPERAND_B] = rp_dnnl_type(&b->type);
  p->type[OPERAND_Y] = rp_dnnl_type(&y->type);
  p->has_bias = bias != NULL;
  p->bias_type = bias ? rp_dnnl_type(&bias->type) : dnnl_f32;
  p->adds = adds;
  *workspace_bytes = 0;
  if (p->product.empty || p->product.k == 0) return p;

  dnnl_status_t status = dnnl_unimplemented;
  for (p->loops = 0; p->loops <= p->product.n_batch; p->loops++) {
    status = make_primitive(p, p->loops, workspace_bytes);
    if (status != dnnl_unimplemented) break;
  }
  if (rp_dnnl_check(ctx, status, "prepare a matrix product") != RP_OK) {
    rp_dnnl_product_free(p);
    return NULL;
  }
  return p;
}

rp_dnnl_product *rp_dnnl_product_new(rp_context *ctx, const rp_array *a,
                                     const rp_array *b, const rp_array *bias,
                                     const rp_array *y,
                                     int64_t *workspace_bytes) {
  return product_new(ctx, a, b, bias, y, false, workspace_bytes);
}

rp_dnnl_product *rp_dnnl_product_new_adding(rp_context *ctx, const rp_array *a,
                                            const rp_array *b,
                                            const rp_array *y,
                                            int64_t *workspace_bytes) {
  return product_new(ctx, a, b, NULL, y, true, workspace_bytes);
}

void rp_dnnl_product_free(rp_dnnl_product *p) {
  if (p == NULL) return;
  release(p);
  rp_free(p->ctx, p, sizeof *p);
}

/* ---- running ------------------------------------------------------------ */

typedef struct execution {
  const rp_dnnl_product *p;
  rp_context *ctx;
  const void *a, *b;
  void *y;
  dnnl_exec_arg_t args[5];
  int n_args;
} execution;

/* Element i of an operand. */
static void *element(const rp_dnnl_product *p, operand which, const void *data,
                     int64_t i) {
  return (char *)data + i * (p->type[which] == dnnl_bf16 ? 2 : 4);
}

static rp_status execute(void *user, int64_t a, int64_t b, int64_t y) {
  const execution *e = user;
  const rp_dnnl_product *p = e->p;
  dnnl_status_t status =
      dnnl_memory_set_data_handle(p->a, element(p, OPERAND_A, e->a, a));
  if (!status)
    status =
        dnnl_memory_set_data_handle(p->b, element(p, OPERAND_B, e->b, b));
  if (!status)
    status =
        dnnl_memory_set_data_handle(p->y, element(p, OPERAND_Y, e->y, y));
  if (!status)
    status = dnnl_primitive_execute(p->primitive, rp_dnnl.stream, e->n_args,
                                    e->args);
  return rp_dnnl_check(e->ctx, status, "run a matrix product");
}

/* y = bias or 0: the product over no k. */
typedef struct filling {
  const rp_dnnl_product *p;
  const void *bias;
  void *y;
} filling;

static float load_bias(const filling *f, int64_t j) {
  if (f->bias == NULL) return 0;
  if (f->p->bias_type == dnnl_f32) return ((const float *)f->bias)[j];
  return rp_bf16_to_f32(((const uint16_t *)f->bias)[j]);
}

static rp_status fill(void *user, int64_t a, int64_t b, int64_t y) {
  (void)a, (void)b;
  const filling *f = user;
  const rp_product *p = &f->p->product;
  for (int64_t i = 0; i < p->m; i++)
    for (int64_t j = 0; j < p->n; j++) {
      void *at = element(f->p, OPERAND_Y, f->y, y + i * p->y[0] + j * p->y[1]);
      if (f->p->type[OPERAND_Y] == dnnl_f32) *(float *)at = load_bias(f, j);
      else *(uint16_t *)at = rp_f32_to_bf16(load_bias(f, j));
    }
  return RP_OK;
}

rp_status rp_dnnl_product_run(rp_dnnl_product *p, rp_context *ctx,
                              const void *a, const void *b, const void *bias,
                              void *y, void *workspace) {
  if (p->product.empty) return RP_OK;
  if (p->primitive == NULL) {
    if (p->adds) return RP_OK;
    filling f = {p, bias, y};
    return rp_product_loop(&p->product, p->product.n_batch, fill, &f);
  }
  execution e = {
      .p = p, .ctx = ctx, .a = a, .b = b, .y = y,
      .args = {{DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, p->b},
               {DNNL_ARG_DST, p->y}},
      .n_args = 3,
  };
  dnnl_status_t status = dnnl_success;
  if (p->bias) {
    e.args[e.n_args++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, p->bias};
    status = dnnl_memory_set_data_handle(p->bias, (void *)bias);
  }
  if (!status && p->scratchpad) {
    e.args[e.n_args++] =
        (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, p->scratchpad};
    status = dnnl_memory_set_data_handle(p->scratchpad, workspace);
  }
  if (status) return rp_dnnl_check(ctx, status, "run a matrix product");
  return rp_product_loop(&p->product, p->loops, execute, &e);
}

/* ---- warm-up ------------------------------------------------------------ */

static rp_array warm_up_array(float *data, int64_t rows, int64_t columns,
                              int64_t leading) {
  return (rp_array){data, {RP_F32, 2, {rows, columns}}, {leading, 1}};
}

/* Once a process. Best effort: a failure here is found again, and said, where
   it matters. */
rp_status rp_dnnl_warm_up(rp_device *device) {
  enum { SIZE = 256 };
  rp_context *ctx = device->ctx;
  static atomic_flag warm = ATOMIC_FLAG_INIT;
  if (atomic_flag_test_and_set(&warm)) return RP_OK;
  static const int64_t leading[2] = {SIZE, SIZE + 16};
  const int64_t bytes = (int64_t)sizeof(float) * SIZE * leading[1];
  int64_t workspace_bytes = 0;
  float *x = rp_storage_alloc(device, bytes);
  float *y = rp_storage_alloc(device, bytes);
  if (x && y) memset(x, 0, (size_t)bytes);
  for (int i = 0; x && y && i < 2; i++) {
    const rp_array in = warm_up_array(x, SIZE, SIZE, leading[i]);
    const rp_array out = warm_up_array(y, SIZE, SIZE, SIZE);
    rp_dnnl_product *p =
        rp_dnnl_product_new(ctx, &in, &in, NULL, &out, &workspace_bytes);
    void *workspace = rp_storage_alloc(device, workspace_bytes);
    if (p && workspace)
      (void)rp_dnnl_product_run(p, ctx, x, x, NULL, y, workspace);
    rp_storage_free(device, workspace, workspace_bytes);
    rp_dnnl_product_free(p);
  }
  rp_storage_free(device, y, bytes);
  rp_storage_free(device, x, bytes);
  device->storage.peak = device->storage.bytes;
  rp_clear_error(ctx);
  return RP_OK;
}
