/* exp, log, log1p, tanh, erf, sigmoid, sin, cos and pow, f32 and f64, as
   branch-free scalar functions: a loop that calls one is vectorised by the
   compiler, and since every step is one IEEE operation (no contraction, no
   libm, no reciprocal estimates), a lane, a scalar tail and another machine
   give the same bits.

   Errors are at most, in units of the result's last place (denormal ones
   included; spec/core/vecmath_test.c holds them):

            exp   log   log1p  tanh  erf   sigmoid  sin, cos  pow
     f32    1.0   0.9   1.5    2.7   1.4   2.5      0.6       0.6
     f64    1.0   0.9   1.5    2.7   1.4   2.5      1.6       1.1

   Infinities, NaN, zeros and denormals as C's Annex F has them; sigmoid is 0
   where exp(-x) overflows.

   The polynomials are minimax fits (Remez' exchange, coefficients rounded one
   by one from the lowest and the rest fitted again) made for this file. The
   reductions are the classic ones: Cody & Waite's for exp and the angles,
   log((1+s)/(1-s)) for log, Payne & Hanek's for large angles. */
#ifndef RP_BASE_VECMATH_H
#define RP_BASE_VECMATH_H

#include <math.h>
#include <stdint.h>

#define RP_INLINE static inline __attribute__((always_inline))

RP_INLINE uint32_t rp_bits_f32(float x) {
  union { float f; uint32_t u; } v = {.f = x};
  return v.u;
}
RP_INLINE float rp_float_f32(uint32_t bits) {
  union { uint32_t u; float f; } v = {.u = bits};
  return v.f;
}
RP_INLINE uint64_t rp_bits_f64(double x) {
  union { double f; uint64_t u; } v = {.f = x};
  return v.u;
}
RP_INLINE double rp_float_f64(uint64_t bits) {
  union { uint64_t u; double f; } v = {.u = bits};
  return v.f;
}
RP_INLINE float rp_abs_f32(float x) {
  return rp_float_f32(rp_bits_f32(x) & 0x7fffffffu);
}
RP_INLINE double rp_abs_f64(double x) {
  return rp_float_f64(rp_bits_f64(x) & 0x7fffffffffffffffu);
}
RP_INLINE float rp_copysign_f32(float x, float sign) {
  return rp_float_f32((rp_bits_f32(x) & 0x7fffffffu) |
                      (rp_bits_f32(sign) & 0x80000000u));
}
RP_INLINE double rp_copysign_f64(double x, double sign) {
  return rp_float_f64((rp_bits_f64(x) & 0x7fffffffffffffffu) |
                      (rp_bits_f64(sign) & 0x8000000000000000u));
}
/* 2^k for k in -126..127. */
RP_INLINE float rp_power_of_two_f32(int32_t k) {
  return rp_float_f32((uint32_t)(k + 127) << 23);
}
RP_INLINE double rp_power_of_two_f64(int64_t k) {
  return rp_float_f64((uint64_t)(k + 1023) << 52);
}

/* An integer below 2^51 as a double; the conversion itself has no vector form
   before AVX-512. */
RP_INLINE double rp_integer_f64(int64_t k) {
  return rp_float_f64((uint64_t)k + 0x4338000000000000u) - 0x1.8p52;
}

/* ---- exp ---------------------------------------------------------------- */

/* x = k ln2 + r, |r| <= ln2/2, for |x| < 2^15. Adding and taking away
   1.5 * 2^23 rounds to an integer, whose low bits then lie bare; k ln2's
   upper part is exact, and so is high. Returns exp(r) - 1 = r + r^2 q(r). */
RP_INLINE float rp_exp_reduce_f32(float x, int32_t *k) {
  const float big = 0x1.8p23f;
  const float t = x * 0x1.715476p+0f + big;
  const float n = t - big;
  *k = (int32_t)(rp_bits_f32(t) - 0x4b400000u);
  const float high = x - n * 0x1.62e4p-1f, low = n * 0x1.7f7d1cp-20f;
  const float r = high - low;
  float q = 0x1.6cdeb4p-10f;
  q = q * r + 0x1.1232ccp-7f;
  q = q * r + 0x1.555536p-5f;
  q = q * r + 0x1.5554a2p-3f;
  q = q * r + 0.5f;
  return high + (r * r * q - low);
}
RP_INLINE double rp_exp_reduce_f64(double x, double x_low, int64_t *k) {
  const double big = 0x1.8p52;
  const double t = x * 0x1.71547652b82fep+0 + big;
  const double n = t - big;
  *k = (int64_t)(rp_bits_f64(t) - 0x4338000000000000u);
  const double high = x - n * 0x1.62e42fefa3p-1;
  const double low = n * 0x1.3de6af278ece6p-42 - x_low;
  const double r = high - low;
  double q = 0x1.20001afed7579p-29;
  q = q * r + 0x1.af601e9258eebp-26;
  q = q * r + 0x1.27e4895072f88p-22;
  q = q * r + 0x1.71ddf78ecb572p-19;
  q = q * r + 0x1.a01a01c82868dp-16;
  q = q * r + 0x1.a01a01b0303bfp-13;
  q = q * r + 0x1.6c16c16c10bc4p-10;
  q = q * r + 0x1.111111110f606p-7;
  q = q * r + 0x1.555555555555fp-5;
  q = q * r + 0x1.5555555555559p-3;
  q = q * r + 0.5;
  return high + (r * r * q - low);
}

/* The clamps leave NaN alone and lie where the result is 0 or infinite. 2^k
   comes in two factors, so that the one rounding of a denormal is the last
   step. */
RP_INLINE float rp_exp_f32(float x) {
  int32_t k;
  x = x > 89.0f ? 89.0f : x;
  x = x < -104.0f ? -104.0f : x;
  const float p = 1.0f + rp_exp_reduce_f32(x, &k);
  const int32_t half = k >> 1;
  return p * rp_power_of_two_f32(half) * rp_power_of_two_f32(k - half);
}
/* exp(x + x_low) for |x_low| far below x's last place. */
RP_INLINE double rp_exp_sum_f64(double x, double x_low) {
  int64_t k;
  x = x > 710.0 ? 710.0 : x;
  x = x < -746.0 ? -746.0 : x;
  const double p = 1.0 + rp_exp_reduce_f64(x, x_low, &k);
  const int64_t half = k >> 1;
  return p * rp_power_of_two_f64(half) * rp_power_of_two_f64(k - half);
}
RP_INLINE double rp_exp_f64(double x) { return rp_exp_sum_f64(x, 0.0); }

RP_INLINE float rp_sigmoid_f32(float x) {
  return 1.0f / (1.0f + rp_exp_f32(-x));
}
RP_INLINE double rp_sigmoid_f64(double x) {
  return 1.0 / (1.0 + rp_exp_f64(-x));
}

/* tanh|x| = e/(e + 2), e = exp(2|x|) - 1 = 2^k p + (2^k - 1): no cancellation
   near 0. The clamp is where the result is 1. */
RP_INLINE float rp_tanh_f32(float x) {
  int32_t k;
  float a = rp_abs_f32(x);
  a = a > 10.0f ? 10.0f : a;
  const float p = rp_exp_reduce_f32(a + a, &k);
  const float scale = rp_power_of_two_f32(k);
  const float e = scale * p + (scale - 1.0f);
  return rp_copysign_f32(e / (e + 2.0f), x);
}
RP_INLINE double rp_tanh_f64(double x) {
  int64_t k;
  double a = rp_abs_f64(x);
  a = a > 20.0 ? 20.0 : a;
  const double p = rp_exp_reduce_f64(a + a, 0.0, &k);
  const double scale = rp_power_of_two_f64(k);
  const double e = scale * p + (scale - 1.0);
  return rp_copysign_f64(e / (e + 2.0), x);
}

/* ---- log ---------------------------------------------------------------- */

/* x = 2^k m, sqrt(1/2) <= m < sqrt(2), for positive finite x. */
RP_INLINE float rp_log_reduce_f32(float x, int32_t *k) {
  const int tiny = x < 0x1p-126f;
  const uint32_t bits =
      rp_bits_f32(tiny ? x * 0x1p25f : x) + (0x3f800000u - 0x3f3504f3u);
  *k = (int32_t)(bits >> 23) - (tiny ? 127 + 25 : 127);
  return rp_float_f32((bits & 0x007fffffu) + 0x3f3504f3u);
}
RP_INLINE double rp_log_reduce_f64(double x, int64_t *k) {
  const int tiny = x < 0x1p-1022;
  const uint64_t bits = rp_bits_f64(tiny ? x * 0x1p54 : x) +
                        (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu);
  *k = (int64_t)(bits >> 52) - (tiny ? 1023 + 54 : 1023);
  return rp_float_f64((bits & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu);
}

/* f = m - 1, s = f/(2 + f): log m = log((1+s)/(1-s)) = 2s + s z r(z), z = s^2,
   and 2s = f - s f, so that the large term f is exact. */
RP_INLINE float rp_log_f32(float x) {
  int32_t k;
  const float f = rp_log_reduce_f32(x, &k) - 1.0f;
  const float s = f / (2.0f + f);
  const float z = s * s;
  float r = 0x1.31e3fep-2f;
  r = r * z + 0x1.995ec2p-2f;
  r = r * z + 0x1.55557ap-1f;
  const float h = 0.5f * f * f;
  const float n = (float)k;
  float y = n * 0x1.62e4p-1f -
            ((h - (s * (h + z * r) + n * 0x1.7f7d1cp-20f)) - f);
  y = x < INFINITY ? y : x;
  y = x < 0.0f ? NAN : y;
  return x == 0.0f ? -INFINITY : y;
}
RP_INLINE double rp_log_f64(double x) {
  int64_t k;
  const double f = rp_log_reduce_f64(x, &k) - 1.0;
  const double s = f / (2.0 + f);
  const double z = s * s;
  double r = 0x1.2f14a82933724p-3;
  r = r * z + 0x1.39a04cb8bed3ap-3;
  r = r * z + 0x1.74664c2e8cc9bp-3;
  r = r * z + 0x1.c71c51cd8131ap-3;
  r = r * z + 0x1.24924942341efp-2;
  r = r * z + 0x1.999999997f98bp-2;
  r = r * z + 0x1.5555555555593p-1;
  const double h = 0.5 * f * f;
  const double n = rp_integer_f64(k);
  double y = n * 0x1.62e42fefa3p-1 -
             ((h - (s * (h + z * r) + n * 0x1.3de6af278ece6p-42)) - f);
  y = x < INFINITY ? y : x;
  y = x < 0.0 ? NAN : y;
  return x == 0.0 ? -INFINITY : y;
}

/* log(1 + x) = log u + c/u, u = 1 + x rounded and c what the rounding lost
   (exact; NaN where u is 0 or infinite). */
RP_INLINE float rp_log1p_f32(float x) {
  const float u = 1.0f + x;
  const float c = x > 1.0f ? 1.0f - (u - x) : x - (u - 1.0f);
  const float lost = c / u;
  const float y = rp_log_f32(u) + (lost == lost ? lost : 0.0f);
  return x == 0.0f ? x : y;
}
RP_INLINE double rp_log1p_f64(double x) {
  const double u = 1.0 + x;
  const double c = x > 1.0 ? 1.0 - (u - x) : x - (u - 1.0);
  const double lost = c / u;
  const double y = rp_log_f64(u) + (lost == lost ? lost : 0.0);
  return x == 0.0 ? x : y;
}

/* ---- erf ---------------------------------------------------------------- */

/* |x| < 1: x + x p(x^2); else 1 - exp(q(|x|)), q = log erfc, up to where the
   result is 1. */
RP_INLINE float rp_erf_f32(float x) {
  int32_t k;
  float t = rp_abs_f32(x);
  t = t > 4.0f ? 4.0f : t;
  const float z = t * t;
  float p = 0x1.4c38p-14f;
  p = p * z + -0x1.a50c34p-11f;
  p = p * z + 0x1.542e2ep-8f;
  p = p * z + -0x1.b7fe92p-6f;
  p = p * z + 0x1.ce2d5p-4f;
  p = p * z + -0x1.81274p-2f;
  p = p * z + 0x1.06eba8p-3f;
  float q = -0x1.6bc3f8p-16f;
  q = q * t + 0x1.ceba3ep-12f;
  q = q * t + -0x1.1389ecp-8f;
  q = q * t + 0x1.9d019ep-6f;
  q = q * t + -0x1.bc14b4p-4f;
  q = q * t + -0x1.44356ep-1f;
  q = q * t + -0x1.212c0cp+0f;
  q = q * t + 0x1.8a557ap-13f;
  const float e = rp_exp_reduce_f32(q, &k);
  const float scale = rp_power_of_two_f32(k);
  const float large = (1.0f - scale) - scale * e;
  return rp_copysign_f32(t < 1.0f ? t + t * p : large, x);
}
RP_INLINE double rp_erf_f64(double x) {
  int64_t k;
  double t = rp_abs_f64(x);
  t = t > 6.0 ? 6.0 : t;
  const double z = t * t;
  double p = -0x1.a08c1fe954925p-31;
  p = p * z + 0x1.d350cfcb10a4ap-27;
  p = p * z + -0x1.5b78cb34fb9b5p-23;
  p = p * z + 0x1.b96846653e5c6p-20;
  p = p * z + -0x1.f4c7e3c4f2a3bp-17;
  p = p * z + 0x1.f9a29226e3295p-14;
  p = p * z + -0x1.c02dae8ad9188p-11;
  p = p * z + 0x1.565bccedd92a5p-8;
  p = p * z + -0x1.b82ce311a3153p-6;
  p = p * z + 0x1.ce2f21a03f78ep-4;
  p = p * z + -0x1.812746b03799cp-2;
  p = p * z + 0x1.06eba8214db68p-3;
  /* q = log(erfc t) + t^2 around t = 3. */
  const double u = t - 3.0;
  double q = -0x1.6f879447e90c2p-38;
  q = q * u + -0x1.bb78e576f9564p-35;
  q = q * u + -0x1.71fdb15cdfc9fp-33;
  q = q * u + -0x1.3f8752185052ep-32;
  q = q * u + 0x1.c2c1eb3472c98p-32;
  q = q * u + 0x1.7a164e0f5992cp-31;
  q = q * u + 0x1.36d389902bc06p-29;
  q = q * u + 0x1.85c34bae07ca1p-27;
  q = q * u + -0x1.297f6645692c6p-23;
  q = q * u + 0x1.1e78589e3244ep-20;
  q = q * u + -0x1.dd8459e470c9ep-18;
  q = q * u + 0x1.6967caec16e37p-15;
  q = q * u + -0x1.01a04e300e230p-12;
  q = q * u + 0x1.62c320bef9a47p-10;
  q = q * u + -0x1.e5bee940060fep-8;
  q = q * u + 0x1.5d06cc985ddb3p-5;
  q = q * u + -0x1.370b35013d855p-2;
  q = q * u + -0x1.b869b65a8e00ap+0;
  const double e = rp_exp_reduce_f64(q - z, 0.0, &k);
  const double scale = rp_power_of_two_f64(k);
  const double large = (1.0 - scale) - scale * e;
  return rp_copysign_f64(t < 1.0 ? t + t * p : large, x);
}

/* ---- sin, cos ----------------------------------------------------------- */

/* For |r| <= pi/4. */
RP_INLINE float rp_sin_quarter_f32(float r) {
  const float z = r * r;
  return r + r * z * ((-0x1.9954a4p-13f * z + 0x1.11077ap-7f) * z +
                      -0x1.555546p-3f);
}
RP_INLINE float rp_cos_quarter_f32(float r) {
  const float z = r * r;
  const float c =
      (0x1.99e0eep-16f * z + -0x1.6c0c1ap-10f) * z + 0x1.55554ap-5f;
  return 1.0f - (0.5f * z - z * z * c);
}
RP_INLINE double rp_sin_quarter_f64(double r) {
  const double z = r * r;
  double s = 0x1.5d925eab6d885p-33;
  s = s * z + -0x1.ae5e64abd05e6p-26;
  s = s * z + 0x1.71de3576c100ep-19;
  s = s * z + -0x1.a01a019c121dap-13;
  s = s * z + 0x1.111111110f892p-7;
  s = s * z + -0x1.5555555555549p-3;
  return r + r * z * s;
}
RP_INLINE double rp_cos_quarter_f64(double r) {
  const double z = r * r;
  double c = -0x1.8fb001118415fp-37;
  c = c * z + 0x1.1ee9ef5211822p-29;
  c = c * z + -0x1.27e4f81044fffp-22;
  c = c * z + 0x1.a01a019cbcd8dp-16;
  c = c * z + -0x1.6c16c16c15210p-10;
  c = c * z + 0x1.555555555554cp-5;
  const double h = 0.5 * z;
  const double w = 1.0 - h;
  return w + (((1.0 - w) - h) + z * z * c);
}
/* sin(r + quarter pi/2). */
RP_INLINE double rp_sin_turned_f64(double r, uint64_t quarter) {
  const double y =
      quarter & 1 ? rp_cos_quarter_f64(r) : rp_sin_quarter_f64(r);
  return quarter & 2 ? -y : y;
}

/* Angles up to here take the fast reduction. */
#define RP_ANGLE_LIMIT 0x1p20

/* x = quarter pi/2 + r, |r| <= pi/4, for |x| <= RP_ANGLE_LIMIT: pi/2 in four
   parts, of which the first three times the quarter are exact, and what the
   subtractions round away is carried along. */
RP_INLINE double rp_angle_reduce(double x, uint64_t *quarter) {
  const double big = 0x1.8p52;
  const double t = x * 0x1.45f306dc9c883p-1 + big;
  const double n = t - big;
  *quarter = rp_bits_f64(t);
  const double a = x - n * 0x1.921fb544p+0;
  const double p = n * 0x1.0b4611a6p-34;
  const double b = a - p;
  const double q = n * 0x1.3198a2ep-69;
  const double c = b - q;
  return c + (((a - b) - p) + ((b - c) - q) - n * 0x1.b839a252049cp-104);
}
/* The same for any finite x, slower (Payne & Hanek); NaN for others. */
double rp_angle_reduce_any(double x, uint64_t *quarter);

/* For |x| <= RP_ANGLE_LIMIT; the f32 forms compute in f64. */
RP_INLINE double rp_sin_f64(double x) {
  uint64_t quarter;
  const double r = rp_angle_reduce(x, &quarter);
  return x == 0.0 ? x : rp_sin_turned_f64(r, quarter);
}
RP_INLINE double rp_cos_f64(double x) {
  uint64_t quarter;
  const double r = rp_angle_reduce(x, &quarter);
  return rp_sin_turned_f64(r, quarter + 1);
}
RP_INLINE float rp_sin_turned_f32(double x, uint64_t shift) {
  const double big = 0x1.8p52;
  const double t = x * 0x1.45f306dc9c883p-1 + big;
  const double n = t - big;
  const uint64_t quarter = rp_bits_f64(t) + shift;
  const double r = (x - n * 0x1.921fb544p+0) - n * 0x1.0b4611a626331p-34;
  const double z = r * r;
  const double s = r + r * z * ((-0x1.9954a4p-13 * z + 0x1.11077ap-7) * z +
                                -0x1.555546p-3);
  const double c = 1.0 - 0.5 * z +
                   z * z * ((0x1.99e0eep-16 * z + -0x1.6c0c1ap-10) * z +
                            0x1.55554ap-5);
  const double y = quarter & 1 ? c : s;
  return (float)(quarter & 2 ? -y : y);
}
RP_INLINE float rp_sin_f32(float x) {
  return x == 0.0f ? x : rp_sin_turned_f32(x, 0);
}
RP_INLINE float rp_cos_f32(float x) { return rp_sin_turned_f32(x, 1); }

/* For any x. */
float rp_sin_any_f32(float x);
float rp_cos_any_f32(float x);
double rp_sin_any_f64(double x);
double rp_cos_any_f64(double x);

/* ---- pow ---------------------------------------------------------------- */

/* Given |x|^y: x's sign, and the cases that are no limits. Everything from
   2^53 on is an even integer, infinity too. Selects alone: conditions joined
   by && or & keep the compiler from vectorising. */
RP_INLINE double rp_pow_finish(double x, double y, double power) {
  const double a = rp_abs_f64(y), half = 0.5 * a;
  const double b = a < 0x1p52 ? a : 0.0, c = half < 0x1p52 ? half : 0.0;
  const double absolute = rp_abs_f64(x) == 1.0 ? 1.0 : power;
  const double odd = rp_copysign_f64(absolute, x);
  const double finite = x > -INFINITY ? NAN : absolute;
  const double fraction = x < 0.0 ? finite : absolute;
  double z = (b + 0x1p52) - 0x1p52 == b ? odd : fraction;
  z = (c + 0x1p52) - 0x1p52 == c ? absolute : z;
  z = y == y ? z : y;
  z = x == 1.0 ? 1.0 : z;
  return y == 0.0 ? 1.0 : z;
}

RP_INLINE float rp_pow_f32(float x, float y) {
  const double log_x = rp_log_f64(rp_abs_f64(x));
  return (float)rp_pow_finish(x, y, rp_exp_f64(y * log_x));
}

/* a b = product + error, exactly (Dekker), while nothing overflows. */
RP_INLINE double rp_product_error(double a, double b, double product) {
  const double ta = a * 134217729.0, tb = b * 134217729.0;
  const double ah = ta - (ta - a), bh = tb - (tb - b);
  const double al = a - ah, bl = b - bh;
  return ((ah * bh - product) + ah * bl + al * bh) + al * bl;
}

/* y log|x| needs 11 bits more than a double has: log as a sum of two, from
   log m = 2s + 2/3 s^3 + s^5 r(s^2) with the first two terms doubled. */
RP_INLINE double rp_pow_f64(double x, double y) {
  int64_t k;
  const double a = rp_abs_f64(x);
  const double m = rp_log_reduce_f64(a, &k);
  const double n = rp_integer_f64(k);
  const double f = m - 1.0;
  const double d = m + 1.0, d_low = m - (d - 1.0);
  const double s = f / d, sd = s * d;
  const double s_low =
      ((f - sd) - rp_product_error(s, d, sd) - s * d_low) / d;
  const double z = s * s;
  const double z_low = rp_product_error(s, s, z) + 2.0 * s * s_low;
  const double c = z * s;
  const double c_low = rp_product_error(z, s, c) + z * s_low + z_low * s;
  const double e = c * 0x1.5555555555555p-1;
  const double e_low = rp_product_error(c, 0x1.5555555555555p-1, e) +
                       c * 0x1.5555555555555p-55 +
                       c_low * 0x1.5555555555555p-1;
  double r = 0x1.0e534eb569ed1p-3;
  r = r * z + 0x1.0f7e2c823a372p-3;
  r = r * z + 0x1.3b1efe85fce79p-3;
  r = r * z + 0x1.745ce98076b37p-3;
  r = r * z + 0x1.c71c722e7b9bdp-3;
  r = r * z + 0x1.2492492457187p-2;
  r = r * z + 0x1.9999999999b36p-2;
  r = r * z * c;
  /* n ln2 + 2s + e + r, largest first, each sum with its error. */
  const double n1 = n * 0x1.62e42fefa3p-1, n2 = n * 0x1.3de6af278ecp-42;
  const double t1 = n1 + 2.0 * s;
  const double t1_low = 2.0 * s - (t1 - n1);
  const double t2 = t1 + e;
  const double t2_low = e - (t2 - t1);
  const double low = ((n2 + t1_low) + t2_low) +
                     (r + (2.0 * s_low + e_low) + n * 0x1.cc01f97b57a08p-87);
  double log_x = t2 + low;
  const double log_low = low - (log_x - t2);
  log_x = a < INFINITY ? log_x : a;
  log_x = a == 0.0 ? -INFINITY : log_x;
  const double p = y * log_x;
  double p_low = rp_product_error(y, log_x, p) + y * log_low;
  p_low = rp_abs_f64(p) < 800.0 ? p_low : 0.0;
  return rp_pow_finish(x, y, rp_exp_sum_f64(p, p_low));
}

#endif
