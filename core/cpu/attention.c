/* Kernels of core/ops/attention.c: operands from arguments, items to
   threads. */
#include "cpu/attention.h"
#include "cpu/parallel.h"
#include "graph/op.h"

/* (B, H, T, D), and where `by_time` (B, T, H, D). */
static rp_attention_array operand(const rp_array *x, bool by_time) {
  const int64_t *s = x->strides;
  return by_time ? (rp_attention_array){x->data, s[0], s[2], s[1], s[3]}
                 : (rp_attention_array){x->data, s[0], s[1], s[2], s[3]};
}

/* Part `which` of (B, T, 3, H, D). */
static rp_attention_array part(const rp_array *x, int which) {
  const int64_t *s = x->strides;
  const size_t offset = (size_t)(which * s[2]) *
                        rp_dtype_size((rp_dtype)x->type.dtype);
  char *data = x->data ? (char *)x->data + offset : NULL;
  return (rp_attention_array){data, s[0], s[3], s[1], s[4]};
}

/* Broadcast dims have stride 0. */
static rp_attention_array mask_of(const rp_kernel_args *args, int at) {
  rp_attention_array mask = {0};
  if (args->n_in <= at) return mask;
  const rp_array *x = &args->in[at];
  int64_t *strides[4] = {&mask.d, &mask.t, &mask.h, &mask.b};
  mask.data = x->data;
  for (int i = 1; i <= x->type.rank; i++)
    if (x->type.dims[x->type.rank - i] != 1)
      *strides[i - 1] = x->strides[x->type.rank - i];
  return mask;
}

static rp_attention_array lse_of(const rp_array *x) {
  return (rp_attention_array){x->data, x->strides[0], x->strides[1],
                              x->strides[2], 0};
}

static rp_attention options_of(const rp_kernel_args *args) {
  return (rp_attention){
      .dtype = (rp_dtype)args->in[0].type.dtype,
      .causal = args->n_ints > 0 && args->ints[0],
      .scale = args->n_reals > 0 ? args->reals[0] : 1,
      .p = args->n_reals > 1 ? args->reals[1] : 0,
      .seed = args->seed, .stream = args->stream};
}

static void set_three(rp_attention *a, const rp_array *in) {
  const int64_t *q = in[0].type.dims, *v = in[2].type.dims;
  a->batch = q[0], a->heads = q[1], a->queries = q[2], a->depth = q[3];
  a->keys = v[2], a->value_depth = v[3];
  a->q = operand(&in[0], false);
  a->k = operand(&in[1], false);
  a->v = operand(&in[2], false);
}

static void set_packed(rp_attention *a, const rp_array *in) {
  const int64_t *d = in->type.dims;
  a->batch = d[0], a->queries = a->keys = d[1], a->heads = d[3];
  a->depth = a->value_depth = d[4];
  a->q = part(in, 0), a->k = part(in, 1), a->v = part(in, 2);
}

static rp_attention forward_of(const rp_kernel_args *args, bool packed) {
  rp_attention a = options_of(args);
  if (packed) set_packed(&a, args->in);
  else set_three(&a, args->in);
  a.mask = mask_of(args, packed ? 1 : 3);
  a.out = operand(&args->out[0], true);
  a.lse = lse_of(&args->out[1]);
  return a;
}

static rp_attention backward_of(const rp_kernel_args *args, bool packed) {
  rp_attention a = options_of(args);
  if (packed) {
    set_packed(&a, &args->in[1]);
    a.dq = part(&args->out[0], 0);
    a.dk = part(&args->out[0], 1);
    a.dv = part(&args->out[0], 2);
  } else {
    set_three(&a, &args->in[1]);
    a.dq = operand(&args->out[0], true);
    a.dk = operand(&args->out[1], true);
    a.dv = operand(&args->out[2], true);
  }
  a.mask = mask_of(args, packed ? 4 : 6);
  a.dout = operand(&args->in[0], true);
  a.out = operand(&args->in[packed ? 2 : 4], true);
  a.lse = lse_of(&args->in[packed ? 3 : 5]);
  return a;
}

/* ---- items to threads --------------------------------------------------- */

/* One way through the loops: what to run, how often, and on how much. */
typedef struct task {
  rp_attention a;
  int64_t items, bytes; /* scratch, for each thread */
  void (*item)(const rp_attention *a, int64_t item, void *scratch);
} task;

static task task_of(const rp_kernel_args *args, bool forward, bool packed) {
  const rp_attention_loops *loops = args->in[0].type.dtype == RP_F64
                                        ? &rp_attention_f64
                                        : &rp_attention_f32;
  task t;
  if (forward) {
    t.a = forward_of(args, packed);
    t.items = loops->forward_items(&t.a);
    t.bytes = loops->forward_bytes(&t.a);
    t.item = loops->forward;
  } else {
    t.a = backward_of(args, packed);
    t.items = t.a.batch * t.a.heads;
    t.bytes = loops->backward_bytes(&t.a);
    t.item = loops->backward;
  }
  return t;
}

/* The state is the number of threads that have scratch. */
static rp_status prepare(const rp_kernel_args *args, void **state,
                         int64_t *bytes, bool forward, bool packed) {
  const task t = task_of(args, forward, packed);
  const int64_t work =
      t.a.batch * t.a.heads * t.a.queries * (t.a.keys + t.a.depth);
  const int64_t threads = rp_worth(work) ? omp_get_max_threads() : 1;
  const int64_t used = t.items < threads ? t.items : threads;
  *state = (void *)(intptr_t)used;
  *bytes = used * t.bytes;
  return RP_OK;
}

/* The state is a number, nothing to free. */
static void forget(void *state) { (void)state; }

/* Items differ in length where causal, and each has its own outputs: which
   thread takes which does not show. Runs of them, since neighbours read the
   same keys. */
static rp_status run(const rp_kernel_args *args, bool forward, bool packed) {
  const task t = task_of(args, forward, packed);
  if (t.items == 0) return RP_OK;
  const int threads = (int)(intptr_t)args->state;
  const int64_t share = t.items / (8 * (int64_t)threads);
  const int64_t chunk = share > 1 ? share : 1;
#pragma omp parallel for schedule(dynamic, chunk) num_threads(threads)
  for (int64_t i = 0; i < t.items; i++)
    t.item(&t.a, i, (char *)args->workspace + omp_get_thread_num() * t.bytes);
  return RP_OK;
}

static rp_status run_attention(const rp_kernel_args *args) {
  return run(args, true, false);
}
static rp_status run_packed(const rp_kernel_args *args) {
  return run(args, true, true);
}
static rp_status run_attention_grad(const rp_kernel_args *args) {
  return run(args, false, false);
}
static rp_status run_packed_grad(const rp_kernel_args *args) {
  return run(args, false, true);
}

static rp_status prepare_attention(const rp_kernel_args *args, void **state,
                                   int64_t *bytes) {
  return prepare(args, state, bytes, true, false);
}
static rp_status prepare_packed(const rp_kernel_args *args, void **state,
                                int64_t *bytes) {
  return prepare(args, state, bytes, true, true);
}
static rp_status prepare_attention_grad(const rp_kernel_args *args,
                                        void **state, int64_t *bytes) {
  return prepare(args, state, bytes, false, false);
}
static rp_status prepare_packed_grad(const rp_kernel_args *args, void **state,
                                     int64_t *bytes) {
  return prepare(args, state, bytes, false, true);
}

extern const rp_op rp_op_attention, rp_op_attention_grad,
    rp_op_packed_attention, rp_op_packed_attention_grad;

static const rp_kernel rows[] = {
    {&rp_op_attention, RP_F32, run_attention, prepare_attention, forget},
    {&rp_op_attention, RP_F64, run_attention, prepare_attention, forget},
    {&rp_op_attention, RP_BF16, run_attention, prepare_attention, forget},
    {&rp_op_attention_grad, RP_F32, run_attention_grad,
     prepare_attention_grad, forget},
    {&rp_op_attention_grad, RP_F64, run_attention_grad,
     prepare_attention_grad, forget},
    {&rp_op_attention_grad, RP_BF16, run_attention_grad,
     prepare_attention_grad, forget},
    {&rp_op_packed_attention, RP_F32, run_packed, prepare_packed, forget},
    {&rp_op_packed_attention, RP_F64, run_packed, prepare_packed, forget},
    {&rp_op_packed_attention, RP_BF16, run_packed, prepare_packed, forget},
    {&rp_op_packed_attention_grad, RP_F32, run_packed_grad,
     prepare_packed_grad, forget},
    {&rp_op_packed_attention_grad, RP_F64, run_packed_grad,
     prepare_packed_grad, forget},
    {&rp_op_packed_attention_grad, RP_BF16, run_packed_grad,
     prepare_packed_grad, forget},
};
const rp_kernel_table rp_cpu_attention = {rows, sizeof rows / sizeof *rows};
