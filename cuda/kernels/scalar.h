/* The elementwise ops on one element, for device code: what kernels/ compiles
   ahead of time and, as source text, what is generated at run time. Both call
   these very functions, under the same flags (-fmad=false, IEEE division and
   roots), so that a fused node has the bits of its parts. Run-time code must
   come from the toolkit that built the library: exp and its like are the
   toolkit's.

   rp::scalar::OP(inputs..., reals...) is op OP; reals are the attributes, as
   doubles. Exceptions: cast<To>(x); dropout(x, word, bound, scale), with
   dropout_bound(p) and dropout_scale<T>(p), word from philox.
   Values are float (also for bf16: widen, narrow), double, int32_t, int64_t
   and, for bool, uint8_t (0 or 1).

   Nothing of the host is included: NVRTC reads this file as it is. */
#ifndef RP_CUDA_SCALAR_H
#define RP_CUDA_SCALAR_H

#ifdef __CUDACC_RTC__
typedef unsigned char uint8_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long int64_t;
typedef unsigned long uint64_t;
#endif

#include <cuda_bf16.h>

namespace rp {

/* ---- dtypes -------------------------------------------------------------- */

typedef __nv_bfloat16 bf16;

template <typename T> struct arithmetic { typedef T type; };
template <> struct arithmetic<bf16> { typedef float type; };
/* What a T is computed in: f32 for bf16. */
template <typename T> using wide = typename arithmetic<T>::type;

template <typename T> __device__ __forceinline__ wide<T> widen(T x) {
  return x;
}
template <> __device__ __forceinline__ float widen<bf16>(bf16 x) {
  return __bfloat162float(x);
}
/* Rounds to nearest even, once. */
template <typename T> __device__ __forceinline__ T narrow(wide<T> x) {
  return x;
}
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) {
  return __float2bfloat16_rn(x);
}

/* ---- random words -------------------------------------------------------- */

/* rp_philox_block for the device: base/random.h says which word is whose.
   draw: {seed, stream}. */
__device__ __forceinline__ uint4 philox(const uint64_t *draw, uint64_t block) {
  const uint64_t seed = draw[0], stream = draw[1];
  uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32);
  uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = (uint64_t)0xD2511F53u * c0;
    const uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return make_uint4(c0, c1, c2, c3);
}
__device__ __forceinline__ uint32_t philox_word(const uint64_t *draw,
                                                uint64_t word) {
  const uint4 w = philox(draw, word / 4);
  const uint32_t of[4] = {w.x, w.y, w.z, w.w};
  return of[word % 4];
}

namespace scalar {

/* ---- what the ops are made of -------------------------------------------- */

/* Long functions: f64's, and those of f32 that reduce an angle or raise to a
   power. A copy a file, not one a use, or nvcc spends its time on them. */
#ifdef RP_EMULATED
#define RP_CALLED inline __device__
#else
#define RP_CALLED inline __device__ __noinline__
#endif

template <typename T> struct traits;
template <> struct traits<float> {
  enum { is_float = 1 };
};
template <> struct traits<double> {
  enum { is_float = 1 };
};
template <> struct traits<int32_t> {
  enum { is_float = 0 };
  typedef uint32_t bits;
  static constexpr int32_t least = -2147483647 - 1, most = 2147483647;
};
template <> struct traits<int64_t> {
  enum { is_float = 0 };
  typedef uint64_t bits;
  static constexpr int64_t least = -9223372036854775807 - 1,
                           most = 9223372036854775807;
};
template <> struct traits<uint8_t> {
  enum { is_float = 0 };
  typedef uint8_t bits;
};

/* x in a T: truncated, saturated, 0 for NaN. The bounds as doubles: most + 1
   is one. */
template <typename T> __device__ __forceinline__ T saturated(double x) {
  const double end = -(double)traits<T>::least;
  return x != x ? 0 : x <= -end ? traits<T>::least
                      : x >= end ? traits<T>::most : (T)x;
}

/* 1/sqrt(2), sqrt(2/pi) and 1/sqrt(2 pi) in a T. */
template <typename T> struct constant;
template <> struct constant<float> {
  static constexpr float root_half = 0x1.6a09e6p-1f,
                         twice_root_two_over_pi = 0x1.988454p+0f,
                         density = 0x1.988454p-2f;
};
template <> struct constant<double> {
  static constexpr double root_half = 0x1.6a09e667f3bcdp-1,
                          twice_root_two_over_pi = 0x1.9884533d43651p+0,
                          density = 0x1.9884533d43651p-2;
};

/* ---- unary --------------------------------------------------------------- */

/* Integers wrap around. */
__device__ __forceinline__ float neg(float x) { return -x; }
__device__ __forceinline__ double neg(double x) { return -x; }
template <typename T> __device__ __forceinline__ T neg(T x) {
  return (T)(0 - (typename traits<T>::bits)x);
}
__device__ __forceinline__ float abs(float x) { return fabsf(x); }
__device__ __forceinline__ double abs(double x) { return fabs(x); }
template <typename T> __device__ __forceinline__ T abs(T x) {
  return x < 0 ? neg(x) : x;
}
/* 0 for NaN. */
template <typename T> __device__ __forceinline__ T sign(T x) {
  return (T)((x > 0) - (x < 0));
}

__device__ __forceinline__ float exp(float x) { return expf(x); }
RP_CALLED double exp(double x) { return ::exp(x); }
__device__ __forceinline__ float log(float x) { return logf(x); }
RP_CALLED double log(double x) { return ::log(x); }
__device__ __forceinline__ float erf(float x) { return erff(x); }
RP_CALLED double erf(double x) { return ::erf(x); }
__device__ __forceinline__ float sqrt(float x) { return sqrtf(x); }
__device__ __forceinline__ double sqrt(double x) { return ::sqrt(x); }
RP_CALLED float sin(float x) { return sinf(x); }
RP_CALLED double sin(double x) { return ::sin(x); }
RP_CALLED float cos(float x) { return cosf(x); }
RP_CALLED double cos(double x) { return ::cos(x); }
__device__ __forceinline__ float log1p(float x) { return log1pf(x); }
RP_CALLED double log1p(double x) { return ::log1p(x); }
template <typename T> __device__ __forceinline__ T rsqrt(T x) {
  return (T)1 / sqrt(x);
}
template <typename T> __device__ __forceinline__ T reciprocal(T x) {
  return (T)1 / x;
}

/* ---- binary -------------------------------------------------------------- */

__device__ __forceinline__ float add(float a, float b) { return a + b; }
__device__ __forceinline__ double add(double a, double b) { return a + b; }
template <typename T> __device__ __forceinline__ T add(T a, T b) {
  typedef typename traits<T>::bits bits;
  return (T)((bits)a + (bits)b);
}
__device__ __forceinline__ float sub(float a, float b) { return a - b; }
__device__ __forceinline__ double sub(double a, double b) { return a - b; }
template <typename T> __device__ __forceinline__ T sub(T a, T b) {
  typedef typename traits<T>::bits bits;
  return (T)((bits)a - (bits)b);
}
__device__ __forceinline__ float mul(float a, float b) { return a * b; }
__device__ __forceinline__ double mul(double a, double b) { return a * b; }
template <typename T> __device__ __forceinline__ T mul(T a, T b) {
  typedef typename traits<T>::bits bits;
  return (T)((bits)a * (bits)b);
}
template <typename T> __device__ __forceinline__ T square(T x) {
  return mul(x, x);
}
/* Integers truncate; a divisor of 0 gives 0, and one of -1 wraps around. */
__device__ __forceinline__ float div(float a, float b) { return a / b; }
__device__ __forceinline__ double div(double a, double b) { return a / b; }
template <typename T> __device__ __forceinline__ T div(T a, T b) {
  return b == 0 ? (T)0 : b == -1 ? neg(a) : a / b;
}

/* A NaN on either side comes through. */
template <typename T> __device__ __forceinline__ T maximum(T a, T b) {
  return a > b || a != a ? a : b;
}
template <typename T> __device__ __forceinline__ T minimum(T a, T b) {
  return a < b || a != a ? a : b;
}

/* Wrapping; n < 0 gives 1/x^n truncated, which is 0 but for x = 1, -1. */
template <typename T> __device__ __forceinline__ T pow(T x, T n) {
  if (n < 0) return (T)(x == 1 ? 1 : x == -1 ? (n & 1 ? -1 : 1) : 0);
  uint64_t y = 1, square = (uint64_t)(int64_t)x;
  for (; n; n >>= 1, square *= square)
    if (n & 1) y *= square;
  return (T)y;
}
RP_CALLED float pow_f32(float x, float y) { return powf(x, y); }
template <> __device__ __forceinline__ float pow<float>(float x, float y) {
  return pow_f32(x, y);
}
RP_CALLED double pow_f64(double x, double y) { return ::pow(x, y); }
template <> __device__ __forceinline__ double pow<double>(double x, double y) {
  return pow_f64(x, y);
}

/* Exponents that have an exact or a shorter form take it. */
template <typename T> __device__ __forceinline__ T pow_scalar(T x, double p) {
  if constexpr (traits<T>::is_float) {
    if (p == 2.0) return x * x;
    if (p == 0.5) return sqrt(x);
    if (p == 3.0) return x * x * x;
    if (p == -1.0) return (T)1 / x;
    if (p == -2.0) return (T)1 / (x * x);
    if (p == -0.5) return (T)1 / sqrt(x);
    if (p == 1.0) return x;
    if (p == 0.0) return (T)1;
  }
  return pow(x, (T)p);
}

/* NaN stays; hi wins where lo > hi. Integers: the nearest ones inside the
   bounds. */
template <typename T>
__device__ __forceinline__ T clamp(T x, double lo, double hi) {
  T low, high;
  if constexpr (traits<T>::is_float) {
    low = (T)lo, high = (T)hi;
  } else {
    low = saturated<T>(::ceil(lo)), high = saturated<T>(::floor(hi));
  }
  const T v = x < low ? low : x;
  return v > high ? high : v;
}
template <typename T>
__device__ __forceinline__ T clamp_grad(T dy, T x, double lo, double hi) {
  return x >= (T)lo && x <= (T)hi ? dy : (T)0;
}

/* ---- activations: gradients read dy, then what the op's record says ------ */

/* NaN stays NaN. */
template <typename T> __device__ __forceinline__ T relu(T x) {
  return x < 0 ? (T)0 : x;
}
template <typename T> __device__ __forceinline__ T relu_grad(T dy, T y) {
  return y > 0 ? dy : (T)0;
}
__device__ __forceinline__ float tanh(float x) { return tanhf(x); }
RP_CALLED double tanh(double x) { return ::tanh(x); }
template <typename T> __device__ __forceinline__ T tanh_grad(T dy, T y) {
  return dy * ((T)1 - y * y);
}
/* 0 where exp(-x) overflows. */
template <typename T> __device__ __forceinline__ T sigmoid(T x) {
  return (T)1 / ((T)1 + exp(-x));
}
template <typename T> __device__ __forceinline__ T sigmoid_grad(T dy, T y) {
  return dy * (y * ((T)1 - y));
}
template <typename T> __device__ __forceinline__ T silu(T x) {
  return x / ((T)1 + exp(-x));
}
template <typename T> __device__ __forceinline__ T silu_grad(T dy, T x) {
  const T s = sigmoid(x);
  return dy * (s * ((T)1 + x * ((T)1 - s)));
}

/* x P(x), P the normal distribution function. */
template <typename T> __device__ __forceinline__ T normal_cdf(T x) {
  return (T)0.5 * ((T)1 + erf(x * constant<T>::root_half));
}
template <typename T> __device__ __forceinline__ T gelu(T x) {
  return x * normal_cdf(x);
}
/* P(x) + x p(x), p(x) = exp(-x^2/2) / sqrt(2 pi). */
template <typename T> __device__ __forceinline__ T gelu_grad(T dy, T x) {
  const T density = constant<T>::density * exp((T)-0.5 * x * x);
  return dy * (normal_cdf(x) + x * density);
}

/* (1 + tanh u)/2 = sigmoid(2u): shorter, and no cancellation where u < 0.
   2u = 2 sqrt(2/pi) (x + 0.044715 x^3) and its derivative. */
template <typename T> __device__ __forceinline__ T gelu_tanh_twice_u(T x) {
  return constant<T>::twice_root_two_over_pi *
         (x + (T)0.044715 * (x * x * x));
}
template <typename T> __device__ __forceinline__ T gelu_tanh(T x) {
  return x * sigmoid(gelu_tanh_twice_u(x));
}
template <typename T> __device__ __forceinline__ T gelu_tanh_grad(T dy, T x) {
  const T s = sigmoid(gelu_tanh_twice_u(x));
  const T du = constant<T>::twice_root_two_over_pi *
               ((T)1 + (T)0.134145 * (x * x));
  return dy * (s + x * (s * ((T)1 - s)) * du);
}

template <typename T>
__device__ __forceinline__ T bce_with_logits(T x, T target) {
  const T positive = x < 0 ? (T)0 : x;
  return positive - x * target + log1p(exp(-abs(x)));
}

/* ---- relations, logic, selection ----------------------------------------- */

template <typename T> __device__ __forceinline__ uint8_t eq(T a, T b) {
  return a == b;
}
/* NaN is unequal to all. */
template <typename T> __device__ __forceinline__ uint8_t ne(T a, T b) {
  return !(a == b);
}
template <typename T> __device__ __forceinline__ uint8_t lt(T a, T b) {
  return a < b;
}
template <typename T> __device__ __forceinline__ uint8_t le(T a, T b) {
  return a <= b;
}
template <typename T> __device__ __forceinline__ uint8_t gt(T a, T b) {
  return a > b;
}
template <typename T> __device__ __forceinline__ uint8_t ge(T a, T b) {
  return a >= b;
}
__device__ __forceinline__ uint8_t logical_and(uint8_t a, uint8_t b) {
  return a & b;
}
__device__ __forceinline__ uint8_t logical_or(uint8_t a, uint8_t b) {
  return a | b;
}
__device__ __forceinline__ uint8_t logical_not(uint8_t x) { return x == 0; }

template <typename T>
__device__ __forceinline__ T where(uint8_t condition, T a, T b) {
  return condition ? a : b;
}
template <typename T>
__device__ __forceinline__ T masked_fill(T x, uint8_t mask, T value) {
  return mask ? value : x;
}

/* ---- cast, dropout ------------------------------------------------------- */

/* To integers: from floating point truncated, saturated, 0 for NaN; from
   integers the low bits. To bf16: cast<float>, then narrow. */
template <typename To> struct converted {
  template <typename T> static __device__ __forceinline__ To of(T x) {
    if constexpr (traits<To>::is_float || !traits<T>::is_float) return (To)x;
    else return saturated<To>((double)x);
  }
};
template <> struct converted<uint8_t> {
  template <typename T> static __device__ __forceinline__ uint8_t of(T x) {
    return x != 0;
  }
};
template <typename To, typename T> __device__ __forceinline__ To cast(T x) {
  return converted<To>::of(x);
}

/* uniform(word) >= p in integers: word >> 8 >= p 2^24. */
__host__ __device__ constexpr uint32_t dropout_bound(double p) {
  const double bound = p * 16777216.0;
  const uint32_t whole = (uint32_t)bound;
  return whole + (whole < bound);
}
template <typename T>
__host__ __device__ constexpr T dropout_scale(double p) {
  return (T)(1.0 / (1.0 - p));
}
template <typename T>
__device__ __forceinline__ T dropout(T x, uint32_t word, uint32_t bound,
                                     T scale) {
  return word >> 8 >= bound ? x * scale : (T)0;
}

} // namespace scalar
} // namespace rp

#endif
