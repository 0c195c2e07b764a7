/* Elementwise kernels: y[i] = f(a[i], ...), y contiguous, inputs of any
   strides, broadcast against y.

   Element i depends on element i of each input alone and is read before it is
   written, by one thread, so that y may lie exactly over an input.

   Two kernels: map_packs moves 16 bytes an access (of bf16 beside f32, 8),
   where every input's innermost stride is 1 (and its rows aligned) or 0;
   map_each takes the rest, an element a thread. Both call f on the same
   values. What is no f32 or bf16 is for map_each alone, and i32 and i64 share
   a kernel: each one costs seconds of nvcc for every op. */
#ifndef RP_CUDA_ELEMENTWISE_H
#define RP_CUDA_ELEMENTWISE_H

#include <type_traits>

#include "kernels/pack.h"

namespace rp {

/* The dtype of an array that is f32 or bf16, known at run time. */
struct either {};
template <> struct arithmetic<either> { typedef float type; };

/* i32, i64 or, where it is read, bool, known at run time, computed in i64: the
   low bits of a wrapping sum, difference or product are those of the narrow
   one. */
struct integer {};
template <> struct arithmetic<integer> { typedef int64_t type; };

/* What `either` is once it is known. */
template <typename X, typename T>
using known = std::conditional_t<std::is_same<X, either>::value, T, X>;

struct source { /* or where the result goes */
  const void *data;
  int dtype;
};
template <int N> struct sources {
  source of[N];
};

template <typename T>
__device__ __forceinline__ wide<T> read(const source &from, int64_t i) {
  if constexpr (std::is_same<wide<T>, float>::value)
    return from.dtype == RP_BF16 ? widen(((const bf16 *)from.data)[i])
                                 : ((const float *)from.data)[i];
  else if constexpr (std::is_same<T, integer>::value)
    return from.dtype == RP_I64   ? ((const int64_t *)from.data)[i]
           : from.dtype == RP_I32 ? ((const int32_t *)from.data)[i]
                                  : ((const uint8_t *)from.data)[i];
  else
    return ((const T *)from.data)[i];
}

template <typename T, int V> struct values {
  wide<T> at[V];
};

template <typename T, int V>
__device__ __forceinline__ void read_all(const void *from, int64_t i,
                                         wide<T> (&to)[V]) {
  const pack<T, V> raw = *(const pack<T, V> *)((const T *)from + i);
  for (int k = 0; k < V; k++) to[k] = widen(raw.at[k]);
}

/* Elements i .. i + V - 1, or element i, V times. A fixed one may be f32
   beside bf16 and the other way round. */
template <typename T, int V>
__device__ __forceinline__ values<T, V> load(const source &from, int64_t i,
                                             bool fixed) {
  values<T, V> x;
  if (fixed) {
    const wide<T> same = read<T>(from, i);
    for (int k = 0; k < V; k++) x.at[k] = same;
  } else if constexpr (!std::is_same<T, either>::value) {
    read_all<T, V>(from.data, i, x.at);
  } else if (from.dtype == RP_BF16) {
    read_all<bf16, V>(from.data, i, x.at);
  } else {
    read_all<float, V>(from.data, i, x.at);
  }
  return x;
}

template <typename T, int V>
__device__ __forceinline__ void store(const source &to, int64_t i,
                                      const values<T, V> &y) {
  if constexpr (!std::is_same<T, either>::value) {
    pack<T, V> raw;
    for (int k = 0; k < V; k++) raw.at[k] = narrow<T>(y.at[k]);
    *(pack<T, V> *)((T *)to.data + i) = raw;
  } else if (to.dtype == RP_BF16) {
    pack<bf16, V> raw;
    for (int k = 0; k < V; k++) raw.at[k] = narrow<bf16>(y.at[k]);
    *(pack<bf16, V> *)((bf16 *)to.data + i) = raw;
  } else {
    pack<float, V> raw;
    for (int k = 0; k < V; k++) raw.at[k] = y.at[k];
    *(pack<float, V> *)((float *)to.data + i) = raw;
  }
}

template <typename Out, int V, typename F, typename... X>
__device__ __forceinline__ values<Out, V> apply(const F &f, const X &...x) {
  values<Out, V> y;
  for (int k = 0; k < V; k++) y.at[k] = f(x.at[k]...);
  return y;
}

/* Bit k of fixed: input k's innermost stride is 0. */
template <int V, typename Out, typename... In, typename F, size_t... K>
__device__ __forceinline__ void map_some(const F &f, const source &out,
                                         int64_t i,
                                         const sources<sizeof...(In)> &in,
                                         const int64_t (&at)[sizeof...(In)],
                                         unsigned fixed,
                                         std::index_sequence<K...>) {
  store<Out, V>(out, i, apply<Out, V>(
      f, load<In, V>(in.of[K], at[K], fixed >> K & 1)...));
}

template <int V, typename F, typename Out, typename... In>
__global__ void __launch_bounds__(BLOCK)
map_packs(F f, source out, sources<sizeof...(In)> in, walk<sizeof...(In)> w,
          unsigned fixed) {
  const auto all = std::make_index_sequence<sizeof...(In)>();
  const int64_t packs = w.count / V;
  int64_t at[sizeof...(In)];
  RP_EACH(p, packs) {
    w.at(p * V, at);
    map_some<V, Out, In...>(f, out, p * V, in, at, fixed, all);
  }
  /* Nothing is left but of one row. */
  RP_EACH(rest, w.count - packs * V) {
    const int64_t i = packs * V + rest;
    for (int k = 0; k < (int)sizeof...(In); k++) at[k] = fixed >> k & 1 ? 0 : i;
    map_some<1, Out, In...>(f, out, i, in, at, fixed, all);
  }
}

template <typename Out, typename... In, typename F, size_t... K>
__device__ __forceinline__ wide<Out> value_of(
    const F &f, const sources<sizeof...(In)> &in,
    const int64_t (&at)[sizeof...(In)], std::index_sequence<K...>) {
  return f(read<In>(in.of[K], at[K])...);
}

template <typename F, typename Out, typename... In>
__global__ void __launch_bounds__(BLOCK)
map_each(F f, void *out, int dtype, sources<sizeof...(In)> in,
         walk<sizeof...(In)> w) {
  RP_EACH(i, w.count) {
    int64_t at[sizeof...(In)];
    w.at(i, at);
    const wide<Out> y = value_of<Out, In...>(
        f, in, at, std::make_index_sequence<sizeof...(In)>());
    if constexpr (std::is_same<Out, either>::value) {
      if (dtype == RP_BF16) ((bf16 *)out)[i] = narrow<bf16>(y);
      else ((float *)out)[i] = y;
    } else if constexpr (std::is_same<Out, integer>::value) {
      if (dtype == RP_I32) ((int32_t *)out)[i] = (int32_t)y;
      else ((int64_t *)out)[i] = y;
    } else {
      ((Out *)out)[i] = y;
    }
  }
}

/* ---- launching ----------------------------------------------------------- */

/* Whether map_packs can take arrays of these sizes an element, V elements at
   once; sets `fixed`. */
template <int N>
bool packs_fit(const walk<N> &w, const rp_array *const (&in)[N],
               const size_t (&sizes)[N], const void *out, size_t out_size,
               int v, unsigned *fixed) {
  *fixed = 0;
  if (w.rank == 0 || w.count < v || (uintptr_t)out % (out_size * v) ||
      (w.rank > 1 && w.dims[0] % v))
    return false;
  for (int k = 0; k < N; k++) {
    if (w.strides[k][0] == 0) {
      *fixed |= 1u << k;
      continue;
    }
    if (w.strides[k][0] != 1 || (uintptr_t)in[k]->data % (sizes[k] * v))
      return false;
    for (int d = 1; d < w.rank; d++)
      if (w.strides[k][d] % v) return false;
  }
  return true;
}

/* Of an element; `either` is as large as the array's dtype is. */
template <typename T> size_t size_in(const rp_array *a) {
  return std::is_same<T, either>::value
             ? rp_dtype_size((rp_dtype)a->type.dtype) : sizeof(T);
}
template <typename T>
constexpr size_t most_size = std::is_same<T, either>::value ? sizeof(float)
                                                            : sizeof(T);

template <typename... T> constexpr size_t largest() {
  size_t size = 1;
  for (const size_t each : {most_size<T>...}) size = each > size ? each : size;
  return size;
}

template <typename Out, typename... In, typename F, size_t... K>
bool map_in_packs(const rp_kernel_args *args, const char *name, const F &f,
                  const rp_array *const (&in)[sizeof...(In)],
                  const sources<sizeof...(In)> &from,
                  const walk<sizeof...(In)> &w, std::index_sequence<K...>,
                  rp_status *status) {
  enum { V = 16 / largest<Out, In...>() };
  const rp_array *out = &args->out[0];
  unsigned fixed;
  if (!packs_fit(w, in, {size_in<In>(in[K])...}, out->data, size_in<Out>(out),
                 V, &fixed))
    return false;
  *status = launch(args, name, map_packs<V, F, Out, In...>,
                   grid_for(w.count / V), BLOCK, 0, f,
                   source{out->data, out->type.dtype}, from, w, fixed);
  return true;
}

/* Of the arrays that are `either` and not fixed: whether all are of a dtype. */
template <typename Out, typename... In>
bool all_are(rp_dtype dtype, const rp_kernel_args *args,
             const rp_array *const (&in)[sizeof...(In)],
             const walk<sizeof...(In)> &w) {
  const bool counts[] = {std::is_same<In, either>::value...};
  if (std::is_same<Out, either>::value && args->out[0].type.dtype != dtype)
    return false;
  for (size_t k = 0; k < sizeof...(In); k++)
    if (counts[k] && (w.rank == 0 || w.strides[k][0] != 0) &&
        in[k]->type.dtype != dtype)
      return false;
  return true;
}

/* Whether there is a map_packs: some f32 or bf16, and else bools. */
template <typename... T> constexpr bool has_packs() {
  const bool floats[] = {std::is_same<wide<T>, float>::value...};
  const bool bools[] = {std::is_same<T, uint8_t>::value...};
  bool some = false, all = true;
  for (size_t k = 0; k < sizeof...(T); k++) {
    some = some || floats[k];
    all = all && (floats[k] || bools[k]);
  }
  return some && all;
}

/* out = f(in...), dtypes Out and In. */
template <typename Out, typename... In, typename F>
rp_status map(const rp_kernel_args *args, const char *name, const F &f,
              const rp_array *const (&in)[sizeof...(In)]) {
  enum { N = sizeof...(In) };
  const rp_array *out = &args->out[0];
  const walk<N> w = walk_over<N>(&out->type, in);
  if (w.count == 0) return RP_OK;
  sources<N> from;
  for (int k = 0; k < N; k++)
    from.of[k] = source{in[k]->data, in[k]->type.dtype};
  const auto all = std::make_index_sequence<N>();
  rp_status status;
  if constexpr (!has_packs<Out, In...>()) {
    (void)status, (void)all;
  } else {
    if constexpr ((std::is_same<In, either>::value || ...)) {
      if (all_are<Out, In...>(RP_F32, args, in, w) &&
          map_in_packs<known<Out, float>, known<In, float>...>(
              args, name, f, in, from, w, all, &status))
        return status;
      if (all_are<Out, In...>(RP_BF16, args, in, w) &&
          map_in_packs<known<Out, bf16>, known<In, bf16>...>(
              args, name, f, in, from, w, all, &status))
        return status;
    }
    if (map_in_packs<Out, In...>(args, name, f, in, from, w, all, &status))
      return status;
  }
  return launch(args, name, map_each<F, Out, In...>, grid_for(w.count), BLOCK,
                0, f, out->data, out->type.dtype, from, w);
}

/* ---- rows ---------------------------------------------------------------- */

/* rp::scalar's function of an op without attributes, as a type. */
#define RP_FUNCTION(op)                                                      \
  struct op##_function {                                                     \
    explicit op##_function(const rp_kernel_args *) {}                        \
    static constexpr const char *name = #op;                                 \
    template <typename... T>                                                 \
    __device__ __forceinline__ auto operator()(T... x) const {               \
      return scalar::op(x...);                                               \
    }                                                                        \
  }

template <typename F, typename T>
rp_status unary(const rp_kernel_args *args) {
  const rp_array *const in[] = {&args->in[0]};
  return map<T, T>(args, F::name, F(args), in);
}
template <typename F, typename T>
rp_status binary(const rp_kernel_args *args) {
  const rp_array *const in[] = {&args->in[0], &args->in[1]};
  return map<T, T, T>(args, F::name, F(args), in);
}

#define RP_FLOATS(arity, op)                                                 \
  row(#op, RP_F32, arity<op##_function, either>),                            \
      row(#op, RP_BF16, arity<op##_function, either>),                       \
      row(#op, RP_F64, arity<op##_function, double>)
#define RP_INTEGERS(arity, op)                                               \
  row(#op, RP_I32, arity<op##_function, integer>),                           \
      row(#op, RP_I64, arity<op##_function, integer>)

} // namespace rp

#endif
