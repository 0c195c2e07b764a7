/* Convolutions: f32 and bf16 by oneDNN, in f32 those of 3x3 kernels by
   Winograd where that is faster (winograd.c); f64 as matrix products, an image
   and a group at a time: the columns of `taps` are what the windows see.

   In f64 items (images times groups) are dealt to a number of lanes that
   follows from the shape alone, each with a matrix of its own; inside of a
   parallel region CBLAS stays on its thread. So neither the order of sums nor
   a product's bits depend on the number of threads. */
#include <cblas.h>
#include <limits.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "cpu/dnnl.h"
#include "cpu/parallel.h"
#include "cpu/winograd.h"
#include "graph/op.h"

extern const rp_op rp_op_conv2d, rp_op_conv2d_grad_input,
    rp_op_conv2d_grad_weight;

static rp_conv shape_of(const rp_kernel_args *args, rp_conv_kind kind) {
  const rp_type *first = &args->in[0].type, *second = &args->in[1].type,
                *made = &args->out[0].type;
  const rp_type *x = kind == RP_CONV_FORWARD      ? first
                     : kind == RP_CONV_GRAD_INPUT ? made
                                                  : second;
  const rp_type *w = kind == RP_CONV_GRAD_WEIGHT ? made : second;
  const rp_type *y = kind == RP_CONV_FORWARD ? made : first;
  const int64_t plain[7] = {1, 1, 0, 0, 1, 1, 1};
  const int64_t *ints = args->n_ints >= 7 ? args->ints : plain;
  rp_conv c = {.kind = kind, .n = x->dims[0], .groups = ints[6],
               .in = w->dims[1], .out = w->dims[0] / ints[6],
               .dtype = (rp_dtype)first->dtype, .made = (rp_dtype)made->dtype};
  for (int d = 0; d < 2; d++) {
    c.window.kernel[d] = w->dims[2 + d];
    c.window.stride[d] = ints[d];
    c.window.pad[d] = ints[2 + d];
    c.window.dilation[d] = ints[4 + d];
    c.size[d] = x->dims[2 + d];
    c.count[d] = y->dims[2 + d];
  }
  return c;
}

/* No image or no output channel: what is made is empty or 0. */
static bool is_empty(const rp_conv *c) { return c->n == 0 || c->out == 0; }

static void fill_zero(const rp_array *out) {
  memset(out->data, 0, (size_t)rp_type_bytes(&out->type));
}

/* ---- f32, bf16 ---------------------------------------------------------- */

/* One of the two. */
typedef struct prepared {
  rp_context *ctx;
  rp_winograd *winograd;
  rp_dnnl_conv *direct;
} prepared;

static void destroy_dnnl(void *state) {
  prepared *p = state;
  if (p == NULL) return;
  rp_winograd_free(p->winograd);
  rp_dnnl_conv_free(p->direct);
  rp_free(p->ctx, p, sizeof *p);
}

static rp_status prepare_dnnl(const rp_kernel_args *args, rp_conv_kind kind,
                             void **state, int64_t *workspace_bytes) {
  const rp_conv c = shape_of(args, kind);
  *state = NULL;
  *workspace_bytes = 0;
  if (is_empty(&c)) return RP_OK;
  prepared *p = rp_alloc(args->ctx, sizeof *p);
  if (p == NULL) return RP_NOMEM;
  p->ctx = args->ctx;
  if (rp_winograd_suits(&c))
    p->winograd = rp_winograd_new(args->ctx, &c, workspace_bytes);
  else
    p->direct = rp_dnnl_conv_new(args->ctx, &c, args->n_in > 2,
                                 workspace_bytes);
  if (p->winograd || p->direct) {
    *state = p;
    return RP_OK;
  }
  destroy_dnnl(p);
  return rp_last_status(args->ctx);
}

static rp_status conv2d_prepare_dnnl(const rp_kernel_args *args, void **state,
                                    int64_t *workspace_bytes) {
  return prepare_dnnl(args, RP_CONV_FORWARD, state, workspace_bytes);
}
static rp_status grad_input_prepare_dnnl(const rp_kernel_args *args,
                                        void **state,
                                        int64_t *workspace_bytes) {
  return prepare_dnnl(args, RP_CONV_GRAD_INPUT, state, workspace_bytes);
}
static rp_status grad_weight_prepare_dnnl(const rp_kernel_args *args,
                                         void **state,
                                         int64_t *workspace_bytes) {
  return prepare_dnnl(args, RP_CONV_GRAD_WEIGHT, state, workspace_bytes);
}

static bool cost_dnnl(const rp_kernel_args *args, double *flops,
                      double *bytes) {
  const prepared *p = args->state;
  if (p == NULL || p->winograd == NULL) return false;
  rp_winograd_cost(p->winograd, flops, bytes);
  return true;
}

static rp_status run_dnnl(const rp_kernel_args *args, void *x, void *w,
                          void *y) {
  if (args->state == NULL) {
    fill_zero(&args->out[0]);
    return RP_OK;
  }
  const prepared *p = args->state;
  const float *bias = args->n_in > 2 ? args->in[2].data : NULL;
  return p->winograd ? rp_winograd_run(p->winograd, args->ctx, x, w, y, bias,
                                       args->workspace)
                     : rp_dnnl_conv_run(p->direct, args->ctx, x, w, y, bias,
                                        args->workspace);
}

static rp_status conv2d_dnnl(const rp_kernel_args *args) {
  return run_dnnl(args, args->in[0].data, args->in[1].data, args->out[0].data);
}
static rp_status grad_input_dnnl(const rp_kernel_args *args) {
  return run_dnnl(args, args->out[0].data, args->in[1].data, args->in[0].data);
}
static rp_status grad_weight_dnnl(const rp_kernel_args *args) {
  return run_dnnl(args, args->in[1].data, args->out[0].data, args->in[0].data);
}

/* ---- f64: taps ---------------------------------------------------------- */

/* More lanes than this many gain nothing: the matrices leave the cache. */
enum { LANES = 8 };

static int64_t lanes_of(const rp_conv *c) {
  const int64_t items = c->n * c->groups;
  return items < LANES ? items : LANES;
}

static int64_t taps_of(const rp_conv *c) {
  return c->in * c->window.kernel[0] * c->window.kernel[1];
}
static int64_t windows_of(const rp_conv *c) {
  return c->count[0] * c->count[1];
}

/* Row (channel, a, b) of taps:(taps_of, windows_of) is what that tap of each
   window sees; with `back` it is added to x instead. */
static void move_taps(const rp_conv *c, double *x, double *taps, bool back) {
  const rp_window *w = &c->window;
  const int64_t height = c->size[0], width = c->size[1];
  for (int64_t k = 0; k < c->in; k++)
    for (int64_t a = 0; a < w->kernel[0]; a++)
      for (int64_t b = 0; b < w->kernel[1]; b++, taps += windows_of(c)) {
        int64_t top, bottom, left, right;
        rp_window_inside(w, 0, a, height, c->count[0], &top, &bottom);
        rp_window_inside(w, 1, b, width, c->count[1], &left, &right);
        if (!back) memset(taps, 0, sizeof(double) * (size_t)windows_of(c));
        for (int64_t i = top; i < bottom; i++) {
          const int64_t row = i * w->stride[0] - w->pad[0] +
                              a * w->dilation[0];
          double *from = x + (k * height + row) * width - w->pad[1] +
                         b * w->dilation[1];
          double *to = taps + i * c->count[1];
          const int64_t step = w->stride[1];
          if (back)
            for (int64_t j = left; j < right; j++) from[j * step] += to[j];
          else
            for (int64_t j = left; j < right; j++) to[j] = from[j * step];
        }
      }
}

/* ---- f64: products ------------------------------------------------------ */

/* One lane's taps, and for dw its sum. */
static int64_t lane_doubles(const rp_conv *c) {
  const int64_t taps = taps_of(c);
  const int64_t sum = c->kind == RP_CONV_GRAD_WEIGHT
                          ? c->groups * c->out * taps : 0;
  return taps * windows_of(c) + sum;
}

static rp_status prepare_f64(const rp_kernel_args *args, rp_conv_kind kind,
                             void **state, int64_t *workspace_bytes) {
  const rp_conv c = shape_of(args, kind);
  *state = NULL;
  /* CBLAS counts in int. */
  if (taps_of(&c) > INT_MAX || windows_of(&c) > INT_MAX || c.out > INT_MAX)
    return rp_fail(args->ctx, RP_UNSUPPORTED, "an f64 convolution over more "
                   "than %d windows or taps", INT_MAX);
  *workspace_bytes = rp_align(lanes_of(&c) * lane_doubles(&c) *
                              (int64_t)sizeof(double));
  return RP_OK;
}

static rp_status conv2d_prepare_f64(const rp_kernel_args *args, void **state,
                                    int64_t *workspace_bytes) {
  return prepare_f64(args, RP_CONV_FORWARD, state, workspace_bytes);
}
static rp_status grad_input_prepare_f64(const rp_kernel_args *args,
                                        void **state,
                                        int64_t *workspace_bytes) {
  return prepare_f64(args, RP_CONV_GRAD_INPUT, state, workspace_bytes);
}
static rp_status grad_weight_prepare_f64(const rp_kernel_args *args,
                                         void **state,
                                         int64_t *workspace_bytes) {
  return prepare_f64(args, RP_CONV_GRAD_WEIGHT, state, workspace_bytes);
}

/* c:(m, n) = a:(m, k) b:(k, n), or their transposes as they lie, + beta c. */
static void product(double *c, const double *a, bool a_lies_transposed,
                    const double *b, bool b_lies_transposed, int64_t m,
                    int64_t n, int64_t k, double beta) {
  cblas_dgemm(CblasRowMajor, a_lies_transposed ? CblasTrans : CblasNoTrans,
              b_lies_transposed ? CblasTrans : CblasNoTrans, (int)m, (int)n,
              (int)k, 1.0, a, (int)(a_lies_transposed ? m : k), b,
              (int)(b_lies_transposed ? k : n), beta, c, (int)n);
}

typedef struct arrays {
  double *x, *w, *y;
  const double *bias;
} arrays;

/* One image and group; lane is its lane's part of the workspace. */
static void run_item(const rp_conv *c, const arrays *p, int64_t item,
                     double *lane) {
  const int64_t group = item % c->groups, taps = taps_of(c),
                windows = windows_of(c);
  double *x = p->x + item * c->in * c->size[0] * c->size[1];
  double *w = p->w + group * c->out * taps;
  double *y = p->y + item * c->out * windows;
  if (c->kind == RP_CONV_GRAD_INPUT) {
    product(lane, w, true, y, false, taps, windows, c->out, 0);
    memset(x, 0, sizeof(double) * (size_t)(c->in * c->size[0] * c->size[1]));
    move_taps(c, x, lane, true);
    return;
  }
  move_taps(c, x, lane, false);
  if (c->kind == RP_CONV_GRAD_WEIGHT) {
    double *sum = lane + taps * windows + group * c->out * taps;
    product(sum, y, false, lane, true, c->out, taps, windows, 1);
    return;
  }
  product(y, w, false, lane, false, c->out, windows, taps, 0);
  for (int64_t o = 0; p->bias && o < c->out; o++)
    for (int64_t i = 0; i < windows; i++)
      y[o * windows + i] += p->bias[group * c->out + o];
}

static rp_status run_f64(const rp_kernel_args *args, const rp_conv *c,
                         const arrays *p) {
  if (is_empty(c)) {
    fill_zero(&args->out[0]);
    return RP_OK;
  }
  const int64_t items = c->n * c->groups, lanes = lanes_of(c);
  const int64_t doubles = lane_doubles(c);
  const int64_t before_sum = taps_of(c) * windows_of(c);
  double *workspace = args->workspace;
#pragma omp parallel for schedule(static)
  for (int64_t l = 0; l < lanes; l++) {
    double *lane = workspace + l * doubles;
    memset(lane + before_sum, 0,
           sizeof(double) * (size_t)(doubles - before_sum));
    for (int64_t item = l; item < items; item += lanes)
      run_item(c, p, item, lane);
  }
  if (c->kind != RP_CONV_GRAD_WEIGHT) return RP_OK;
  const int64_t n = doubles - before_sum;
  for (int64_t i = 0; i < n; i++) {
    double total = 0;
    for (int64_t l = 0; l < lanes; l++)
      total += workspace[l * doubles + before_sum + i];
    p->w[i] = total;
  }
  return RP_OK;
}

static rp_status conv2d_f64(const rp_kernel_args *args) {
  const rp_conv c = shape_of(args, RP_CONV_FORWARD);
  const arrays p = {args->in[0].data, args->in[1].data, args->out[0].data,
                    args->n_in > 2 ? args->in[2].data : NULL};
  return run_f64(args, &c, &p);
}
static rp_status grad_input_f64(const rp_kernel_args *args) {
  const rp_conv c = shape_of(args, RP_CONV_GRAD_INPUT);
  const arrays p = {args->out[0].data, args->in[1].data, args->in[0].data,
                    NULL};
  return run_f64(args, &c, &p);
}
static rp_status grad_weight_f64(const rp_kernel_args *args) {
  const rp_conv c = shape_of(args, RP_CONV_GRAD_WEIGHT);
  const arrays p = {args->in[1].data, args->out[0].data, args->in[0].data,
                    NULL};
  return run_f64(args, &c, &p);
}

static const rp_kernel rows[] = {
    {&rp_op_conv2d, RP_F32, conv2d_dnnl, conv2d_prepare_dnnl, destroy_dnnl,
     NULL, cost_dnnl},
    {&rp_op_conv2d, RP_BF16, conv2d_dnnl, conv2d_prepare_dnnl, destroy_dnnl},
    {&rp_op_conv2d, RP_F64, conv2d_f64, conv2d_prepare_f64, NULL},
    {&rp_op_conv2d_grad_input, RP_F32, grad_input_dnnl,
     grad_input_prepare_dnnl, destroy_dnnl, NULL, cost_dnnl},
    {&rp_op_conv2d_grad_input, RP_BF16, grad_input_dnnl,
     grad_input_prepare_dnnl, destroy_dnnl},
    {&rp_op_conv2d_grad_input, RP_F64, grad_input_f64, grad_input_prepare_f64,
     NULL},
    {&rp_op_conv2d_grad_weight, RP_F32, grad_weight_dnnl,
     grad_weight_prepare_dnnl, destroy_dnnl, NULL, cost_dnnl},
    {&rp_op_conv2d_grad_weight, RP_BF16, grad_weight_dnnl,
     grad_weight_prepare_dnnl, destroy_dnnl},
    {&rp_op_conv2d_grad_weight, RP_F64, grad_weight_f64,
     grad_weight_prepare_f64, NULL},
};

const rp_kernel_table rp_cpu_conv = {rows, sizeof rows / sizeof *rows};
