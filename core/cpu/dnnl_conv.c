/* oneDNN's convolutions are fast on arrays whose channels lie in blocks.
   Ours do not, so arrays are rearranged in the workspace: a slice of the batch
   at a time, and of large weights a part, those of some channels of what is
   made. What is rearranged stays in the cache, and the workspace is small
   whatever the batch and the weights. Gradients of weights are summed over
   slices in order. */
#include <string.h>

#include "base/memory.h"
#include "cpu/dnnl.h"
#include "cpu/dnnl_library.h"
#include "cpu/parallel.h"

/* Bytes of a slice of x and y together, and of a part of w: about a core's
   second-level cache. Fewer channels than PART_CHANNELS would keep the kernels
   from their widest blocks. */
enum { SLICE_BYTES = 1 << 20, PART_BYTES = 3 << 19, PART_CHANNELS = 64 };

typedef struct stage {
  dnnl_primitive_t primitive;
  dnnl_memory_t scratchpad; /* NULL: needs none */
} stage;

/* x, w or y. `inner` is what the convolution works on; where it lies as ours
   does, there is no outer and no bytes in the workspace. */
typedef struct side {
  dnnl_memory_t inner, outer;
  stage reorder;
  int64_t at;                     /* inner's bytes in the workspace */
  int64_t inner_floats;           /* of dw */
  int64_t slice_step, part_step;  /* bytes to the next one, in our array */
  bool written;
} side;

enum { X, W, Y, SIDES };

struct rp_dnnl_conv {
  rp_context *ctx;
  rp_conv_kind kind;
  int64_t slices, parts;
  int64_t bias_step; /* from a part's to the next one's */
  side sides[SIDES];
  stage conv;
  dnnl_memory_t bias;
  int64_t scratchpad_at, sum_at;
};

/* ---- descriptors -------------------------------------------------------- */

/* A part is of x's channels, or of y's. */
static bool parts_of_input(const rp_conv *c) {
  return c->kind == RP_CONV_GRAD_INPUT;
}

static int written_side(rp_conv_kind kind) {
  return kind == RP_CONV_FORWARD      ? Y
         : kind == RP_CONV_GRAD_INPUT ? X
                                      : W;
}

static rp_dtype dtype_of(const rp_conv *c, int which) {
  return which == written_side(c->kind) ? c->made : c->dtype;
}

/* What the convolution itself works on. dw is summed over slices in f32. */
static dnnl_data_type_t inner_type(const rp_conv *c, int which) {
  if (c->kind == RP_CONV_GRAD_WEIGHT && which == W) return dnnl_f32;
  return dtype_of(c, which) == RP_BF16 && rp_dnnl_has_bf16() ? dnnl_bf16
                                                             : dnnl_f32;
}

/* A slice of x or y or a part of w as it lies in our array. */
static dnnl_status_t describe_ours(const rp_conv *c, int which, int64_t n,
                                   int64_t parts, dnnl_memory_desc_t *out) {
  const int64_t in = c->in / (parts_of_input(c) ? parts : 1);
  const int64_t made = c->out / (parts_of_input(c) ? 1 : parts);
  const dnnl_data_type_t type =
      dtype_of(c, which) == RP_BF16 ? dnnl_bf16 : dnnl_f32;
  if (which == W) {
    const int64_t *kernel = c->window.kernel, area = kernel[0] * kernel[1];
    const dnnl_dims_t one = {made, in, kernel[0], kernel[1]};
    const dnnl_dims_t strides = {c->in * area, area, kernel[1], 1};
    const dnnl_dims_t many = {c->groups, c->out, c->in, kernel[0], kernel[1]};
    return c->groups > 1
               ? dnnl_memory_desc_init_by_tag(out, 5, many, type, dnnl_goihw)
               : dnnl_memory_desc_init_by_strides(out, 4, one, type, strides);
  }
  const int64_t *size = which == X ? c->size : c->count;
  const int64_t area = size[0] * size[1];
  const dnnl_dims_t dims = {n, c->groups * (which == X ? in : made), size[0],
                            size[1]};
  const dnnl_dims_t strides = {c->groups * (which == X ? c->in : c->out) * area,
                               area, size[1], 1};
  return dnnl_memory_desc_init_by_strides(out, 4, dims, type, strides);
}

/* The same array, lying as the convolution likes best. */
static dnnl_status_t describe_any(const rp_conv *c, int which,
                                  const dnnl_memory_desc_t *ours,
                                  dnnl_memory_desc_t *out) {
  return dnnl_memory_desc_init_by_tag(out, ours->ndims, ours->dims,
                                      inner_type(c, which),
                                      dnnl_format_tag_any);
}

static dnnl_status_t describe_operation(const rp_conv *c, int64_t parts,
                                        bool has_bias,
                                        const dnnl_memory_desc_t *any,
                                        dnnl_convolution_desc_t *out) {
  const rp_window *w = &c->window;
  dnnl_dims_t stride, dilates, before, after;
  for (int d = 0; d < 2; d++) {
    stride[d] = w->stride[d];
    before[d] = w->pad[d];
    dilates[d] = w->dilation[d] - 1;
    /* Rows that no window reaches are none of its business. */
    after[d] = (c->count[d] - 1) * w->stride[d] + rp_window_reach(w, d) -
               c->size[d] - w->pad[d];
  }
  const dnnl_dims_t bias_dims = {c->groups * c->out / parts};
  dnnl_memory_desc_t bias;
  const dnnl_status_t status = dnnl_memory_desc_init_by_tag(
      &bias, 1, bias_dims, dnnl_f32, dnnl_x);
  if (status) return status;
  switch (c->kind) {
    case RP_CONV_FORWARD:
      return dnnl_dilated_convolution_forward_desc_init(
          out, dnnl_forward_training, dnnl_convolution_direct, &any[X],
          &any[W], has_bias ? &bias : NULL, &any[Y], stride, dilates, before,
          after);
    case RP_CONV_GRAD_INPUT:
      return dnnl_dilated_convolution_backward_data_desc_init(
          out, dnnl_convolution_direct, &any[X], &any[W], &any[Y], stride,
          dilates, before, after);
    default:
      return dnnl_dilated_convolution_backward_weights_desc_init(
          out, dnnl_convolution_direct, &any[X], &any[W], NULL, &any[Y],
          stride, dilates, before, after);
  }
}

static const dnnl_memory_desc_t *chosen(const_dnnl_primitive_desc_t d,
                                        rp_conv_kind kind, int which) {
  static const dnnl_query_t queries[3][SIDES] = {
      {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md},
      {dnnl_query_diff_src_md, dnnl_query_weights_md, dnnl_query_diff_dst_md},
      {dnnl_query_src_md, dnnl_query_diff_weights_md, dnnl_query_diff_dst_md},
  };
  return dnnl_primitive_desc_query_md(d, queries[kind][which], 0);
}

/* ---- making ------------------------------------------------------------- */

/* Takes the descriptor over. */
static dnnl_status_t make_stage(dnnl_primitive_desc_t descriptor, stage *out,
                                int64_t *scratchpad_bytes) {
  const dnnl_memory_desc_t *scratchpad =
      dnnl_primitive_desc_query_md(descriptor, dnnl_query_scratchpad_md, 0);
  const int64_t bytes = (int64_t)dnnl_memory_desc_get_size(scratchpad);
  dnnl_status_t status = dnnl_success;
  if (bytes > 0) status = rp_dnnl_memory(scratchpad, &out->scratchpad);
  if (bytes > *scratchpad_bytes) *scratchpad_bytes = bytes;
  if (!status) status = dnnl_primitive_create(&out->primitive, descriptor);
  dnnl_primitive_desc_destroy(descriptor);
  return status;
}

/* The next piece of the workspace. */
static int64_t take(int64_t *workspace_bytes, int64_t bytes) {
  const int64_t at = *workspace_bytes;
  *workspace_bytes += rp_align(bytes);
  return at;
}

static dnnl_status_t make_side(side *s, const dnnl_memory_desc_t *ours,
                               const dnnl_memory_desc_t *theirs,
                               const_dnnl_primitive_attr_t attr,
                               int64_t *workspace_bytes,
                               int64_t *scratchpad_bytes) {
  const int64_t bytes = (int64_t)dnnl_memory_desc_get_size(theirs);
  s->inner_floats = bytes / (int64_t)sizeof(float);
  dnnl_status_t status = rp_dnnl_memory(theirs, &s->inner);
  if (status || dnnl_memory_desc_equal(ours, theirs)) return status;
  s->at = take(workspace_bytes, bytes);
  status = rp_dnnl_memory(ours, &s->outer);
  dnnl_primitive_desc_t descriptor;
  if (!status)
    status = dnnl_reorder_primitive_desc_create(
        &descriptor, s->written ? theirs : ours, rp_dnnl.engine,
        s->written ? ours : theirs, rp_dnnl.engine, attr);
  return status ? status
                : make_stage(descriptor, &s->reorder, scratchpad_bytes);
}

static dnnl_status_t make(rp_dnnl_conv *c, const rp_conv *shape, bool has_bias,
                          int64_t *workspace_bytes) {
  dnnl_memory_desc_t ours[SIDES], any[SIDES];
  dnnl_convolution_desc_t operation;
  dnnl_primitive_attr_t attr = NULL;
  dnnl_primitive_desc_t descriptor = NULL;
  int64_t scratchpad_bytes = 0;
  dnnl_status_t status = dnnl_success;
  for (int i = 0; i < SIDES && !status; i++) {
    status = describe_ours(shape, i, shape->n / c->slices, c->parts,
                           &ours[i]);
    if (!status) status = describe_any(shape, i, &ours[i], &any[i]);
  }
  if (!status)
    status = describe_operation(shape, c->parts, has_bias, any, &operation);
  if (!status) status = dnnl_primitive_attr_create(&attr);
  if (!status)
    status = dnnl_primitive_attr_set_scratchpad_mode(
        attr, dnnl_scratchpad_mode_user);
  if (!status)
    status = dnnl_primitive_desc_create(&descriptor, &operation, attr,
                                        rp_dnnl.engine, NULL);
  for (int i = 0; i < SIDES && !status; i++)
    status = make_side(&c->sides[i], &ours[i],
                       chosen(descriptor, shape->kind, i), attr,
                       workspace_bytes, &scratchpad_bytes);
  if (!status && has_bias)
    status = rp_dnnl_memory(
        dnnl_primitive_desc_query_md(descriptor, dnnl_query_weights_md, 1),
        &c->bias);
  if (!status) {
    status = make_stage(descriptor, &c->conv, &scratchpad_bytes);
    descriptor = NULL;
  }
  if (descriptor) dnnl_primitive_desc_destroy(descriptor);
  if (attr) dnnl_primitive_attr_destroy(attr);
  if (status) return status;
  c->scratchpad_at = take(workspace_bytes, scratchpad_bytes);
  if (c->sides[W].written && c->slices > 1)
    c->sum_at = take(workspace_bytes, c->sides[W].inner_floats *
                                          (int64_t)sizeof(float));
  return dnnl_success;
}

/* The least number of equal slices that are small enough. */
static int64_t slices_of(const rp_conv *c) {
  const int64_t image =
      (int64_t)sizeof(float) * c->groups *
      (c->in * c->size[0] * c->size[1] + c->out * c->count[0] * c->count[1]);
  for (int64_t slices = 1; slices < c->n; slices++)
    if (c->n % slices == 0 && c->n / slices * image <= SLICE_BYTES)
      return slices;
  return c->n;
}

/* The least number of equal parts that are small enough, or whose channels
   would be too few with one more. */
static int64_t parts_of(const rp_conv *c) {
  const int64_t channels = parts_of_input(c) ? c->in : c->out;
  const int64_t bytes = (int64_t)sizeof(float) * c->out * c->in *
                        c->window.kernel[0] * c->window.kernel[1];
  int64_t best = 1;
  for (int64_t parts = 2; c->groups == 1 && bytes / best > PART_BYTES &&
                          channels / parts >= PART_CHANNELS; parts++)
    if (channels % parts == 0) best = parts;
  return best;
}

static void measure(rp_dnnl_conv *c, const rp_conv *shape) {
  const int64_t *kernel = shape->window.kernel;
  const int64_t taps = kernel[0] * kernel[1], n = shape->n / c->slices;
  const int64_t x = shape->in * shape->size[0] * shape->size[1];
  const int64_t y = shape->out * shape->count[0] * shape->count[1];
  c->sides[X].slice_step = n * shape->groups * x;
  c->sides[Y].slice_step = n * shape->groups * y;
  if (parts_of_input(shape)) {
    c->sides[X].part_step = x / c->parts;
    c->sides[W].part_step = shape->in / c->parts * taps;
  } else {
    c->sides[Y].part_step = y / c->parts;
    c->sides[W].part_step = shape->out / c->parts * shape->in * taps;
    c->bias_step = shape->out / c->parts;
  }
  for (int i = 0; i < SIDES; i++) {
    const int64_t size = (int64_t)rp_dtype_size(dtype_of(shape, i));
    c->sides[i].slice_step *= size;
    c->sides[i].part_step *= size;
  }
}

rp_dnnl_conv *rp_dnnl_conv_new(rp_context *ctx, const rp_conv *shape,
                               bool has_bias, int64_t *workspace_bytes) {
  *workspace_bytes = 0;
  if (rp_dnnl_open(ctx) != RP_OK) return NULL;
  rp_dnnl_conv *c = rp_alloc(ctx, sizeof *c);
  if (c == NULL) return NULL;
  c->ctx = ctx;
  c->kind = shape->kind;
  c->slices = slices_of(shape);
  c->parts = parts_of(shape);
  measure(c, shape);
  c->sides[written_side(shape->kind)].written = true;
  if (shape->dtype == RP_BF16) rp_dnnl_notice_bf16(ctx);
  const dnnl_status_t status = make(c, shape, has_bias, workspace_bytes);
  if (rp_dnnl_check(ctx, status, "prepare a convolution") == RP_OK) return c;
  rp_dnnl_conv_free(c);
  return NULL;
}

static void release_stage(stage *s) {
  if (s->primitive) dnnl_primitive_destroy(s->primitive);
  if (s->scratchpad) dnnl_memory_destroy(s->scratchpad);
}

void rp_dnnl_conv_free(rp_dnnl_conv *c) {
  if (c == NULL) return;
  for (int i = 0; i < SIDES; i++) {
    release_stage(&c->sides[i].reorder);
    if (c->sides[i].inner) dnnl_memory_destroy(c->sides[i].inner);
    if (c->sides[i].outer) dnnl_memory_destroy(c->sides[i].outer);
  }
  release_stage(&c->conv);
  if (c->bias) dnnl_memory_destroy(c->bias);
  rp_free(c->ctx, c, sizeof *c);
}

/* ---- running ------------------------------------------------------------ */

static dnnl_status_t run_stage(const stage *s, dnnl_exec_arg_t *args, int n) {
  if (s->scratchpad)
    args[n++] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, s->scratchpad};
  return dnnl_primitive_execute(s->primitive, rp_dnnl.stream, n, args);
}

/* Between ours and theirs, in the side's direction. */
static dnnl_status_t rearrange(const side *s, void *ours, void *theirs) {
  dnnl_exec_arg_t args[3] = {
      {s->written ? DNNL_ARG_DST : DNNL_ARG_SRC, s->outer},
      {s->written ? DNNL_ARG_SRC : DNNL_ARG_DST, s->inner},
  };
  dnnl_status_t status = dnnl_memory_set_data_handle(s->outer, ours);
  if (!status) status = dnnl_memory_set_data_handle(s->inner, theirs);
  return status ? status : run_stage(&s->reorder, args, 2);
}

static void add(float *restrict total, const float *restrict x, int64_t n) {
#pragma omp parallel for simd schedule(static) if (rp_worth(n))
  for (int64_t i = 0; i < n; i++) total[i] += x[i];
}

static dnnl_status_t convolve(const rp_dnnl_conv *c) {
  static const int names[3][SIDES] = {
      {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
      {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST},
      {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST},
  };
  dnnl_exec_arg_t args[SIDES + 2];
  int n = 0;
  for (; n < SIDES; n++)
    args[n] = (dnnl_exec_arg_t){names[c->kind][n], c->sides[n].inner};
  if (c->bias) args[n++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, c->bias};
  return run_stage(&c->conv, args, n);
}

/* The run of one slice of one part: what it reads is rearranged unless it is
   in the workspace already. `made` is where inner's values of what is made
   go. */
static dnnl_status_t run_slice(const rp_dnnl_conv *c, char *const *at,
                               const char **present, void *made,
                               char *workspace) {
  dnnl_status_t status = dnnl_success;
  for (int i = 0; i < SIDES && !status; i++) {
    const side *s = &c->sides[i];
    void *inner = s->outer ? workspace + s->at : (void *)at[i];
    if (s->written) inner = made;
    if (s->outer && !s->written && present[i] != at[i]) {
      status = rearrange(s, at[i], inner);
      present[i] = at[i];
    } else {
      status = dnnl_memory_set_data_handle(s->inner, inner);
    }
  }
  return status ? status : convolve(c);
}

/* x and y are made slice by slice. Of dw each slice gives a term: the sum
   lies where the first one's would, the others' are made behind it. */
static dnnl_status_t run_part(const rp_dnnl_conv *c, int64_t part,
                              char *const *ours, const char **present,
                              char *workspace) {
  const int made = written_side(c->kind);
  const side *m = &c->sides[made];
  dnnl_status_t status = dnnl_success;
  for (int64_t slice = 0; slice < c->slices && !status; slice++) {
    char *at[SIDES];
    for (int i = 0; i < SIDES; i++)
      at[i] = ours[i] + part * c->sides[i].part_step +
              slice * c->sides[i].slice_step;
    char *const total = m->outer ? workspace + m->at : at[made];
    char *const term =
        made == W && slice > 0 ? workspace + c->sum_at : total;
    status = run_slice(c, at, present, term, workspace);
    if (!status && term != total)
      add((float *)total, (const float *)term, m->inner_floats);
    if (!status && m->outer && (made != W || slice == c->slices - 1))
      status = rearrange(m, at[made], total);
  }
  return status;
}

static dnnl_status_t point(const stage *s, char *at) {
  return s->scratchpad ? dnnl_memory_set_data_handle(s->scratchpad, at)
                       : dnnl_success;
}

rp_status rp_dnnl_conv_run(rp_dnnl_conv *c, rp_context *ctx, void *x,
                           void *w, void *y, const float *bias,
                           void *workspace) {
  char *const ours[SIDES] = {x, w, y};
  char *const scratchpad = (char *)workspace + c->scratchpad_at;
  dnnl_status_t status = point(&c->conv, scratchpad);
  for (int i = 0; i < SIDES && !status; i++)
    status = point(&c->sides[i].reorder, scratchpad);
  const char *present[SIDES] = {NULL, NULL, NULL};
  for (int64_t part = 0; part < c->parts && !status; part++) {
    if (c->bias)
      status = dnnl_memory_set_data_handle(
          c->bias, (void *)(bias + part * c->bias_step));
    if (!status) status = run_part(c, part, ours, present, workspace);
  }
  return rp_dnnl_check(ctx, status, "run a convolution");
}
