/* cross_entropy and its gradient: rows of logits in lanes, the rows' losses
   summed in order in f64 by one thread. */
#include "cpu/indices.h"
#include "cpu/lanes.h"
#include "cpu/parallel.h"
#include "graph/op.h"

enum { MEAN, SUM, NONE, IGNORE_NOTHING = -100 };

typedef struct problem {
  int64_t rows, classes, ignored;
  bool mean, none;
} problem;

static problem problem_of(const rp_kernel_args *args, const rp_type *logits) {
  problem p = {.rows = 1, .classes = logits->dims[logits->rank - 1],
               .ignored = args->n_ints > 0 ? args->ints[0] : IGNORE_NOTHING,
               .mean = args->n_ints < 2 || args->ints[1] == MEAN,
               .none = args->n_ints > 1 && args->ints[1] == NONE};
  for (int i = 0; i < logits->rank - 1; i++) p.rows *= logits->dims[i];
  return p;
}

/* ---- forward ------------------------------------------------------------ */

/* Each row's loss, 0 where it is ignored. */
static rp_status prepare(const rp_kernel_args *args, void **state,
                         int64_t *bytes) {
  const problem p = problem_of(args, &args->in[0].type);
  *bytes = rp_align(p.rows * (int64_t)sizeof(double));
  return RP_OK;
}

static double lse_f32(const float *x, int64_t n) {
  const float top = (float)rp_fold_f32(RP_FOLD_TOP, x, n, 0);
  return top + rp_log_f64(rp_sum_exp_f32(x, n, top));
}

static double lse_f64(const double *x, int64_t n) {
  const double top = rp_fold_f64(RP_FOLD_TOP, x, n, 0);
  return top + rp_log_f64(rp_sum_exp_f64(x, n, top));
}

/* As lse_f32 of the widened row, a block of it at a time. */
static double lse_bf16(const uint16_t *x, int64_t n) {
  const float top = (float)rp_fold_bf16(RP_FOLD_TOP, x, n, 0);
  float wide[RP_LANE_BLOCK];
  double total = 0;
  for (int64_t at = 0; at < n; at += RP_LANE_BLOCK) {
    const int64_t m = n - at < RP_LANE_BLOCK ? n - at : RP_LANE_BLOCK;
    rp_bf16_widen(wide, x + at, 1, m);
    total += rp_sum_exp_f32(wide, m, top);
  }
  return top + rp_log_f64(total);
}

static rp_status cross_entropy(const rp_kernel_args *args) {
  const problem p = problem_of(args, &args->in[0].type);
  const rp_status status =
      rp_indices_check(args, 1, p.classes, &p.ignored, "label");
  if (status != RP_OK) return status;
  const bool wide = args->in[0].type.dtype == RP_F64;
  const bool narrow = args->in[0].type.dtype == RP_BF16;
  double *losses = args->workspace;
#pragma omp parallel for schedule(static) if (rp_worth(p.rows * p.classes))
  for (int64_t i = 0; i < p.rows; i++) {
    const int64_t label = rp_index_at(&args->in[1], i), from = i * p.classes;
    const bool counts = label != p.ignored;
    if (wide) {
      const double *x = (const double *)args->in[0].data + from;
      const double lse = lse_f64(x, p.classes);
      ((double *)args->out[1].data)[i] = lse;
      losses[i] = counts ? lse - x[label] : 0;
    } else if (narrow) {
      const uint16_t *x = (const uint16_t *)args->in[0].data + from;
      const double lse = lse_bf16(x, p.classes);
      ((float *)args->out[1].data)[i] = (float)lse;
      losses[i] = counts ? lse - rp_bf16_to_f32(x[label]) : 0;
    } else {
      const float *x = (const float *)args->in[0].data + from;
      const double lse = lse_f32(x, p.classes);
      ((float *)args->out[1].data)[i] = (float)lse;
      losses[i] = counts ? lse - x[label] : 0;
    }
  }
  if (p.none) {
    for (int64_t i = 0; i < p.rows; i++) {
      if (wide) ((double *)args->out[0].data)[i] = losses[i];
      else ((float *)args->out[0].data)[i] = (float)losses[i];
    }
    return RP_OK;
  }
  double loss = 0;
  int64_t count = 0;
  for (int64_t i = 0; i < p.rows; i++) {
    loss += losses[i];
    count += rp_index_at(&args->in[1], i) != p.ignored;
  }
  if (p.mean) loss /= (double)count;
  if (wide) *(double *)args->out[0].data = loss;
  else *(float *)args->out[0].data = (float)loss;
  return RP_OK;
}

/* ---- backward ----------------------------------------------------------- */

static void grad_row_f32(const float *x, float *dx, int64_t n, float lse,
                         float share, int64_t label) {
  const float at_label = rp_exp_down_f32(x[label] - lse);
#pragma GCC ivdep
  for (int64_t j = 0; j < n; j++) dx[j] = rp_exp_down_f32(x[j] - lse) * share;
  dx[label] = (at_label - 1) * share;
}

static void grad_row_f64(const double *x, double *dx, int64_t n, double lse,
                         double share, int64_t label) {
  const double at_label = rp_exp_f64(x[label] - lse);
#pragma GCC ivdep
  for (int64_t j = 0; j < n; j++) dx[j] = rp_exp_f64(x[j] - lse) * share;
  dx[label] = (at_label - 1) * share;
}

static void grad_row_bf16(const uint16_t *x, uint16_t *dx, int64_t n,
                          float lse, float share, int64_t label) {
  enum { PIECE = 512 };
  float wide[PIECE];
  const float at_label = rp_exp_down_f32(rp_bf16_to_f32(x[label]) - lse);
  for (int64_t at = 0; at < n; at += PIECE) {
    const int64_t m = n - at < PIECE ? n - at : PIECE;
    rp_bf16_widen(wide, x + at, 1, m);
    for (int64_t j = 0; j < m; j++)
      wide[j] = rp_exp_down_f32(wide[j] - lse) * share;
    rp_bf16_round(dx + at, wide, m);
  }
  dx[label] = rp_f32_to_bf16((at_label - 1) * share);
}

/* What row i of the loss's gradient is; one number unless reduction is none.
 */
static double dloss_at(const rp_array *dloss, const problem *p, int64_t i) {
  const int64_t at = p->none ? i : 0;
  return dloss->type.dtype == RP_F64 ? ((const double *)dloss->data)[at]
                                     : ((const float *)dloss->data)[at];
}

/* dx may be x. */
static rp_status cross_entropy_grad(const rp_kernel_args *args) {
  const problem p = problem_of(args, &args->in[1].type);
  const rp_array *labels = &args->in[2];
  const rp_status status =
      rp_indices_check(args, 2, p.classes, &p.ignored, "label");
  if (status != RP_OK) return status;
  const bool wide = args->in[1].type.dtype == RP_F64;
  const bool narrow = args->in[1].type.dtype == RP_BF16;
  int64_t count = p.mean ? 0 : 1;
  for (int64_t i = 0; p.mean && i < p.rows; i++)
    count += rp_index_at(labels, i) != p.ignored;
#pragma omp parallel for schedule(static) if (rp_worth(p.rows * p.classes))
  for (int64_t i = 0; i < p.rows; i++) {
    const int64_t label = rp_index_at(labels, i), from = i * p.classes;
    const bool counts = label != p.ignored;
    const double share = dloss_at(&args->in[0], &p, i) / (double)count;
    if (wide) {
      const double *x = (const double *)args->in[1].data + from;
      double *dx = (double *)args->out[0].data + from;
      if (counts)
        grad_row_f64(x, dx, p.classes, ((double *)args->in[3].data)[i], share,
                     label);
      else for (int64_t j = 0; j < p.classes; j++) dx[j] = 0;
    } else if (narrow) {
      const uint16_t *x = (const uint16_t *)args->in[1].data + from;
      uint16_t *dx = (uint16_t *)args->out[0].data + from;
      if (counts)
        grad_row_bf16(x, dx, p.classes, ((float *)args->in[3].data)[i],
                      (float)share, label);
      else for (int64_t j = 0; j < p.classes; j++) dx[j] = 0;
    } else {
      const float *x = (const float *)args->in[1].data + from;
      float *dx = (float *)args->out[0].data + from;
      if (counts)
        grad_row_f32(x, dx, p.classes, ((float *)args->in[3].data)[i],
                     (float)share, label);
      else for (int64_t j = 0; j < p.classes; j++) dx[j] = 0;
    }
  }
  return RP_OK;
}

extern const rp_op rp_op_cross_entropy, rp_op_cross_entropy_grad;

/* The gradient's dtype is that of its first input, dloss: f32 where logits
   are bf16. */
static const rp_kernel rows[] = {
    {&rp_op_cross_entropy, RP_F32, cross_entropy, prepare, NULL},
    {&rp_op_cross_entropy, RP_F64, cross_entropy, prepare, NULL},
    {&rp_op_cross_entropy, RP_BF16, cross_entropy, prepare, NULL},
    {&rp_op_cross_entropy_grad, RP_F32, cross_entropy_grad, NULL, NULL},
    {&rp_op_cross_entropy_grad, RP_F64, cross_entropy_grad, NULL, NULL},
};
const rp_kernel_table rp_cpu_loss = {rows, sizeof rows / sizeof *rows};
