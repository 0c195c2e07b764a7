/* group_norm and its gradient. */
#include "cpu/channels.h"
#include "graph/op.h"

static int64_t groups_of(const rp_kernel_args *args) {
  return args->n_ints > 0 ? args->ints[0] : 1;
}

RP_INLINE rp_status group_norm(const rp_kernel_args *args, rp_dtype type) {
  const bool wide = type == RP_F64;
  const shape s = shape_of(&args->in[0].type);
  const int64_t groups = groups_of(args), width = s.channels / groups;
  const double eps = real_of(args, 0, 1e-5), n = (double)(width * s.run);
  const void *x = args->in[0].data;
#pragma omp parallel for schedule(static) \
    if (rp_worth(s.images * s.channels * s.run))
  for (int64_t g = 0; g < s.images * groups; g++) {
    const int64_t first = g * width * s.run;
    double mean = fold(RP_FOLD_SUM, x, first, width * s.run, 0, type) / n;
    store(args->out[1].data, g, wide, mean);
    mean = load(args->out[1].data, g, wide);
    const double var =
        fold(RP_FOLD_DEVIATION, x, first, width * s.run, mean, type) / n;
    store(args->out[2].data, g, wide, 1 / sqrt(var + eps));
    const double rstd = load(args->out[2].data, g, wide);
    for (int64_t k = 0; k < width; k++) {
      const int64_t c = g % groups * width + k;
      affine_run(x, args->out[0].data, first + k * s.run, s.run, mean,
                 rstd * load(args->in[1].data, c, wide),
                 load(args->in[2].data, c, wide), (ending){0}, type);
    }
  }
  return RP_OK;
}

/* For each run, its sums of dy and of dy (x - mean). */
static rp_status prepare_group_grad(const rp_kernel_args *args, void **state,
                                    int64_t *bytes) {
  const shape s = shape_of(&args->in[1].type);
  *state = NULL;
  *bytes = rp_align(2 * s.images * s.channels * (int64_t)sizeof(double));
  return RP_OK;
}

RP_INLINE rp_status group_norm_grad(const rp_kernel_args *args, rp_dtype type) {
  const bool wide = type == RP_F64;
  const shape s = shape_of(&args->in[1].type);
  const int64_t groups = groups_of(args), width = s.channels / groups;
  const double n = (double)(width * s.run);
  const void *dy = args->in[0].data, *x = args->in[1].data;
  const void *rstds = args->in[4].data;
  double *sums = args->workspace;
#pragma omp parallel for schedule(static) \
    if (rp_worth(s.images * s.channels * s.run))
  for (int64_t g = 0; g < s.images * groups; g++) {
    const double mean = load(args->in[3].data, g, wide);
    const double rstd = load(rstds, g, wide);
    double level = 0, slope = 0;
    for (int64_t k = 0; k < width; k++) {
      const int64_t run = g * width + k;
      double *sum = sums + 2 * run;
      sum[0] = sum[1] = 0;
      run_sums(dy, x, run * s.run, s.run, mean, &sum[0], &sum[1], type);
      const double w = load(args->in[2].data, g % groups * width + k, wide);
      level += w * sum[0];
      slope += w * sum[1];
    }
    for (int64_t k = 0; k < width; k++) {
      const int64_t run = g * width + k;
      const double w = load(args->in[2].data, g % groups * width + k, wide);
      grad_run(dy, x, args->out[0].data, run * s.run, s.run, mean, w * rstd,
               rstd * level / n, rstd * rstd * rstd * slope / n, type);
    }
  }
  for (int64_t c = 0; c < s.channels; c++) {
    double dw = 0, db = 0;
    for (int64_t i = 0; i < s.images; i++) {
      const double *sum = sums + 2 * (i * s.channels + c);
      dw += sum[1] * load(rstds, i * groups + c / width, wide);
      db += sum[0];
    }
    store(args->out[1].data, c, wide, dw);
    store(args->out[2].data, c, wide, db);
  }
  return RP_OK;
}

static rp_status group_norm_f32(const rp_kernel_args *args) {
  return group_norm(args, RP_F32);
}
static rp_status group_norm_f64(const rp_kernel_args *args) {
  return group_norm(args, RP_F64);
}
static rp_status group_norm_bf16(const rp_kernel_args *args) {
  return group_norm(args, RP_BF16);
}
static rp_status group_norm_grad_f32(const rp_kernel_args *args) {
  return group_norm_grad(args, RP_F32);
}
static rp_status group_norm_grad_f64(const rp_kernel_args *args) {
  return group_norm_grad(args, RP_F64);
}
static rp_status group_norm_grad_bf16(const rp_kernel_args *args) {
  return group_norm_grad(args, RP_BF16);
}

extern const rp_op rp_op_group_norm, rp_op_group_norm_grad;

static const rp_kernel rows[] = {
    {&rp_op_group_norm, RP_BF16, group_norm_bf16, NULL, NULL},
    {&rp_op_group_norm_grad, RP_BF16, group_norm_grad_bf16,
     prepare_group_grad, NULL},
    {&rp_op_group_norm, RP_F32, group_norm_f32, NULL, NULL},
    {&rp_op_group_norm, RP_F64, group_norm_f64, NULL, NULL},
    {&rp_op_group_norm_grad, RP_F32, group_norm_grad_f32, prepare_group_grad,
     NULL},
    {&rp_op_group_norm_grad, RP_F64, group_norm_grad_f64, prepare_group_grad,
     NULL},
};
const rp_kernel_table rp_cpu_group_norm = {rows, sizeof rows / sizeof *rows};
