/* Reductions of floating values: folds over rows or columns (cpu/reduce.h).
   Partials go to the workspace and are joined in order, in f64. */
#include <string.h>

#include "cpu/lanes.h"
#include "cpu/parallel.h"
#include "cpu/reduce.h"
#include "graph/op.h"

enum { COLUMN_TILE = RP_COLUMN_TILE, ROWS = RP_FOLD_ROWS, JOIN = 256 };

/* ---- the two element types ----------------------------------------------- */
/* What a pass leaves is turned into the value: */
typedef enum finish {
  AS_IS,
  DIVIDE, /* v / divisor */
  LOG     /* log(v) + shift; shift where it is no number to subtract */
} finish;

typedef struct element {
  size_t size;
  double (*run)(rp_fold fold, const void *x, int64_t n, double shift);
  /* y[j] joined with the fold of n <= ROWS rows' entries j < m. */
  void (*rows)(rp_fold fold, void *y, const void *const *row, int n,
               int64_t m, const void *shift);
  void (*add_partial)(rp_fold fold, double *total, const void *partial,
                      int64_t m);
  void (*store)(void *y, const double *total, int64_t m);
  void (*finish)(finish how, void *y, int64_t m, double divisor,
                 const void *shift);
  double (*load)(const void *x, int64_t i);
} element;

static double run_f32(rp_fold fold, const void *x, int64_t n, double shift) {
  const float s = (float)shift;
  switch (fold) {
    case RP_FOLD_SUM: return rp_fold_f32(RP_FOLD_SUM, x, n, s);
    case RP_FOLD_SQUARES: return rp_fold_f32(RP_FOLD_SQUARES, x, n, s);
    case RP_FOLD_DEVIATION: return rp_fold_f32(RP_FOLD_DEVIATION, x, n, s);
    case RP_FOLD_EXP: return rp_sum_exp_f32(x, n, s);
    case RP_FOLD_TOP: return rp_extreme_f32(RP_FOLD_TOP, x, n);
    default: return rp_extreme_f32(RP_FOLD_BOTTOM, x, n);
  }
}

static double run_f64(rp_fold fold, const void *x, int64_t n, double shift) {
  switch (fold) {
    case RP_FOLD_SUM: return rp_fold_f64(RP_FOLD_SUM, x, n, shift);
    case RP_FOLD_SQUARES: return rp_fold_f64(RP_FOLD_SQUARES, x, n, shift);
    case RP_FOLD_DEVIATION: return rp_fold_f64(RP_FOLD_DEVIATION, x, n, shift);
    case RP_FOLD_EXP: return rp_sum_exp_f64(x, n, shift);
    case RP_FOLD_TOP: return rp_extreme_f64(RP_FOLD_TOP, x, n);
    default: return rp_extreme_f64(RP_FOLD_BOTTOM, x, n);
  }
}

/* A step, or a join, that lets NaN through. */
RP_INLINE float step_f32(rp_fold fold, float a, float x, float shift) {
  const float y = rp_fold_step_f32(fold, a, x, shift);
  return rp_fold_is_extreme(fold) && x != x ? x : y;
}
RP_INLINE double step_f64(rp_fold fold, double a, double x, double shift) {
  const double y = rp_fold_step_f64(fold, a, x, shift);
  return rp_fold_is_extreme(fold) && x != x ? x : y;
}
RP_INLINE float join_f32(rp_fold fold, float a, float b) {
  return rp_fold_is_extreme(fold) ? step_f32(fold, a, b, 0) : a + b;
}
RP_INLINE double join_f64(rp_fold fold, double a, double b) {
  return rp_fold_is_extreme(fold) ? step_f64(fold, a, b, 0) : a + b;
}

RP_INLINE void fold_rows_f32(rp_fold fold, float *restrict y,
                             const void *const *row, int n, int64_t m,
                             const float *restrict shift) {
  const float start = (float)rp_fold_start(fold);
  if (n == ROWS) {
    const float *a = row[0], *b = row[1], *c = row[2], *d = row[3],
                *e = row[4], *f = row[5], *g = row[6], *h = row[7];
    for (int64_t j = 0; j < m; j++) {
      const float s = shift ? shift[j] : 0;
      float p = step_f32(fold, start, a[j], s);
      float q = step_f32(fold, start, e[j], s);
      p = step_f32(fold, p, b[j], s);
      q = step_f32(fold, q, f[j], s);
      p = step_f32(fold, p, c[j], s);
      q = step_f32(fold, q, g[j], s);
      p = step_f32(fold, p, d[j], s);
      q = step_f32(fold, q, h[j], s);
      y[j] = join_f32(fold, y[j], join_f32(fold, p, q));
    }
    return;
  }
  for (int i = 0; i < n; i++) {
    const float *x = row[i];
    for (int64_t j = 0; j < m; j++)
      y[j] = step_f32(fold, y[j], x[j], shift ? shift[j] : 0);
  }
}

RP_INLINE void fold_rows_f64(rp_fold fold, double *restrict y,
                             const void *const *row, int n, int64_t m,
                             const double *restrict shift) {
  for (int i = 0; i < n; i++) {
    const double *x = row[i];
    for (int64_t j = 0; j < m; j++)
      y[j] = step_f64(fold, y[j], x[j], shift ? shift[j] : 0);
  }
}

static void rows_f32(rp_fold fold, void *y, const void *const *row, int n,
                     int64_t m, const void *shift) {
  switch (fold) {
    case RP_FOLD_SUM:
      fold_rows_f32(RP_FOLD_SUM, y, row, n, m, NULL); break;
    case RP_FOLD_SQUARES:
      fold_rows_f32(RP_FOLD_SQUARES, y, row, n, m, NULL); break;
    case RP_FOLD_DEVIATION:
      fold_rows_f32(RP_FOLD_DEVIATION, y, row, n, m, shift); break;
    case RP_FOLD_EXP:
      fold_rows_f32(RP_FOLD_EXP, y, row, n, m, shift); break;
    case RP_FOLD_TOP:
      fold_rows_f32(RP_FOLD_TOP, y, row, n, m, NULL); break;
    default:
      fold_rows_f32(RP_FOLD_BOTTOM, y, row, n, m, NULL); break;
  }
}

static void rows_f64(rp_fold fold, void *y, const void *const *row, int n,
                     int64_t m, const void *shift) {
  switch (fold) {
    case RP_FOLD_SUM:
      fold_rows_f64(RP_FOLD_SUM, y, row, n, m, NULL); break;
    case RP_FOLD_SQUARES:
      fold_rows_f64(RP_FOLD_SQUARES, y, row, n, m, NULL); break;
    case RP_FOLD_DEVIATION:
      fold_rows_f64(RP_FOLD_DEVIATION, y, row, n, m, shift); break;
    case RP_FOLD_EXP:
      fold_rows_f64(RP_FOLD_EXP, y, row, n, m, shift); break;
    case RP_FOLD_TOP:
      fold_rows_f64(RP_FOLD_TOP, y, row, n, m, NULL); break;
    default:
      fold_rows_f64(RP_FOLD_BOTTOM, y, row, n, m, NULL); break;
  }
}

/* total[j] joined with partial[j]. */
static void add_partial_f32(rp_fold fold, double *total, const void *partial,
                            int64_t m) {
  const float *p = partial;
  for (int64_t j = 0; j < m; j++) total[j] = join_f64(fold, total[j], p[j]);
}

static void add_partial_f64(rp_fold fold, double *total, const void *partial,
                            int64_t m) {
  const double *p = partial;
  for (int64_t j = 0; j < m; j++) total[j] = join_f64(fold, total[j], p[j]);
}

static void store_f32(void *y, const double *total, int64_t m) {
  for (int64_t j = 0; j < m; j++) ((float *)y)[j] = (float)total[j];
}

static void store_f64(void *y, const double *total, int64_t m) {
  memcpy(y, total, (size_t)m * sizeof *total);
}

static void finish_f32(finish how, void *y, int64_t m, double divisor,
                       const void *shift) {
  float *v = y;
  const float *s = shift, d = (float)divisor;
  if (how == DIVIDE) {
    for (int64_t j = 0; j < m; j++) v[j] /= d;
  } else if (how == LOG) {
    for (int64_t j = 0; j < m; j++)
      v[j] = isfinite(s[j]) ? rp_log_f32(v[j]) + s[j] : s[j];
  }
}

static void finish_f64(finish how, void *y, int64_t m, double divisor,
                       const void *shift) {
  double *v = y;
  const double *s = shift;
  if (how == DIVIDE) {
    for (int64_t j = 0; j < m; j++) v[j] /= divisor;
  } else if (how == LOG) {
    for (int64_t j = 0; j < m; j++)
      v[j] = isfinite(s[j]) ? rp_log_f64(v[j]) + s[j] : s[j];
  }
}

static double load_f32(const void *x, int64_t i) { return ((float *)x)[i]; }
static double load_f64(const void *x, int64_t i) { return ((double *)x)[i]; }

static const element f32 = {sizeof(float), run_f32, rows_f32,
                            add_partial_f32, store_f32, finish_f32, load_f32};
static const element f64 = {sizeof(double), run_f64, rows_f64,
                            add_partial_f64, store_f64, finish_f64, load_f64};

/* ---- passes -------------------------------------------------------------- */
/* A reduction: one fold, or two of which the first gives the second's
   shift. */
typedef struct way {
  int passes;
  rp_fold fold[2];
  finish finish[2];
} way;

static const way
    way_sum = {1, {RP_FOLD_SUM}, {AS_IS}},
    way_mean = {1, {RP_FOLD_SUM}, {DIVIDE}},
    way_max = {1, {RP_FOLD_TOP}, {AS_IS}},
    way_min = {1, {RP_FOLD_BOTTOM}, {AS_IS}},
    way_sum_squares = {1, {RP_FOLD_SQUARES}, {AS_IS}},
    way_var = {2, {RP_FOLD_SUM, RP_FOLD_DEVIATION}, {DIVIDE, DIVIDE}},
    way_logsumexp = {2, {RP_FOLD_TOP, RP_FOLD_EXP}, {AS_IS, LOG}};

typedef struct task {
  const element *e;
  rp_layout l;
  const char *x;
  int64_t count; /* elements of x */
  char *y, *shift, *partials;
} task;

/* Fold of elements first..last-1 of output k's row. */
static double fold_row(const task *t, rp_fold fold, int64_t k, int64_t first,
                       int64_t last, double shift) {
  const rp_layout *l = &t->l;
  const char *x = t->x + rp_groups_offset(&l->kept, k) * (int64_t)t->e->size;
  if (l->reduced.n == 0)
    return t->e->run(fold, x + first * (int64_t)t->e->size, last - first,
                     shift);
  double total = rp_fold_start(fold);
  while (first < last) {
    const int64_t at = first % l->run;
    const int64_t n = last - first < l->run - at ? last - first : l->run - at;
    const int64_t from = rp_groups_offset(&l->reduced, first / l->run) + at;
    const double part =
        t->e->run(fold, x + from * (int64_t)t->e->size, n, shift);
    total = join_f64(fold, total, part);
    first += n;
  }
  return total;
}

/* Short rows: all passes over a row while it is in the cache. */
static void rows_whole(const task *t, const way *w, const double *divisor) {
  const int64_t length = t->l.reduced.count * t->l.run;
  const int64_t size = (int64_t)t->e->size;
#pragma omp parallel for schedule(static) if (rp_worth(t->count))
  for (int64_t k = 0; k < t->l.kept.count; k++) {
    double shift = 0, s[1];
    for (int p = 0; p < w->passes; p++) {
      const double total = fold_row(t, w->fold[p], k, 0, length, shift);
      t->e->store(t->y + k * size, &total, 1);
      if (w->finish[p] == AS_IS && w->passes == 1) continue;
      t->e->store(s, &shift, 1);
      t->e->finish(w->finish[p], t->y + k * size, 1, divisor[p], s);
      shift = t->e->load(t->y, k);
    }
  }
}

static void rows_pass(const task *t, rp_fold fold, char *y) {
  const rp_layout *l = &t->l;
  const int64_t length = l->reduced.count * l->run, size = (int64_t)t->e->size;
  double *partials = (double *)t->partials;
#pragma omp parallel for schedule(static) if (rp_worth(t->count))
  for (int64_t i = 0; i < l->kept.count * l->chunks; i++) {
    const int64_t k = i / l->chunks, first = i % l->chunks * l->chunk;
    const int64_t last =
        length - first < l->chunk ? length : first + l->chunk;
    const double shift = t->shift ? t->e->load(t->shift, k) : 0;
    partials[i] = fold_row(t, fold, k, first, last, shift);
  }
  for (int64_t k = 0; k < l->kept.count; k++) {
    double total = rp_fold_start(fold);
    for (int64_t c = 0; c < l->chunks; c++)
      total = join_f64(fold, total, partials[k * l->chunks + c]);
    t->e->store(y + k * size, &total, 1);
  }
}

/* Rows first..last-1 of output run k, entries at..at+m-1, into acc. */
static void fold_columns(const task *t, rp_fold fold, char *acc, int64_t k,
                         int64_t first, int64_t last, int64_t at, int64_t m,
                         const char *shift) {
  const rp_layout *l = &t->l;
  const int64_t size = (int64_t)t->e->size;
  const char *x = t->x + (rp_groups_offset(&l->kept, k) + at) * size;
  double start[JOIN];
  for (int j = 0; j < JOIN; j++) start[j] = rp_fold_start(fold);
  for (int64_t j = 0; j < m; j += JOIN)
    t->e->store(acc + j * size, start, m - j < JOIN ? m - j : JOIN);
  for (; first < last; first += ROWS) {
    const void *row[ROWS];
    const int n = (int)(last - first < ROWS ? last - first : ROWS);
    for (int i = 0; i < n; i++)
      row[i] = x + rp_groups_offset(&l->reduced, first + i) * size;
    t->e->rows(fold, acc, row, n, m, shift);
  }
}

static void join_columns(const task *t, rp_fold fold, char *y) {
  const rp_layout *l = &t->l;
  const int64_t size = (int64_t)t->e->size;
  const int64_t tiles = (l->run + JOIN - 1) / JOIN;
#pragma omp parallel for schedule(static) if (rp_worth(t->count))
  for (int64_t i = 0; i < l->kept.count * tiles; i++) {
    const int64_t k = i / tiles, at = i % tiles * JOIN;
    const int64_t m = l->run - at < JOIN ? l->run - at : JOIN;
    double total[JOIN];
    for (int64_t j = 0; j < m; j++) total[j] = rp_fold_start(fold);
    for (int64_t c = 0; c < l->chunks; c++)
      t->e->add_partial(fold, total,
                 t->partials + ((k * l->chunks + c) * l->run + at) * size, m);
    t->e->store(y + (k * l->run + at) * size, total, m);
  }
}

static void columns_pass(const task *t, rp_fold fold, char *y) {
  const rp_layout *l = &t->l;
  const int64_t size = (int64_t)t->e->size;
  const int64_t tiles = (l->run + COLUMN_TILE - 1) / COLUMN_TILE;
  const int64_t items = l->kept.count * l->chunks * tiles;
  char *into = l->chunks > 1 ? t->partials : y;
#pragma omp parallel for schedule(static) if (rp_worth(t->count))
  for (int64_t i = 0; i < items; i++) {
    const int64_t part = i / tiles, k = part / l->chunks;
    const int64_t at = i % tiles * COLUMN_TILE;
    const int64_t m = l->run - at < COLUMN_TILE ? l->run - at : COLUMN_TILE;
    const int64_t first = part % l->chunks * l->chunk;
    const int64_t last = l->reduced.count - first < l->chunk
                             ? l->reduced.count : first + l->chunk;
    fold_columns(t, fold, into + (part * l->run + at) * size, k, first, last,
                 at, m,
                 t->shift ? t->shift + (k * l->run + at) * size : NULL);
  }
  if (l->chunks > 1) join_columns(t, fold, y);
}

static void finish_all(const task *t, finish how, char *y, int64_t outputs,
                       double divisor) {
  const int64_t size = (int64_t)t->e->size;
  if (how == AS_IS) return;
#pragma omp parallel for schedule(static) if (rp_worth(outputs))
  for (int64_t at = 0; at < outputs; at += COLUMN_TILE)
    t->e->finish(how, y + at * size,
                 outputs - at < COLUMN_TILE ? outputs - at : COLUMN_TILE,
                 divisor, t->shift ? t->shift + at * size : NULL);
}

/* ---- kernels ------------------------------------------------------------- */
static int64_t partial_bytes(const rp_layout *l, size_t size) {
  if (l->chunks == 1) return 0;
  return rp_align(l->kept.count * l->chunks *
                  (l->rows ? (int64_t)sizeof(double)
                           : l->run * (int64_t)size));
}

static int64_t shift_bytes(const rp_layout *l, const way *w, size_t size) {
  if (w->passes == 1 || (l->rows && l->chunks == 1)) return 0;
  return rp_align(l->kept.count * (l->rows ? 1 : l->run) * (int64_t)size);
}

static rp_status measure(const rp_kernel_args *args, const way *w,
                         uint32_t set, int64_t *bytes) {
  const rp_type *x = &args->in[0].type;
  const size_t size = rp_dtype_size((rp_dtype)x->dtype);
  rp_layout l;
  rp_layout_of(&l, x, set);
  *bytes = partial_bytes(&l, size) + shift_bytes(&l, w, size);
  return RP_OK;
}

static rp_status reduce(const rp_kernel_args *args, const way *w,
                        uint32_t set, int64_t correction) {
  const rp_type *x = &args->in[0].type;
  task t = {.e = x->dtype == RP_F32 ? &f32 : &f64, .x = args->in[0].data,
            .count = rp_type_count(x), .y = args->out[0].data,
            .partials = args->workspace};
  rp_layout_of(&t.l, x, set);
  const rp_layout *l = &t.l;
  const int64_t outputs = l->kept.count * (l->rows ? 1 : l->run);
  const int64_t n = l->reduced.count * (l->rows ? l->run : 1);
  const double divisor[2] = {
      (double)n, n > correction ? (double)(n - correction) : 0};
  if (l->rows && l->chunks == 1) {
    rows_whole(&t, w, divisor);
    return RP_OK;
  }
  char *shift = (char *)args->workspace + partial_bytes(l, t.e->size);
  for (int p = 0; p < w->passes; p++) {
    char *y = p < w->passes - 1 ? shift : t.y;
    if (l->rows) rows_pass(&t, w->fold[p], y);
    else columns_pass(&t, w->fold[p], y);
    finish_all(&t, w->finish[p], y, outputs, divisor[p]);
    t.shift = y;
  }
  return RP_OK;
}

static rp_status prepare_fold(const rp_kernel_args *args, void **state,
                              int64_t *bytes) {
  return measure(args, &way_sum, rp_reduced_set(args, 1), bytes);
}

static rp_status run_sum(const rp_kernel_args *args) {
  return reduce(args, &way_sum, rp_reduced_set(args, 1), 0);
}
static rp_status run_mean(const rp_kernel_args *args) {
  return reduce(args, &way_mean, rp_reduced_set(args, 1), 0);
}
static rp_status run_max(const rp_kernel_args *args) {
  return reduce(args, &way_max, rp_reduced_set(args, 1), 0);
}
static rp_status run_min(const rp_kernel_args *args) {
  return reduce(args, &way_min, rp_reduced_set(args, 1), 0);
}

static rp_status prepare_logsumexp(const rp_kernel_args *args, void **state,
                                   int64_t *bytes) {
  return measure(args, &way_logsumexp, rp_reduced_set(args, 1), bytes);
}
static rp_status run_logsumexp(const rp_kernel_args *args) {
  return reduce(args, &way_logsumexp, rp_reduced_set(args, 1), 0);
}

static rp_status prepare_var(const rp_kernel_args *args, void **state,
                             int64_t *bytes) {
  return measure(args, &way_var, rp_reduced_set(args, 2), bytes);
}
static rp_status run_var(const rp_kernel_args *args) {
  return reduce(args, &way_var, rp_reduced_set(args, 2),
                args->n_ints > 1 ? args->ints[1] : 0);
}

/* The dims in which the result is narrower than x, or that it lacks. */
static uint32_t broadcast_set(const rp_kernel_args *args) {
  const rp_type *x = &args->in[0].type, *y = &args->out[0].type;
  const int added = x->rank - y->rank;
  uint32_t set = 0;
  for (int i = 0; i < x->rank; i++)
    if (i < added || y->dims[i - added] != x->dims[i]) set |= 1u << i;
  return set;
}

static rp_status prepare_sum_to(const rp_kernel_args *args, void **state,
                                int64_t *bytes) {
  return measure(args, &way_sum, broadcast_set(args), bytes);
}
static rp_status run_sum_to(const rp_kernel_args *args) {
  return reduce(args, &way_sum, broadcast_set(args), 0);
}

static rp_status prepare_sum_squares(const rp_kernel_args *args, void **state,
                                     int64_t *bytes) {
  return measure(args, &way_sum_squares, (1u << RP_RANK) - 1, bytes);
}
static rp_status run_sum_squares(const rp_kernel_args *args) {
  return reduce(args, &way_sum_squares, (1u << RP_RANK) - 1, 0);
}

extern const rp_op rp_op_sum, rp_op_mean, rp_op_max, rp_op_min, rp_op_var,
    rp_op_logsumexp, rp_op_sum_to, rp_op_sum_squares;

static const rp_kernel rows[] = {
    {&rp_op_sum, RP_F32, run_sum, prepare_fold, NULL},
    {&rp_op_sum, RP_F64, run_sum, prepare_fold, NULL},
    {&rp_op_mean, RP_F32, run_mean, prepare_fold, NULL},
    {&rp_op_mean, RP_F64, run_mean, prepare_fold, NULL},
    {&rp_op_max, RP_F32, run_max, prepare_fold, NULL},
    {&rp_op_max, RP_F64, run_max, prepare_fold, NULL},
    {&rp_op_min, RP_F32, run_min, prepare_fold, NULL},
    {&rp_op_min, RP_F64, run_min, prepare_fold, NULL},
    {&rp_op_var, RP_F32, run_var, prepare_var, NULL},
    {&rp_op_var, RP_F64, run_var, prepare_var, NULL},
    {&rp_op_logsumexp, RP_F32, run_logsumexp, prepare_logsumexp, NULL},
    {&rp_op_logsumexp, RP_F64, run_logsumexp, prepare_logsumexp, NULL},
    {&rp_op_sum_to, RP_F32, run_sum_to, prepare_sum_to, NULL},
    {&rp_op_sum_to, RP_F64, run_sum_to, prepare_sum_to, NULL},
    {&rp_op_sum_squares, RP_F32, run_sum_squares, prepare_sum_squares, NULL},
    {&rp_op_sum_squares, RP_F64, run_sum_squares, prepare_sum_squares, NULL},
};
const rp_kernel_table rp_cpu_reduce = {rows, sizeof rows / sizeof *rows};
