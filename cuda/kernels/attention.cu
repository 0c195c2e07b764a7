/* Attention and its gradient, packed and apart (core/ops/attention.c says what
   they compute): operands from arguments, and which kernels take them.

   bf16 heads of up to 128 columns go by tensor cores (attention_matrix.h), all
   others by multiply-adds (attention_plain.h). Scores exist a tile at a time;
   the backward pass makes them again, once by queries for dq and once by keys
   for dk and dv, so each sum has one block and one order. */
#include "attention_matrix_grad.h"
#include "attention_plain.h"

#include <cmath>

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
  a.data = (char *)x.data +
           which * s[2] * (int64_t)rp_dtype_size((rp_dtype)x.type.dtype);
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

template <int DEPTH>
rp_status run_matrix(const rp_kernel_args *args, const attention_problem &p,
                     bool forward) {
  /* A wide head's sums leave a warp registers for one strip only. */
  constexpr bool NARROW = DEPTH <= 64;
  constexpr int WARPS = NARROW ? 4 : 8, STRIPS = NARROW ? 2 : 1;
  constexpr int PART = 32, KEY_WARPS = 4, QUERIES = NARROW ? 64 : 32;
  constexpr size_t ROW = rows_of<DEPTH>::PITCH * sizeof(bf16);
  constexpr size_t SHARED = 4 * MATRIX_KEYS * ROW;
  constexpr size_t KEY_SHARED =
      (4 * QUERIES + (NARROW ? 0 : 2 * 16 * KEY_WARPS)) * ROW;
  const int64_t heads = p.batch * p.heads;
  const int64_t query_items =
      heads * parts_of(p.queries, 16 * WARPS * STRIPS);
  if (forward)
    return launch_items(args, "attention",
                        matrix_forward<DEPTH, WARPS, STRIPS>, query_items,
                        WARPS * WARP, SHARED, p);
  const rp_status status = launch_items(
      args, "attention_grad", matrix_queries<DEPTH, WARPS, STRIPS, PART>,
      query_items, WARPS * WARP, SHARED, p);
  if (status != RP_OK) return status;
  return launch_items(
      args, "attention_grad",
      matrix_keys<DEPTH, KEY_WARPS, QUERIES, PART, NARROW>,
      heads * parts_of(p.keys, 16 * KEY_WARPS), KEY_WARPS * WARP, KEY_SHARED,
      p);
}

template <typename T>
rp_status run_own(const rp_kernel_args *args, const attention_problem &p,
                  bool forward) {
  const int64_t width = p.depth > p.value_depth ? p.depth : p.value_depth;
  if (std::is_same<T, bf16>::value) {
    if (width <= 32) return run_matrix<32>(args, p, forward);
    if (width <= 64) return run_matrix<64>(args, p, forward);
    if (width <= 96) return run_matrix<96>(args, p, forward);
    if (width <= 128) return run_matrix<128>(args, p, forward);
  }
  if (width <= TILE || sizeof(T) == 8)
    return run_plain<T, 1>(args, p, forward);
  return run_plain<T, sizeof(T) == 8 ? 1 : 2>(args, p, forward);
}

template <typename T, bool FORWARD, bool PACKED>
rp_status run(const rp_kernel_args *args) {
  return run_own<T>(args, FORWARD ? forward_of(args, PACKED)
                                  : backward_of(args, PACKED), FORWARD);
}

template <typename T, bool FORWARD, bool PACKED>
rp_status prepare(const rp_kernel_args *args, void **state, int64_t *bytes) {
  *state = nullptr;
  *bytes = 0;
  if (FORWARD) return RP_OK;
  const attention_problem p = backward_of(args, PACKED);
  *bytes = p.batch * p.heads * p.queries * (int64_t)sizeof(wide<T>);
  return RP_OK;
}

template <typename T, bool FORWARD, bool PACKED>
rp_kernel attention_row(const char *name, rp_dtype dtype) {
  return row(name, dtype, run<T, FORWARD, PACKED>,
             prepare<T, FORWARD, PACKED>);
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
