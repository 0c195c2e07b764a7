/* Kernels of core/ops/create.c, which says which words make which element. A
   thread draws whole blocks of four words and uses each word of them. */
#include "kernels/elementwise.h"

namespace rp {
namespace {

/* ---- from nothing: rand, randn, randint ---------------------------------- */

__device__ __forceinline__ float uniform(uint32_t word) {
  return (float)(word >> 8) * 0x1p-24f;
}
__device__ __forceinline__ double uniform(uint32_t high, uint32_t low) {
  const uint64_t bits = (uint64_t)high << 32 | low;
  return (double)(bits >> 11) * 0x1p-53;
}

/* What a block of words makes: `each` elements. */
struct uniform_f32 {
  typedef float element;
  enum { each = 4 };
  __device__ __forceinline__ void operator()(uint4 w, float *y) const {
    y[0] = uniform(w.x), y[1] = uniform(w.y);
    y[2] = uniform(w.z), y[3] = uniform(w.w);
  }
};
struct uniform_f64 {
  typedef double element;
  enum { each = 2 };
  __device__ __forceinline__ void operator()(uint4 w, double *y) const {
    y[0] = uniform(w.x, w.y), y[1] = uniform(w.z, w.w);
  }
};

/* Box and Muller: radius from a uniform in (0, 1], angle from another. */
struct normal_f32 {
  typedef float element;
  enum { each = 4 };
  static __device__ __forceinline__ void pair(uint32_t a, uint32_t b,
                                              float *y) {
    const float u = ((float)a + 0.5f) * 0x1p-32f;
    const float radius = sqrtf(-2.0f * logf(u));
    float sine, cosine;
    sincospif(2.0f * uniform(b), &sine, &cosine);
    y[0] = radius * cosine, y[1] = radius * sine;
  }
  __device__ __forceinline__ void operator()(uint4 w, float *y) const {
    pair(w.x, w.y, y);
    pair(w.z, w.w, y + 2);
  }
};
struct normal_f64 {
  typedef double element;
  enum { each = 2 };
  __device__ __forceinline__ void operator()(uint4 w, double *y) const {
    const double u = uniform(w.x, w.y);
    const double radius = ::sqrt(-2.0 * ::log(u + 0x1p-54));
    double sine, cosine;
    sincospi(2.0 * uniform(w.z, w.w), &sine, &cosine);
    y[0] = radius * cosine, y[1] = radius * sine;
  }
};

/* low + floor(bits range / 2^64). */
template <typename T> struct integer_between {
  typedef T element;
  enum { each = 2 };
  uint64_t low, range;
  __device__ __forceinline__ T one(uint32_t high_bits,
                                   uint32_t low_bits) const {
    const uint64_t bits = (uint64_t)high_bits << 32 | low_bits;
    return (T)(int64_t)(low + __umul64hi(bits, range));
  }
  __device__ __forceinline__ void operator()(uint4 w, T *y) const {
    y[0] = one(w.x, w.y), y[1] = one(w.z, w.w);
  }
};

/* Element i of y is element first + i of the stream, made by block
   (first + i) / each. */
template <typename F>
__global__ void __launch_bounds__(BLOCK)
generate(F f, typename F::element *y, int64_t count, int64_t first,
         const uint64_t *draw) {
  typedef typename F::element T;
  const int64_t begin = first / F::each;
  RP_EACH(b, (first + count + F::each - 1) / F::each - begin) {
    pack<T, F::each> made;
    f(philox(draw, (uint64_t)(begin + b)), made.at);
    const int64_t at = (begin + b) * F::each - first;
    if (at >= 0 && at + F::each <= count &&
        (uintptr_t)(y + at) % sizeof made == 0) {
      *(pack<T, F::each> *)(y + at) = made;
    } else {
      for (int k = 0; k < F::each; k++)
        if (at + k >= 0 && at + k < count) y[at + k] = made.at[k];
    }
  }
}

template <typename F>
rp_status make(const rp_kernel_args *args, const char *name, const F &f) {
  const int64_t count = rp_type_count(&args->out[0].type);
  if (count == 0) return RP_OK;
  return launch(args, name, generate<F>, grid_for(count / F::each + 2), BLOCK,
                0, f, (typename F::element *)args->out[0].data, count,
                args->first, args->draw);
}

template <typename F> rp_status rand(const rp_kernel_args *args) {
  return make(args, "rand", F());
}
template <typename F> rp_status randn(const rp_kernel_args *args) {
  return make(args, "randn", F());
}
template <typename T> rp_status randint(const rp_kernel_args *args) {
  const uint64_t low = (uint64_t)args->ints[1];
  return make(args, "randint",
              integer_between<T>{low, (uint64_t)args->ints[2] - low});
}

/* ---- dropout ------------------------------------------------------------- */

/* The blocks of words that serve a thread's elements: V of them, or 4 where
   that is more. */
template <typename T>
__global__ void __launch_bounds__(BLOCK)
drop(const T *x, T *y, walk<1> w, bool flat, int64_t first, uint32_t bound,
     wide<T> scale, const uint64_t *draw) {
  enum { V = 16 / sizeof(T), EACH = V > 4 ? V : 4 };
  const int64_t begin = first / EACH;
  RP_EACH(g, (first + w.count + EACH - 1) / EACH - begin) {
    const int64_t at = (begin + g) * EACH - first;
    uint32_t words[EACH];
    for (int k = 0; k < EACH; k += 4) {
      const uint4 four =
          philox(draw, (uint64_t)((begin + g) * (EACH / 4) + k / 4));
      words[k] = four.x, words[k + 1] = four.y;
      words[k + 2] = four.z, words[k + 3] = four.w;
    }
    if (flat && at + EACH <= w.count) {
      pack<T, V> values[EACH / V];
      for (int k = 0; k < EACH / V; k++)
        values[k] = ((const pack<T, V> *)(x + at))[k];
      for (int k = 0; k < EACH; k++) {
        T *value = &values[k / V].at[k % V];
        *value = narrow<T>(
            scalar::dropout(widen(*value), words[k], bound, scale));
      }
      for (int k = 0; k < EACH / V; k++)
        ((pack<T, V> *)(y + at))[k] = values[k];
    } else {
      for (int k = 0; k < EACH; k++) {
        if (at + k < 0 || at + k >= w.count) continue;
        int64_t from[1];
        w.at(at + k, from);
        y[at + k] = narrow<T>(
            scalar::dropout(widen(x[from[0]]), words[k], bound, scale));
      }
    }
  }
}

template <typename T> rp_status dropout(const rp_kernel_args *args) {
  const rp_array *x = &args->in[0], *y = &args->out[0];
  const rp_array *const in[] = {x};
  const walk<1> w = walk_over<1>(&y->type, in);
  if (w.count == 0) return RP_OK;
  const double p = args->reals[0];
  const bool flat = w.flat && args->first % 8 == 0 &&
                    (uintptr_t)x->data % 16 == 0 &&
                    (uintptr_t)y->data % 16 == 0;
  return launch(args, "dropout", drop<T>, grid_for(w.count / 4 + 2), BLOCK, 0,
                (const T *)x->data, (T *)y->data, w, flat, args->first,
                scalar::dropout_bound(p), scalar::dropout_scale<wide<T>>(p),
                args->draw);
}

/* ---- arange -------------------------------------------------------------- */

/* start and step are scalars. Floating point goes by way of f64; integers
   wrap around. */
template <typename T>
__global__ void __launch_bounds__(BLOCK)
count_up(const T *start, const T *step, T *y, int64_t count) {
  if constexpr (scalar::traits<T>::is_float) {
    const double from = *start, by = *step;
    RP_EACH(i, count) y[i] = (T)(from + (double)i * by);
  } else {
    typedef typename scalar::traits<T>::bits bits;
    const bits from = (bits)*start, by = (bits)*step;
    RP_EACH(i, count) y[i] = (T)(from + (bits)i * by);
  }
}

template <typename T> rp_status arange(const rp_kernel_args *args) {
  const int64_t count = rp_type_count(&args->out[0].type);
  if (count == 0) return RP_OK;
  return launch(args, "arange", count_up<T>, grid_for(count), BLOCK, 0,
                (const T *)args->in[0].data, (const T *)args->in[1].data,
                (T *)args->out[0].data, count);
}

} // namespace

RP_ROWS(create,
        row("rand", RP_F32, rand<uniform_f32>),
        row("rand", RP_F64, rand<uniform_f64>),
        row("randn", RP_F32, randn<normal_f32>),
        row("randn", RP_F64, randn<normal_f64>),
        row("randint", RP_I32, randint<int32_t>),
        row("randint", RP_I64, randint<int64_t>),
        row("dropout", RP_F32, dropout<float>),
        row("dropout", RP_F64, dropout<double>),
        row("dropout", RP_BF16, dropout<bf16>),
        row("arange", RP_F32, arange<float>),
        row("arange", RP_F64, arange<double>),
        row("arange", RP_I32, arange<int32_t>),
        row("arange", RP_I64, arange<int64_t>));

} // namespace rp
