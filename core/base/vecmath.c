/* Angles of any size. */
#include "base/vecmath.h"

/* 2/pi in binary, the point in front of the first word. */
static const uint64_t two_over_pi[] = {
    0xa2f9836e4e441529, 0xfc2757d1f534ddc0, 0xdb6295993c439041,
    0xfe5163abdebbc561, 0xb7246e3a424dd2e0, 0x06492eea09d1921c,
    0xfe1deb1cb129a73e, 0xe88235f52ebb4484, 0xe99c7026b45f7e41,
    0x3991d639835339f4, 0x9c845f8bbdf9283b, 0x1ff897ffde05980f,
    0xef2f118b5a0a6d1f, 0x6d367ecf27cb09b7, 0x4f463f669e5fea2d,
    0x7527bac7ebe5f17b, 0x3d0739f78a5292ea, 0x6bfb5fb11f8d5d08,
    0x56033046fc7b6bab, 0xf0cfbc209af4361d};

/* The 64 bits of 2/pi from bit `at`, where those before the point are 0. */
static uint64_t bits_from(int at) {
  if (at < 0) return at <= -64 ? 0 : two_over_pi[0] >> -at;
  const int word = at / 64, shift = at % 64;
  if (shift == 0) return two_over_pi[word];
  return two_over_pi[word] << shift | two_over_pi[word + 1] >> (64 - shift);
}

/* |x| = m 2^e with m a 53-bit integer. Bits of 2/pi that weigh 4 or more
   after the product only add whole turns and are left out; of the others 192
   are taken, so that 192 - 53 - 2 are right and even the worst x (61 zeros
   behind the point) leaves 70. */
double rp_angle_reduce_any(double x, uint64_t *quarter) {
  const uint64_t bits = rp_bits_f64(x);
  const int exponent = (int)(bits >> 52 & 0x7ff) - 1075;
  *quarter = 0;
  if (exponent == 0x7ff - 1075) return NAN;
  if (!(rp_abs_f64(x) > RP_ANGLE_LIMIT)) return rp_angle_reduce(x, quarter);
  const uint64_t m = (bits & 0xfffffffffffff) | 0x10000000000000;
  /* Bit i weighs 2^(exponent - 1 - i); keep weights 2^1 and below. */
  const int first = exponent - 2;
  typedef unsigned __int128 wide;
  const wide low = (wide)m * bits_from(first + 128);
  const wide middle = (wide)m * bits_from(first + 64) + (uint64_t)(low >> 64);
  const uint64_t top = m * bits_from(first) + (uint64_t)(middle >> 64);
  /* top.middle.low in quarter turns, two bits before the point. */
  uint64_t whole = top >> 62;
  wide fraction = ((wide)top << 64 | (uint64_t)middle) << 2 |
                  (uint64_t)low >> 62;
  const int negative = (int)(top >> 61 & 1);
  whole += negative;
  if (negative) fraction = -fraction;
  int shift = 0;
  while (shift < 127 && !(fraction >> 127)) fraction <<= 1, shift++;
  /* 53 bits of it, then 64 more, times pi/2 in two parts. */
  const double pi_2 = 0x1.921fb54442d18p+0, pi_2_low = 0x1.1a62633145c07p-54;
  const double high = (double)(uint64_t)(fraction >> 75);
  const double rest = (double)(uint64_t)(fraction >> 11) * 0x1p-64;
  const double product = high * pi_2;
  const double lost =
      rp_product_error(high, pi_2, product) + high * pi_2_low + rest * pi_2;
  double r = (product + lost) * rp_power_of_two_f64(-53 - shift);
  if (negative) r = -r;
  if (bits >> 63) r = -r, whole = -whole;
  *quarter = whole;
  return r;
}

double rp_sin_any_f64(double x) {
  uint64_t quarter;
  const double r = rp_angle_reduce_any(x, &quarter);
  return x == 0.0 ? x : rp_sin_turned_f64(r, quarter);
}
double rp_cos_any_f64(double x) {
  uint64_t quarter;
  const double r = rp_angle_reduce_any(x, &quarter);
  return rp_sin_turned_f64(r, quarter + 1);
}
float rp_sin_any_f32(float x) {
  if (rp_abs_f32(x) <= (float)RP_ANGLE_LIMIT) return rp_sin_f32(x);
  return (float)rp_sin_any_f64(x);
}
float rp_cos_any_f32(float x) {
  if (rp_abs_f32(x) <= (float)RP_ANGLE_LIMIT) return rp_cos_f32(x);
  return (float)rp_cos_any_f64(x);
}
