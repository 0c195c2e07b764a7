/* batch_norm, its parts and its gradient. */
#include "cpu/channels.h"
#include "graph/op.h"

RP_INLINE void channel_statistics(const void *x, void *means, void *vars,
                                  const shape *s, int64_t c, rp_dtype type) {
  const bool wide = type == RP_F64;
  const double n = (double)(s->images * s->run);
  const int64_t stride = s->channels * s->run, first = c * s->run;
  double mean = 0, var = 0;
  for (int64_t i = 0; i < s->images; i++)
    mean += fold(RP_FOLD_SUM, x, first + i * stride, s->run, 0, type);
  store(means, c, wide, mean / n);
  mean = load(means, c, wide);
  for (int64_t i = 0; i < s->images; i++)
    var += fold(RP_FOLD_DEVIATION, x, first + i * stride, s->run, mean, type);
  store(vars, c, wide, var / n);
}

RP_INLINE void channel_apply(const rp_kernel_args *args, const void *means,
                             const void *vars, const shape *s, int64_t c,
                             double eps, ending end, rp_dtype type) {
  const bool wide = type == RP_F64;
  const int64_t stride = s->channels * s->run, first = c * s->run;
  const double mean = load(means, c, wide), var = load(vars, c, wide);
  const double scale = load(args->in[1].data, c, wide) / sqrt(var + eps);
  const double b = load(args->in[2].data, c, wide);
  for (int64_t i = 0; i < s->images; i++)
    affine_run(args->in[0].data, args->out[0].data, first + i * stride, s->run,
               mean, scale, b, end, type);
}

RP_INLINE rp_status batch_norm(const rp_kernel_args *args, rp_dtype type) {
  const shape s = shape_of(&args->in[0].type);
  const double eps = real_of(args, 0, 1e-5);
  void *means = args->out[1].data, *vars = args->out[2].data;
#pragma omp parallel for schedule(static) \
    if (rp_worth(s.images * s.channels * s.run))
  for (int64_t c = 0; c < s.channels; c++) {
    channel_statistics(args->in[0].data, means, vars, &s, c, type);
    channel_apply(args, means, vars, &s, c, eps, (ending){0}, type);
  }
  return RP_OK;
}

RP_INLINE rp_status statistics(const rp_kernel_args *args, rp_dtype type) {
  const shape s = shape_of(&args->in[0].type);
#pragma omp parallel for schedule(static) \
    if (rp_worth(s.images * s.channels * s.run))
  for (int64_t c = 0; c < s.channels; c++)
    channel_statistics(args->in[0].data, args->out[0].data, args->out[1].data,
                       &s, c, type);
  return RP_OK;
}

RP_INLINE rp_status apply(const rp_kernel_args *args, bool adds,
                          bool rectifies, rp_dtype type) {
  const void *z = adds ? args->in[5].data : NULL;
  const shape s = shape_of(&args->in[0].type);
  const double eps = real_of(args, 0, 1e-5);
#pragma omp parallel for schedule(static) \
    if (rp_worth(s.images * s.channels * s.run))
  for (int64_t c = 0; c < s.channels; c++)
    channel_apply(args, args->in[3].data, args->in[4].data, &s, c, eps,
                  (ending){adds ? z : NULL, rectifies}, type);
  return RP_OK;
}

RP_INLINE void channel_backward(const rp_kernel_args *args, const shape *s,
                                int64_t c, double eps, rp_dtype type) {
  const bool wide = type == RP_F64;
  const void *dy = args->in[0].data, *x = args->in[1].data;
  const double n = (double)(s->images * s->run);
  const int64_t stride = s->channels * s->run, first = c * s->run;
  const double mean = load(args->in[3].data, c, wide);
  const double rstd = 1 / sqrt(load(args->in[4].data, c, wide) + eps);
  double sum = 0, product = 0;
  for (int64_t i = 0; i < s->images; i++)
    run_sums(dy, x, first + i * stride, s->run, mean, &sum, &product, type);
  store(args->out[1].data, c, wide, product * rstd);
  store(args->out[2].data, c, wide, sum);
  const double scale = load(args->in[2].data, c, wide) * rstd;
  for (int64_t i = 0; i < s->images; i++)
    grad_run(dy, x, args->out[0].data, first + i * stride, s->run, mean, scale,
             scale * sum / n, scale * product * rstd * rstd / n, type);
}

RP_INLINE rp_status batch_norm_grad(const rp_kernel_args *args, rp_dtype type) {
  const shape s = shape_of(&args->in[1].type);
  const double eps = real_of(args, 0, 1e-5);
#pragma omp parallel for schedule(static) \
    if (rp_worth(s.images * s.channels * s.run))
  for (int64_t c = 0; c < s.channels; c++)
    channel_backward(args, &s, c, eps, type);
  return RP_OK;
}

static rp_status batch_norm_f32(const rp_kernel_args *args) {
  return batch_norm(args, RP_F32);
}
static rp_status batch_norm_f64(const rp_kernel_args *args) {
  return batch_norm(args, RP_F64);
}
static rp_status batch_norm_bf16(const rp_kernel_args *args) {
  return batch_norm(args, RP_BF16);
}
static rp_status statistics_f32(const rp_kernel_args *args) {
  return statistics(args, RP_F32);
}
static rp_status statistics_f64(const rp_kernel_args *args) {
  return statistics(args, RP_F64);
}
static rp_status statistics_bf16(const rp_kernel_args *args) {
  return statistics(args, RP_BF16);
}
static rp_status apply_f32(const rp_kernel_args *args) {
  return apply(args, false, false, RP_F32);
}
static rp_status apply_add_f32(const rp_kernel_args *args) {
  return apply(args, true, false, RP_F32);
}
static rp_status apply_relu_f32(const rp_kernel_args *args) {
  return apply(args, false, true, RP_F32);
}
static rp_status apply_add_relu_f32(const rp_kernel_args *args) {
  return apply(args, true, true, RP_F32);
}
static rp_status apply_f64(const rp_kernel_args *args) {
  return apply(args, false, false, RP_F64);
}
static rp_status apply_add_f64(const rp_kernel_args *args) {
  return apply(args, true, false, RP_F64);
}
static rp_status apply_relu_f64(const rp_kernel_args *args) {
  return apply(args, false, true, RP_F64);
}
static rp_status apply_add_relu_f64(const rp_kernel_args *args) {
  return apply(args, true, true, RP_F64);
}
static rp_status apply_bf16(const rp_kernel_args *args) {
  return apply(args, false, false, RP_BF16);
}
static rp_status batch_norm_grad_f32(const rp_kernel_args *args) {
  return batch_norm_grad(args, RP_F32);
}
static rp_status batch_norm_grad_f64(const rp_kernel_args *args) {
  return batch_norm_grad(args, RP_F64);
}
static rp_status batch_norm_grad_bf16(const rp_kernel_args *args) {
  return batch_norm_grad(args, RP_BF16);
}

extern const rp_op rp_op_batch_norm, rp_op_batch_norm_statistics,
    rp_op_batch_norm_apply, rp_op_batch_norm_apply_add,
    rp_op_batch_norm_apply_relu, rp_op_batch_norm_apply_add_relu,
    rp_op_batch_norm_grad;

static const rp_kernel rows[] = {
    {&rp_op_batch_norm, RP_F32, batch_norm_f32, NULL, NULL},
    {&rp_op_batch_norm, RP_F64, batch_norm_f64, NULL, NULL},
    {&rp_op_batch_norm_statistics, RP_F32, statistics_f32, NULL, NULL},
    {&rp_op_batch_norm_statistics, RP_F64, statistics_f64, NULL, NULL},
    {&rp_op_batch_norm_apply, RP_F32, apply_f32, NULL, NULL},
    {&rp_op_batch_norm_apply, RP_F64, apply_f64, NULL, NULL},
    {&rp_op_batch_norm_apply_add, RP_F32, apply_add_f32, NULL, NULL},
    {&rp_op_batch_norm_apply_add, RP_F64, apply_add_f64, NULL, NULL},
    {&rp_op_batch_norm_apply_relu, RP_F32, apply_relu_f32, NULL, NULL},
    {&rp_op_batch_norm_apply_relu, RP_F64, apply_relu_f64, NULL, NULL},
    {&rp_op_batch_norm_apply_add_relu, RP_F32, apply_add_relu_f32, NULL, NULL},
    {&rp_op_batch_norm_apply_add_relu, RP_F64, apply_add_relu_f64, NULL, NULL},
    {&rp_op_batch_norm_grad, RP_F32, batch_norm_grad_f32, NULL, NULL},
    {&rp_op_batch_norm_grad, RP_F64, batch_norm_grad_f64, NULL, NULL},
    {&rp_op_batch_norm, RP_BF16, batch_norm_bf16, NULL, NULL},
    {&rp_op_batch_norm_statistics, RP_BF16, statistics_bf16, NULL, NULL},
    {&rp_op_batch_norm_apply, RP_BF16, apply_bf16, NULL, NULL},
    {&rp_op_batch_norm_grad, RP_BF16, batch_norm_grad_bf16, NULL, NULL},
};
const rp_kernel_table rp_cpu_batch_norm = {rows, sizeof rows / sizeof *rows};
