/* Attention and its gradient, packed and apart (core/ops/attention.c says what
   they compute): operands from arguments, and which kernels take them.

   bf16 heads of up to 128 columns go by tensor cores (attention_matrix.h), all
   others by multiply-adds (attention_plain.h). Scores exist a tile at a time;
   the backward pass makes them again, once by queries for dq and once by keys
   for dk and dv, so each sum has one block and one order. cuDNN's kernels
   take what they can where they are asked for (cudnn_attention.h). */
#include "attention_matrix_grad.h"
#include "attention_plain.h"
#ifndef RP_EMULATED
#include "cudnn_attention.h"
#endif

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace rp {
namespace {

/* ---- operands ----------------------------------------------------------- */

/* (B, H, T, D), and where `by_time` (B, T, H, D). */
attention_array operand(const rp_array &x, bool by_time) {
  const int64_t *s = x.strides, *n = x.type.dims;
  attention_array a = {};
  a.data = x.data;
  a.b = n[0] == 1 ? 0 : s[0];
  a.h = n[by_time ? 2 : 1] == 1 ? 0 : s[by_time ? 2 : 1];
  a.t = n[by_time ? 1 : 2] == 1 ? 0 : s[by_time ? 1 : 2];
  a.d = s[3];
  return a;
}

/* Part `which` of (B, T, 3, H, D). */
attention_array part(const rp_array &x, int which) {
  const int64_t *s = x.strides, *n = x.type.dims;
  attention_array a = {};
  const int64_t offset =
      which * s[2] * (int64_t)rp_dtype_size((rp_dtype)x.type.dtype);
  a.data = (void *)((intptr_t)x.data + offset);
  a.b = n[0] == 1 ? 0 : s[0];
  a.h = n[3] == 1 ? 0 : s[3];
  a.t = n[1] == 1 ? 0 : s[1];
  a.d = s[4];
  return a;
}

/* Broadcast dims have stride 0. */
attention_array mask_of(const rp_kernel_args *args, int at) {
  attention_array a = {};
  if (args->n_in <= at) return a;
  const rp_array &x = args->in[at];
  int64_t *const strides[4] = {&a.d, &a.t, &a.h, &a.b};
  a.data = x.data;
  for (int i = 1; i <= x.type.rank; i++)
    if (x.type.dims[x.type.rank - i] != 1)
      *strides[i - 1] = x.strides[x.type.rank - i];
  return a;
}

attention_array lse_of(const rp_array &x) {
  attention_array a = {};
  a.data = x.data;
  a.b = x.strides[0];
  a.h = x.strides[1];
  a.t = x.strides[2];
  return a;
}

void set_three(attention_problem &p, const rp_array *in) {
  const int64_t *q = in[0].type.dims, *v = in[2].type.dims;
  p.batch = q[0];
  p.heads = q[1];
  p.queries = q[2];
  p.depth = q[3];
  p.keys = v[2];
  p.value_depth = v[3];
  p.q = operand(in[0], false);
  p.k = operand(in[1], false);
  p.v = operand(in[2], false);
}

void set_packed(attention_problem &p, const rp_array &qkv) {
  const int64_t *d = qkv.type.dims;
  p.batch = d[0];
  p.queries = p.keys = d[1];
  p.heads = d[3];
  p.depth = p.value_depth = d[4];
  p.q = part(qkv, 0);
  p.k = part(qkv, 1);
  p.v = part(qkv, 2);
}

/* keep and scale as the op dropout does. */
void set_options(attention_problem &p, const rp_kernel_args *args) {
  const bool causal = args->n_ints > 0 && args->ints[0];
  const double drop = args->n_reals > 1 ? args->reals[1] : 0;
  const double from = std::ceil(drop * 0x1p24);
  p.diagonal = causal ? p.keys - p.queries : p.keys;
  p.scale = args->n_reals > 0 ? args->reals[0] : 1;
  p.drops = drop > 0;
  p.from = from >= 0x1p24 ? UINT32_MAX : (uint32_t)from << 8;
  p.factor = from >= 0x1p24 ? 0 : 1 / (1 - drop);
  p.draw = args->draw;
}

void set_by_eights(attention_array &x, int64_t width) {
  x.by_eights = x.d == 1 && width % 8 == 0 && (uintptr_t)x.data % 16 == 0 &&
                x.b % 8 == 0 && x.h % 8 == 0 && x.t % 8 == 0;
}

attention_problem forward_of(const rp_kernel_args *args, bool packed) {
  attention_problem p = {};
  if (packed) set_packed(p, args->in[0]);
  else set_three(p, args->in);
  set_options(p, args);
  p.mask = mask_of(args, packed ? 1 : 3);
  p.out = operand(args->out[0], true);
  p.lse = lse_of(args->out[1]);
  for (attention_array *x : {&p.q, &p.k}) set_by_eights(*x, p.depth);
  for (attention_array *x : {&p.v, &p.out}) set_by_eights(*x, p.value_depth);
  return p;
}

attention_problem backward_of(const rp_kernel_args *args, bool packed) {
  attention_problem p = {};
  if (packed) {
    set_packed(p, args->in[1]);
    p.dq = part(args->out[0], 0);
    p.dk = part(args->out[0], 1);
    p.dv = part(args->out[0], 2);
  } else {
    set_three(p, &args->in[1]);
    p.dq = operand(args->out[0], true);
    p.dk = operand(args->out[1], true);
    p.dv = operand(args->out[2], true);
  }
  set_options(p, args);
  p.mask = mask_of(args, packed ? 4 : 6);
  p.dout = operand(args->in[0], true);
  p.out = operand(args->in[packed ? 2 : 4], true);
  p.lse = lse_of(args->in[packed ? 3 : 5]);
  p.delta = args->workspace;
  for (attention_array *x : {&p.q, &p.k, &p.dq, &p.dk})
    set_by_eights(*x, p.depth);
  for (attention_array *x : {&p.v, &p.out, &p.dout, &p.dv})
    set_by_eights(*x, p.value_depth);
  return p;
}

/* ---- launches ----------------------------------------------------------- */

int64_t parts_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* Blocks go on by whole grids, so fewer than there are items will do. */
template <typename... P, typename... A>
rp_status launch_items(const rp_kernel_args *args, const char *name,
                       void (*kernel)(P...), int64_t items, int threads,
                       size_t shared, const attention_problem &p,
                       A... values) {
  if (items == 0) return RP_OK;
  const unsigned blocks = (unsigned)(items < INT32_MAX ? items : INT32_MAX);
  return launch(args, name, kernel, dim3(blocks), dim3((unsigned)threads),
                shared, p, items, values...);
}

template <typename T, int QUADS>
rp_status run_plain(const rp_kernel_args *args, const attention_problem &p,
                    bool forward) {
  typedef plain<T, QUADS> block;
  const int64_t heads = p.batch * p.heads;
  const int64_t query_items = heads * parts_of(p.queries, TILE);
  const auto chunks_of = [](int64_t width) {
    return width > block::COLUMNS ? parts_of(width, block::COLUMNS) : 1;
  };
  if (forward) {
    const int64_t chunks = chunks_of(p.value_depth);
    return launch_items(args, "attention", plain_forward<T, QUADS>,
                        query_items * chunks, BLOCK, block::SHARED, p,
                        chunks);
  }
  int64_t chunks = chunks_of(p.depth);
  const rp_status status =
      launch_items(args, "attention_grad", plain_queries<T, QUADS>,
                   query_items * chunks, BLOCK, block::SHARED, p, chunks);
  if (status != RP_OK) return status;
  chunks = chunks_of(p.depth > p.value_depth ? p.depth : p.value_depth);
  return launch_items(args, "attention_grad", plain_keys<T, QUADS>,
                      heads * parts_of(p.keys, TILE) * chunks, BLOCK,
                      block::SHARED, p, chunks);
}

template <int DEPTH, bool DROPS>
rp_status run_matrix(const rp_kernel_args *args, const attention_problem &p,
                     bool forward) {
  /* A wide head's sums leave a warp registers for one strip only; the words'
     arithmetic needs some too. */
  constexpr bool NARROW = DEPTH <= 64;
  constexpr int WARPS = NARROW ? 4 : 8, STRIPS = NARROW && !DROPS ? 2 : 1;
  constexpr int PART = DEPTH == 64 && !DROPS ? 16 : 32;
  constexpr int KEY_WARPS = 4, QUERIES = NARROW ? 64 : 32;
  constexpr int KEY_PART = DROPS ? 16 : 32;
  constexpr size_t ROW = rows_of<DEPTH, WARP>::PITCH * sizeof(bf16);
  constexpr size_t SHARED = 4 * MATRIX_KEYS * ROW;
  constexpr size_t KEY_SHARED =
      (4 * QUERIES + (NARROW ? 0 : 2 * 16 * KEY_WARPS)) * ROW +
      4 * QUERIES * sizeof(float);
  const int64_t heads = p.batch * p.heads;
  const int64_t query_items =
      heads * parts_of(p.queries, 16 * WARPS * STRIPS);
  if (forward)
    return launch_items(args, "attention",
                        matrix_forward<DEPTH, WARPS, STRIPS, DROPS>,
                        query_items, WARPS * WARP, SHARED, p);
  const rp_status status = launch_items(
      args, "attention_grad",
      matrix_queries<DEPTH, WARPS, STRIPS, PART, DROPS>, query_items,
      WARPS * WARP, SHARED, p);
  if (status != RP_OK) return status;
  return launch_items(
      args, "attention_grad",
      matrix_keys<DEPTH, KEY_WARPS, QUERIES, KEY_PART, NARROW, DROPS>,
      heads * parts_of(p.keys, 16 * KEY_WARPS), KEY_WARPS * WARP, KEY_SHARED,
      p);
}
template <int DEPTH>
rp_status run_matrix(const rp_kernel_args *args, const attention_problem &p,
                     bool forward) {
  return p.drops ? run_matrix<DEPTH, true>(args, p, forward)
                 : run_matrix<DEPTH, false>(args, p, forward);
}

template <typename T>
rp_status run_own(const rp_kernel_args *args, const attention_problem &p,
                  bool forward) {
  const int64_t width = p.depth > p.value_depth ? p.depth : p.value_depth;
  if constexpr (std::is_same<T, bf16>::value) {
    if (width <= 32) return run_matrix<32>(args, p, forward);
    if (width <= 64) return run_matrix<64>(args, p, forward);
    if (width <= 128) return run_matrix<128>(args, p, forward);
  } else if (width <= TILE || sizeof(T) == 8) {
    return run_plain<T, 1>(args, p, forward);
  }
  return run_plain<T, sizeof(T) == 8 ? 1 : 2>(args, p, forward);
}

/* ---- cuDNN -------------------------------------------------------------- */

int64_t delta_bytes(const attention_problem &p, size_t size) {
  const int64_t bytes = p.batch * p.heads * p.queries * (int64_t)size;
  return (bytes + 255) / 256 * 256;
}

#ifndef RP_EMULATED

/* What cuDNN reads and writes lies as it must. */
bool fits_cudnn(const attention_problem &p, bool forward) {
  bool fits = p.q.by_eights && p.k.by_eights && p.v.by_eights &&
              p.out.by_eights;
  if (!forward)
    fits = fits && p.dout.by_eights && p.dq.by_eights && p.dk.by_eights &&
           p.dv.by_eights;
  return fits;
}

/* A plan, or null where ours are to run. Data pointers are null. */
std::unique_ptr<cudnn_graph> cudnn_plan(const rp_kernel_args *args,
                                        const attention_problem &p,
                                        bool forward, bool packed) {
  const char *asked = getenv("RP_CUDA_CUDNN_ATTENTION");
  const int inputs = forward ? (packed ? 1 : 3) : (packed ? 4 : 6);
  const rp_array &lse = forward ? args->out[1] : args->in[packed ? 3 : 5];
  const bool causal = p.diagonal < p.keys;
  if (!asked || strcmp(asked, "1") || args->in[0].type.dtype != RP_BF16 ||
      args->n_in > inputs || p.drops || p.depth != p.value_depth ||
      p.depth == 0 || p.depth > 128 || p.batch * p.heads == 0 ||
      p.queries == 0 || p.keys == 0 || (causal && p.queries != p.keys) ||
      !is_contiguous(&lse) || !fits_cudnn(p, forward))
    return nullptr;
  const auto strides = [](const attention_array &x) {
    return cudnn_strides{x.b, x.h, x.t};
  };
  cudnn_attention_problem x = {};
  x.batch = p.batch;
  x.heads = p.heads;
  x.queries = p.queries;
  x.keys = p.keys;
  x.depth = p.depth;
  x.causal = causal;
  x.scale = p.scale;
  x.q = strides(p.q);
  x.k = strides(p.k);
  x.v = strides(p.v);
  x.out = strides(p.out);
  x.dout = strides(p.dout);
  x.dq = strides(p.dq);
  x.dk = strides(p.dk);
  x.dv = strides(p.dv);
  std::unique_ptr<cudnn_graph> graph(new cudnn_graph);
  if (forward) cudnn_attention_forward(graph.get(), x);
  else cudnn_attention_backward(graph.get(), x);
  if (!graph->plan(rp_cuda_of(args)->dnn, nullptr)) return nullptr;
  return graph;
}

rp_status run_cudnn(const rp_kernel_args *args, const attention_problem &p,
                    bool forward) {
  const cudnn_graph *graph = (const cudnn_graph *)args->state;
  void *const pointers[CUDNN_ARGUMENTS] = {
      p.q.data,    p.k.data,  p.v.data,  p.out.data, p.lse.data,
      p.dout.data, p.delta,   p.dq.data, p.dk.data,  p.dv.data};
  void *workspace = args->workspace;
  if (!forward)
    workspace = (char *)workspace + delta_bytes(p, sizeof(float));
  const int count = forward ? CUDNN_FORWARD_ARGUMENTS : CUDNN_ARGUMENTS;
  return rp_cudnn_ok(args->ctx,
                     graph->run(rp_cuda_of(args)->dnn, pointers, count,
                                workspace),
                     forward ? "attention" : "attention_grad");
}

void destroy(void *state) { delete (cudnn_graph *)state; }

#else

void destroy(void *state) { (void)state; }

#endif

/* ---- rows --------------------------------------------------------------- */

template <typename T, bool FORWARD, bool PACKED>
rp_status run(const rp_kernel_args *args) {
  const attention_problem p =
      FORWARD ? forward_of(args, PACKED) : backward_of(args, PACKED);
#ifndef RP_EMULATED
  /* A view's offset, which the plan did not know, may break alignment. */
  if (args->state && fits_cudnn(p, FORWARD)) return run_cudnn(args, p, FORWARD);
#endif
  return run_own<T>(args, p, FORWARD);
}

template <typename T, bool FORWARD, bool PACKED>
rp_status prepare(const rp_kernel_args *args, void **state, int64_t *bytes) {
  const attention_problem p =
      FORWARD ? forward_of(args, PACKED) : backward_of(args, PACKED);
  *state = nullptr;
  *bytes = FORWARD ? 0 : delta_bytes(p, sizeof(wide<T>));
#ifndef RP_EMULATED
  if (std::unique_ptr<cudnn_graph> graph =
          cudnn_plan(args, p, FORWARD, PACKED)) {
    *bytes += graph->workspace_bytes();
    *state = graph.release();
  }
#endif
  return RP_OK;
}

template <typename T, bool FORWARD, bool PACKED>
rp_kernel attention_row(const char *name, rp_dtype dtype) {
  return row(name, dtype, run<T, FORWARD, PACKED>,
             prepare<T, FORWARD, PACKED>, destroy);
}

} // namespace

RP_ROWS(attention,
        attention_row<float, true, false>("attention", RP_F32),
        attention_row<double, true, false>("attention", RP_F64),
        attention_row<bf16, true, false>("attention", RP_BF16),
        attention_row<float, false, false>("attention_grad", RP_F32),
        attention_row<double, false, false>("attention_grad", RP_F64),
        attention_row<bf16, false, false>("attention_grad", RP_BF16),
        attention_row<float, true, true>("packed_attention", RP_F32),
        attention_row<double, true, true>("packed_attention", RP_F64),
        attention_row<bf16, true, true>("packed_attention", RP_BF16),
        attention_row<float, false, true>("packed_attention_grad", RP_F32),
        attention_row<double, false, true>("packed_attention_grad", RP_F64),
        attention_row<bf16, false, true>("packed_attention_grad", RP_BF16));

} // namespace rp
