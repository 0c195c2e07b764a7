/* CUDA's arithmetic functions that C++ has under another name, or not at all.
   The ones with a rounding in their name round once, as on a device. The fast
   ones (__expf ...) are the host's accurate ones: a comparison with them needs
   the tolerance that a device's need. */
#ifndef RP_EMULATED_ARITHMETIC_H
#define RP_EMULATED_ARITHMETIC_H

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __frsqrt_rn(float a) { return (float)(1.0 / sqrt((double)a)); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __drcp_rn(double a) { return 1.0 / a; }

inline float __expf(float a) { return expf(a); }
inline float __exp10f(float a) { return powf(10.0f, a); }
inline float __logf(float a) { return logf(a); }
inline float __log2f(float a) { return log2f(a); }
inline float __log10f(float a) { return log10f(a); }
inline float __sinf(float a) { return sinf(a); }
inline float __cosf(float a) { return cosf(a); }
inline float __tanf(float a) { return tanf(a); }
inline float __powf(float a, float b) { return powf(a, b); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float a) { return a > 0 ? a < 1 ? a : 1.0f : 0.0f; }

inline float rsqrtf(float a) { return (float)(1.0 / sqrt((double)a)); }
inline double rsqrt(double a) { return 1.0 / sqrt(a); }
inline float rsqrt(float a) { return rsqrtf(a); }
inline float rcbrtf(float a) { return 1.0f / cbrtf(a); }
inline double rcbrt(double a) { return 1.0 / cbrt(a); }
inline float sinpif(float a) { return (float)sin(M_PI * remainder(a, 2.0)); }
inline float cospif(float a) { return (float)cos(M_PI * remainder(a, 2.0)); }
inline double sinpi(double a) { return sin(M_PI * remainder(a, 2.0)); }
inline double cospi(double a) { return cos(M_PI * remainder(a, 2.0)); }
inline float normcdff(float a) {
  return (float)(0.5 * erfc(-(double)a * M_SQRT1_2));
}
inline double normcdf(double a) { return 0.5 * erfc(-a * M_SQRT1_2); }
inline void sincospif(float a, float *s, float *c) {
  *s = sinpif(a);
  *c = cospif(a);
}
inline void sincospi(double a, double *s, double *c) {
  *s = sinpi(a);
  *c = cospi(a);
}
inline float fdividef(float a, float b) { return a / b; }

/* ---- bits --------------------------------------------------------------- */

template <typename To, typename From> inline To rp_emulated_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
inline int __float_as_int(float a) { return rp_emulated_bits<int>(a); }
inline unsigned __float_as_uint(float a) {
  return rp_emulated_bits<unsigned>(a);
}
inline float __int_as_float(int a) { return rp_emulated_bits<float>(a); }
inline float __uint_as_float(unsigned a) { return rp_emulated_bits<float>(a); }
inline long long __double_as_longlong(double a) {
  return rp_emulated_bits<long long>(a);
}
inline double __longlong_as_double(long long a) {
  return rp_emulated_bits<double>(a);
}
inline int __double2hiint(double a) {
  return (int)(rp_emulated_bits<uint64_t>(a) >> 32);
}
inline int __double2loint(double a) {
  return (int)rp_emulated_bits<uint64_t>(a);
}
inline double __hiloint2double(int high, int low) {
  return rp_emulated_bits<double>((uint64_t)(uint32_t)high << 32 |
                                  (uint32_t)low);
}

inline unsigned __umulhi(unsigned a, unsigned b) {
  return (unsigned)((uint64_t)a * b >> 32);
}
inline int __mulhi(int a, int b) { return (int)((int64_t)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a,
                                     unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline long long __mul64hi(long long a, long long b) {
  return (long long)((__int128)a * b >> 64);
}
inline int __mul24(int a, int b) { return a * b; }
inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
inline int __clz(int a) { return a ? __builtin_clz((unsigned)a) : 32; }
inline int __clzll(long long a) {
  return a ? __builtin_clzll((unsigned long long)a) : 64;
}
inline int __ffs(int a) { return __builtin_ffs(a); }
inline int __ffsll(long long a) { return __builtin_ffsll(a); }
inline unsigned __brev(unsigned a) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; i++) reversed |= (a >> i & 1) << (31 - i);
  return reversed;
}

/* ---- conversions -------------------------------------------------------- */

/* A device's conversions of floating point to integers saturate, and make NaN
   0. A cast in a kernel does too, on the device; the host's does not, so
   kernels that meet such values say these. */
template <typename To, typename From>
inline To rp_emulated_saturate(From from) {
  if (from != from) return 0;
  const From least = (From)std::numeric_limits<To>::min();
  const From beyond = std::ldexp((From)1, std::numeric_limits<To>::digits);
  if (from < least) return std::numeric_limits<To>::min();
  if (from >= beyond) return std::numeric_limits<To>::max();
  return (To)from;
}
#define RP_EMULATED_CONVERSION(from, From, to, To)                           \
  inline To __##from##2##to##_rn(From a) {                                   \
    return rp_emulated_saturate<To>(std::nearbyint(a));                      \
  }                                                                          \
  inline To __##from##2##to##_rz(From a) {                                   \
    return rp_emulated_saturate<To>(std::trunc(a));                          \
  }                                                                          \
  inline To __##from##2##to##_rd(From a) {                                   \
    return rp_emulated_saturate<To>(std::floor(a));                          \
  }                                                                          \
  inline To __##from##2##to##_ru(From a) {                                   \
    return rp_emulated_saturate<To>(std::ceil(a));                           \
  }
RP_EMULATED_CONVERSION(float, float, int, int)
RP_EMULATED_CONVERSION(float, float, uint, unsigned)
RP_EMULATED_CONVERSION(float, float, ll, long long)
RP_EMULATED_CONVERSION(float, float, ull, unsigned long long)
RP_EMULATED_CONVERSION(double, double, int, int)
RP_EMULATED_CONVERSION(double, double, uint, unsigned)
RP_EMULATED_CONVERSION(double, double, ll, long long)
RP_EMULATED_CONVERSION(double, double, ull, unsigned long long)
#undef RP_EMULATED_CONVERSION
inline float __double2float_rn(double a) { return (float)a; }
inline float __int2float_rn(int a) { return (float)a; }
inline float __uint2float_rn(unsigned a) { return (float)a; }
inline float __ll2float_rn(long long a) { return (float)a; }
inline float __ull2float_rn(unsigned long long a) { return (float)a; }
inline double __int2double_rn(int a) { return a; }
inline double __uint2double_rn(unsigned a) { return a; }
inline double __ll2double_rn(long long a) { return (double)a; }
inline double __ull2double_rn(unsigned long long a) { return (double)a; }

/* ---- min and max: of any two arithmetic types, as CUDA's overloads ------ */

template <typename A, typename B>
inline typename std::enable_if<std::is_arithmetic<A>::value &&
                                   std::is_arithmetic<B>::value,
                               typename std::common_type<A, B>::type>::type
min(A a, B b) {
  typedef typename std::common_type<A, B>::type T;
  const T x = (T)a, y = (T)b;
  if (std::is_floating_point<T>::value) return x < y || y != y ? x : y;
  return y < x ? y : x;
}
template <typename A, typename B>
inline typename std::enable_if<std::is_arithmetic<A>::value &&
                                   std::is_arithmetic<B>::value,
                               typename std::common_type<A, B>::type>::type
max(A a, B b) {
  typedef typename std::common_type<A, B>::type T;
  const T x = (T)a, y = (T)b;
  if (std::is_floating_point<T>::value) return x > y || y != y ? x : y;
  return y > x ? y : x;
}

using std::isfinite;
using std::isinf;
using std::isnan;

#endif
