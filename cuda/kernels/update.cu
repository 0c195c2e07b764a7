/* Updates of leaves: one pass over the parameter and its states, as many
   parameters a launch as their addresses fit into a kernel's arguments, with
   the arithmetic of core/cpu/update.c: what PyTorch computes as Python floats
   is computed in f64 and rounded once. Numbers and guards are read on the
   device. Nothing is written once a fault is noted, nor where a guard says no. */
#include "kernels/many.h"

namespace rp {
namespace {

template <typename T> using packed_of = pack<T, PACK<T>>;

/* Whether an effect may write. */
struct permit {
  const rp_cuda_fault *fault;
  const uint8_t *guard; /* NULL: none */
  __device__ __forceinline__ bool holds() const {
    return *(const volatile int *)&fault->node == 0 &&
           (guard == nullptr || *guard);
  }
};

/* The guard is the last, behind the op's own n inputs. */
permit permit_of(const rp_kernel_args *args, int n) {
  const rp_array *last = &args->in[args->n_in - 1];
  const bool has = args->n_in > n && last->type.dtype == RP_BOOL;
  return permit{rp_cuda_of(args)->fault,
                has ? (const uint8_t *)last->data : nullptr};
}

/* The factor of the gradient is in front of it; NULL: none. */
const void *factor_of(const rp_kernel_args *args, int n) {
  return args->n_in > n && args->in[n].type.dtype != RP_BOOL ? args->in[n].data
                                                            : nullptr;
}

/* Blocks for n elements, few enough that what each does once is little. */
dim3 grid_of(const rp_kernel_args *args, int64_t n, int at_a_time) {
  const int64_t blocks = (n + (int64_t)BLOCK * at_a_time - 1) /
                         ((int64_t)BLOCK * at_a_time);
  const int64_t most = (int64_t)rp_cuda_of(args)->multiprocessors * 16;
  return dim3((unsigned)(blocks < most ? blocks : most));
}

/* ---- many at once ------------------------------------------------------- */

/* One leaf of a launch, param, with what goes into it: grad, S states and what
   R::given says. A rule R changes param and states:
     given, of(args)   what a launch knows of its numbers
     INPUTS            the op's own inputs; factor and guard are behind them
     SCALES            whether there may be a factor
     read(given)       the numbers, by one thread of a block: two powers in f64
                       are more than the rest of a thread's work
     step(param, grad, states) */
template <typename T, int S, typename R> struct piece {
  enum { ROOM = S ? S : 1 };
  T *param;
  const T *grad;
  T *states[ROOM];
  typename R::given given;
  int64_t n;

  /* A product with 1 is the other factor. */
  static __device__ __forceinline__ T scaled(T x, T factor) {
    if constexpr (R::SCALES) return x * factor;
    else return x;
  }
  __device__ __forceinline__ void one(const R &rule, T factor,
                                      int64_t i) const {
    T p = param[i], s[ROOM] = {};
    for (int k = 0; k < S; k++) s[k] = states[k][i];
    rule.step(p, scaled(grad[i], factor), s);
    param[i] = p;
    for (int k = 0; k < S; k++) states[k][i] = s[k];
  }
  __device__ __forceinline__ void many(const R &rule, T factor,
                                       int64_t i) const {
    typedef packed_of<T> vector;
    vector p = ((const vector *)param)[i], s[ROOM];
    const vector g = ((const vector *)grad)[i];
    for (int k = 0; k < S; k++) s[k] = ((const vector *)states[k])[i];
#pragma unroll
    for (int j = 0; j < PACK<T>; j++) {
      T state[ROOM] = {};
      for (int k = 0; k < S; k++) state[k] = s[k].at[j];
      rule.step(p.at[j], scaled(g.at[j], factor), state);
      for (int k = 0; k < S; k++) s[k].at[j] = state[k];
    }
    ((vector *)param)[i] = p;
    for (int k = 0; k < S; k++) ((vector *)states[k])[i] = s[k];
  }
  __device__ __forceinline__ bool is_packed() const {
    uintptr_t all = (uintptr_t)param | (uintptr_t)grad;
    for (int k = 0; k < S; k++) all |= (uintptr_t)states[k];
    return all % 16 == 0;
  }
  /* Elements from..from+count-1, by one block; from is a multiple of PACK. */
  __device__ __forceinline__ void part(const R &rule, T factor,
                                       int64_t from, int64_t count) const {
    const int64_t packs = is_packed() ? count / PACK<T> : 0;
#pragma unroll 1
    for (int64_t p = threadIdx.x; p < packs; p += BLOCK)
      many(rule, factor, from / PACK<T> + p);
#pragma unroll 1
    for (int64_t i = packs * PACK<T> + threadIdx.x; i < count; i += BLOCK)
      one(rule, factor, from + i);
  }
};

/* Invariant: blocks first[k] .. first[k + 1] - 1 are piece k's, `chunk`
   elements each. */
template <typename T, int S, typename R> struct batch {
  typedef piece<T, S, R> part;
  enum { MOST = (ARGUMENTS - 64) / (sizeof(part) + sizeof(int)) };
  part at[MOST];
  int first[MOST];
  int n;
  int64_t chunk;
  permit allowed;
  const T *factor; /* NULL: none */
};

template <typename T, int S, typename R>
__global__ void __launch_bounds__(BLOCK)
    update_kernel(const __grid_constant__ batch<T, S, R> b) {
  __shared__ R rule;
  if (!b.allowed.holds()) return;
  const int k = piece_of(b.first, b.n, (int)blockIdx.x);
  if (threadIdx.x == 0) rule.read(b.at[k].given);
  __syncthreads();
  const int64_t from = ((int64_t)blockIdx.x - b.first[k]) * b.chunk;
  const int64_t rest = b.at[k].n - from;
  b.at[k].part(rule, b.factor ? *b.factor : (T)1, from,
               rest < b.chunk ? rest : b.chunk);
}

/* Collects leaves until a launch is full, or has another guard or factor. */
template <typename T, int S, typename R> class updates {
  typedef batch<T, S, R> launched;
  static_assert(sizeof(launched) <= ARGUMENTS &&
                    (int)launched::MOST <= (int)MOST_PIECES, "");
  const rp_kernel_args *first = nullptr; /* of this launch */
  int64_t total = 0;
  launched b;

public:
  updates() { b.n = 0; }

  rp_status add(const rp_kernel_args *args) {
    const permit allowed = permit_of(args, R::INPUTS);
    const T *factor = (const T *)factor_of(args, R::INPUTS);
    const int64_t n = rp_type_count(&args->in[0].type);
    if (n == 0) return RP_OK;
    rp_status status = RP_OK;
    if (b.n == launched::MOST ||
        (b.n && (b.allowed.guard != allowed.guard || b.factor != factor)))
      status = run();
    if (b.n == 0) first = args;
    b.allowed = allowed;
    b.factor = factor;
    typename launched::part &p = b.at[b.n++];
    p.param = (T *)args->in[0].data;
    p.grad = (const T *)args->in[1].data;
    for (int k = 0; k < S; k++) p.states[k] = (T *)args->in[2 + k].data;
    p.given = R::of(args);
    p.n = n;
    total += n;
    return status;
  }

  /* Blocks of equal work, few enough that what each does once is little. */
  rp_status run() {
    if (b.n == 0) return RP_OK;
    const int64_t most = (int64_t)rp_cuda_of(first)->multiprocessors * 16;
    const int64_t unit = (int64_t)BLOCK * PACK<T>;
    b.chunk = ((total + most - 1) / most + unit - 1) / unit * unit;
    int64_t blocks = 0;
    for (int k = 0; k < b.n; k++) {
      b.first[k] = (int)blocks;
      blocks += (b.at[k].n + b.chunk - 1) / b.chunk;
    }
    const rp_status status =
        launch(first, R::NAME, update_kernel<T, S, R>, dim3((unsigned)blocks),
               dim3(BLOCK), 0, b);
    b.n = 0;
    total = 0;
    return status;
  }
};

template <typename T, int S, typename R>
rp_status run_updates(const rp_kernel_args *args, int32_t n) {
  updates<T, S, R> all;
  rp_status status = RP_OK;
  for (int32_t i = 0; i < n && status == RP_OK; i++) status = all.add(&args[i]);
  return status == RP_OK ? all.run() : status;
}

template <typename T, int S, typename R>
rp_status run_update(const rp_kernel_args *args) {
  return run_updates<T, S, R>(args, 1);
}

template <typename T, int S, typename R>
rp_kernel update_row(const char *name, rp_dtype dtype) {
  return row(name, dtype, run_update<T, S, R>, nullptr, nullptr,
             run_updates<T, S, R>);
}

/* Behind S states, the numbers. */
template <int S> struct optimizer_rule {
  enum { INPUTS = 3 + S, SCALES = 1 };
  static constexpr const char *NAME = "update";
  typedef const double *given;
  static given of(const rp_kernel_args *args) {
    return (const double *)args->in[2 + S].data;
  }
};

/* ---- sgd, sgd_momentum, adam, adamw ------------------------------------- */

template <typename T> struct sgd_rule : optimizer_rule<0> {
  T lr, weight_decay;
  __device__ __forceinline__ void read(const double *given) {
    lr = (T)given[0], weight_decay = (T)given[1];
  }
  __device__ __forceinline__ void step(T &param, T grad, T (&)[1]) const {
    param -= lr * (grad + weight_decay * param);
  }
};

/* v = keep v + take g; param -= lr (look g + v reach). */
template <typename T> struct momentum_rule : optimizer_rule<1> {
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

template <typename T, bool DECOUPLED> struct adam_rule : optimizer_rule<2> {
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

/* ---- accumulate, running_update, assign --------------------------------- */

struct nothing {};

template <typename T> struct sum_rule {
  enum { INPUTS = 2, SCALES = 0 };
  static constexpr const char *NAME = "accumulate";
  typedef nothing given;
  static given of(const rp_kernel_args *) { return {}; }
  __device__ __forceinline__ void read(given) {}
  __device__ __forceinline__ void step(T &leaf, T x, T (&)[1]) const {
    leaf += x;
  }
};

/* In f64, as the CPU's. */
template <typename T> struct running_rule {
  enum { INPUTS = 2, SCALES = 0 };
  static constexpr const char *NAME = "running_update";
  struct given {
    double keep, take;
  };
  static given of(const rp_kernel_args *args) {
    return {1 - args->reals[0], args->reals[0] * args->reals[1]};
  }
  given numbers;
  __device__ __forceinline__ void read(given from) { numbers = from; }
  __device__ __forceinline__ void step(T &leaf, T x, T (&)[1]) const {
    leaf = (T)(numbers.keep * leaf + numbers.take * x);
  }
};

/* W holds an element's bytes, whatever dtype they are of. */
template <typename W> struct copy_rule {
  enum { INPUTS = 2, SCALES = 0 };
  static constexpr const char *NAME = "assign";
  typedef nothing given;
  static given of(const rp_kernel_args *) { return {}; }
  __device__ __forceinline__ void read(given) {}
  __device__ __forceinline__ void step(W &leaf, W x, W (&)[1]) const {
    leaf = x;
  }
};

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
rp_status run_assigns(const rp_kernel_args *args, int32_t n) {
  updates<W, 0, copy_rule<W>> all;
  rp_status status = RP_OK;
  for (int32_t i = 0; i < n && status == RP_OK; i++) {
    const rp_array *leaf = &args[i].in[0], *x = &args[i].in[1];
    const walk<1> w = walk_over<1>(&leaf->type, {x});
    if (w.count == 0 || leaf->data == x->data) continue;
    status = w.flat ? all.add(&args[i])
                    : launch(&args[i], copy_rule<W>::NAME, assign_kernel<W>,
                             grid_of(&args[i], w.count, 1), dim3(BLOCK), 0,
                             (W *)leaf->data, (const W *)x->data, w,
                             permit_of(&args[i], 2));
  }
  return status == RP_OK ? all.run() : status;
}

template <typename W> rp_status run_assign(const rp_kernel_args *args) {
  return run_assigns<W>(args, 1);
}

template <typename W> rp_kernel assign_row(rp_dtype dtype) {
  return row("assign", dtype, run_assign<W>, nullptr, nullptr, run_assigns<W>);
}

} // namespace

RP_ROWS(update,
        update_row<float, 0, sgd_rule<float>>("sgd", RP_F32),
        update_row<double, 0, sgd_rule<double>>("sgd", RP_F64),
        update_row<float, 1, momentum_rule<float>>("sgd_momentum", RP_F32),
        update_row<double, 1, momentum_rule<double>>("sgd_momentum", RP_F64),
        update_row<float, 2, adam_rule<float, false>>("adam", RP_F32),
        update_row<double, 2, adam_rule<double, false>>("adam", RP_F64),
        update_row<float, 2, adam_rule<float, true>>("adamw", RP_F32),
        update_row<double, 2, adam_rule<double, true>>("adamw", RP_F64),
        update_row<float, 0, sum_rule<float>>("accumulate", RP_F32),
        update_row<double, 0, sum_rule<double>>("accumulate", RP_F64),
        update_row<float, 0, running_rule<float>>("running_update", RP_F32),
        update_row<double, 0, running_rule<double>>("running_update", RP_F64),
        assign_row<uint32_t>(RP_F32), assign_row<uint64_t>(RP_F64),
        assign_row<uint16_t>(RP_BF16), assign_row<uint32_t>(RP_I32),
        assign_row<uint64_t>(RP_I64), assign_row<uint8_t>(RP_BOOL));

} // namespace rp
