/* Gradients of layer_norm and rms_norm, a row at a time. Those of the weights
   are summed over chunks of rows, whose number follows from the shape, into the
   workspace, and the chunks in order in f64.

   dx may be written over dy, x or what is added to it: the same array or
   another one, so that loops have no dependence between iterations (ivdep). */
#include "cpu/norm.h"
#include "graph/op.h"

/* Chunks enough for any number of threads, yet their partials are a small
   part of x; and not so long that f32 sums lose digits. */
enum { CHUNKS = 32, CHUNK_MIN = 8, CHUNK_MAX = 256, JOIN = 256 };

/* ---- a row --------------------------------------------------------------- */

/* Sums of g = dy w and of g h, h = (x - mean) rstd. */
RP_INLINE void row_sums_f32(const float *dy, const float *x, const float *w,
                            int64_t n, float mean, float rstd, double *g_sum,
                            double *gh_sum) {
  double a = 0, b = 0;
  for (int64_t block = 0; block < n; block += RP_LANE_BLOCK) {
    const int64_t end = n - block < RP_LANE_BLOCK ? n : block + RP_LANE_BLOCK;
    float p[RP_F32_LANES] = {0}, q[RP_F32_LANES] = {0};
    int64_t i = block;
    for (; i + RP_F32_LANES <= end; i += RP_F32_LANES)
      for (int l = 0; l < RP_F32_LANES; l++) {
        const float g = dy[i + l] * w[i + l];
        p[l] += g;
        q[l] += g * (x[i + l] - mean);
      }
    for (int l = 0; i < end; i++, l++) {
      const float g = dy[i] * w[i];
      p[l] += g;
      q[l] += g * (x[i] - mean);
    }
    a += rp_lanes_join_f32(RP_FOLD_SUM, p);
    b += rp_lanes_join_f32(RP_FOLD_SUM, q);
  }
  *g_sum = a;
  *gh_sum = b * rstd;
}

RP_INLINE void row_sums_f64(const double *dy, const double *x, const double *w,
                            int64_t n, double mean, double rstd, double *g_sum,
                            double *gh_sum) {
  double p[RP_F64_LANES] = {0}, q[RP_F64_LANES] = {0};
  int64_t i = 0;
  for (; i + RP_F64_LANES <= n; i += RP_F64_LANES)
    for (int l = 0; l < RP_F64_LANES; l++) {
      const double g = dy[i + l] * w[i + l];
      p[l] += g;
      q[l] += g * (x[i + l] - mean);
    }
  for (int l = 0; i < n; i++, l++) {
    const double g = dy[i] * w[i];
    p[l] += g;
    q[l] += g * (x[i] - mean);
  }
  *g_sum = rp_lanes_join_f64(RP_FOLD_SUM, p);
  *gh_sum = rp_lanes_join_f64(RP_FOLD_SUM, q) * rstd;
}

/* dx of one row, and what goes around the norm; dw and db (none unless centred)
   grow by it. */
RP_INLINE void grad_row_f32(bool centred, const float *around,
                            const float *dy, const float *x,
                            const float *w, float mean, float rstd, float *dx,
                            float *restrict dw, float *restrict db,
                            int64_t n) {
  double g_sum, gh_sum;
  row_sums_f32(dy, x, w, n, mean, rstd, &g_sum, &gh_sum);
  const float a = centred ? (float)(g_sum / (double)n) : 0;
  const float b = (float)(gh_sum / (double)n);
#pragma GCC ivdep
  for (int64_t j = 0; j < n; j++) {
    const float h = (x[j] - mean) * rstd, d = dy[j];
    const float through = rstd * (d * w[j] - a - h * b);
    dw[j] += d * h;
    if (centred) db[j] += d;
    dx[j] = around ? through + around[j] : through;
  }
}

RP_INLINE void grad_row_bf16(bool centred, const uint16_t *dy,
                             const uint16_t *x, const float *w, float mean,
                             float rstd, uint16_t *dx, float *restrict dw,
                             float *restrict db, int64_t n) {
  float d[RP_LANE_BLOCK], v[RP_LANE_BLOCK];
  double g_sum = 0, gh_sum = 0;
  for (int64_t at = 0; at < n; at += RP_LANE_BLOCK) {
    const int64_t m = n - at < RP_LANE_BLOCK ? n - at : RP_LANE_BLOCK;
    double g, gh;
    rp_bf16_widen(d, dy + at, 1, m);
    rp_bf16_widen(v, x + at, 1, m);
    row_sums_f32(d, v, w + at, m, mean, rstd, &g, &gh);
    g_sum += g;
    gh_sum += gh;
  }
  const float a = centred ? (float)(g_sum / (double)n) : 0;
  const float b = (float)(gh_sum / (double)n);
  for (int64_t at = 0; at < n; at += RP_LANE_BLOCK) {
    const int64_t m = n - at < RP_LANE_BLOCK ? n - at : RP_LANE_BLOCK;
    if (n > RP_LANE_BLOCK) {
      rp_bf16_widen(d, dy + at, 1, m);
      rp_bf16_widen(v, x + at, 1, m);
    }
    for (int64_t j = 0; j < m; j++) {
      const float h = (v[j] - mean) * rstd;
      dw[at + j] += d[j] * h;
      if (centred) db[at + j] += d[j];
      d[j] = rstd * (d[j] * w[at + j] - a - h * b);
    }
    rp_bf16_round(dx + at, d, m);
  }
}

RP_INLINE void grad_row_f64(bool centred, const double *around,
                            const double *dy, const double *x,
                            const double *w, double mean, double rstd,
                            double *dx, double *restrict dw,
                            double *restrict db, int64_t n) {
  double g_sum, gh_sum;
  row_sums_f64(dy, x, w, n, mean, rstd, &g_sum, &gh_sum);
  const double a = centred ? g_sum / (double)n : 0;
  const double b = gh_sum / (double)n;
#pragma GCC ivdep
  for (int64_t j = 0; j < n; j++) {
    const double h = (x[j] - mean) * rstd, d = dy[j];
    const double through = rstd * (d * w[j] - a - h * b);
    dw[j] += d * h;
    if (centred) db[j] += d;
    dx[j] = around ? through + around[j] : through;
  }
}

/* ---- all rows ------------------------------------------------------------ */

static int64_t chunk_of(const shape *s) {
  const int64_t rows = (s->rows + CHUNKS - 1) / CHUNKS;
  return rows < CHUNK_MIN ? CHUNK_MIN : rows > CHUNK_MAX ? CHUNK_MAX : rows;
}

static int64_t chunks_of(const shape *s) {
  const int64_t chunk = chunk_of(s);
  return (s->rows + chunk - 1) / chunk;
}

/* Partials: for each chunk, dw and (centred) db, D each. */
static rp_status prepare_grad(const rp_kernel_args *args, void **state,
                              int64_t *bytes) {
  const rp_type *x = &args->in[1].type;
  const shape s = shape_of(x, &args->in[2].type);
  *bytes = rp_align(chunks_of(&s) * (args->n_out - 1) * s.width *
                    (x->dtype == RP_F64 ? (int64_t)sizeof(double)
                                        : (int64_t)sizeof(float)));
  return RP_OK;
}

/* dw and db from the chunks' partials. */
static rp_status join(const rp_kernel_args *args) {
  const shape s = shape_of(&args->in[1].type, &args->in[2].type);
  const bool wide = args->in[0].type.dtype == RP_F64;
  const int64_t n = s.width, chunks = chunks_of(&s);
  const int64_t stride = (args->n_out - 1) * n;
#pragma omp parallel for schedule(static) if (rp_worth(chunks * stride))
  for (int64_t at = 0; at < stride; at += JOIN) {
    const int64_t m = stride - at < JOIN ? stride - at : JOIN;
    double total[JOIN] = {0};
    for (int64_t c = 0; c < chunks; c++) {
      const int64_t from = c * stride + at;
      if (wide) {
        const double *p = (const double *)args->workspace + from;
        for (int64_t j = 0; j < m; j++) total[j] += p[j];
      } else {
        const float *p = (const float *)args->workspace + from;
        for (int64_t j = 0; j < m; j++) total[j] += p[j];
      }
    }
    for (int64_t j = 0; j < m; j++) {
      void *out = args->out[1 + (at + j) / n].data;
      if (wide) ((double *)out)[(at + j) % n] = total[j];
      else ((float *)out)[(at + j) % n] = (float)total[j];
    }
  }
  return RP_OK;
}

RP_INLINE rp_status grad_f32(bool centred, bool adds,
                             const rp_kernel_args *args) {
  const rp_array *in = args->in;
  const shape s = shape_of(&in[1].type, &in[2].type);
  const float *dy = in[0].data, *x = in[1].data, *w = in[2].data;
  const float *mean = centred ? in[3].data : NULL;
  const float *rstd = in[centred ? 4 : 3].data;
  const float *around = adds ? in[centred ? 5 : 4].data : NULL;
  float *dx = args->out[0].data, *partials = args->workspace;
  const int64_t n = s.width, chunk = chunk_of(&s), chunks = chunks_of(&s);
  const int64_t stride = (args->n_out - 1) * n;
#pragma omp parallel for schedule(static) if (rp_worth(s.rows * n))
  for (int64_t c = 0; c < chunks; c++) {
    const int64_t first = c * chunk;
    const int64_t last = s.rows - first < chunk ? s.rows : first + chunk;
    float *dw = partials + c * stride, *db = dw + n;
    for (int64_t j = 0; j < stride; j++) dw[j] = 0;
    for (int64_t i = first; i < last; i++)
      grad_row_f32(centred, adds ? around + i * n : NULL, dy + i * n,
                   x + i * n, w, centred ? mean[i] : 0, rstd[i], dx + i * n,
                   dw, db, n);
  }
  return join(args);
}

RP_INLINE rp_status grad_bf16(bool centred, const rp_kernel_args *args) {
  const rp_array *in = args->in;
  const shape s = shape_of(&in[1].type, &in[2].type);
  const uint16_t *dy = in[0].data, *x = in[1].data;
  const float *w = in[2].data, *mean = centred ? in[3].data : NULL;
  const float *rstd = in[centred ? 4 : 3].data;
  uint16_t *dx = args->out[0].data;
  float *partials = args->workspace;
  const int64_t n = s.width, chunk = chunk_of(&s), chunks = chunks_of(&s);
  const int64_t stride = (args->n_out - 1) * n;
#pragma omp parallel for schedule(static) if (rp_worth(s.rows * n))
  for (int64_t c = 0; c < chunks; c++) {
    const int64_t first = c * chunk;
    const int64_t last = s.rows - first < chunk ? s.rows : first + chunk;
    float *dw = partials + c * stride, *db = dw + n;
    for (int64_t j = 0; j < stride; j++) dw[j] = 0;
    for (int64_t i = first; i < last; i++)
      grad_row_bf16(centred, dy + i * n, x + i * n, w, centred ? mean[i] : 0,
                    rstd[i], dx + i * n, dw, db, n);
  }
  return join(args);
}

RP_INLINE rp_status grad_f64(bool centred, bool adds,
                             const rp_kernel_args *args) {
  const rp_array *in = args->in;
  const shape s = shape_of(&in[1].type, &in[2].type);
  const double *dy = in[0].data, *x = in[1].data, *w = in[2].data;
  const double *mean = centred ? in[3].data : NULL;
  const double *rstd = in[centred ? 4 : 3].data;
  const double *around = adds ? in[centred ? 5 : 4].data : NULL;
  double *dx = args->out[0].data, *partials = args->workspace;
  const int64_t n = s.width, chunk = chunk_of(&s), chunks = chunks_of(&s);
  const int64_t stride = (args->n_out - 1) * n;
#pragma omp parallel for schedule(static) if (rp_worth(s.rows * n))
  for (int64_t c = 0; c < chunks; c++) {
    const int64_t first = c * chunk;
    const int64_t last = s.rows - first < chunk ? s.rows : first + chunk;
    double *dw = partials + c * stride, *db = dw + n;
    for (int64_t j = 0; j < stride; j++) dw[j] = 0;
    for (int64_t i = first; i < last; i++)
      grad_row_f64(centred, adds ? around + i * n : NULL, dy + i * n,
                   x + i * n, w, centred ? mean[i] : 0, rstd[i], dx + i * n,
                   dw, db, n);
  }
  return join(args);
}

static rp_status layer_norm_grad_f32(const rp_kernel_args *args) {
  return grad_f32(true, false, args);
}
static rp_status layer_norm_grad_add_f32(const rp_kernel_args *args) {
  return grad_f32(true, true, args);
}
static rp_status layer_norm_grad_f64(const rp_kernel_args *args) {
  return grad_f64(true, false, args);
}
static rp_status layer_norm_grad_add_f64(const rp_kernel_args *args) {
  return grad_f64(true, true, args);
}
static rp_status rms_norm_grad_f32(const rp_kernel_args *args) {
  return grad_f32(false, false, args);
}
static rp_status rms_norm_grad_add_f32(const rp_kernel_args *args) {
  return grad_f32(false, true, args);
}
static rp_status rms_norm_grad_f64(const rp_kernel_args *args) {
  return grad_f64(false, false, args);
}
static rp_status rms_norm_grad_add_f64(const rp_kernel_args *args) {
  return grad_f64(false, true, args);
}

static rp_status layer_norm_grad_bf16(const rp_kernel_args *args) {
  return grad_bf16(true, args);
}
static rp_status rms_norm_grad_bf16(const rp_kernel_args *args) {
  return grad_bf16(false, args);
}

extern const rp_op rp_op_layer_norm_grad, rp_op_rms_norm_grad,
    rp_op_layer_norm_grad_add, rp_op_rms_norm_grad_add;

static const rp_kernel rows[] = {
    {&rp_op_layer_norm_grad, RP_F32, layer_norm_grad_f32, prepare_grad, NULL},
    {&rp_op_layer_norm_grad, RP_F64, layer_norm_grad_f64, prepare_grad, NULL},
    {&rp_op_layer_norm_grad, RP_BF16, layer_norm_grad_bf16, prepare_grad,
     NULL},
    {&rp_op_rms_norm_grad, RP_BF16, rms_norm_grad_bf16, prepare_grad, NULL},
    {&rp_op_rms_norm_grad, RP_F32, rms_norm_grad_f32, prepare_grad, NULL},
    {&rp_op_rms_norm_grad, RP_F64, rms_norm_grad_f64, prepare_grad, NULL},
    {&rp_op_layer_norm_grad_add, RP_F32, layer_norm_grad_add_f32, prepare_grad,
     NULL},
    {&rp_op_layer_norm_grad_add, RP_F64, layer_norm_grad_add_f64, prepare_grad,
     NULL},
    {&rp_op_rms_norm_grad_add, RP_F32, rms_norm_grad_add_f32, prepare_grad,
     NULL},
    {&rp_op_rms_norm_grad_add, RP_F64, rms_norm_grad_add_f64, prepare_grad,
     NULL},
};
const rp_kernel_table rp_cpu_norm_grad = {rows, sizeof rows / sizeof *rows};
