/* Reductions of floating values: folds over rows or columns (cpu/reduce.h).
   Partials go to the workspace and are joined in order, in f64. */
#include "cpu/fold.h"
#include "cpu/parallel.h"
#include "cpu/pieces.h"
#include "graph/op.h"

enum { COLUMN_TILE = RP_COLUMN_TILE, ROWS = RP_FOLD_ROWS, JOIN = 256,
       NARROW = 8192 };

/* ---- passes -------------------------------------------------------------- */
/* A reduction: one fold, or two of which the first gives the second's
   shift. */
typedef struct way {
  int passes;
  rp_fold fold[2];
  rp_finish finish[2];
} way;

static const way
    way_sum = {1, {RP_FOLD_SUM}, {RP_AS_IS}},
    way_mean = {1, {RP_FOLD_SUM}, {RP_DIVIDE}},
    way_max = {1, {RP_FOLD_TOP}, {RP_AS_IS}},
    way_min = {1, {RP_FOLD_BOTTOM}, {RP_AS_IS}},
    way_sum_squares = {1, {RP_FOLD_SQUARES}, {RP_AS_IS}},
    way_var = {2, {RP_FOLD_SUM, RP_FOLD_DEVIATION}, {RP_DIVIDE, RP_DIVIDE}},
    way_logsumexp = {2, {RP_FOLD_TOP, RP_FOLD_EXP}, {RP_AS_IS, RP_LOG}};

typedef struct task {
  const rp_folder *e;
  rp_layout l;
  const char *x;
  const rp_source *source; /* not NULL: x is made, for folds of one pass */
  int threads;
  char *y, *shift, *partials;
} task;

/* Fold of x's n elements from `from` on. */
static double fold_run(const task *t, rp_fold fold, int64_t from, int64_t n,
                       double shift) {
  if (t->source == NULL)
    return t->e->run(fold, t->x + from * (int64_t)t->e->x_size, n, shift);
  char *buffer = rp_source_buffer(t->source);
  rp_running so_far;
  t->e->begin(fold, &so_far);
  for (int64_t at = 0; at < n; at += RP_LANE_BLOCK) {
    const int64_t m = n - at < RP_LANE_BLOCK ? n - at : RP_LANE_BLOCK;
    rp_source_make(t->source, from + at, m, buffer);
    t->e->more(fold, &so_far, buffer, m);
  }
  return t->e->end(fold, &so_far);
}

/* Fold of elements first..last-1 of output k's row. */
static double fold_row(const task *t, rp_fold fold, int64_t k, int64_t first,
                       int64_t last, double shift) {
  const rp_layout *l = &t->l;
  const int64_t base = rp_groups_offset(&l->kept, k);
  if (l->reduced.n == 0)
    return fold_run(t, fold, base + first, last - first, shift);
  double total = rp_fold_start(fold);
  while (first < last) {
    const int64_t at = first % l->run;
    const int64_t n = last - first < l->run - at ? last - first : l->run - at;
    const int64_t from =
        base + rp_groups_offset(&l->reduced, first / l->run) + at;
    const double part = fold_run(t, fold, from, n, shift);
    total = rp_nan_join_f64(fold, total, part);
    first += n;
  }
  return total;
}

/* Short rows: all passes over a row while it is in the cache. */
static void rows_whole(const task *t, const way *w, const double *divisor) {
  const int64_t length = t->l.reduced.count * t->l.run;
  const int64_t size = (int64_t)t->e->size;
#pragma omp parallel for schedule(static) num_threads(t->threads)
  for (int64_t k = 0; k < t->l.kept.count; k++) {
    double shift = 0, s[1];
    for (int p = 0; p < w->passes; p++) {
      const double total = fold_row(t, w->fold[p], k, 0, length, shift);
      t->e->store(t->y + k * size, &total, 1);
      if (w->finish[p] == RP_AS_IS && w->passes == 1) continue;
      t->e->store(s, &shift, 1);
      t->e->finish(w->finish[p], t->y + k * size, 1, divisor[p], s);
      shift = t->e->load(t->y, k);
    }
  }
}

/* Rows so short that a piece holds several. */
static void rows_made(const task *t, const way *w, const double *divisor) {
  const int64_t length = t->l.run, rows = t->l.kept.count;
  const int64_t size = (int64_t)t->e->size, x_size = (int64_t)t->e->x_size;
  const int64_t at_once = RP_LANE_BLOCK / length;
  const int64_t items = (rows + at_once - 1) / at_once;
#pragma omp parallel for schedule(static) num_threads(t->threads)
  for (int64_t i = 0; i < items; i++) {
    const int64_t k = i * at_once;
    const int64_t n = rows - k < at_once ? rows - k : at_once;
    char *buffer = rp_source_buffer(t->source);
    rp_source_make(t->source, k * length, n * length, buffer);
    for (int64_t j = 0; j < n; j++) {
      const double total =
          t->e->run(w->fold[0], buffer + j * length * x_size, length, 0);
      t->e->store(t->y + (k + j) * size, &total, 1);
    }
    t->e->finish(w->finish[0], t->y + k * size, n, divisor[0], NULL);
  }
}

static void rows_pass(const task *t, rp_fold fold, char *y) {
  const rp_layout *l = &t->l;
  const int64_t length = l->reduced.count * l->run, size = (int64_t)t->e->size;
  double *partials = (double *)t->partials;
#pragma omp parallel for schedule(static) num_threads(t->threads)
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
      total = rp_nan_join_f64(fold, total, partials[k * l->chunks + c]);
    t->e->store(y + k * size, &total, 1);
  }
}

/* Elements of a source that are made at once: rows of columns one behind the
   other, so that what they are made of is read in its order. */
static int64_t room_of(const rp_layout *l) {
  if (l->rows) return RP_LANE_BLOCK;
  const int64_t width = l->run < COLUMN_TILE ? l->run : COLUMN_TILE;
  return ROWS * width > NARROW ? ROWS * width : NARROW;
}

/* Rows first..last-1 of what the source makes, m entries of each from `base`
   on, into acc. Whole rows are neighbours where the innermost reduced dim goes
   on. */
static void fold_made(const task *t, rp_fold fold, char *acc, int64_t base,
                      int64_t first, int64_t last, int64_t m) {
  const rp_layout *l = &t->l;
  const int64_t bytes = m * (int64_t)t->e->x_size;
  const int64_t near = m == l->run && l->reduced.n
                           ? l->reduced.dims[l->reduced.n - 1] : 1;
  const int64_t most = room_of(l) / m / ROWS * ROWS;
  char *buffer = rp_source_buffer(t->source);
  while (first < last) {
    const int64_t n = last - first < most ? last - first : most;
    for (int64_t i = 0; i < n;) {
      const int64_t left = near - (first + i) % near;
      const int64_t rows = n - i < left ? n - i : left;
      rp_source_make(t->source,
                     base + rp_groups_offset(&l->reduced, first + i), rows * m,
                     buffer + i * bytes);
      i += rows;
    }
    for (int64_t i = 0; i < n; i += ROWS) {
      const void *row[ROWS];
      for (int j = 0; j < ROWS; j++) row[j] = buffer + (i + j) * bytes;
      t->e->rows(fold, acc, row, (int)(n - i < ROWS ? n - i : ROWS), m, NULL);
    }
    first += n;
  }
}

/* Rows first..last-1 of output run k, entries at..at+m-1, into acc. */
static void fold_columns(const task *t, rp_fold fold, char *acc, int64_t k,
                         int64_t first, int64_t last, int64_t at, int64_t m,
                         const char *shift) {
  const rp_layout *l = &t->l;
  const int64_t size = (int64_t)t->e->size;
  const int64_t x_size = (int64_t)t->e->x_size;
  const int64_t base = rp_groups_offset(&l->kept, k) + at;
  double start[JOIN];
  for (int j = 0; j < JOIN; j++) start[j] = rp_fold_start(fold);
  for (int64_t j = 0; j < m; j += JOIN)
    t->e->store(acc + j * size, start, m - j < JOIN ? m - j : JOIN);
  if (t->source) {
    fold_made(t, fold, acc, base, first, last, m);
    return;
  }
  const char *x = t->x + base * x_size;
  for (; first < last; first += ROWS) {
    const void *row[ROWS];
    const int n = (int)(last - first < ROWS ? last - first : ROWS);
    for (int i = 0; i < n; i++)
      row[i] = x + rp_groups_offset(&l->reduced, first + i) * x_size;
    t->e->rows(fold, acc, row, n, m, shift);
  }
}

static void join_columns(const task *t, rp_fold fold, char *y) {
  const rp_layout *l = &t->l;
  const int64_t size = (int64_t)t->e->size;
  const int64_t tiles = (l->run + JOIN - 1) / JOIN;
#pragma omp parallel for schedule(static) num_threads(t->threads)
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
#pragma omp parallel for schedule(static) num_threads(t->threads)
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

static void finish_all(const task *t, rp_finish how, char *y, int64_t outputs,
                       double divisor) {
  const int64_t size = (int64_t)t->e->size;
  if (how == RP_AS_IS) return;
#pragma omp parallel for schedule(static) if (rp_worth(outputs))
  for (int64_t at = 0; at < outputs; at += COLUMN_TILE)
    t->e->finish(how, y + at * size,
                 outputs - at < COLUMN_TILE ? outputs - at : COLUMN_TILE,
                 divisor, t->shift ? t->shift + at * size : NULL);
}

/* ---- kernels ------------------------------------------------------------- */
static const rp_folder *folder_of(const rp_type *x) {
  switch (x->dtype) {
    case RP_F32: return &rp_folder_f32;
    case RP_BF16: return &rp_folder_bf16;
    default: return &rp_folder_f64;
  }
}

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
  const size_t size = folder_of(x)->size;
  rp_layout l;
  rp_layout_of(&l, x, set);
  *bytes = partial_bytes(&l, size) + shift_bytes(&l, w, size);
  if (args->source) args->source->room = room_of(&l);
  return RP_OK;
}

static int threads_for(const rp_kernel_args *args) {
  if (args->source) return args->source->threads;
  return rp_worth(rp_type_count(&args->in[0].type)) ? omp_get_max_threads()
                                                    : 1;
}

static rp_status reduce(const rp_kernel_args *args, const way *w,
                        uint32_t set, int64_t correction) {
  const rp_type *x = &args->in[0].type;
  task t = {.e = folder_of(x), .x = args->in[0].data,
            .source = args->source,
            .threads = threads_for(args),
            .y = args->out[0].data, .partials = args->workspace};
  rp_layout_of(&t.l, x, set);
  const rp_layout *l = &t.l;
  const int64_t outputs = l->kept.count * (l->rows ? 1 : l->run);
  const int64_t n = l->reduced.count * (l->rows ? l->run : 1);
  const double divisor[2] = {
      (double)n, n > correction ? (double)(n - correction) : 0};
  if (t.source && l->rows && l->reduced.n == 0 && l->run > 0 &&
      l->run <= RP_LANE_BLOCK) {
    rows_made(&t, w, divisor);
    return RP_OK;
  }
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

/* Input k alone, and where its sum goes. */
static rp_kernel_args one_of(const rp_kernel_args *args, int32_t k,
                             rp_array *sum) {
  *sum = (rp_array){.type = rp_type_scalar((rp_dtype)args->in[k].type.dtype)};
  rp_kernel_args one = *args;
  one.in = &args->in[k];
  one.out = sum;
  one.n_in = 1;
  return one;
}

static rp_status prepare_total_squares(const rp_kernel_args *args,
                                       void **state, int64_t *bytes) {
  rp_status status = RP_OK;
  *bytes = 0;
  for (int32_t k = 0; k < args->n_in && status == RP_OK; k++) {
    rp_array sum;
    int64_t needed = 0;
    const rp_kernel_args one = one_of(args, k, &sum);
    status = prepare_sum_squares(&one, state, &needed);
    if (needed > *bytes) *bytes = needed;
  }
  return status;
}

static rp_status run_total_squares(const rp_kernel_args *args) {
  double total = 0;
  rp_status status = RP_OK;
  for (int32_t k = 0; k < args->n_in && status == RP_OK; k++) {
    union { float f32; double f64; } value = {0};
    rp_array sum;
    const rp_kernel_args one = one_of(args, k, &sum);
    sum.data = &value;
    status = run_sum_squares(&one);
    total += sum.type.dtype == RP_F32 ? (double)value.f32 : value.f64;
  }
  *(double *)args->out[0].data = total;
  return status;
}

extern const rp_op rp_op_sum, rp_op_mean, rp_op_max, rp_op_min, rp_op_var,
    rp_op_logsumexp, rp_op_sum_to, rp_op_sum_squares, rp_op_total_squares;

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
    {&rp_op_sum_to, RP_BF16, run_sum_to, prepare_sum_to, NULL},
    {&rp_op_sum_squares, RP_F32, run_sum_squares, prepare_sum_squares, NULL},
    {&rp_op_sum_squares, RP_F64, run_sum_squares, prepare_sum_squares, NULL},
    {&rp_op_total_squares, RP_F32, run_total_squares, prepare_total_squares,
     NULL},
    {&rp_op_total_squares, RP_F64, run_total_squares, prepare_total_squares,
     NULL},
};
const rp_kernel_table rp_cpu_reduce = {rows, sizeof rows / sizeof *rows};
