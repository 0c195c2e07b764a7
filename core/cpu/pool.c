/* Pooling and resizing, a plane at a time. Sums are taken in f64, in the order
   of what is read. `type`, that of what is read, is a constant wherever a
   function is inlined. What is added up in place (the gradients) is f32 where
   that is bf16. */
#include <string.h>

#include "base/vecmath.h"
#include "base/window.h"
#include "cpu/parallel.h"
#include "exec/backend.h"
#include "graph/op.h"

extern const rp_op rp_op_max_pool2d, rp_op_max_pool2d_grad,
    rp_op_max_pool2d_take, rp_op_avg_pool2d, rp_op_avg_pool2d_grad,
    rp_op_adaptive_avg_pool2d, rp_op_adaptive_avg_pool2d_grad,
    rp_op_upsample_nearest2d, rp_op_upsample_nearest2d_grad;

/* Element i of an array, and where it lies. */
RP_INLINE double load(const void *x, int64_t i, rp_dtype type) {
  switch (type) {
    case RP_F64: return ((const double *)x)[i];
    case RP_F32: return ((const float *)x)[i];
    default: return rp_bf16_to_f32(((const uint16_t *)x)[i]);
  }
}
RP_INLINE void store(void *x, int64_t i, rp_dtype type, double value) {
  switch (type) {
    case RP_F64: ((double *)x)[i] = value; break;
    case RP_F32: ((float *)x)[i] = (float)value; break;
    default: ((uint16_t *)x)[i] = rp_f32_to_bf16((float)value);
  }
}
RP_INLINE void grow(void *x, int64_t i, rp_dtype type, double value) {
  if (type == RP_F64) ((double *)x)[i] += value;
  else ((float *)x)[i] += (float)value;
}

static int64_t dim(const rp_type *type, int d) {
  return type->dims[type->rank - 2 + d];
}

static int64_t planes_of(const rp_type *type) {
  int64_t n = 1;
  for (int i = 0; i < type->rank - 2; i++) n *= type->dims[i];
  return n;
}

static rp_window window_of(const rp_kernel_args *args) {
  rp_window w;
  for (int d = 0; d < 2; d++) {
    w.kernel[d] = args->ints[d];
    w.stride[d] = args->ints[2 + d];
    w.pad[d] = args->ints[4 + d];
    w.dilation[d] = args->ints[6 + d];
  }
  return w;
}

/* ---- the greatest ------------------------------------------------------- */

typedef enum use { VALUE, SPREAD, TAKE } use;
enum { COLUMNS = 64 };

/* The windows of outputs (i, from) .. (i, from + n - 1): the greatest of each
   or its last NaN, and its place in the plane, -1 where it holds no element. A
   tap at a time for all of them, so that the loop has no branch. */
typedef struct stretch {
  int64_t from, n;
  double best[COLUMNS];
  int64_t place[COLUMNS];
} stretch;

RP_INLINE void find_greatest(const rp_window *w, const void *x, int64_t height,
                             int64_t width, int64_t i, int64_t columns,
                             stretch *s, rp_dtype type) {
  for (int64_t j = 0; j < s->n; j++) s->best[j] = -INFINITY, s->place[j] = -1;
  for (int64_t a = 0; a < w->kernel[0]; a++) {
    const int64_t row = i * w->stride[0] - w->pad[0] + a * w->dilation[0];
    if (row < 0 || row >= height) continue;
    for (int64_t b = 0; b < w->kernel[1]; b++) {
      int64_t first, end;
      rp_window_inside(w, 1, b, width, columns, &first, &end);
      first = first > s->from ? first - s->from : 0;
      end = end - s->from < s->n ? end - s->from : s->n;
      const int64_t step = w->stride[1];
      const int64_t at = row * width + s->from * step - w->pad[1] +
                         b * w->dilation[1];
      for (int64_t j = first; j < end; j++) {
        const double v = load(x, at + j * step, type);
        const bool more =
            (s->place[j] < 0) | (v > s->best[j]) | (v != v);
        s->place[j] = more ? at + j * step : s->place[j];
        s->best[j] = more ? v : s->best[j];
      }
    }
  }
}

/* One plane: out = x's greatest (VALUE), other's values there (TAKE), or other
   put there (SPREAD). */
RP_INLINE void plane_of_greatest(const rp_window *w, const rp_type *x_type,
                                 const rp_type *y_type, use use, const void *x,
                                 const void *other, void *out, int64_t plane,
                                 rp_dtype type) {
  const int64_t height = dim(x_type, 0), width = dim(x_type, 1);
  const int64_t rows = dim(y_type, 0), columns = dim(y_type, 1);
  const int64_t element = (int64_t)rp_dtype_size(type);
  const char *from = (const char *)x + plane * height * width * element;
  const int64_t inside = plane * height * width;
  const int64_t sum = type == RP_F64 ? sizeof(double) : sizeof(float);
  if (use == SPREAD)
    memset((char *)out + inside * sum, 0, (size_t)(height * width * sum));
  for (int64_t k = 0; k < rows; k++)
    for (int64_t start = 0; start < columns; start += COLUMNS) {
      stretch s;
      s.from = start;
      s.n = columns - start < COLUMNS ? columns - start : COLUMNS;
      find_greatest(w, from, height, width, k, columns, &s, type);
      const int64_t at = (plane * rows + k) * columns + start;
      for (int64_t j = 0; j < s.n; j++) {
        if (use == VALUE)
          store(out, at + j, type, s.best[j]);
        else if (use == TAKE)
          store(out, at + j, type,
                s.place[j] < 0 ? 0 : load(other, inside + s.place[j], type));
        else if (s.place[j] >= 0)
          grow(out, inside + s.place[j], type, load(other, at + j, type));
      }
    }
}

RP_INLINE rp_status run_greatest(const rp_kernel_args *args, use use,
                                 rp_dtype type) {
  const rp_window w = window_of(args);
  const rp_array *x = &args->in[use == VALUE ? 0 : 1];
  const void *other = use == VALUE ? NULL : args->in[0].data;
  const rp_type *y = use == SPREAD ? &args->in[0].type : &args->out[0].type;
  void *out = args->out[0].data;
  const int64_t planes = planes_of(y);
#pragma omp parallel for schedule(static) \
    if (rp_worth(rp_type_count(y) * w.kernel[0] * w.kernel[1]))
  for (int64_t p = 0; p < planes; p++)
    plane_of_greatest(&w, &x->type, y, use, x->data, other, out, p, type);
  return RP_OK;
}

static rp_status max_pool_f32(const rp_kernel_args *args) {
  return run_greatest(args, VALUE, RP_F32);
}
static rp_status max_pool_f64(const rp_kernel_args *args) {
  return run_greatest(args, VALUE, RP_F64);
}
static rp_status max_pool_bf16(const rp_kernel_args *args) {
  return run_greatest(args, VALUE, RP_BF16);
}
static rp_status max_pool_grad_f32(const rp_kernel_args *args) {
  return run_greatest(args, SPREAD, RP_F32);
}
static rp_status max_pool_grad_f64(const rp_kernel_args *args) {
  return run_greatest(args, SPREAD, RP_F64);
}
static rp_status max_pool_grad_bf16(const rp_kernel_args *args) {
  return run_greatest(args, SPREAD, RP_BF16);
}
static rp_status max_pool_take_f32(const rp_kernel_args *args) {
  return run_greatest(args, TAKE, RP_F32);
}
static rp_status max_pool_take_f64(const rp_kernel_args *args) {
  return run_greatest(args, TAKE, RP_F64);
}
static rp_status max_pool_take_bf16(const rp_kernel_args *args) {
  return run_greatest(args, TAKE, RP_BF16);
}

/* ---- means of spans ----------------------------------------------------- */

/* What output i along one dim reads: first..end-1, the sum divided by
   `divisor` (and by that of the other dim). */
typedef struct span {
  int64_t first, end;
  double divisor;
} span;

typedef enum spans { WINDOWS, ADAPTIVE, NEAREST } spans;

/* PyTorch's count: a window that hangs over the padding is cut there. */
static span window_span(const rp_window *w, int d, int64_t size, int64_t i,
                        bool include_pad) {
  const int64_t begin = i * w->stride[d] - w->pad[d];
  const int64_t stop = begin + w->kernel[d] < size + w->pad[d]
                           ? begin + w->kernel[d] : size + w->pad[d];
  span s = {begin < 0 ? 0 : begin, stop < size ? stop : size, 1};
  if (s.end < s.first) s.end = s.first;
  s.divisor = (double)(include_pad ? stop - begin : s.end - s.first);
  return s;
}

/* The spans of `count` outputs over `size`, for rows (d 0) or columns. */
static void fill_spans(const rp_kernel_args *args, spans kind, int d,
                       int64_t size, int64_t count, span *out) {
  for (int64_t i = 0; i < count; i++) {
    if (kind == WINDOWS) {
      const rp_window w = window_of(args);
      out[i] = window_span(&w, d, size, i, args->ints[9] != 0);
      if (args->ints[10]) out[i].divisor = d ? 1 : (double)args->ints[10];
    } else {
      const int64_t first = i * size / count;
      const int64_t end =
          kind == NEAREST ? first + 1 : ((i + 1) * size + count - 1) / count;
      out[i] = (span){first, end, (double)(end - first)};
    }
  }
}

/* Room for the spans of y's rows and columns, whichever side y is. */
static rp_status prepare_spans(const rp_kernel_args *args, void **state,
                               int64_t *bytes) {
  const rp_type *x = &args->in[0].type, *y = &args->out[0].type;
  int64_t n = 0;
  for (int d = 0; d < 2; d++)
    n += dim(x, d) > dim(y, d) ? dim(x, d) : dim(y, d);
  *state = NULL;
  *bytes = rp_align(n * (int64_t)sizeof(span));
  return RP_OK;
}

RP_INLINE void plane_of_means(const span *rows, const span *columns,
                              int64_t n_rows, int64_t n_columns, int64_t width,
                              const void *x, int64_t from, void *y, int64_t to,
                              rp_dtype type) {
  for (int64_t i = 0; i < n_rows; i++)
    for (int64_t j = 0; j < n_columns; j++) {
      double total = 0;
      for (int64_t r = rows[i].first; r < rows[i].end; r++)
        for (int64_t c = columns[j].first; c < columns[j].end; c++)
          total += load(x, from + r * width + c, type);
      store(y, to + i * n_columns + j, type,
            total / (rows[i].divisor * columns[j].divisor));
    }
}

RP_INLINE void plane_of_shares(const span *rows, const span *columns,
                               int64_t n_rows, int64_t n_columns,
                               int64_t width, const void *dy, int64_t from,
                               void *dx, int64_t to, rp_dtype type) {
  for (int64_t i = 0; i < n_rows; i++)
    for (int64_t j = 0; j < n_columns; j++) {
      const double share = load(dy, from + i * n_columns + j, type) /
                           (rows[i].divisor * columns[j].divisor);
      for (int64_t r = rows[i].first; r < rows[i].end; r++)
        for (int64_t c = columns[j].first; c < columns[j].end; c++)
          grow(dx, to + r * width + c, type, share);
    }
}

RP_INLINE rp_status run_spans(const rp_kernel_args *args, spans kind,
                              bool adjoint, rp_dtype type) {
  const rp_array *in = &args->in[0], *out = &args->out[0];
  const rp_type *x = adjoint ? &out->type : &in->type;
  const rp_type *y = adjoint ? &in->type : &out->type;
  const int64_t n_rows = dim(y, 0), n_columns = dim(y, 1);
  const int64_t width = dim(x, 1), inside = dim(x, 0) * width;
  span *rows = args->workspace, *columns = rows + n_rows;
  fill_spans(args, kind, 0, dim(x, 0), n_rows, rows);
  fill_spans(args, kind, 1, width, n_columns, columns);
  const int64_t planes = planes_of(x), outside = n_rows * n_columns;
  if (adjoint) memset(out->data, 0, (size_t)rp_type_bytes(&out->type));
#pragma omp parallel for schedule(static) \
    if (rp_worth(planes * (inside + outside)))
  for (int64_t p = 0; p < planes; p++) {
    if (adjoint)
      plane_of_shares(rows, columns, n_rows, n_columns, width, in->data,
                      p * outside, out->data, p * inside, type);
    else
      plane_of_means(rows, columns, n_rows, n_columns, width, in->data,
                     p * inside, out->data, p * outside, type);
  }
  return RP_OK;
}

static rp_status avg_pool_f32(const rp_kernel_args *args) {
  return run_spans(args, WINDOWS, false, RP_F32);
}
static rp_status avg_pool_f64(const rp_kernel_args *args) {
  return run_spans(args, WINDOWS, false, RP_F64);
}
static rp_status avg_pool_bf16(const rp_kernel_args *args) {
  return run_spans(args, WINDOWS, false, RP_BF16);
}
static rp_status avg_pool_grad_f32(const rp_kernel_args *args) {
  return run_spans(args, WINDOWS, true, RP_F32);
}
static rp_status avg_pool_grad_f64(const rp_kernel_args *args) {
  return run_spans(args, WINDOWS, true, RP_F64);
}
static rp_status avg_pool_grad_bf16(const rp_kernel_args *args) {
  return run_spans(args, WINDOWS, true, RP_BF16);
}
static rp_status adaptive_f32(const rp_kernel_args *args) {
  return run_spans(args, ADAPTIVE, false, RP_F32);
}
static rp_status adaptive_f64(const rp_kernel_args *args) {
  return run_spans(args, ADAPTIVE, false, RP_F64);
}
static rp_status adaptive_bf16(const rp_kernel_args *args) {
  return run_spans(args, ADAPTIVE, false, RP_BF16);
}
static rp_status adaptive_grad_f32(const rp_kernel_args *args) {
  return run_spans(args, ADAPTIVE, true, RP_F32);
}
static rp_status adaptive_grad_f64(const rp_kernel_args *args) {
  return run_spans(args, ADAPTIVE, true, RP_F64);
}
static rp_status adaptive_grad_bf16(const rp_kernel_args *args) {
  return run_spans(args, ADAPTIVE, true, RP_BF16);
}
static rp_status upsample_f32(const rp_kernel_args *args) {
  return run_spans(args, NEAREST, false, RP_F32);
}
static rp_status upsample_f64(const rp_kernel_args *args) {
  return run_spans(args, NEAREST, false, RP_F64);
}
static rp_status upsample_bf16(const rp_kernel_args *args) {
  return run_spans(args, NEAREST, false, RP_BF16);
}
static rp_status upsample_grad_f32(const rp_kernel_args *args) {
  return run_spans(args, NEAREST, true, RP_F32);
}
static rp_status upsample_grad_f64(const rp_kernel_args *args) {
  return run_spans(args, NEAREST, true, RP_F64);
}
static rp_status upsample_grad_bf16(const rp_kernel_args *args) {
  return run_spans(args, NEAREST, true, RP_BF16);
}

static const rp_kernel rows[] = {
    {&rp_op_max_pool2d, RP_F32, max_pool_f32, NULL, NULL},
    {&rp_op_max_pool2d, RP_F64, max_pool_f64, NULL, NULL},
    {&rp_op_max_pool2d, RP_BF16, max_pool_bf16, NULL, NULL},
    {&rp_op_max_pool2d_grad, RP_F32, max_pool_grad_f32, NULL, NULL},
    {&rp_op_max_pool2d_grad, RP_F64, max_pool_grad_f64, NULL, NULL},
    {&rp_op_max_pool2d_grad, RP_BF16, max_pool_grad_bf16, NULL, NULL},
    {&rp_op_max_pool2d_take, RP_F32, max_pool_take_f32, NULL, NULL},
    {&rp_op_max_pool2d_take, RP_F64, max_pool_take_f64, NULL, NULL},
    {&rp_op_max_pool2d_take, RP_BF16, max_pool_take_bf16, NULL, NULL},
    {&rp_op_avg_pool2d, RP_F32, avg_pool_f32, prepare_spans, NULL},
    {&rp_op_avg_pool2d, RP_F64, avg_pool_f64, prepare_spans, NULL},
    {&rp_op_avg_pool2d, RP_BF16, avg_pool_bf16, prepare_spans, NULL},
    {&rp_op_avg_pool2d_grad, RP_F32, avg_pool_grad_f32, prepare_spans, NULL},
    {&rp_op_avg_pool2d_grad, RP_F64, avg_pool_grad_f64, prepare_spans, NULL},
    {&rp_op_avg_pool2d_grad, RP_BF16, avg_pool_grad_bf16, prepare_spans, NULL},
    {&rp_op_adaptive_avg_pool2d, RP_F32, adaptive_f32, prepare_spans, NULL},
    {&rp_op_adaptive_avg_pool2d, RP_F64, adaptive_f64, prepare_spans, NULL},
    {&rp_op_adaptive_avg_pool2d, RP_BF16, adaptive_bf16, prepare_spans, NULL},
    {&rp_op_adaptive_avg_pool2d_grad, RP_F32, adaptive_grad_f32, prepare_spans,
     NULL},
    {&rp_op_adaptive_avg_pool2d_grad, RP_F64, adaptive_grad_f64, prepare_spans,
     NULL},
    {&rp_op_adaptive_avg_pool2d_grad, RP_BF16, adaptive_grad_bf16,
     prepare_spans, NULL},
    {&rp_op_upsample_nearest2d, RP_F32, upsample_f32, prepare_spans, NULL},
    {&rp_op_upsample_nearest2d, RP_F64, upsample_f64, prepare_spans, NULL},
    {&rp_op_upsample_nearest2d, RP_BF16, upsample_bf16, prepare_spans, NULL},
    {&rp_op_upsample_nearest2d_grad, RP_F32, upsample_grad_f32, prepare_spans,
     NULL},
    {&rp_op_upsample_nearest2d_grad, RP_F64, upsample_grad_f64, prepare_spans,
     NULL},
    {&rp_op_upsample_nearest2d_grad, RP_BF16, upsample_grad_bf16, prepare_spans,
     NULL},
};

const rp_kernel_table rp_cpu_pool = {rows, sizeof rows / sizeof *rows};
