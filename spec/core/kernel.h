/* Calls a kernel as a program would, for tests: types by the op's rule, a
   workspace of the size prepare asks for, and guards behind everything that
   is written. */
#ifndef RP_SPEC_KERNEL_H
#define RP_SPEC_KERNEL_H

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "exec/backend.h"
#include "graph/op.h"

enum { CALL_INPUTS = 6, CALL_OUTPUTS = 4, CALL_INTS = 16, GUARD = 64 };

typedef struct call {
  const char *op;
  rp_array in[CALL_INPUTS], out[CALL_OUTPUTS];
  int n_in, n_out, n_ints, n_reals;
  int64_t ints[CALL_INTS];
  double reals[4];
  int over; /* input that output 0 is written over, -1 none */
  rp_context *ctx;
} call;

static inline void *guarded_alloc(int64_t bytes) {
  char *p = aligned_alloc(RP_ALIGN, (size_t)rp_align(bytes + GUARD));
  memset(p, 0xa5, (size_t)bytes + GUARD);
  return p;
}

static inline void guard_check(const void *p, int64_t bytes) {
  for (int i = 0; i < GUARD; i++)
    assert_int_equal(((const uint8_t *)p)[bytes + i], 0xa5);
}

static inline double get(const rp_array *a, int64_t i) {
  switch (a->type.dtype) {
    case RP_F32: return ((float *)a->data)[i];
    case RP_F64: return ((double *)a->data)[i];
    case RP_I32: return ((int32_t *)a->data)[i];
    case RP_I64: return (double)((int64_t *)a->data)[i];
    default: return ((uint8_t *)a->data)[i];
  }
}

static inline void set(rp_array *a, int64_t i, double v) {
  switch (a->type.dtype) {
    case RP_F32: ((float *)a->data)[i] = (float)v; break;
    case RP_F64: ((double *)a->data)[i] = v; break;
    case RP_I32: ((int32_t *)a->data)[i] = (int32_t)v; break;
    case RP_I64: ((int64_t *)a->data)[i] = (int64_t)v; break;
    default: ((uint8_t *)a->data)[i] = v != 0; break;
  }
}

static inline rp_array array_like(const rp_type *type) {
  rp_array a = {.type = *type};
  rp_strides s;
  rp_strides_contiguous(type, &s);
  memcpy(a.strides, s.at, sizeof a.strides);
  a.data = guarded_alloc(rp_type_bytes(type));
  return a;
}

/* In -2..2; integers in -9..9, bools. The same for the same seed. */
static inline rp_array array_random(rp_dtype dtype, int rank,
                                    const int64_t *dims, uint64_t seed) {
  rp_type type = {.dtype = dtype, .rank = rank};
  if (rank) memcpy(type.dims, dims, (size_t)rank * sizeof *dims);
  rp_array a = array_like(&type);
  uint64_t state = seed * 2654435761u + 12345;
  for (int64_t i = 0; i < rp_type_count(&type); i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const double u = (double)(state >> 40) * 0x1p-24;
    if (rp_dtype_is_float(dtype)) set(&a, i, 4 * u - 2);
    else if (dtype == RP_BOOL) set(&a, i, u < 0.5);
    else set(&a, i, floor(19 * u) - 9);
  }
  return a;
}

static inline const rp_kernel *kernel_of(const rp_op *op, rp_dtype dtype) {
  for (int t = 0; t < rp_cpu.n_tables; t++)
    for (int i = 0; i < rp_cpu.tables[t]->n; i++) {
      const rp_kernel *row = &rp_cpu.tables[t]->rows[i];
      if (row->op == op && row->dtype == dtype) return row;
    }
  return NULL;
}

/* The op's rule on a node made by hand. */
static inline rp_status call_type(call *c, rp_type *out) {
  const rp_op *op = rp_op_find(c->op);
  assert_non_null(op);
  rp_node *node = calloc(1, sizeof *node + 4 * sizeof(rp_tensor));
  rp_tensor tensors[CALL_INPUTS], *inputs[CALL_INPUTS];
  memset(tensors, 0, sizeof tensors);
  for (int i = 0; i < c->n_in; i++) {
    tensors[i].type = c->in[i].type;
    inputs[i] = &tensors[i];
  }
  node->op = op;
  node->ctx = c->ctx;
  node->inputs = inputs;
  node->n_inputs = (uint16_t)c->n_in;
  c->n_out = op->outputs < 0 ? (int)c->ints[0] : op->outputs;
  node->n_outputs = (uint16_t)c->n_out;
  node->ints = c->ints;
  node->n_ints = (uint16_t)c->n_ints;
  node->reals = c->reals;
  node->n_reals = (uint16_t)c->n_reals;
  const rp_status status = op->type(node, out);
  free(node);
  return status;
}

/* Allocates the outputs and runs with so many threads. */
static inline rp_status call_run(call *c, int threads) {
  rp_type types[CALL_OUTPUTS];
  assert_int_equal(call_type(c, types), RP_OK);
  const rp_kernel *row =
      kernel_of(rp_op_find(c->op), (rp_dtype)c->in[0].type.dtype);
  assert_non_null(row);
  for (int k = 0; k < c->n_out; k++) {
    c->out[k] = array_like(&types[k]);
    if (k == 0 && c->over >= 0) {
      assert_true(row->op->in_place >> c->over & 1u);
      assert_true(rp_type_equal(&types[0], &c->in[c->over].type));
      memcpy(c->out[0].data, c->in[c->over].data,
             (size_t)rp_type_bytes(&types[0]));
    }
  }
  rp_array in[CALL_INPUTS], in_types[CALL_INPUTS], out_types[CALL_OUTPUTS];
  memcpy(in, c->in, sizeof in);
  if (c->over >= 0) in[c->over].data = c->out[0].data;
  for (int i = 0; i < c->n_in; i++) {
    in_types[i] = in[i];
    in_types[i].data = NULL;
  }
  for (int k = 0; k < c->n_out; k++) {
    out_types[k] = c->out[k];
    out_types[k].data = NULL;
  }
  rp_kernel_args args = {.in = in_types, .out = out_types, .n_in = c->n_in,
                         .n_out = c->n_out, .ints = c->ints,
                         .reals = c->reals, .n_ints = c->n_ints,
                         .n_reals = c->n_reals, .ctx = c->ctx};
  int64_t bytes = 0;
  if (row->prepare)
    assert_int_equal(row->prepare(&args, &args.state, &bytes), RP_OK);
  args.in = in;
  args.out = c->out;
  args.workspace = guarded_alloc(bytes);
  omp_set_num_threads(threads);
  const rp_status status = row->run(&args);
  guard_check(args.workspace, bytes);
  free(args.workspace);
  if (row->destroy) row->destroy(args.state);
  for (int k = 0; k < c->n_out; k++)
    guard_check(c->out[k].data, rp_type_bytes(&c->out[k].type));
  return status;
}

static inline void call_free_outputs(call *c) {
  for (int k = 0; k < c->n_out; k++) free(c->out[k].data);
}

static inline void call_free(call *c) {
  call_free_outputs(c);
  for (int i = 0; i < c->n_in; i++) free(c->in[i].data);
}

/* Runs with 1, 2 and 3 threads, and over each input that the op allows:
   the same bits each time. Leaves the outputs. */
static inline void call_check(call *c) {
  c->over = -1;
  assert_int_equal(call_run(c, 1), RP_OK);
  rp_array first[CALL_OUTPUTS];
  memcpy(first, c->out, sizeof first);
  for (int trial = 2; trial < 4 + c->n_in; trial++) {
    const int over = trial - 4;
    c->over = over >= 0 ? over : -1;
    if (over >= 0 && (!(rp_op_find(c->op)->in_place >> over & 1u) ||
                      !rp_type_equal(&first[0].type, &c->in[over].type)))
      continue;
    assert_int_equal(call_run(c, over >= 0 ? 2 : trial), RP_OK);
    for (int k = 0; k < c->n_out; k++)
      assert_memory_equal(c->out[k].data, first[k].data,
                          rp_type_bytes(&first[k].type));
    call_free_outputs(c);
  }
  memcpy(c->out, first, sizeof first);
  c->over = -1;
}

/* |a - b| <= tolerance * (1 + |b|); NaN and infinities match themselves. */
static inline void assert_close(double a, double b, double tolerance) {
  if (isnan(b) ? isnan(a) : a == b) return;
  if (fabs(a - b) <= tolerance * (1 + fabs(b))) return;
  fail_msg("%.17g is not %.17g to %g", a, b, tolerance);
}

static inline double tolerance_of(rp_dtype dtype) {
  return dtype == RP_F64 ? 1e-12 : 2e-6;
}

#endif
