/* base/vecmath.h against libm in more precision than it has: f32 against
   double, f64 against long double. The bounds are the header's. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/vecmath.h"

static uint64_t next_bits(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  return *state ^= *state << 17;
}

static bool is_nan_f64(double x) { return x != x; }

/* |got - want| in units of the last place that want has in a type with so
   many digits and this least exponent. */
static double error_in_ulp(double got, long double want, int digits,
                           int least) {
  if (want != want) return is_nan_f64(got) ? 0 : INFINITY;
  if (got == (double)want) return 0;
  if (isinf(got) || isinf((double)want)) return INFINITY;
  int exponent;
  frexpl(want, &exponent);
  if (want == 0 || exponent < least) exponent = least;
  return (double)(fabsl(got - want) / ldexpl(1, exponent - digits));
}
static double ulp_f32(float got, double want) {
  if (isinf(got) && isinf((float)want)) return got * want > 0 ? 0 : INFINITY;
  return error_in_ulp(got, want, FLT_MANT_DIG, FLT_MIN_EXP);
}
static double ulp_f64(double got, long double want) {
  return error_in_ulp(got, want, DBL_MANT_DIG, DBL_MIN_EXP);
}

/* ---- sweeps -------------------------------------------------------------- */

static double sigmoid_f64(double x) { return 1 / (1 + exp(-x)); }
static long double sigmoid_long(long double x) { return 1 / (1 + expl(-x)); }

typedef struct function {
  const char *name;
  float (*f32)(float);
  double (*wide)(double);
  double (*f64)(double);
  long double (*wider)(long double);
  double low, high;     /* where f64 is swept, besides all exponents */
  float low_f32;        /* f32 is swept over all floats from here */
  double bound_f32, bound_f64;
} function;

static const function functions[] = {
    {"exp", rp_exp_f32, exp, rp_exp_f64, expl, -750, 715, -INFINITY, 1.0, 1.0},
    {"log", rp_log_f32, log, rp_log_f64, logl, 0.4, 3, -1, 0.9, 0.9},
    {"log1p", rp_log1p_f32, log1p, rp_log1p_f64, log1pl, -1, 2, -2, 1.5, 1.5},
    {"tanh", rp_tanh_f32, tanh, rp_tanh_f64, tanhl, -22, 22, -INFINITY, 2.7,
     2.7},
    {"erf", rp_erf_f32, erf, rp_erf_f64, erfl, -6.5, 6.5, -INFINITY, 1.4, 1.4},
    /* Below -88 (f64: -709) exp(-x) overflows and the result is 0. */
    {"sigmoid", rp_sigmoid_f32, sigmoid_f64, rp_sigmoid_f64, sigmoid_long,
     -709, 709, -88, 2.5, 2.5},
    {"sin", rp_sin_any_f32, sin, rp_sin_any_f64, sinl, -20, 20, -INFINITY, 0.6,
     1.6},
    {"cos", rp_cos_any_f32, cos, rp_cos_any_f64, cosl, -20, 20, -INFINITY, 0.6,
     1.6},
};
enum { FUNCTIONS = sizeof functions / sizeof *functions };

/* Every float whose bits are a multiple of 4093: all exponents, both signs,
   denormals. */
static void sweeps_f32(void **state) {
  (void)state;
  for (int k = 0; k < FUNCTIONS; k++) {
    const function *f = &functions[k];
    double worst = 0;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 4093) {
      const float x = rp_float_f32((uint32_t)bits);
      if (!(x >= f->low_f32)) continue;
      const double error = ulp_f32(f->f32(x), f->wide(x));
      if (error > worst) worst = error;
    }
    if (worst > f->bound_f32)
      fail_msg("%s f32: %.3f ulp, bound %.3f", f->name, worst, f->bound_f32);
  }
}

/* The interesting stretch evenly, and every exponent. Angles have a reference
   up to 2^63, where x87's own reduction ends. */
static void sweeps_f64(void **state) {
  (void)state;
  for (int k = 0; k < FUNCTIONS; k++) {
    const function *f = &functions[k];
    const bool angle = f->f64 == rp_sin_any_f64 || f->f64 == rp_cos_any_f64;
    uint64_t seed = 88172645463325252u;
    double worst = 0;
    for (int i = 0; i < 200000; i++) {
      const uint64_t bits = next_bits(&seed);
      const double x = i % 2 ? rp_float_f64(bits)
                             : f->low + (f->high - f->low) *
                                            ((double)(bits >> 11) * 0x1p-53);
      if (angle && fabs(x) > 0x1p62) continue;
      if (f->f64 == rp_sigmoid_f64 && x < f->low) continue;
      const double error = ulp_f64(f->f64(x), f->wider(x));
      if (error > worst) worst = error;
    }
    if (worst > f->bound_f64)
      fail_msg("%s f64: %.3f ulp, bound %.3f", f->name, worst, f->bound_f64);
  }
}

/* Multiples of pi/2 and their neighbours, where a careless reduction loses
   everything, and the worst angle of all (Muller, Elementary Functions). */
static void angles_near_multiples_of_a_quarter(void **state) {
  (void)state;
  for (int n = 1; n < 600000; n += 17) {
    const double x = (double)(n * 1.570796326794896619231L);
    assert_true(ulp_f64(rp_sin_f64(x), sinl(x)) <= 1.6);
    assert_true(ulp_f64(rp_cos_f64(x), cosl(x)) <= 1.6);
    const float y = (float)x;
    assert_true(ulp_f32(rp_sin_f32(y), sin(y)) <= 0.6);
    assert_true(ulp_f32(rp_cos_f32(y), cos(y)) <= 0.6);
  }
  const double worst = 0x1.6ac5b262ca1ffp+849; /* cos is 4.6872e-19 there */
  assert_true(fabs(rp_cos_any_f64(worst) + 4.687165924254624e-19) < 1e-33 ||
              fabs(rp_cos_any_f64(worst) - 4.687165924254624e-19) < 1e-33);
}

static void pow_everywhere(void **state) {
  (void)state;
  uint64_t seed = 2463534242u;
  double worst = 0, worst_f32 = 0;
  for (int i = 0; i < 300000; i++) {
    const double u = (double)(next_bits(&seed) >> 11) * 0x1p-53;
    const double v = (double)(next_bits(&seed) >> 11) * 0x1p-52 - 1;
    const double x = i % 3 == 0   ? exp(100 * (u - 0.5))
                     : i % 3 == 1 ? 1 + 0.01 * (u - 0.5)
                                  : 2 * u;
    const double y = v * (i % 3 == 0 ? 15 : i % 3 == 1 ? 70000 : 1000);
    const double error = ulp_f64(rp_pow_f64(x, y), powl(x, y));
    if (error > worst) worst = error;
    const float a = (float)x, b = (float)(v * 8);
    const double error_f32 = ulp_f32(rp_pow_f32(a, b), pow(a, b));
    if (error_f32 > worst_f32) worst_f32 = error_f32;
  }
  assert_true(worst <= 1.1);
  assert_true(worst_f32 <= 0.6);
}

/* ---- values that are no numbers, and bounds ------------------------------ */

static void special_values(void **state) {
  (void)state;
  static const double at[] = {
      0.0, -0.0, 1, -1, INFINITY, -INFINITY, NAN, 0x1p-1074, -0x1p-1074,
      0x1p-149, 0x1p-1022, 0x1p-126, 709.782712893384, 709.7827128933841,
      -745.1332191019411, -745.1332191019412, -708.5, 88.72283, 88.72284,
      -103.97207, -103.97208, -87.5, 1.7976931348623157e308, -1e308, 3.4e38,
      1e300, -1.5};
  for (int k = 0; k < FUNCTIONS; k++) {
    const function *f = &functions[k];
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
      const double x = at[i];
      const float y = (float)x;
      /* x87 has no sine of these; the sweep of f32 covers them. */
      const bool angle = f->f64 == rp_sin_any_f64 || f->f64 == rp_cos_any_f64;
      const bool small = f->f64 == rp_sigmoid_f64 && x < -88;
      if (!(angle && fabs(x) > 0x1p62 && !isinf(x)) && !small) {
        const double error = ulp_f64(f->f64(x), f->wider(x));
        if (error > f->bound_f64)
          fail_msg("%s(%a) = %a", f->name, x, f->f64(x));
      }
      if (!small && ulp_f32(f->f32(y), f->wide(y)) > f->bound_f32)
        fail_msg("%s f32 (%a) = %a", f->name, y, f->f32(y));
      if (x == 0 && f->f64(0) == 0) { /* odd functions keep the zero's sign */
        assert_int_equal(signbit(f->f64(x)) != 0, signbit(x) != 0);
        assert_int_equal(signbit(f->f32(y)) != 0, signbit(y) != 0);
      }
    }
  }
  assert_true(rp_sigmoid_f32(-1e4f) == 0 && rp_sigmoid_f64(-1e4) == 0);
}

/* Annex F's table for pow, through libm's. */
static void pow_special_values(void **state) {
  (void)state;
  static const double at[] = {
      0.0, -0.0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, 1.5, -2.5, INFINITY,
      -INFINITY, NAN, 4503599627370497.0, -4503599627370497.0,
      9007199254740992.0, 0x1p60, 1e-310, -1e-310, 1e300, -1e300};
  const size_t n = sizeof at / sizeof *at;
  for (size_t i = 0; i < n * n; i++) {
    const double x = at[i / n], y = at[i % n];
    const double got = rp_pow_f64(x, y), want = pow(x, y);
    if (ulp_f64(got, want) > 1.6 ||
        (got == 0 && !signbit(got) != !signbit(want)))
      fail_msg("pow(%g, %g) = %a, not %a", x, y, got, want);
    const float a = (float)x, b = (float)y;
    const float got_f32 = rp_pow_f32(a, b);
    const double wide = pow(a, b);
    if (ulp_f32(got_f32, wide) > 0.6 ||
        (got_f32 == 0 && !signbit(got_f32) != !signbit(wide)))
      fail_msg("powf(%g, %g) = %a, not %a", a, b, got_f32, wide);
  }
}

/* ---- lanes and tails ----------------------------------------------------- */

/* What a vectorised loop gives, element by element through a function pointer
   that cannot be inlined, must be the same bits. */
enum { LANES = 16 * 4 + 13 };

static void map_f32(float *y, const float *x, int n, int k) {
  switch (k) {
    case 0: for (int i = 0; i < n; i++) y[i] = rp_exp_f32(x[i]); break;
    case 1: for (int i = 0; i < n; i++) y[i] = rp_log_f32(x[i]); break;
    case 2: for (int i = 0; i < n; i++) y[i] = rp_log1p_f32(x[i]); break;
    case 3: for (int i = 0; i < n; i++) y[i] = rp_tanh_f32(x[i]); break;
    case 4: for (int i = 0; i < n; i++) y[i] = rp_erf_f32(x[i]); break;
    case 5: for (int i = 0; i < n; i++) y[i] = rp_sigmoid_f32(x[i]); break;
    case 6: for (int i = 0; i < n; i++) y[i] = rp_sin_f32(x[i]); break;
    default: for (int i = 0; i < n; i++) y[i] = rp_cos_f32(x[i]);
  }
}
static void map_f64(double *y, const double *x, int n, int k) {
  switch (k) {
    case 0: for (int i = 0; i < n; i++) y[i] = rp_exp_f64(x[i]); break;
    case 1: for (int i = 0; i < n; i++) y[i] = rp_log_f64(x[i]); break;
    case 2: for (int i = 0; i < n; i++) y[i] = rp_log1p_f64(x[i]); break;
    case 3: for (int i = 0; i < n; i++) y[i] = rp_tanh_f64(x[i]); break;
    case 4: for (int i = 0; i < n; i++) y[i] = rp_erf_f64(x[i]); break;
    case 5: for (int i = 0; i < n; i++) y[i] = rp_sigmoid_f64(x[i]); break;
    case 6: for (int i = 0; i < n; i++) y[i] = rp_sin_f64(x[i]); break;
    default: for (int i = 0; i < n; i++) y[i] = rp_cos_f64(x[i]);
  }
}

static void lanes_and_tails_agree(void **state) {
  (void)state;
  uint64_t seed = 7;
  float x[LANES], y[LANES], power[LANES];
  double x64[LANES], y64[LANES], power64[LANES];
  for (int round = 0; round < 200; round++) {
    for (int i = 0; i < LANES; i++) {
      x64[i] = ((double)(next_bits(&seed) >> 11) * 0x1p-52 - 1) *
               (i % 3 ? 3 : 100);
      x[i] = (float)x64[i];
    }
    for (int k = 0; k < FUNCTIONS; k++) {
      map_f32(y, x, LANES, k);
      map_f64(y64, x64, LANES, k);
      for (int i = 0; i < LANES; i++) {
        const float one = functions[k].f32(x[i]);
        const double one64 = functions[k].f64(x64[i]);
        assert_true(rp_bits_f32(one) == rp_bits_f32(y[i]) || one != one);
        assert_true(rp_bits_f64(one64) == rp_bits_f64(y64[i]) ||
                    one64 != one64);
      }
    }
    for (int i = 0; i < LANES; i++) power[i] = rp_pow_f32(x[i], x[LANES - 1]);
    for (int i = 0; i < LANES; i++)
      power64[i] = rp_pow_f64(fabs(x64[i]), x64[LANES - 1]);
    for (int i = 0; i < LANES; i++) {
      volatile float a = x[i];
      volatile double b = x64[i];
      const float one = rp_pow_f32(a, x[LANES - 1]);
      const double one64 = rp_pow_f64(fabs(b), x64[LANES - 1]);
      assert_true(rp_bits_f32(one) == rp_bits_f32(power[i]) || one != one);
      assert_true(rp_bits_f64(one64) == rp_bits_f64(power64[i]));
    }
  }
}

/* The same bits on every machine and under every flag but fast-math: a hash
   (FNV-1a) of what each function gives, taken from an unoptimised build for
   plain x86-64, without FMA. Whoever changes a polynomial changes these. */
static void known_bits(void **state) {
  (void)state;
  static const uint64_t known[FUNCTIONS] = {
      0x7a0f2b7aaa871735u, 0x14f94781cd4daa3bu, 0x7e9c03c8d76c75beu,
      0x46017f2d646ff87au, 0xdc688a6ac380cc4du, 0xd086f2a92e17d68bu,
      0x209e5121a9266632u, 0x9ae4aef7a4456715u};
  for (int k = 0; k < FUNCTIONS; k++) {
    uint64_t hash = 14695981039346656037u;
    for (int i = 1; i <= 5000; i++) {
      const double x = (i - 2000) * 0.00371;
      const uint64_t bits =
          rp_bits_f64(functions[k].f64(x)) ^
          (uint64_t)rp_bits_f32(functions[k].f32((float)x)) << 17;
      const bool nan = functions[k].f64(x) != functions[k].f64(x);
      hash = (hash ^ (nan ? 0 : bits)) * 1099511628211u;
    }
    if (hash != known[k])
      fail_msg("%s: 0x%016llxu", functions[k].name, (unsigned long long)hash);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sweeps_f32),
      cmocka_unit_test(sweeps_f64),
      cmocka_unit_test(angles_near_multiples_of_a_quarter),
      cmocka_unit_test(pow_everywhere),
      cmocka_unit_test(special_values),
      cmocka_unit_test(pow_special_values),
      cmocka_unit_test(lanes_and_tails_agree),
      cmocka_unit_test(known_bits),
  };
  return cmocka_run_group_tests_name("vecmath", tests, NULL, NULL);
}
