/* Updates of leaves, each one launch that passes once over the parameter and
   its states, with the arithmetic of core/cpu/update.c: what PyTorch computes
   as Python floats is computed in f64 and rounded once. Numbers and guards are
   read on the device. Nothing is written once a fault is noted, nor where a
   guard says no.

   all_finite: an exponent of all ones is a NaN's or an infinity's. */
#include "kernels/pack.h"

namespace rp {
namespace {

/* Elements go 16 bytes at a time where every array is aligned to that. */
template <typename T> constexpr int PACK = pack_size<T>();
template <typename T> using packed_of = pack<T, PACK<T>>;

template <typename... P> bool are_aligned(const P *...pointers) {
  return (is_aligned(pointers, 16) && ...);
}

/* Whether an effect may write. */
struct permit {
  const rp_cuda_fault *fault;
  const uint8_t *guard; /* NULL: none */
  __device__ __forceinline__ bool holds() const {
    return *(const volatile int *)&fault->node == 0 &&
           (guard == nullptr || *guard);
  }
};

/* The guard is behind the op's own n inputs. */
permit permit_of(const rp_kernel_args *args, int n) {
  return permit{rp_cuda_of(args)->fault,
                args->n_in > n ? (const uint8_t *)args->in[n].data : nullptr};
}

/* f.many(p) for each whole pack where `packed`, f.one(i) for the rest. */
template <typename T, typename F>
__device__ __forceinline__ void each(int64_t n, bool packed, const F &f) {
  const int64_t packs = packed ? n / PACK<T> : 0;
  RP_EACH(p, packs) f.many(p);
  RP_EACH(i, n - packs * PACK<T>) f.one(packs * PACK<T> + i);
}

/* Blocks for n elements, few enough that what each does once is little. */
dim3 grid_of(const rp_kernel_args *args, int64_t n, int at_a_time) {
  const int64_t blocks = (n + (int64_t)BLOCK * at_a_time - 1) /
                         ((int64_t)BLOCK * at_a_time);
  const int64_t most = (int64_t)rp_cuda_of(args)->multiprocessors * 16;
  return dim3((unsigned)(blocks < most ? blocks : most));
}

/* param, grad and S states through rule.step(param, grad, states), which
   changes all but grad. */
template <typename T, int S, typename R> struct update {
  enum { ROOM = S ? S : 1 };
  T *param;
  const T *grad;
  T *states[ROOM];
  R rule;

  __device__ __forceinline__ void one(int64_t i) const {
    T p = param[i], s[ROOM] = {};
    for (int k = 0; k < S; k++) s[k] = states[k][i];
    rule.step(p, grad[i], s);
    param[i] = p;
    for (int k = 0; k < S; k++) states[k][i] = s[k];
  }
  __device__ __forceinline__ void many(int64_t i) const {
    typedef packed_of<T> vector;
    vector p = ((const vector *)param)[i], s[ROOM];
    const vector g = ((const vector *)grad)[i];
    for (int k = 0; k < S; k++) s[k] = ((const vector *)states[k])[i];
#pragma unroll
    for (int j = 0; j < PACK<T>; j++) {
      T state[ROOM] = {};
      for (int k = 0; k < S; k++) state[k] = s[k].at[j];
      rule.step(p.at[j], g.at[j], state);
      for (int k = 0; k < S; k++) s[k].at[j] = state[k];
    }
    ((vector *)param)[i] = p;
    for (int k = 0; k < S; k++) ((vector *)states[k])[i] = s[k];
  }
};

/* ---- sgd, sgd_momentum, adam, adamw -------------------------------------------- */

template <typename T> struct sgd_rule {
  T lr, weight_decay;
  __device__ __forceinline__ void read(const double *given) {
    lr = (T)given[0], weight_decay = (T)given[1];
  }
  __device__ __forceinline__ void step(T &param, T grad, T (&)[1]) const {
    param -= lr * (grad + weight_decay * param);
  }
};

/* v = keep v + take g; param -= lr (look g + v reach). */
template <typename T> struct momentum_rule {
  T lr, weight_decay, keep, take, look, reach;
  __device__ __forceinline__ void read(const double *given) {
    const bool first = given[5] == 1, nesterov = given[4] != 0;
    lr = (T)given[0], weight_decay = (T)given[3];
    keep = first ? (T)0 : (T)given[1];
    take = first ? (T)1 : (T)(1 - given[2]);
    look = nesterov ? (T)1 : (T)0;
    reach = nesterov ? (T)given[1] : (T)1;
  }
  __device__ __forceinline__ void step(T &param, T grad, T (&state)[1]) const {
    const T g = grad + weight_decay * param;
    const T v = keep * state[0] + take * g;
    state[0] = v;
    param -= lr * (look * g + reach * v);
  }
};

__device__ __forceinline__ float root(float x) { return sqrtf(x); }
__device__ __forceinline__ double root(double x) { return sqrt(x); }

/* torch.lerp: from the nearer end. */
template <typename T>
__device__ __forceinline__ T between(T from, T to, T weight) {
  return weight < (T)0.5 ? from + weight * (to - from)
                         : to - (to - from) * (1 - weight);
}

template <typename T, bool DECOUPLED> struct adam_rule {
  T shrink, weight_decay, take1, keep2, take2, root2, eps, rate;
  __device__ __forceinline__ void read(const double *given) {
    const double lr = given[0], beta1 = given[1], beta2 = given[2],
                 decay = given[4], step = given[5];
    shrink = (T)(DECOUPLED ? 1 - lr * decay : 1);
    weight_decay = (T)(DECOUPLED ? 0 : decay);
    take1 = (T)(1 - beta1);
    keep2 = (T)beta2;
    take2 = (T)(1 - beta2);
    root2 = (T)sqrt(1 - pow(beta2, step));
    eps = (T)given[3];
    rate = (T)(lr / (1 - pow(beta1, step)));
  }
  __device__ __forceinline__ void step(T &param, T grad, T (&state)[2]) const {
    const T p = param * shrink;
    const T g = grad + weight_decay * p;
    const T m = between(state[0], g, take1);
    const T v = state[1] * keep2 + take2 * g * g;
    state[0] = m;
    state[1] = v;
    param = p - rate * m / (root(v) / root2 + eps);
  }
};

/* One thread of a block reads the numbers: two powers in f64 are more than the
   rest of a thread's work. */
template <typename T, int S, typename R>
__global__ void __launch_bounds__(BLOCK)
    update_kernel(update<T, S, R> u, const double *numbers, permit allowed,
                  int64_t n, bool packed) {
  __shared__ R rule;
  if (!allowed.holds()) return;
  if (threadIdx.x == 0) rule.read(numbers);
  __syncthreads();
  u.rule = rule;
  each<T>(n, packed, u);
}

template <typename T, int S, typename R>
rp_status run_update(const rp_kernel_args *args) {
  const int64_t n = rp_type_count(&args->in[0].type);
  if (n == 0) return RP_OK;
  update<T, S, R> u = {};
  u.param = (T *)args->in[0].data;
  u.grad = (const T *)args->in[1].data;
  bool packed = are_aligned(u.param, u.grad);
  for (int k = 0; k < S; k++) {
    u.states[k] = (T *)args->in[2 + k].data;
    packed = packed && are_aligned(u.states[k]);
  }
  return launch(args, "update", update_kernel<T, S, R>,
                grid_of(args, n, packed ? PACK<T> : 1), dim3(BLOCK), 0, u,
                (const double *)args->in[2 + S].data, permit_of(args, 3 + S), n,
                packed);
}

/* ---- accumulate, running_update ------------------------------------------------ */

template <typename T> struct sum_rule {
  __device__ __forceinline__ void step(T &leaf, T x, T (&)[1]) const {
    leaf += x;
  }
};

/* In f64, as the CPU's. */
template <typename T> struct running_rule {
  double keep, take;
  __device__ __forceinline__ void step(T &leaf, T x, T (&)[1]) const {
    leaf = (T)(keep * leaf + take * x);
  }
};

template <typename T, typename R>
__global__ void __launch_bounds__(BLOCK)
    write_kernel(update<T, 0, R> u, permit allowed, int64_t n, bool packed) {
  if (allowed.holds()) each<T>(n, packed, u);
}

template <typename T, typename R>
rp_status run_write(const rp_kernel_args *args, const char *name, R rule) {
  const int64_t n = rp_type_count(&args->in[0].type);
  if (n == 0) return RP_OK;
  update<T, 0, R> u = {};
  u.param = (T *)args->in[0].data;
  u.grad = (const T *)args->in[1].data;
  u.rule = rule;
  const bool packed = are_aligned(u.param, u.grad);
  return launch(args, name, write_kernel<T, R>,
                grid_of(args, n, packed ? PACK<T> : 1), dim3(BLOCK), 0, u,
                permit_of(args, 2), n, packed);
}

template <typename T> rp_status run_accumulate(const rp_kernel_args *args) {
  return run_write<T>(args, "accumulate", sum_rule<T>{});
}

template <typename T> rp_status run_running(const rp_kernel_args *args) {
  return run_write<T>(args, "running_update",
                      running_rule<T>{1 - args->reals[0],
                                      args->reals[0] * args->reals[1]});
}

/* ---- assign ---------------------------------------------------------------------- */

/* W holds an element's bytes, whatever dtype they are of. */
template <typename W>
__global__ void __launch_bounds__(BLOCK)
    assign_kernel(W *leaf, const W *x, walk<1> w, permit allowed) {
  if (!allowed.holds()) return;
  RP_EACH(i, w.count) {
    int64_t from[1];
    w.at(i, from);
    leaf[i] = x[from[0]];
  }
}

template <typename W>
rp_status run_assign_as(const rp_kernel_args *args, const walk<1> &w) {
  return launch(args, "assign", assign_kernel<W>, grid_of(args, w.count, 1),
                dim3(BLOCK), 0, (W *)args->in[0].data,
                (const W *)args->in[1].data, w, permit_of(args, 2));
}

rp_status run_assign(const rp_kernel_args *args) {
  const rp_array *leaf = &args->in[0], *x = &args->in[1];
  walk<1> w = walk_over<1>(&leaf->type, {x});
  if (w.count == 0 || leaf->data == x->data) return RP_OK;
  const int64_t size = (int64_t)rp_dtype_size((rp_dtype)leaf->type.dtype);
  if (w.flat && w.count * size % 16 == 0 &&
      are_aligned((const char *)leaf->data, (const char *)x->data)) {
    w.count = w.count * size / 16;
    return run_assign_as<int4>(args, w);
  }
  switch (size) {
    case 1: return run_assign_as<uint8_t>(args, w);
    case 2: return run_assign_as<uint16_t>(args, w);
    case 4: return run_assign_as<uint32_t>(args, w);
    default: return run_assign_as<uint64_t>(args, w);
  }
}

/* ---- all_finite -------------------------------------------------------------------- */

__global__ void __launch_bounds__(1)
yes_kernel(uint8_t *answer) { *answer = 1; }

/* Whoever finds one says so: all write the same byte. W: an element's bits,
   MASK: its exponent's. */
template <typename W, W MASK> struct finite_search {
  const W *x;
  uint8_t *answer;
  __device__ __forceinline__ void one(int64_t i) const {
    if ((x[i] & MASK) == MASK) *answer = 0;
  }
  __device__ __forceinline__ void many(int64_t i) const {
    const packed_of<W> some = ((const packed_of<W> *)x)[i];
    bool bad = false;
#pragma unroll
    for (int j = 0; j < PACK<W>; j++) bad |= (some.at[j] & MASK) == MASK;
    if (bad) *answer = 0;
  }
};

template <typename W, W MASK>
__global__ void __launch_bounds__(BLOCK)
    finite_kernel(finite_search<W, MASK> search, int64_t n, bool packed) {
  each<W>(n, packed, search);
}

template <typename W, W MASK>
rp_status run_all_finite(const rp_kernel_args *args) {
  const int64_t n = rp_type_count(&args->in[0].type);
  const finite_search<W, MASK> search = {(const W *)args->in[0].data,
                                         (uint8_t *)args->out[0].data};
  const rp_status status = launch(args, "all_finite", yes_kernel, dim3(1),
                                  dim3(1), 0, search.answer);
  if (status != RP_OK || n == 0) return status;
  const bool packed = are_aligned(search.x);
  return launch(args, "all_finite", finite_kernel<W, MASK>,
                grid_of(args, n, packed ? PACK<W> : 1), dim3(BLOCK), 0, search,
                n, packed);
}

} // namespace

RP_ROWS(update,
        row("sgd", RP_F32, run_update<float, 0, sgd_rule<float>>),
        row("sgd", RP_F64, run_update<double, 0, sgd_rule<double>>),
        row("sgd_momentum", RP_F32,
            run_update<float, 1, momentum_rule<float>>),
        row("sgd_momentum", RP_F64,
            run_update<double, 1, momentum_rule<double>>),
        row("adam", RP_F32, run_update<float, 2, adam_rule<float, false>>),
        row("adam", RP_F64, run_update<double, 2, adam_rule<double, false>>),
        row("adamw", RP_F32, run_update<float, 2, adam_rule<float, true>>),
        row("adamw", RP_F64, run_update<double, 2, adam_rule<double, true>>),
        row("accumulate", RP_F32, run_accumulate<float>),
        row("accumulate", RP_F64, run_accumulate<double>),
        row("running_update", RP_F32, run_running<float>),
        row("running_update", RP_F64, run_running<double>),
        row("assign", RP_F32, run_assign), row("assign", RP_F64, run_assign),
        row("assign", RP_BF16, run_assign), row("assign", RP_I32, run_assign),
        row("assign", RP_I64, run_assign), row("assign", RP_BOOL, run_assign),
        row("all_finite", RP_F32, run_all_finite<uint32_t, 0x7f800000u>),
        row("all_finite", RP_F64,
            run_all_finite<uint64_t, 0x7ff0000000000000u>),
        row("all_finite", RP_BF16, run_all_finite<uint16_t, 0x7f80u>));

} // namespace rp
