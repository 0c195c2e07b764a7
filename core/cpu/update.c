/* Updates of leaves, each one pass over the parameter and its states. Numbers
   that PyTorch computes as Python floats are computed in f64 here and rounded
   once; the rest is in the parameter's dtype, in PyTorch's order. A guard
   that is false leaves everything as it is. */
#include <math.h>

#include "cpu/copy.h"
#include "cpu/parallel.h"
#include "graph/op.h"

static int64_t size(const rp_kernel_args *args) {
  return rp_type_count(&args->in[0].type);
}

/* Whether the guard, the last behind the op's own n inputs, says no. */
static bool skipped(const rp_kernel_args *args, int n) {
  const rp_array *last = &args->in[args->n_in - 1];
  return args->n_in > n && last->type.dtype == RP_BOOL &&
         !*(const uint8_t *)last->data;
}

/* What the gradient is multiplied by: the first behind the op's own n inputs
   unless that is the guard. A product with 1 is the other factor. */
static float factor_f32(const rp_kernel_args *args, int n) {
  return args->n_in > n && args->in[n].type.dtype == RP_F32
             ? *(const float *)args->in[n].data : 1;
}
static double factor_f64(const rp_kernel_args *args, int n) {
  return args->n_in > n && args->in[n].type.dtype == RP_F64
             ? *(const double *)args->in[n].data : 1;
}

/* Behind parameter, gradient and states. */
static const double *numbers(const rp_kernel_args *args, int states) {
  return args->in[2 + states].data;
}

/* ---- sgd ---------------------------------------------------------------- */

static rp_status sgd_f32(const rp_kernel_args *args) {
  if (skipped(args, 3)) return RP_OK;
  const double *given = numbers(args, 0);
  const float lr = (float)given[0], weight_decay = (float)given[1];
  float *restrict param = args->in[0].data;
  const float *restrict grad = args->in[1].data;
  const float factor = factor_f32(args, 3);
  const int64_t n = size(args);
#pragma omp parallel for simd schedule(static) if (rp_worth(n))
  for (int64_t i = 0; i < n; i++)
    param[i] -= lr * (grad[i] * factor + weight_decay * param[i]);
  return RP_OK;
}

static rp_status sgd_f64(const rp_kernel_args *args) {
  if (skipped(args, 3)) return RP_OK;
  const double *given = numbers(args, 0);
  const double lr = given[0], weight_decay = given[1];
  double *restrict param = args->in[0].data;
  const double *restrict grad = args->in[1].data;
  const double factor = factor_f64(args, 3);
  const int64_t n = size(args);
#pragma omp parallel for simd schedule(static) if (rp_worth(n))
  for (int64_t i = 0; i < n; i++)
    param[i] -= lr * (grad[i] * factor + weight_decay * param[i]);
  return RP_OK;
}

/* ---- sgd_momentum ------------------------------------------------------- */

/* v = keep v + take g; param -= lr (look g + v reach). */
typedef struct momentum {
  double lr, weight_decay, keep, take, look, reach;
} momentum;

static momentum momentum_of(const rp_kernel_args *args) {
  const double *given = numbers(args, 1);
  const bool first = given[5] == 1, nesterov = given[4] != 0;
  return (momentum){.lr = given[0], .weight_decay = given[3],
                    .keep = first ? 0 : given[1],
                    .take = first ? 1 : 1 - given[2],
                    .look = nesterov ? 1 : 0,
                    .reach = nesterov ? given[1] : 1};
}

static rp_status momentum_f32(const rp_kernel_args *args) {
  if (skipped(args, 4)) return RP_OK;
  const momentum m = momentum_of(args);
  const float lr = (float)m.lr, weight_decay = (float)m.weight_decay,
              keep = (float)m.keep, take = (float)m.take,
              look = (float)m.look, reach = (float)m.reach;
  float *restrict param = args->in[0].data;
  const float *restrict grad = args->in[1].data;
  float *restrict velocity = args->in[2].data;
  const float factor = factor_f32(args, 4);
  const int64_t n = size(args);
#pragma omp parallel for simd schedule(static) if (rp_worth(n))
  for (int64_t i = 0; i < n; i++) {
    const float g = grad[i] * factor + weight_decay * param[i];
    const float v = keep * velocity[i] + take * g;
    velocity[i] = v;
    param[i] -= lr * (look * g + reach * v);
  }
  return RP_OK;
}

static rp_status momentum_f64(const rp_kernel_args *args) {
  if (skipped(args, 4)) return RP_OK;
  const momentum m = momentum_of(args);
  double *restrict param = args->in[0].data;
  const double *restrict grad = args->in[1].data;
  double *restrict velocity = args->in[2].data;
  const double factor = factor_f64(args, 4);
  const int64_t n = size(args);
#pragma omp parallel for simd schedule(static) if (rp_worth(n))
  for (int64_t i = 0; i < n; i++) {
    const double g = grad[i] * factor + m.weight_decay * param[i];
    const double v = m.keep * velocity[i] + m.take * g;
    velocity[i] = v;
    param[i] -= m.lr * (m.look * g + m.reach * v);
  }
  return RP_OK;
}

/* ---- adam, adamw -------------------------------------------------------- */

typedef struct adam {
  double shrink;       /* what multiplies the parameter first: adamw */
  double weight_decay; /* what the gradient gets of it: adam */
  double take1, beta2, take2, root2, eps, rate;
} adam;

static adam adam_of(const rp_kernel_args *args, bool decoupled) {
  const double *given = numbers(args, 2);
  const double lr = given[0], beta1 = given[1], beta2 = given[2],
               weight_decay = given[4], step = given[5];
  return (adam){.shrink = decoupled ? 1 - lr * weight_decay : 1,
                .weight_decay = decoupled ? 0 : weight_decay,
                .take1 = 1 - beta1,
                .beta2 = beta2,
                .take2 = 1 - beta2,
                .root2 = sqrt(1 - pow(beta2, step)),
                .eps = given[3],
                .rate = lr / (1 - pow(beta1, step))};
}

/* torch.lerp: from the nearer end. */
static inline float lerp_f32(float from, float to, float weight) {
  return weight < 0.5f ? from + weight * (to - from)
                       : to - (to - from) * (1 - weight);
}

static inline double lerp_f64(double from, double to, double weight) {
  return weight < 0.5 ? from + weight * (to - from)
                      : to - (to - from) * (1 - weight);
}

static rp_status adam_step_f32(const rp_kernel_args *args, bool decoupled) {
  if (skipped(args, 5)) return RP_OK;
  const adam a = adam_of(args, decoupled);
  const float shrink = (float)a.shrink, weight_decay = (float)a.weight_decay,
              take1 = (float)a.take1, beta2 = (float)a.beta2,
              take2 = (float)a.take2, root2 = (float)a.root2,
              eps = (float)a.eps, rate = (float)a.rate;
  float *restrict param = args->in[0].data;
  const float *restrict grad = args->in[1].data;
  float *restrict mean = args->in[2].data, *restrict square = args->in[3].data;
  const float factor = factor_f32(args, 5);
  const int64_t n = size(args);
#pragma omp parallel for simd schedule(static) if (rp_worth(n))
  for (int64_t i = 0; i < n; i++) {
    const float p = param[i] * shrink;
    const float g = grad[i] * factor + weight_decay * p;
    const float m = lerp_f32(mean[i], g, take1);
    const float v = square[i] * beta2 + take2 * g * g;
    mean[i] = m;
    square[i] = v;
    param[i] = p - rate * m / (sqrtf(v) / root2 + eps);
  }
  return RP_OK;
}

static rp_status adam_step_f64(const rp_kernel_args *args, bool decoupled) {
  if (skipped(args, 5)) return RP_OK;
  const adam a = adam_of(args, decoupled);
  double *restrict param = args->in[0].data;
  const double *restrict grad = args->in[1].data;
  double *restrict mean = args->in[2].data,
         *restrict square = args->in[3].data;
  const double factor = factor_f64(args, 5);
  const int64_t n = size(args);
#pragma omp parallel for simd schedule(static) if (rp_worth(n))
  for (int64_t i = 0; i < n; i++) {
    const double p = param[i] * a.shrink;
    const double g = grad[i] * factor + a.weight_decay * p;
    const double m = lerp_f64(mean[i], g, a.take1);
    const double v = square[i] * a.beta2 + a.take2 * g * g;
    mean[i] = m;
    square[i] = v;
    param[i] = p - a.rate * m / (sqrt(v) / a.root2 + a.eps);
  }
  return RP_OK;
}

static rp_status adam_f32(const rp_kernel_args *args) {
  return adam_step_f32(args, false);
}
static rp_status adam_f64(const rp_kernel_args *args) {
  return adam_step_f64(args, false);
}
static rp_status adamw_f32(const rp_kernel_args *args) {
  return adam_step_f32(args, true);
}
static rp_status adamw_f64(const rp_kernel_args *args) {
  return adam_step_f64(args, true);
}

/* ---- accumulate, assign, running_update --------------------------------- */

static rp_status accumulate_f32(const rp_kernel_args *args) {
  if (skipped(args, 2)) return RP_OK;
  float *restrict leaf = args->in[0].data;
  const float *restrict g = args->in[1].data;
  const int64_t n = size(args);
#pragma omp parallel for simd schedule(static) if (rp_worth(n))
  for (int64_t i = 0; i < n; i++) leaf[i] += g[i];
  return RP_OK;
}

static rp_status accumulate_f64(const rp_kernel_args *args) {
  if (skipped(args, 2)) return RP_OK;
  double *restrict leaf = args->in[0].data;
  const double *restrict g = args->in[1].data;
  const int64_t n = size(args);
#pragma omp parallel for simd schedule(static) if (rp_worth(n))
  for (int64_t i = 0; i < n; i++) leaf[i] += g[i];
  return RP_OK;
}

static rp_status assign(const rp_kernel_args *args) {
  const rp_array *leaf = &args->in[0], *x = &args->in[1];
  if (skipped(args, 2)) return RP_OK;
  if (x->data != leaf->data)
    rp_copy_strided(&leaf->type, leaf->data, leaf->strides, x->data,
                    x->strides);
  return RP_OK;
}

/* A value a channel: too few for threads. */
static rp_status running_update_f32(const rp_kernel_args *args) {
  if (skipped(args, 2)) return RP_OK;
  float *restrict leaf = args->in[0].data;
  const float *restrict x = args->in[1].data;
  const double keep = 1 - args->reals[0];
  const double take = args->reals[0] * args->reals[1];
  for (int64_t i = 0; i < size(args); i++)
    leaf[i] = (float)(keep * leaf[i] + take * x[i]);
  return RP_OK;
}

static rp_status running_update_f64(const rp_kernel_args *args) {
  if (skipped(args, 2)) return RP_OK;
  double *restrict leaf = args->in[0].data;
  const double *restrict x = args->in[1].data;
  const double keep = 1 - args->reals[0];
  const double take = args->reals[0] * args->reals[1];
  for (int64_t i = 0; i < size(args); i++)
    leaf[i] = keep * leaf[i] + take * x[i];
  return RP_OK;
}

extern const rp_op rp_op_sgd, rp_op_sgd_momentum, rp_op_adam, rp_op_adamw,
    rp_op_accumulate, rp_op_assign, rp_op_running_update;

static const rp_kernel rows[] = {
    {&rp_op_sgd, RP_F32, sgd_f32, NULL, NULL},
    {&rp_op_sgd, RP_F64, sgd_f64, NULL, NULL},
    {&rp_op_sgd_momentum, RP_F32, momentum_f32, NULL, NULL},
    {&rp_op_sgd_momentum, RP_F64, momentum_f64, NULL, NULL},
    {&rp_op_adam, RP_F32, adam_f32, NULL, NULL},
    {&rp_op_adam, RP_F64, adam_f64, NULL, NULL},
    {&rp_op_adamw, RP_F32, adamw_f32, NULL, NULL},
    {&rp_op_adamw, RP_F64, adamw_f64, NULL, NULL},
    {&rp_op_accumulate, RP_F32, accumulate_f32, NULL, NULL},
    {&rp_op_accumulate, RP_F64, accumulate_f64, NULL, NULL},
    {&rp_op_assign, RP_F32, assign, NULL, NULL},
    {&rp_op_assign, RP_F64, assign, NULL, NULL},
    {&rp_op_assign, RP_BF16, assign, NULL, NULL},
    {&rp_op_assign, RP_I32, assign, NULL, NULL},
    {&rp_op_assign, RP_I64, assign, NULL, NULL},
    {&rp_op_assign, RP_BOOL, assign, NULL, NULL},
    {&rp_op_running_update, RP_F32, running_update_f32, NULL, NULL},
    {&rp_op_running_update, RP_F64, running_update_f64, NULL, NULL},
};

const rp_kernel_table rp_cpu_update = {rows, sizeof rows / sizeof *rows};
