/* linear_cross_entropy and its gradient: logits live in the workspace, a chunk
   of rows at a time, and turn there into exponentials and into dlogits.

   The forward op and the gradient op share their chunks, products and row
   sums, so the loss has the same bits whichever of them makes it. Chunks are
   taken in order and depend on shapes alone; dw is added to in that order.

   bf16 factors give f32 logits, and f32 dlogits that are rounded into an array
   of their own for the products. */
#include <cblas.h>
#include <limits.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "cpu/indices.h"
#include "cpu/lanes.h"
#include "cpu/mixed_product.h"
#include "cpu/parallel.h"
#include "exec/product.h"
#include "graph/op.h"

/* A chunk passes over the whole weight three times, and over dw: that pays
   off over CHUNK_ROWS rows. Where the classes are few, a chunk is as large as
   a cache. */
enum { CHUNK_BYTES = 4 << 20, CHUNK_ROWS = 128, ROW_GRAIN = 16 };
enum { MEAN, SUM, IGNORE_NOTHING = -100 };
enum { WANTS_X = 1, WANTS_W = 2, WANTS_BIAS = 4 };
enum { X, W, LABELS, BIAS };

extern const rp_op rp_op_linear_cross_entropy, rp_op_linear_cross_entropy_grad;

/* ---- the problem -------------------------------------------------------- */

typedef struct problem {
  int64_t rows, width, classes;
  int64_t chunk; /* rows of a chunk; the last one may have fewer */
  size_t size;   /* of a logit and of what is made */
  size_t x_size; /* of an element of x and w */
  bool narrow;   /* those are bf16 */
  int64_t ignored;
  bool mean, has_bias;
  const rp_array *dx, *dw, *dbias; /* NULL where not wanted */
} problem;

static int64_t round_up(int64_t x, int64_t grain) {
  return (x + grain - 1) / grain * grain;
}

/* Chunks of nearly one size. */
static int64_t rows_of_chunk(int64_t rows, int64_t row_bytes) {
  int64_t most = row_bytes > 0 ? CHUNK_BYTES / row_bytes : rows;
  if (most < CHUNK_ROWS) most = CHUNK_ROWS;
  if (rows <= most) return rows;
  const int64_t chunks = (rows + most - 1) / most;
  return round_up((rows + chunks - 1) / chunks, ROW_GRAIN);
}

/* ints: those of the forward op, in the gradient op behind its n_outputs and
   before its wants. */
static problem problem_of(const rp_kernel_args *args, bool with_gradient) {
  const rp_type *x = &args->in[X].type, *w = &args->in[W].type;
  const int from = with_gradient ? 1 : 0;
  problem p = {
      .rows = rp_type_count(&args->in[LABELS].type),
      .width = w->dims[1], .classes = w->dims[0],
      .size = x->dtype == RP_F64 ? sizeof(double) : sizeof(float),
      .x_size = rp_dtype_size((rp_dtype)x->dtype),
      .narrow = x->dtype == RP_BF16,
      .ignored = args->n_ints > from ? args->ints[from] : IGNORE_NOTHING,
      .mean = args->n_ints < from + 2 || args->ints[from + 1] == MEAN,
      .has_bias = args->n_in > BIAS,
  };
  p.chunk = rows_of_chunk(p.rows, p.classes * (int64_t)p.size);
  const int64_t wants = with_gradient ? args->ints[3] : 0;
  const rp_array *out = args->out + 1;
  if (wants & WANTS_X) p.dx = out++;
  if (wants & WANTS_W) p.dw = out++;
  if (wants & WANTS_BIAS) p.dbias = out++;
  return p;
}

static bool makes_dlogits(const problem *p) {
  return p->dx || p->dw || p->dbias;
}

/* ---- products ----------------------------------------------------------- */

/* Of a chunk of n rows: logits:(n, V) = x w^T + bias, dx:(n, C) = dlogits w,
   dw:(V, C) = or += dlogits^T x. */
typedef enum role { LOGITS, DX, DW_FIRST, DW_NEXT, ROLES } role;

/* f32 and bf16: for whole chunks [0] and for a shorter last one [1]; NULL where
   the problem has no such product. */
typedef struct products {
  rp_context *ctx;
  rp_mixed_product *of[2][ROLES];
} products;

static rp_array matrix(const void *data, int64_t rows, int64_t columns,
                       bool narrow) {
  return rp_matrix(narrow ? RP_BF16 : RP_F32, data, rows, columns, columns);
}

/* Where a chunk is, and what its products read and write. */
typedef struct chunk {
  int64_t first, n;
  const char *x, *w;
  const void *bias;
  char *logits, *dlogits, *dx, *dw; /* dlogits: as the products read them */
  void *scratch;
} chunk;

/* y = or += a b. */
typedef struct factors {
  rp_array a, b, y;
} factors;

static factors factors_of(const problem *p, const chunk *c, role role) {
  const bool narrow = p->narrow;
  const rp_array x = matrix(c->x, c->n, p->width, narrow);
  const rp_array w = matrix(c->w, p->classes, p->width, narrow);
  const rp_array logits = matrix(c->logits, c->n, p->classes, false);
  const rp_array dlogits = matrix(c->dlogits, c->n, p->classes, narrow);
  switch (role) {
    case LOGITS: return (factors){x, rp_matrix_transposed(w), logits};
    case DX:
      return (factors){dlogits, w, matrix(c->dx, c->n, p->width, false)};
    default:
      return (factors){rp_matrix_transposed(dlogits), x,
                       matrix(c->dw, p->classes, p->width, false)};
  }
}

static void destroy(void *state) {
  products *all = state;
  if (all == NULL) return;
  for (int i = 0; i < 2; i++)
    for (int role = 0; role < ROLES; role++)
      rp_mixed_product_free(all->of[i][role]);
  rp_free(all->ctx, all, sizeof *all);
}

/* Makes what the problem needs; *bytes is the largest scratch of any. */
static rp_status products_make(products *all, const problem *p,
                               const rp_array *bias, int64_t *bytes) {
  const int64_t sizes[2] = {p->chunk, p->chunk ? p->rows % p->chunk : 0};
  const int64_t whole = p->chunk ? p->rows / p->chunk : 0;
  for (int i = 0; i < 2; i++) {
    if (sizes[i] == 0) continue;
    const bool needed[ROLES] = {
        true, p->dx != NULL, p->dw != NULL && i == 0,
        p->dw != NULL && (i == 1 || whole > 1)};
    for (int role = 0; role < ROLES; role++) {
      int64_t scratch = 0;
      if (!needed[role]) continue;
      const chunk c = {.n = sizes[i]};
      const factors f = factors_of(p, &c, (enum role)role);
      all->of[i][role] = rp_mixed_product_new(
          all->ctx, &f.a, &f.b, role == LOGITS ? bias : NULL, &f.y,
          role == DW_NEXT, &scratch);
      if (all->of[i][role] == NULL) return rp_last_status(all->ctx);
      if (scratch > *bytes) *bytes = scratch;
    }
  }
  return RP_OK;
}

static void multiply_f64(const problem *p, const chunk *c, role role) {
  const double *x = (const double *)c->x, *w = (const double *)c->w;
  double *logits = (double *)c->logits;
  const int n = (int)c->n, v = (int)p->classes, k = (int)p->width;
  /* CBLAS wants leading dims of at least 1. */
  const int v1 = v ? v : 1, k1 = k ? k : 1;
  switch (role) {
    case LOGITS:
      for (int64_t i = 0; i < c->n; i++)
        for (int64_t j = 0; j < p->classes; j++)
          logits[i * p->classes + j] =
              c->bias ? ((const double *)c->bias)[j] : 0;
      cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, v, k, 1, x, k1,
                  w, k1, 1, logits, v1);
      break;
    case DX:
      cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, k, v, 1,
                  logits, v1, w, k1, 0, (double *)c->dx, k1);
      break;
    default:
      cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, v, k, n, 1, logits,
                  v1, x, k1, role == DW_FIRST ? 0 : 1, (double *)c->dw, k1);
  }
}

static rp_status multiply(const rp_kernel_args *args, const problem *p,
                          const chunk *c, role role) {
  if (p->size == sizeof(double)) {
    multiply_f64(p, c, role);
    return RP_OK;
  }
  const products *all = args->state;
  const factors f = factors_of(p, c, role);
  const rp_array *bias =
      role == LOGITS && p->has_bias ? &args->in[BIAS] : NULL;
  return rp_mixed_product_run(all->of[c->n == p->chunk ? 0 : 1][role],
                              args->ctx, &f.a, &f.b, bias, &f.y, c->scratch);
}

/* ---- rows --------------------------------------------------------------- */

/* x becomes exp(x - top); their sum, in blocks. */
static double exponentials_f32(float *x, int64_t n, float top) {
  double total = 0;
  for (int64_t block = 0; block < n; block += RP_LANE_BLOCK) {
    const int64_t m = n - block < RP_LANE_BLOCK ? n - block : RP_LANE_BLOCK;
    float *e = x + block;
    for (int64_t j = 0; j < m; j++) e[j] = rp_exp_down_f32(e[j] - top);
    total += rp_fold_f32(RP_FOLD_SUM, e, m, 0);
  }
  return total;
}

static double exponentials_f64(double *x, int64_t n, double top) {
  double total = 0;
  for (int64_t block = 0; block < n; block += RP_LANE_BLOCK) {
    const int64_t m = n - block < RP_LANE_BLOCK ? n - block : RP_LANE_BLOCK;
    double *e = x + block;
    for (int64_t j = 0; j < m; j++) e[j] = rp_exp_f64(e[j] - top);
    total += rp_fold_f64(RP_FOLD_SUM, e, m, 0);
  }
  return total;
}

/* A row of logits whose label counts: returns its loss. It becomes dlogits
   = share (softmax - onehot), where `share` is not NULL. */
static double row_f32(float *x, int64_t n, int64_t label,
                      const double *share) {
  const float top = (float)rp_fold_f32(RP_FOLD_TOP, x, n, 0);
  const double at_label = x[label];
  const double total = exponentials_f32(x, n, top);
  if (share) {
    const float scale = (float)(*share / total);
    const double p = x[label] / total;
    for (int64_t j = 0; j < n; j++) x[j] *= scale;
    x[label] = (float)((p - 1) * *share);
  }
  return top + rp_log_f64(total) - at_label;
}

static double row_f64(double *x, int64_t n, int64_t label,
                      const double *share) {
  const double top = rp_fold_f64(RP_FOLD_TOP, x, n, 0);
  const double at_label = x[label];
  const double total = exponentials_f64(x, n, top);
  if (share) {
    const double scale = *share / total, p = x[label] / total;
    for (int64_t j = 0; j < n; j++) x[j] *= scale;
    x[label] = (p - 1) * *share;
  }
  return top + rp_log_f64(total) - at_label;
}

/* Each row's loss, 0 where its label is ignored. */
static void make_rows(const rp_kernel_args *args, const problem *p,
                      const chunk *c, const double *share, double *losses) {
  const rp_array *labels = &args->in[LABELS];
  const int64_t n = p->classes;
#pragma omp parallel for schedule(static) if (rp_worth(c->n * n))
  for (int64_t i = 0; i < c->n; i++) {
    const int64_t label = rp_index_at(labels, c->first + i);
    char *row = c->logits + (size_t)(i * n) * p->size;
    if (label == p->ignored) {
      losses[i] = 0;
      if (share) memset(row, 0, (size_t)n * p->size);
    } else if (p->size == sizeof(double)) {
      losses[i] = row_f64((double *)row, n, label, share);
    } else {
      losses[i] = row_f32((float *)row, n, label, share);
    }
  }
}

/* dlogits for the products. */
static void round_rows(const problem *p, const chunk *c) {
  const float *from = (const float *)c->logits;
  uint16_t *to = (uint16_t *)c->dlogits;
  const int64_t n = p->classes;
#pragma omp parallel for schedule(static) if (rp_worth(c->n * n))
  for (int64_t i = 0; i < c->n; i++)
    rp_bf16_round(to + i * n, from + i * n, n);
}

/* dbias = or += the sum of dlogits over the chunk's rows: a strip of columns
   a time, in f64 over the chunk. */
static void add_bias(const problem *p, const chunk *c) {
  enum { STRIP = 512 };
  const int64_t v = p->classes;
#pragma omp parallel for schedule(static) if (rp_worth(c->n * v))
  for (int64_t first = 0; first < v; first += STRIP) {
    const int64_t m = v - first < STRIP ? v - first : STRIP;
    double sum[STRIP] = {0};
    for (int64_t i = 0; i < c->n; i++) {
      const int64_t at = i * v + first;
      if (p->size == sizeof(double))
        for (int64_t j = 0; j < m; j++)
          sum[j] += ((const double *)c->logits)[at + j];
      else
        for (int64_t j = 0; j < m; j++)
          sum[j] += ((const float *)c->logits)[at + j];
    }
    for (int64_t j = 0; j < m; j++) {
      if (p->size == sizeof(double)) {
        double *y = (double *)p->dbias->data + first + j;
        *y = c->first ? *y + sum[j] : sum[j];
      } else {
        float *y = (float *)p->dbias->data + first + j;
        *y = c->first ? (float)(*y + sum[j]) : (float)sum[j];
      }
    }
  }
}

/* ---- running ------------------------------------------------------------ */

/* The workspace: a chunk of logits, of dlogits where they are rounded, its
   rows' losses, the products' scratch. */
static int64_t logits_bytes(const problem *p) {
  return rp_align(p->chunk * p->classes * (int64_t)p->size);
}
static int64_t dlogits_bytes(const problem *p) {
  return p->narrow && (p->dx || p->dw)
             ? rp_align(p->chunk * p->classes * (int64_t)p->x_size) : 0;
}
static int64_t losses_bytes(const problem *p) {
  return rp_align(p->chunk * (int64_t)sizeof(double));
}

static rp_status run_chunk(const rp_kernel_args *args, const problem *p,
                           const chunk *c, const double *share,
                           double *losses) {
  rp_status status = multiply(args, p, c, LOGITS);
  if (status != RP_OK) return status;
  make_rows(args, p, c, share, losses);
  if (p->dbias) add_bias(p, c);
  if (p->narrow && (p->dx || p->dw)) round_rows(p, c);
  if (p->dw) status = multiply(args, p, c, c->first ? DW_NEXT : DW_FIRST);
  if (p->dx && status == RP_OK) status = multiply(args, p, c, DX);
  return status;
}

static rp_status run_all(const rp_kernel_args *args, const problem *p) {
  rp_status status =
      rp_indices_check(args, LABELS, p->classes, &p->ignored, "label");
  if (status != RP_OK) return status;
  int64_t count = 0;
  for (int64_t i = 0; i < p->rows; i++)
    count += rp_index_at(&args->in[LABELS], i) != p->ignored;
  const double share = p->mean ? 1 / (double)count : 1;
  double *losses =
      (double *)((char *)args->workspace + logits_bytes(p) +
                 dlogits_bytes(p));
  chunk c = {.w = args->in[W].data, .logits = args->workspace,
             .dlogits = (char *)args->workspace +
                        (p->narrow ? logits_bytes(p) : 0),
             .bias = p->has_bias ? args->in[BIAS].data : NULL,
             .dw = p->dw ? p->dw->data : NULL,
             .scratch = (char *)losses + losses_bytes(p)};
  if (p->rows == 0) {
    if (p->dw) memset(c.dw, 0, (size_t)rp_type_bytes(&p->dw->type));
    if (p->dbias)
      memset(p->dbias->data, 0, (size_t)rp_type_bytes(&p->dbias->type));
  }
  double loss = 0;
  for (; c.first < p->rows && status == RP_OK; c.first += p->chunk) {
    const size_t at = (size_t)(c.first * p->width);
    c.n = p->rows - c.first < p->chunk ? p->rows - c.first : p->chunk;
    c.x = (const char *)args->in[X].data + at * p->x_size;
    c.dx = p->dx ? (char *)p->dx->data + at * p->size : NULL;
    status = run_chunk(args, p, &c, makes_dlogits(p) ? &share : NULL, losses);
    for (int64_t i = 0; i < c.n && status == RP_OK; i++) loss += losses[i];
  }
  if (p->mean) loss /= (double)count;
  if (p->size == sizeof(double)) *(double *)args->out[0].data = loss;
  else *(float *)args->out[0].data = (float)loss;
  return status;
}

static rp_status prepare(const rp_kernel_args *args, const problem *p,
                         void **state, int64_t *workspace_bytes) {
  int64_t scratch = 0;
  *state = NULL;
  rp_status status = RP_OK;
  if (p->size == sizeof(double)) {
    if (p->classes > INT_MAX || p->width > INT_MAX)
      return rp_fail(args->ctx, RP_UNSUPPORTED,
                     "a product of f64 matrices with a dim of %lld: at most "
                     "%d", (long long)(p->classes > p->width ? p->classes
                                                             : p->width),
                     INT_MAX);
  } else {
    products *all = rp_alloc(args->ctx, sizeof *all);
    if (all == NULL) return RP_NOMEM;
    all->ctx = args->ctx;
    status = products_make(all, p, p->has_bias ? &args->in[BIAS] : NULL,
                           &scratch);
    if (status == RP_OK) *state = all;
    else destroy(all);
  }
  *workspace_bytes =
      logits_bytes(p) + dlogits_bytes(p) + losses_bytes(p) + scratch;
  return status;
}

static rp_status forward_prepare(const rp_kernel_args *args, void **state,
                                 int64_t *workspace_bytes) {
  const problem p = problem_of(args, false);
  return prepare(args, &p, state, workspace_bytes);
}

static rp_status grad_prepare(const rp_kernel_args *args, void **state,
                              int64_t *workspace_bytes) {
  const problem p = problem_of(args, true);
  return prepare(args, &p, state, workspace_bytes);
}

static rp_status forward_run(const rp_kernel_args *args) {
  const problem p = problem_of(args, false);
  return run_all(args, &p);
}

static rp_status grad_run(const rp_kernel_args *args) {
  const problem p = problem_of(args, true);
  return run_all(args, &p);
}

static const rp_kernel rows[] = {
    {&rp_op_linear_cross_entropy, RP_F32, forward_run, forward_prepare,
     destroy},
    {&rp_op_linear_cross_entropy, RP_F64, forward_run, forward_prepare,
     destroy},
    {&rp_op_linear_cross_entropy, RP_BF16, forward_run, forward_prepare,
     destroy},
    {&rp_op_linear_cross_entropy_grad, RP_BF16, grad_run, grad_prepare,
     destroy},
    {&rp_op_linear_cross_entropy_grad, RP_F32, grad_run, grad_prepare,
     destroy},
    {&rp_op_linear_cross_entropy_grad, RP_F64, grad_run, grad_prepare,
     destroy},
};

const rp_kernel_table rp_cpu_linear_cross_entropy = {
    rows, sizeof rows / sizeof *rows};
