/* batch_norm, group_norm and their gradients. x:(N, C, S) is runs of S values,
   a run for each image and channel; every sum is taken over whole runs, in
   their order, in f64 across runs.

   dx may be written over dy or x, y over x or z: the same array or another one,
   so that loops have no dependence between iterations (ivdep). `wide` and
   `type`, x's dtype, are constants wherever a function is inlined. bf16 is
   widened a block at a time; its statistics and weights are f32. */
#include "cpu/lanes.h"
#include "cpu/parallel.h"
#include "exec/backend.h"
#include "graph/op.h"

typedef struct shape {
  int64_t images, channels, run; /* N, C, S */
} shape;

static shape shape_of(const rp_type *x) {
  shape s = {x->dims[0], x->dims[1], 1};
  for (int i = 2; i < x->rank; i++) s.run *= x->dims[i];
  return s;
}

static double real_of(const rp_kernel_args *args, int i, double fallback) {
  return i < args->n_reals ? args->reals[i] : fallback;
}

RP_INLINE double load(const void *x, int64_t i, bool wide) {
  return wide ? ((const double *)x)[i] : (double)((const float *)x)[i];
}
RP_INLINE void store(void *x, int64_t i, bool wide, double value) {
  if (wide) ((double *)x)[i] = value;
  else ((float *)x)[i] = (float)value;
}

/* ---- one run ------------------------------------------------------------- */

RP_INLINE double fold(rp_fold what, const void *x, int64_t at, int64_t n,
                      double shift, rp_dtype type) {
  switch (type) {
    case RP_F64: return rp_fold_f64(what, (const double *)x + at, n, shift);
    case RP_F32:
      return rp_fold_f32(what, (const float *)x + at, n, (float)shift);
    default:
      return rp_fold_bf16(what, (const uint16_t *)x + at, n, (float)shift);
  }
}

/* What is behind the norm: z is added where there is one, and negatives may go
   (not NaN). Not for bf16, which would round in between. */
typedef struct ending {
  const void *z;
  bool rectifies;
} ending;

/* y = (x - mean) scale + b. */
RP_INLINE void affine_f32(const float *from, float *to, int64_t n, float mean,
                          float scale, float b, const float *z,
                          bool rectifies) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    float y = (from[i] - mean) * scale + b;
    if (z) y = y + z[i];
    to[i] = rectifies && y < 0 ? 0 : y;
  }
}

RP_INLINE void affine_run(const void *x, void *y, int64_t at, int64_t n,
                          double mean, double scale, double b, ending end,
                          rp_dtype type) {
  if (type == RP_F64) {
    const double *from = (const double *)x + at;
    const double *z = end.z ? (const double *)end.z + at : NULL;
    double *to = (double *)y + at;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
      double v = (from[i] - mean) * scale + b;
      if (z) v = v + z[i];
      to[i] = end.rectifies && v < 0 ? 0 : v;
    }
  } else if (type == RP_F32) {
    affine_f32((const float *)x + at, (float *)y + at, n, (float)mean,
               (float)scale, (float)b,
               end.z ? (const float *)end.z + at : NULL, end.rectifies);
  } else {
    float values[RP_LANE_BLOCK];
    for (int64_t i = 0; i < n; i += RP_LANE_BLOCK) {
      const int64_t m = n - i < RP_LANE_BLOCK ? n - i : RP_LANE_BLOCK;
      rp_bf16_widen(values, (const uint16_t *)x + at + i, 1, m);
      affine_f32(values, values, m, (float)mean, (float)scale, (float)b, NULL,
                 false);
      rp_bf16_round((uint16_t *)y + at + i, values, m);
    }
  }
}

/* dx = scale dy - level - slope (x - mean). */
RP_INLINE void grad_f32(const float *g, const float *from, float *to,
                        int64_t n, float mean, float scale, float level,
                        float slope) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++)
    to[i] = g[i] * scale - level - (from[i] - mean) * slope;
}

RP_INLINE void grad_run(const void *dy, const void *x, void *dx, int64_t at,
                        int64_t n, double mean, double scale, double level,
                        double slope, rp_dtype type) {
  if (type == RP_F64) {
    const double *g = (const double *)dy + at, *from = (const double *)x + at;
    double *to = (double *)dx + at;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++)
      to[i] = g[i] * scale - level - (from[i] - mean) * slope;
  } else if (type == RP_F32) {
    grad_f32((const float *)dy + at, (const float *)x + at, (float *)dx + at,
             n, (float)mean, (float)scale, (float)level, (float)slope);
  } else {
    float g[RP_LANE_BLOCK], from[RP_LANE_BLOCK];
    for (int64_t i = 0; i < n; i += RP_LANE_BLOCK) {
      const int64_t m = n - i < RP_LANE_BLOCK ? n - i : RP_LANE_BLOCK;
      rp_bf16_widen(g, (const uint16_t *)dy + at + i, 1, m);
      rp_bf16_widen(from, (const uint16_t *)x + at + i, 1, m);
      grad_f32(g, from, g, m, (float)mean, (float)scale, (float)level,
               (float)slope);
      rp_bf16_round((uint16_t *)dx + at + i, g, m);
    }
  }
}

/* Adds the run's sums of dy and of dy (x - mean). */
RP_INLINE void sums_f32(const float *dy, const float *x, int64_t n, float mean,
                        double *sum, double *product) {
  for (int64_t block = 0; block < n; block += RP_LANE_BLOCK) {
    const int64_t end = n - block < RP_LANE_BLOCK ? n : block + RP_LANE_BLOCK;
    float p[RP_F32_LANES] = {0}, q[RP_F32_LANES] = {0};
    int64_t i = block;
    for (; i + RP_F32_LANES <= end; i += RP_F32_LANES)
      for (int l = 0; l < RP_F32_LANES; l++) {
        p[l] += dy[i + l];
        q[l] += dy[i + l] * (x[i + l] - mean);
      }
    for (int l = 0; i < end; i++, l++) {
      p[l] += dy[i];
      q[l] += dy[i] * (x[i] - mean);
    }
    *sum += rp_lanes_join_f32(RP_FOLD_SUM, p);
    *product += rp_lanes_join_f32(RP_FOLD_SUM, q);
  }
}

RP_INLINE void sums_f64(const double *dy, const double *x, int64_t n,
                        double mean, double *sum, double *product) {
  double p[RP_F64_LANES] = {0}, q[RP_F64_LANES] = {0};
  int64_t i = 0;
  for (; i + RP_F64_LANES <= n; i += RP_F64_LANES)
    for (int l = 0; l < RP_F64_LANES; l++) {
      p[l] += dy[i + l];
      q[l] += dy[i + l] * (x[i + l] - mean);
    }
  for (int l = 0; i < n; i++, l++) {
    p[l] += dy[i];
    q[l] += dy[i] * (x[i] - mean);
  }
  *sum += rp_lanes_join_f64(RP_FOLD_SUM, p);
  *product += rp_lanes_join_f64(RP_FOLD_SUM, q);
}

RP_INLINE void run_sums(const void *dy, const void *x, int64_t at, int64_t n,
                        double mean, double *sum, double *product,
                        rp_dtype type) {
  if (type == RP_F64) {
    sums_f64((const double *)dy + at, (const double *)x + at, n, mean, sum,
             product);
  } else if (type == RP_F32) {
    sums_f32((const float *)dy + at, (const float *)x + at, n, (float)mean,
             sum, product);
  } else {
    float g[RP_LANE_BLOCK], from[RP_LANE_BLOCK];
    for (int64_t i = 0; i < n; i += RP_LANE_BLOCK) {
      const int64_t m = n - i < RP_LANE_BLOCK ? n - i : RP_LANE_BLOCK;
      rp_bf16_widen(g, (const uint16_t *)dy + at + i, 1, m);
      rp_bf16_widen(from, (const uint16_t *)x + at + i, 1, m);
      sums_f32(g, from, m, (float)mean, sum, product);
    }
  }
}

/* ---- batch_norm ------------------------------------------------------------ */

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

/* ---- group_norm ------------------------------------------------------------- */

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

extern const rp_op rp_op_batch_norm, rp_op_batch_norm_statistics,
    rp_op_batch_norm_apply, rp_op_batch_norm_apply_add,
    rp_op_batch_norm_apply_relu, rp_op_batch_norm_apply_add_relu,
    rp_op_batch_norm_grad, rp_op_group_norm,
    rp_op_group_norm_grad;

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
const rp_kernel_table rp_cpu_batch_norm = {rows, sizeof rows / sizeof *rows};
