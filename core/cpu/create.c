/* Kernels of core/ops/create.c. Which words make which element is part of an
   op's meaning and is said there. */
#include "base/random.h"
#include "cpu/elementwise.h"

/* ---- Philox, many blocks at once ----------------------------------------- */

/* At most so many at once: L1 keeps the four arrays. */
enum { BLOCKS = 64, WORDS = 4 * BLOCKS, LANES = 16 };

/* The words of blocks first .. first + blocks - 1, rounded up to whole LANES:
   rp_philox with its lanes side by side. */
static void philox_words(uint64_t seed, uint64_t stream, uint64_t first,
                         int blocks, uint32_t out[WORDS]) {
  blocks = (blocks + LANES - 1) / LANES * LANES;
  uint32_t c0[BLOCKS], c1[BLOCKS], c2[BLOCKS], c3[BLOCKS];
  for (int i = 0; i < blocks; i++) {
    const uint64_t block = first + (uint64_t)i;
    c0[i] = (uint32_t)block, c1[i] = (uint32_t)(block >> 32);
    c2[i] = (uint32_t)stream, c3[i] = (uint32_t)(stream >> 32);
  }
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < 10; round++) {
    for (int i = 0; i < blocks; i++) {
      const uint64_t p0 = (uint64_t)0xD2511F53u * c0[i];
      const uint64_t p1 = (uint64_t)0xCD9E8D57u * c2[i];
      c0[i] = (uint32_t)(p1 >> 32) ^ c1[i] ^ k0;
      c1[i] = (uint32_t)p1;
      c2[i] = (uint32_t)(p0 >> 32) ^ c3[i] ^ k1;
      c3[i] = (uint32_t)p0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (int i = 0; i < blocks; i++) {
    out[4 * i] = c0[i], out[4 * i + 1] = c1[i];
    out[4 * i + 2] = c2[i], out[4 * i + 3] = c3[i];
  }
}

/* Element e of an op that takes `per_element` words each: words
   e * per_element onwards of the stream. A source walks through a row with
   a window of WORDS words that starts at a whole block. */
typedef struct source {
  const rp_kernel_args *args;
  int64_t next, end; /* words still to be handed out */
  uint32_t words[WORDS];
} source;

static void source_open(source *s, const rp_row *row, int per_element) {
  s->args = row->args;
  s->next = row->first * per_element;
  s->end = (row->first + row->n) * per_element;
}
/* The next words, at most WORDS of them, at s->words[*from]; 0 at the end.
   *from is below 4, and a multiple of it but in a row's first window. */
static int source_next(source *s, int *from) {
  if (s->next >= s->end) return 0;
  const uint64_t block = (uint64_t)s->next / 4;
  *from = (int)(s->next % 4);
  const int64_t left = s->end - s->next, room = WORDS - *from;
  const int n = (int)(left < room ? left : room);
  philox_words(s->args->seed, s->args->stream, block, (*from + n + 3) / 4,
               s->words);
  s->next += n;
  return n;
}

/* ---- rand ---------------------------------------------------------------- */

static inline double uniform_f64(uint32_t high, uint32_t low) {
  const uint64_t bits = (uint64_t)high << 32 | low;
  return (double)(int64_t)(bits >> 11) * 0x1p-53;
}

static void rand_f32(const rp_row *row) {
  float *y = row->out;
  source s;
  source_open(&s, row, 1);
  for (int from, n; (n = source_next(&s, &from)) > 0; y += n)
    for (int i = 0; i < n; i++) y[i] = rp_uniform_f32(s.words[from + i]);
}
static void rand_f64(const rp_row *row) {
  double *y = row->out;
  source s;
  source_open(&s, row, 2);
  for (int from, n; (n = source_next(&s, &from) / 2) > 0; y += n)
    for (int i = 0; i < n; i++)
      y[i] = uniform_f64(s.words[from + 2 * i], s.words[from + 2 * i + 1]);
}
static rp_status run_rand_f32(const rp_kernel_args *args) {
  return rp_rows_run(args, rand_f32);
}
static rp_status run_rand_f64(const rp_kernel_args *args) {
  return rp_rows_run(args, rand_f64);
}

/* ---- randn --------------------------------------------------------------- */

/* sin and cos of a whole turn's fraction: turns less the nearest quarter is
   exact, and needs no reduction by pi. */
RP_INLINE void turn_f32(float turns, float *sine, float *cosine) {
  const float t = 4.0f * turns + 0x1.8p23f;
  const uint32_t quarter = rp_bits_f32(t);
  const float r = (4.0f * turns - (t - 0x1.8p23f)) * 0x1.921fb6p+0f;
  const float s = rp_sin_quarter_f32(r), c = rp_cos_quarter_f32(r);
  const float a = quarter & 1 ? c : s, b = quarter & 1 ? s : c;
  *sine = quarter & 2 ? -a : a;
  *cosine = (quarter + 1) & 2 ? -b : b;
}
RP_INLINE void turn_f64(double turns, double *sine, double *cosine) {
  const double t = 4.0 * turns + 0x1.8p52;
  const uint64_t quarter = rp_bits_f64(t);
  const double r = (4.0 * turns - (t - 0x1.8p52)) * 0x1.921fb54442d18p+0;
  const double s = rp_sin_quarter_f64(r), c = rp_cos_quarter_f64(r);
  const double a = quarter & 1 ? c : s, b = quarter & 1 ? s : c;
  *sine = quarter & 2 ? -a : a;
  *cosine = (quarter + 1) & 2 ? -b : b;
}

/* Pairs of elements from pairs of words; radius from one in (0, 1]. */
static void box_muller_f32(const uint32_t *words, int pairs, float *y) {
  for (int i = 0; i < pairs; i++) {
    const float u = ((float)words[2 * i] + 0.5f) * 0x1p-32f;
    const float radius = sqrtf(-2.0f * rp_log_f32(u));
    float sine, cosine;
    turn_f32(rp_uniform_f32(words[2 * i + 1]), &sine, &cosine);
    y[2 * i] = radius * cosine;
    y[2 * i + 1] = radius * sine;
  }
}
static void box_muller_f64(const uint32_t *words, int pairs, double *y) {
  for (int i = 0; i < pairs; i++) {
    const double u = uniform_f64(words[4 * i], words[4 * i + 1]);
    const double radius = sqrt(-2.0 * rp_log_f64(u + 0x1p-54));
    double sine, cosine;
    turn_f64(uniform_f64(words[4 * i + 2], words[4 * i + 3]), &sine, &cosine);
    y[2 * i] = radius * cosine;
    y[2 * i + 1] = radius * sine;
  }
}

/* Rows of ops without inputs start at multiples of RP_TILE, so that pairs are
   whole; the last one may have a member too many. */
static void randn_f32(const rp_row *row) {
  float *y = row->out, pairs[WORDS];
  source s;
  source_open(&s, row, 1);
  for (int from, n; (n = source_next(&s, &from)) > 0; y += n) {
    box_muller_f32(s.words, (n + 1) / 2, pairs);
    for (int i = 0; i < n; i++) y[i] = pairs[i];
  }
}
static void randn_f64(const rp_row *row) {
  double *y = row->out, pairs[WORDS / 2];
  source s;
  source_open(&s, row, 2);
  for (int from, n; (n = source_next(&s, &from) / 2) > 0; y += n) {
    box_muller_f64(s.words, (n + 1) / 2, pairs);
    for (int i = 0; i < n; i++) y[i] = pairs[i];
  }
}
static rp_status run_randn_f32(const rp_kernel_args *args) {
  return rp_rows_run(args, randn_f32);
}
static rp_status run_randn_f64(const rp_kernel_args *args) {
  return rp_rows_run(args, randn_f64);
}

/* ---- randint ------------------------------------------------------------- */

/* low + floor(w (high - low) / 2^64), w of 64 bits: no value's chance is off
   by more than range/2^64. */
static int64_t integer_between(int64_t low, int64_t high, const uint32_t *w) {
  const uint64_t range = (uint64_t)high - (uint64_t)low;
  const uint64_t bits = (uint64_t)w[0] << 32 | w[1];
  return (int64_t)((uint64_t)low +
                   (uint64_t)((unsigned __int128)bits * range >> 64));
}
static void randint_i32(const rp_row *row) {
  const int64_t low = row->args->ints[1], high = row->args->ints[2];
  int32_t *y = row->out;
  source s;
  source_open(&s, row, 2);
  for (int from, n; (n = source_next(&s, &from) / 2) > 0; y += n)
    for (int i = 0; i < n; i++)
      y[i] = (int32_t)integer_between(low, high, &s.words[from + 2 * i]);
}
static void randint_i64(const rp_row *row) {
  const int64_t low = row->args->ints[1], high = row->args->ints[2];
  int64_t *y = row->out;
  source s;
  source_open(&s, row, 2);
  for (int from, n; (n = source_next(&s, &from) / 2) > 0; y += n)
    for (int i = 0; i < n; i++)
      y[i] = integer_between(low, high, &s.words[from + 2 * i]);
}
static rp_status run_randint_i32(const rp_kernel_args *args) {
  return rp_rows_run(args, randint_i32);
}
static rp_status run_randint_i64(const rp_kernel_args *args) {
  return rp_rows_run(args, randint_i64);
}

/* ---- dropout ------------------------------------------------------------- */

/* uniform(word) >= p in integers: word >> 8 >= p 2^24. */
static uint32_t keep_from(double p) { return (uint32_t)ceil(p * 0x1p24); }

static void dropout_f32(const rp_row *row) {
  const double p = row->args->reals[0];
  const uint32_t bound = keep_from(p);
  const float scale = (float)(1.0 / (1.0 - p));
  const float *x = row->in[0];
  float *y = row->out;
  const int64_t stride = row->strides[0];
  source s;
  source_open(&s, row, 1);
  for (int from, n; (n = source_next(&s, &from)) > 0;
       x += n * stride, y += n) {
    const uint32_t *words = s.words + from;
#pragma GCC ivdep
    for (int i = 0; i < n; i++)
      y[i] = words[i] >> 8 >= bound ? x[i * stride] * scale : 0.0f;
  }
}
static void dropout_f64(const rp_row *row) {
  const double p = row->args->reals[0];
  const uint32_t bound = keep_from(p);
  const double scale = 1.0 / (1.0 - p);
  const double *x = row->in[0];
  double *y = row->out;
  const int64_t stride = row->strides[0];
  source s;
  source_open(&s, row, 1);
  for (int from, n; (n = source_next(&s, &from)) > 0;
       x += n * stride, y += n) {
    const uint32_t *words = s.words + from;
#pragma GCC ivdep
    for (int i = 0; i < n; i++)
      y[i] = words[i] >> 8 >= bound ? x[i * stride] * scale : 0.0;
  }
}
static rp_status run_dropout(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = dropout_f32, .f64 = dropout_f64};
  return rp_rows_run_typed(args, &rows);
}

/* ---- arange -------------------------------------------------------------- */

/* start and step are scalars of the output's dtype: rows with stride 0. */
static void arange_f32(const rp_row *row) {
  const double start = *(const float *)row->in[0];
  const double step = *(const float *)row->in[1];
  float *y = row->out;
  const int64_t n = row->n, first = row->first;
  for (int64_t i = 0; i < n; i++)
    y[i] = (float)(start + (double)(first + i) * step);
}
static void arange_f64(const rp_row *row) {
  const double start = *(const double *)row->in[0];
  const double step = *(const double *)row->in[1];
  double *y = row->out;
  const int64_t n = row->n, first = row->first;
  for (int64_t i = 0; i < n; i++)
    y[i] = start + (double)(first + i) * step;
}
static void arange_i32(const rp_row *row) {
  const uint32_t start = *(const uint32_t *)row->in[0];
  const uint32_t step = *(const uint32_t *)row->in[1];
  int32_t *y = row->out;
  const int64_t n = row->n, first = row->first;
  for (int64_t i = 0; i < n; i++)
    y[i] = (int32_t)(start + (uint32_t)(first + i) * step);
}
static void arange_i64(const rp_row *row) {
  const uint64_t start = *(const uint64_t *)row->in[0];
  const uint64_t step = *(const uint64_t *)row->in[1];
  int64_t *y = row->out;
  const int64_t n = row->n, first = row->first;
  for (int64_t i = 0; i < n; i++)
    y[i] = (int64_t)(start + (uint64_t)(first + i) * step);
}
static rp_status run_arange(const rp_kernel_args *args) {
  static const rp_rows rows = {arange_f32, arange_f64, arange_i32, arange_i64,
                               NULL};
  return rp_rows_run_typed(args, &rows);
}

/* ---- rows ---------------------------------------------------------------- */

extern const rp_op rp_op_rand, rp_op_randn, rp_op_randint, rp_op_dropout,
    rp_op_arange;

static const rp_kernel rows[] = {
    {&rp_op_rand, RP_F32, run_rand_f32, NULL, NULL},
    {&rp_op_rand, RP_F64, run_rand_f64, NULL, NULL},
    {&rp_op_randn, RP_F32, run_randn_f32, NULL, NULL},
    {&rp_op_randn, RP_F64, run_randn_f64, NULL, NULL},
    {&rp_op_randint, RP_I32, run_randint_i32, NULL, NULL},
    {&rp_op_randint, RP_I64, run_randint_i64, NULL, NULL},
    {&rp_op_dropout, RP_F32, run_dropout, NULL, NULL},
    {&rp_op_dropout, RP_F64, run_dropout, NULL, NULL},
    {&rp_op_dropout, RP_BF16, run_dropout, NULL, NULL},
    {&rp_op_arange, RP_F32, run_arange, NULL, NULL},
    {&rp_op_arange, RP_F64, run_arange, NULL, NULL},
    {&rp_op_arange, RP_I32, run_arange, NULL, NULL},
    {&rp_op_arange, RP_I64, run_arange, NULL, NULL},
};
const rp_kernel_table rp_cpu_create = {rows, sizeof rows / sizeof *rows};
