/* A tile is 4x4 values of what is made; it depends on 6x6 of what is read.
   With B, G and A from winograd_transform.h,

     y tile  = A' [(G w G') (B' x B)] A
     dw      = G' [sum over tiles (A dy A') (B' x B)] G

   and dx is the y of dy and of the kernels turned round. What is in brackets
   is 36 matrix products over channels, or over tiles:

     values:(36, tiles, channels read) kernels:(36, read, made) -> (36, tiles,
     made); for dw (36, tiles, out)' (36, tiles, in) -> (36, out, in)

   Tiles go slice by slice, in strips: a strip is the tiles beside each other
   in one image. Channels made (dw: out) go part by part, so that the
   workspace stays small, and for dw those read too where dw outweighs x: then
   that is what a step's peak is about. Sums are over slices in order. The last
   slice may be short: what is missing was made 0. */
#include "cpu/winograd.h"

#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "cpu/parallel.h"
#include "cpu/winograd_transform.h"

enum {
  POINTS = BOX * BOX,
  TAPS = KERNEL * KERNEL,
  /* Bytes of a slice's values and of what its product makes (dw: of the
     product's factors), and of a part's kernels. Smaller slices take as long
     where all kernels are one part, and longer where they are more. */
  SLICE_BYTES = 5 << 19, PART_BYTES = 5 << 19, SMALL_PART_BYTES = 5 << 17,
  SMALL_SLICE_BYTES = 5 << 18,
  /* Tiles beside each other that are in hand at a time. */
  CHUNK = 16, CHUNK_COLUMNS = CHUNK * TILE + KERNEL - 1
};

/* Planes of channels; tile (0, 0) begins at (-before, -before). */
typedef struct planes {
  float *at;
  int64_t channels, size[2], before[2];
} planes;

struct rp_winograd {
  rp_context *ctx;
  rp_conv shape;
  int64_t tiles[2];      /* of one image */
  int64_t strips, slice; /* in all; of one slice */
  int64_t read, made;    /* channels; for dw in and out */
  int64_t part, across;  /* channels of made, of read */
  rp_dnnl_product *product, *adding; /* dw: the latter for all but the first
                                        slice, NULL if there is no other */
  int64_t kernels_at, made_at, scratch_at; /* in the workspace; values are
                                              its beginning */
};

/* ---- whether, and in which pieces ---------------------------------------- */

static int64_t up(int64_t n, int64_t by) { return (n + by - 1) / by; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* What is made, or for dw what y is. */
static const int64_t *made_size(const rp_conv *c) {
  return c->kind == RP_CONV_GRAD_INPUT ? c->size : c->count;
}

bool rp_winograd_suits(const rp_conv *c) {
  const rp_window *w = &c->window;
  if (c->dtype != RP_F32 || c->made != RP_F32 || c->groups != 1) return false;
  for (int d = 0; d < 2; d++)
    if (w->kernel[d] != KERNEL || w->stride[d] != 1 || w->dilation[d] != 1 ||
        w->pad[d] >= KERNEL)
      return false;
  if (c->in % LANES != 0 || c->out % LANES != 0) return false;
  /* Fewer channels do not pay for the transforms; nor do tiles that hang over
     for the most part. */
  const int64_t *size = made_size(c);
  return least(c->in, c->out) >= 32 &&
         up(size[0], TILE) * up(size[1], TILE) * TILE * TILE <=
             2 * size[0] * size[1];
}

static int64_t slice_tiles(const rp_winograd *g) {
  return g->slice * g->tiles[1];
}

static int64_t floats(int64_t n) { return n * (int64_t)sizeof(float); }

static void split(rp_winograd *g) {
  const rp_conv *c = &g->shape;
  const int64_t *size = made_size(c);
  for (int d = 0; d < 2; d++) g->tiles[d] = up(size[d], TILE);
  g->strips = c->n * g->tiles[0];
  g->read = c->kind == RP_CONV_GRAD_INPUT ? c->out : c->in;
  g->made = c->kind == RP_CONV_GRAD_INPUT ? c->in : c->out;
  g->part = g->made;
  for (int64_t parts = 2;
       floats(POINTS * g->read * g->part) > PART_BYTES &&
       g->made / parts >= 2 * LANES; parts++)
    if (g->made % (parts * LANES) == 0) g->part = g->made / parts;
  g->across = g->read;
  if (c->kind == RP_CONV_GRAD_WEIGHT &&
      TAPS * c->out > c->n * c->size[0] * c->size[1])
    while (floats(POINTS * g->across * g->part) > SMALL_PART_BYTES &&
           g->across % (4 * LANES) == 0)
      g->across /= 2;
  const int64_t strip = floats(POINTS * g->tiles[1] * (g->across + g->part));
  const int64_t bytes =
      g->part == g->made ? SMALL_SLICE_BYTES : SLICE_BYTES;
  g->slice = most(1, least(g->strips, bytes / strip));
  const int64_t slices = up(g->strips, g->slice);
  for (int64_t more = slices; more < slices + slices / 2; more++)
    if (g->strips % more == 0) {
      g->slice = g->strips / more;
      return;
    }
  g->slice = up(g->strips, slices);
}

/* ---- making ------------------------------------------------------------- */

static rp_array matrices(int64_t rows, int64_t columns, bool transposed) {
  rp_array a = {.type = {RP_F32, 3, {POINTS, rows, columns}},
                .strides = {rows * columns, columns, 1}};
  if (!transposed) return a;
  a.type.dims[1] = columns, a.type.dims[2] = rows;
  a.strides[1] = 1, a.strides[2] = columns;
  return a;
}

static rp_status make_products(rp_winograd *g, int64_t *scratch_bytes) {
  const int64_t tiles = slice_tiles(g);
  const bool weight = g->shape.kind == RP_CONV_GRAD_WEIGHT;
  const rp_array values = matrices(tiles, g->across, false);
  const rp_array kernels = matrices(weight ? g->part : g->across,
                                    weight ? g->across : g->part, false);
  const rp_array made = matrices(tiles, g->part, weight);
  int64_t bytes = 0;
  g->product = weight ? rp_dnnl_product_new(g->ctx, &made, &values, NULL,
                                            &kernels, scratch_bytes)
                      : rp_dnnl_product_new(g->ctx, &values, &kernels, NULL,
                                            &made, scratch_bytes);
  if (g->product && weight && g->slice < g->strips)
    g->adding = rp_dnnl_product_new_adding(g->ctx, &made, &values, &kernels,
                                           &bytes);
  *scratch_bytes = most(*scratch_bytes, bytes);
  return g->product && (g->adding || !weight || g->slice >= g->strips)
             ? RP_OK : rp_last_status(g->ctx);
}

rp_winograd *rp_winograd_new(rp_context *ctx, const rp_conv *shape,
                             int64_t *workspace_bytes) {
  *workspace_bytes = 0;
  rp_winograd *g = rp_alloc(ctx, sizeof *g);
  if (g == NULL) return NULL;
  g->ctx = ctx;
  g->shape = *shape;
  split(g);
  int64_t scratch_bytes = 0;
  if (make_products(g, &scratch_bytes) != RP_OK) {
    rp_winograd_free(g);
    return NULL;
  }
  const int64_t tiles = POINTS * slice_tiles(g);
  g->kernels_at = rp_align(floats(tiles * g->across));
  g->made_at = g->kernels_at + rp_align(floats(POINTS * g->across * g->part));
  g->scratch_at = g->made_at + rp_align(floats(tiles * g->part));
  *workspace_bytes = g->scratch_at + rp_align(scratch_bytes);
  return g;
}

void rp_winograd_free(rp_winograd *g) {
  if (g == NULL) return;
  rp_dnnl_product_free(g->product);
  rp_dnnl_product_free(g->adding);
  rp_free(g->ctx, g, sizeof *g);
}

/* Each transform reads what there is and writes 36 values for 16, or for 9
   taps; what its product then reads and makes is in the cache. */
void rp_winograd_cost(const rp_winograd *g, double *flops, double *bytes) {
  const bool weight = g->shape.kind == RP_CONV_GRAD_WEIGHT;
  const double tiles = (double)g->strips * (double)g->tiles[1];
  const double pairs = (double)g->read * (double)g->made;
  const bool once = g->slice >= g->strips;
  const double read_times = once ? 1 : (double)(g->made / g->part);
  const double made_times = weight ? (double)(g->read / g->across) : 1;
  *flops = 2.0 * POINTS * tiles * pairs;
  *bytes = sizeof(float) *
           ((TILE * TILE + POINTS) * tiles *
                (read_times * (double)g->read + made_times * (double)g->made) +
            (TAPS + POINTS) * pairs);
}

/* ---- planes and tiles --------------------------------------------------- */

/* Part of a strip: columns first .. end - 1 of rows top .. bottom - 1, those
   inside of the plane, for tiles that begin at (row, column). */
typedef struct chunk {
  int64_t tile, tiles, row, column;
  int64_t top, bottom, first, end;
} chunk;

static chunk chunk_at(const rp_winograd *g, const planes *p, int64_t strip,
                      int64_t tile, int64_t reach) {
  chunk k = {.tile = tile, .tiles = least(CHUNK, g->tiles[1] - tile)};
  k.row = strip % g->tiles[0] * TILE - p->before[0];
  k.column = tile * TILE - p->before[1];
  k.top = most(k.row, 0);
  k.bottom = most(k.top, least(k.row + reach, p->size[0]));
  k.first = most(k.column, 0);
  k.end = most(k.first, least(k.column + (k.tiles - 1) * TILE + reach,
                              p->size[1]));
  return k;
}

static float *plane_at(const rp_winograd *g, const planes *p, int64_t strip,
                       int64_t channel) {
  const int64_t image = strip / g->tiles[0];
  return p->at + (image * p->channels + channel) * p->size[0] * p->size[1];
}

/* Between planes and `pixels`, a vector over channels each, row after row of
   the chunk: one run where its rows are whole. */
RP_INLINE void move_pixels(const planes *p, const chunk *k, float *plane,
                           vec *pixels, bool back) {
  const int64_t area = p->size[0] * p->size[1], width = p->size[1];
  const int64_t columns = k->end - k->first, rows = k->bottom - k->top;
  float *const from = plane + k->top * width + k->first;
  const bool whole = columns == width;
  const int64_t runs = whole ? least(rows, 1) : rows;
  const int64_t n = whole ? rows * width : columns;
  for (int64_t r = 0; r < runs; r++)
    if (back) rp_vec_scatter(pixels + r * columns, n, from + r * width, area);
    else rp_vec_gather(from + r * width, area, n, pixels + r * columns);
}

/* The tile's values of `reach` rows and columns: where they lie, or where the
   tile hangs over the plane, a copy in `room` with 0 outside. *pitch is from
   row to row. */
RP_INLINE const vec *read_tile(const chunk *k, const vec *pixels, int64_t tile,
                               int reach, vec *room, int64_t *pitch) {
  const int64_t columns = k->end - k->first;
  const int64_t row = k->row - k->top;
  const int64_t column = k->column + tile * TILE - k->first;
  const int64_t top = most(-row, 0), first = most(-column, 0);
  const int64_t bottom = least(reach, k->bottom - k->row);
  const int64_t end = least(reach, columns - column);
  *pitch = columns;
  if (top == 0 && first == 0 && bottom == reach && end == reach)
    return pixels + row * columns + column;
  *pitch = reach;
  for (int i = 0; i < reach * reach; i++) room[i] = (vec){0};
  for (int64_t i = top; i < bottom; i++)
    for (int64_t j = first; j < end; j++)
      room[i * reach + j] = pixels[(row + i) * columns + column + j];
  return room;
}

/* Tiles of `strip` into to:(36, tiles, channels), at the tile `at`: B' x B or
   A dy A' by the reach. */
RP_INLINE void spread_strip(const rp_winograd *g, const planes *p,
                            int64_t strip, int64_t channel, int64_t at,
                            int64_t channels, float *to, int reach) {
  const int64_t step = slice_tiles(g) * channels;
  float *const plane = plane_at(g, p, strip, channel);
  vec pixels[BOX * CHUNK_COLUMNS];
  for (int64_t tile = 0; tile < g->tiles[1]; tile += CHUNK) {
    const chunk k = chunk_at(g, p, strip, tile, reach);
    move_pixels(p, &k, plane, pixels, false);
    for (int64_t t = 0; t < k.tiles; t++) {
      vec room[POINTS];
      int64_t pitch;
      const vec *const in = read_tile(&k, pixels, t, reach, room, &pitch);
      float *const first = to + (at + tile + t) * channels;
      if (reach == BOX)
        rp_both_out(rp_values_pass, BOX, BOX, in, pitch, first, step);
      else rp_both_out(rp_gradient_pass, TILE, BOX, in, pitch, first, step);
    }
  }
}

/* Channels first .. first + n - 1 of the slice's tiles; 0 where the slice is
   short. */
static void spread(const rp_winograd *g, const planes *p, int64_t slice,
                   int64_t first, int64_t n, float *to, int reach) {
  const int64_t begin = slice * g->slice;
  const int64_t strips = least(g->slice, g->strips - begin);
#pragma omp parallel for collapse(2) schedule(static) \
    if (rp_worth(strips * g->tiles[1] * TILE * TILE * n))
  for (int64_t s = 0; s < strips; s++)
    for (int64_t c = 0; c < n; c += LANES) {
      const int64_t at = s * g->tiles[1];
      if (reach == BOX)
        spread_strip(g, p, begin + s, first + c, at, n, to + c, BOX);
      else
        spread_strip(g, p, begin + s, first + c, at, n, to + c, TILE);
    }
  const int64_t missing = (g->slice - strips) * g->tiles[1] * n;
  for (int i = 0; i < POINTS && missing > 0; i++)
    memset(to + (i + 1) * slice_tiles(g) * n - missing, 0,
           (size_t)floats(missing));
}

/* A' m A of the slice's tiles (+ bias) into channels first .. first + n - 1. */
static void collect_strip(const rp_winograd *g, const planes *p, int64_t strip,
                          int64_t channel, int64_t at, int64_t channels,
                          const float *from, const float *bias) {
  vec more = {0};
  if (bias) rp_vec_load(&more, bias + channel);
  const int64_t step = slice_tiles(g) * channels;
  float *const plane = plane_at(g, p, strip, channel);
  vec pixels[TILE * CHUNK * TILE];
  for (int64_t tile = 0; tile < g->tiles[1]; tile += CHUNK) {
    const chunk k = chunk_at(g, p, strip, tile, TILE);
    const int64_t columns = k.end - k.first;
    for (int64_t t = 0; t < k.tiles; t++) {
      vec out[TILE * TILE];
      rp_both_in(rp_made_pass, BOX, TILE, from + (at + tile + t) * channels,
                 step, out);
      for (int64_t i = 0; i < k.bottom - k.top; i++)
        for (int64_t j = 0; j < least(TILE, columns - t * TILE); j++)
          pixels[i * columns + t * TILE + j] = out[i * TILE + j] + more;
    }
    move_pixels(p, &k, plane, pixels, true);
  }
}

static void collect(const rp_winograd *g, const planes *p, int64_t slice,
                    int64_t first, int64_t n, const float *from,
                    const float *bias) {
  const int64_t begin = slice * g->slice;
  const int64_t strips = least(g->slice, g->strips - begin);
#pragma omp parallel for collapse(2) schedule(static) \
    if (rp_worth(strips * g->tiles[1] * TILE * TILE * n))
  for (int64_t s = 0; s < strips; s++)
    for (int64_t c = 0; c < n; c += LANES)
      collect_strip(g, p, begin + s, first + c, s * g->tiles[1], n, from + c,
                    bias);
}

/* ---- kernels ------------------------------------------------------------ */

/* G w G' of the kernels that lead to channels first .. first + part - 1, to
   (36, read, part). */
static void spread_kernels(const rp_winograd *g, const float *w,
                           int64_t first, float *to) {
  const bool turned = g->shape.kind == RP_CONV_GRAD_INPUT;
  const int64_t row = turned ? g->made * TAPS : TAPS;
  const int64_t lane = turned ? TAPS : g->read * TAPS;
  const int64_t step = g->read * g->part;
#pragma omp parallel for schedule(static) if (rp_worth(step))
  for (int64_t r = 0; r < g->read; r++)
    for (int64_t c = 0; c < g->part; c += LANES) {
      const float *const from = w + r * row + (first + c) * lane;
      float taps[TAPS][LANES];
      for (int64_t l = 0; l < LANES; l++)
        for (int t = 0; t < TAPS; t++)
          taps[turned ? TAPS - 1 - t : t][l] = from[l * lane + t];
      vec in[TAPS];
      for (int t = 0; t < TAPS; t++) rp_vec_load(&in[t], taps[t]);
      rp_both_out(rp_kernel_pass, KERNEL, BOX, in, KERNEL,
                  to + r * g->part + c, step);
    }
}

/* G' m G of from:(36, part, across), to dw of out channels from `first`, in
   channels from `left`. */
static void collect_kernels(const rp_winograd *g, const float *from,
                            int64_t first, int64_t left, float *dw) {
  const int64_t step = g->part * g->across;
#pragma omp parallel for schedule(static) if (rp_worth(step))
  for (int64_t o = 0; o < g->part; o++)
    for (int64_t c = 0; c < g->across; c += LANES) {
      float *const to = dw + ((first + o) * g->read + left + c) * TAPS;
      vec out[TAPS];
      rp_both_in(rp_kernel_gradient_pass, BOX, KERNEL,
                 from + o * g->across + c, step, out);
      float taps[TAPS][LANES];
      for (int t = 0; t < TAPS; t++) rp_vec_store(taps[t], &out[t]);
      for (int64_t l = 0; l < LANES; l++)
        for (int t = 0; t < TAPS; t++) to[l * TAPS + t] = taps[t][l];
    }
}

/* ---- running ------------------------------------------------------------ */

typedef struct pieces {
  float *values, *kernels, *made;
  void *scratch;
} pieces;

static rp_status run_values(const rp_winograd *g, rp_context *ctx,
                            const planes *read, const planes *made, float *w,
                            const float *bias, const pieces *at) {
  const bool once = g->slice >= g->strips;
  rp_status status = RP_OK;
  for (int64_t first = 0; first < g->made; first += g->part) {
    spread_kernels(g, w, first, at->kernels);
    for (int64_t s = 0; s * g->slice < g->strips; s++) {
      if (first == 0 || !once)
        spread(g, read, s, 0, g->read, at->values, BOX);
      status = rp_dnnl_product_run(g->product, ctx, at->values, at->kernels,
                                   NULL, at->made, at->scratch);
      if (status != RP_OK) return status;
      collect(g, made, s, first, g->part, at->made, bias);
    }
  }
  return RP_OK;
}

/* The part of dw from out channel `first` and in channel `left` on. */
static rp_status run_part(const rp_winograd *g, rp_context *ctx,
                          const planes *x, const planes *dy, int64_t first,
                          int64_t left, float *dw, const pieces *at) {
  const bool present = g->slice >= g->strips && first > 0;
  for (int64_t s = 0; s * g->slice < g->strips; s++) {
    if (!present) spread(g, x, s, left, g->across, at->values, BOX);
    spread(g, dy, s, first, g->part, at->made, TILE);
    const rp_status status = rp_dnnl_product_run(
        s > 0 ? g->adding : g->product, ctx, at->made, at->values, NULL,
        at->kernels, at->scratch);
    if (status != RP_OK) return status;
  }
  collect_kernels(g, at->kernels, first, left, dw);
  return RP_OK;
}

static rp_status run_weight(const rp_winograd *g, rp_context *ctx,
                            const planes *x, const planes *dy, float *dw,
                            const pieces *at) {
  rp_status status = RP_OK;
  for (int64_t left = 0; left < g->read && status == RP_OK; left += g->across)
    for (int64_t first = 0; first < g->made && status == RP_OK;
         first += g->part)
      status = run_part(g, ctx, x, dy, first, left, dw, at);
  return status;
}

rp_status rp_winograd_run(const rp_winograd *g, rp_context *ctx, float *x,
                          float *w, float *y, const float *bias,
                          void *workspace) {
  const rp_conv *c = &g->shape;
  const int64_t *pad = c->window.pad;
  char *const base = workspace;
  const pieces at = {workspace, (float *)(void *)(base + g->kernels_at),
                     (float *)(void *)(base + g->made_at),
                     base + g->scratch_at};
  planes image = {x, c->in, {c->size[0], c->size[1]}, {pad[0], pad[1]}};
  planes made = {y, c->out, {c->count[0], c->count[1]}, {0, 0}};
  if (c->kind == RP_CONV_GRAD_WEIGHT)
    return run_weight(g, ctx, &image, &made, w, &at);
  if (c->kind == RP_CONV_FORWARD)
    return run_values(g, ctx, &image, &made, w, bias, &at);
  for (int d = 0; d < 2; d++) {
    made.before[d] = KERNEL - 1 - pad[d];
    image.before[d] = 0;
  }
  return run_values(g, ctx, &made, &image, w, NULL, &at);
}
