/* What attention's loops are made of, for one number type `real`: vectors, a
   product of small blocks, copies in and out.

   Queries lie across the lanes of vectors: a strip is LANES queries, and
   scores are held transposed, s[key][query], so that maxima and sums over
   keys go lane by lane and a softmax needs no horizontal step. A tile is KEYS
   keys. Products are of ROWS rows by LANES columns, accumulated in registers
   by fused multiply-adds where there are any: the one place, with the files
   that include it, where the compiler may contract. */
#include <string.h>

#include "base/random.h"
#include "cpu/attention.h"
#include "cpu/lanes.h"

#if defined __AVX512F__
enum { VECTOR_BYTES = 64, ROWS = 8 };
#elif defined __AVX__
enum { VECTOR_BYTES = 32, ROWS = 4 };
#else
enum { VECTOR_BYTES = 16, ROWS = 4 };
#endif

enum { FETCH = 16 }; /* lines asked for at a time */

enum {
  V = VECTOR_BYTES / sizeof(real),
  LANES = 2 * V,
  KEYS = 64,
  STRIPS = 4 /* strips that a tile of keys is read for */
};

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));

RP_INLINE vec load(const real *x) {
  vec v;
  memcpy(&v, x, sizeof v);
  return v;
}
RP_INLINE void store(real *x, vec v) { memcpy(x, &v, sizeof v); }

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t round_up(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

/* Strips of a block and keys of a tile, fewer for small problems. */
static inline int64_t strips_of(const rp_attention *a) {
  return least(STRIPS, (a->queries + LANES - 1) / LANES);
}
static inline int64_t tile_of(const rp_attention *a) {
  return least(KEYS, round_up(a->keys, ROWS));
}
static inline int64_t random_bytes(const rp_attention *a) {
  return a->p > 0 ? tile_of(a) * LANES * (int64_t)sizeof(uint32_t) : 0;
}

/* ---- what will be read next ---------------------------------------------- */

/* Rows lie far apart, so the processor does not see the next one coming. What
   the next tile reads is asked for line by line between this one's products:
   in one go there would be more misses than it can wait for at a time. */
typedef struct ahead {
  struct { const char *row; int64_t step, bytes, rows; } runs[5];
  int64_t line;
  int run, n;
} ahead;

static inline int64_t offset_of(const rp_attention_array *x, int64_t b,
                                int64_t h, int64_t t) {
  return b * x->b + h * x->h + t * x->t;
}

/* Rows t .. t + n - 1, as far as there are any among `all`. */
static void expect(const rp_attention *a, const rp_attention_array *x,
                   int64_t head, int64_t t, int64_t n, int64_t all,
                   int64_t width, ahead *next) {
  const int64_t size = a->dtype == RP_BF16 ? 2 : sizeof(real);
  if (least(n, all - t) <= 0 || width == 0) return;
  next->runs[next->n].row =
      (const char *)x->data +
      offset_of(x, head / a->heads, head % a->heads, t) * size;
  next->runs[next->n].step = x->t * size;
  next->runs[next->n].bytes = width * x->d * size;
  next->runs[next->n++].rows = least(n, all - t);
}
static void expect_tile(const rp_attention *a, int64_t head, int64_t j,
                        ahead *next) {
  expect(a, &a->k, head, j, KEYS, a->keys, a->depth, next);
  expect(a, &a->v, head, j, KEYS, a->keys, a->value_depth, next);
}

/* Asks for some lines of what is expected. */
static inline void fetch(ahead *next, int lines) {
  for (; lines > 0 && next->run < next->n; lines--) {
    __builtin_prefetch(next->runs[next->run].row + next->line);
    next->line += 64;
    if (next->line < next->runs[next->run].bytes) continue;
    next->line = 0;
    next->runs[next->run].row += next->runs[next->run].step;
    if (--next->runs[next->run].rows == 0) next->run++;
  }
}

/* ---- products ----------------------------------------------------------- */

/* c[r][l] += sum_k a(r, k) b[k][l] for ROWS rows and LANES columns. */
RP_INLINE void multiply(int64_t n, const real *a, int64_t a_row,
                        int64_t a_step, const real *b, int64_t b_step,
                        vec c[ROWS][2]) {
  for (int64_t k = 0; k < n; k++) {
    const vec b0 = load(b), b1 = load(b + V);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
      const real x = a[r * a_row];
      c[r][0] += x * b0;
      c[r][1] += x * b1;
    }
    a += a_step;
    b += b_step;
  }
}

/* The same for the upper V columns alone. */
RP_INLINE void multiply_upper(int64_t n, const real *a, int64_t a_row,
                              int64_t a_step, const real *b, int64_t b_step,
                              vec c[ROWS][2]) {
  for (int64_t k = 0; k < n; k++) {
    const vec b1 = load(b + V);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) c[r][1] += a[r * a_row] * b1;
    a += a_step;
    b += b_step;
  }
}

RP_INLINE void block_clear(vec c[ROWS][2]) {
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) c[r][0] = c[r][1] = (vec){0};
}
RP_INLINE void block_load(const real *at, int64_t row, vec c[ROWS][2]) {
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
    c[r][0] = load(at + r * row);
    c[r][1] = load(at + r * row + V);
  }
}
RP_INLINE void block_store(real *at, int64_t row, vec c[ROWS][2]) {
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
    store(at + r * row, c[r][0]);
    store(at + r * row + V, c[r][1]);
  }
}

/* s[j][lane] = sum_d keys[j][d] queries[d][lane] for j < n, rounded up to
   ROWS: scores, or the weights' gradients. From key `low` on only the upper V
   lanes attend; the others get 0. */
static void score(int64_t n, int64_t low, int64_t depth, const real *keys,
                  int64_t row, const real *queries, real *s, ahead *next) {
  for (int64_t j = 0; j < n; j += ROWS) {
    fetch(next, FETCH);
    vec c[ROWS][2];
    block_clear(c);
    if (j < low) multiply(depth, keys + j * row, row, 1, queries, LANES, c);
    else multiply_upper(depth, keys + j * row, row, 1, queries, LANES, c);
    block_store(s + j * LANES, LANES, c);
  }
}

/* y[d][lane] = y[d][lane] factor[lane] + sum_j values[j][d] w[j][lane] for
   d < depth, rounded up to ROWS; w is 0 in the lower lanes from `low` on. */
static void gather(int64_t n, int64_t low, int64_t depth, const real *values,
                   int64_t row, const real *w, const real *factor, real *y) {
  const vec f0 = load(factor), f1 = load(factor + V);
  for (int64_t d = 0; d < depth; d += ROWS) {
    vec c[ROWS][2];
    block_load(y + d * LANES, LANES, c);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
      c[r][0] *= f0;
      c[r][1] *= f1;
    }
    multiply(low, values + d, 1, row, w, LANES, c);
    multiply_upper(n - low, values + low * row + d, 1, row, w + low * LANES,
                   LANES, c);
    block_store(y + d * LANES, LANES, c);
  }
}

/* ---- in and out --------------------------------------------------------- */

/* Columns that a row of `width` numbers is held in. */
static inline int64_t padded(int64_t width) { return round_up(width, LANES); }

RP_INLINE real widen(const void *x, bool narrow, int64_t i) {
  return narrow ? (real)rp_bf16_to_f32(((const uint16_t *)x)[i])
                : ((const real *)x)[i];
}

/* Rows t .. t + n - 1 as y[i][d], times scale; zeros in the padding and up to
   `rows`. */
RP_INLINE void read_rows_as(bool narrow, const rp_attention_array *x,
                            int64_t offset, int64_t n, int64_t rows,
                            int64_t width, real scale, real *y) {
  const int64_t columns = padded(width);
  const size_t size = narrow ? sizeof(uint16_t) : sizeof(real);
  for (int64_t i = 0; i < n; i++, y += columns) {
    const void *from =
        (const char *)x->data + (size_t)(offset + i * x->t) * size;
    if (x->d == 1)
      for (int64_t d = 0; d < width; d++) y[d] = widen(from, narrow, d) * scale;
    else
      for (int64_t d = 0; d < width; d++)
        y[d] = widen(from, narrow, d * x->d) * scale;
    for (int64_t d = width; d < columns; d++) y[d] = 0;
  }
  if (rows > n) memset(y, 0, (size_t)((rows - n) * columns) * sizeof *y);
}
static void read_rows(const rp_attention *a, const rp_attention_array *x,
                      int64_t head, int64_t t, int64_t n, int64_t rows,
                      int64_t width, real scale, real *y) {
  const int64_t at = offset_of(x, head / a->heads, head % a->heads, t);
  if (a->dtype == RP_BF16)
    read_rows_as(true, x, at, n, rows, width, scale, y);
  else
    read_rows_as(false, x, at, n, rows, width, scale, y);
}

/* Outputs are contiguous in their last dim. */
static void write_rows(const rp_attention *a, const rp_attention_array *x,
                       int64_t head, int64_t t, int64_t n, int64_t width,
                       const real *y) {
  const int64_t columns = padded(width);
  int64_t at = offset_of(x, head / a->heads, head % a->heads, t);
  for (int64_t i = 0; i < n; i++, y += columns, at += x->t)
    if (a->dtype == RP_BF16) {
      uint16_t *to = (uint16_t *)x->data + at;
      for (int64_t d = 0; d < width; d++) to[d] = rp_f32_to_bf16((float)y[d]);
    } else {
      memcpy((real *)x->data + at, y, (size_t)width * sizeof *y);
    }
}

/* The logarithms of a head's denominators from query i on. */
static inline real *lse_at(const rp_attention *a, int64_t head, int64_t i) {
  return (real *)a->lse.data +
         offset_of(&a->lse, head / a->heads, head % a->heads, i);
}

typedef __typeof__((vec){0} < (vec){0}) lanes;

/* Step s of a transposition: pairs of rows s apart trade blocks of s. */
RP_INLINE void trade(vec x[V], int s) {
  lanes low, high;
  for (int l = 0; l < V; l++) {
    low[l] = l & s ? V + l - s : l;
    high[l] = l & s ? V + l : l + s;
  }
#pragma GCC unroll 16
  for (int r = 0; r < V; r++) {
    if (r & s) continue;
    const vec a = x[r], b = x[r + s];
    x[r] = __builtin_shuffle(a, b, low);
    x[r + s] = __builtin_shuffle(a, b, high);
  }
}

/* y[column][row] = x[row][column]; both counts are multiples of V. */
static void transpose(const real *x, int64_t x_row, int64_t rows,
                      int64_t columns, real *y, int64_t y_row) {
  for (int64_t i = 0; i < rows; i += V)
    for (int64_t j = 0; j < columns; j += V) {
      vec block[V];
#pragma GCC unroll 16
      for (int r = 0; r < V; r++) block[r] = load(x + (i + r) * x_row + j);
      trade(block, 1);
      if (V > 2) trade(block, 2);
      if (V > 4) trade(block, 4);
      if (V > 8) trade(block, 8);
#pragma GCC unroll 16
      for (int r = 0; r < V; r++) store(y + (j + r) * y_row + i, block[r]);
    }
}

/* ---- who attends -------------------------------------------------------- */

/* Keys that queries up to i may attend to: the first so many. */
static inline int64_t keys_until(const rp_attention *a, int64_t i) {
  if (!a->causal) return a->keys;
  return most(0, least(a->keys, i + a->keys - a->queries + 1));
}
/* The first query that may attend to key j. */
static inline int64_t queries_from(const rp_attention *a, int64_t j) {
  return a->causal ? most(0, j - (a->keys - a->queries)) : 0;
}

/* The keys, of n from j on, that a strip's lower lanes may attend to, rounded
   up to ROWS: the first so many. */
static inline int64_t keys_below(const rp_attention *a, int64_t i, int64_t j,
                                 int64_t n) {
  return least(n, round_up(most(0, keys_until(a, i + V - 1) - j), ROWS));
}

/* Scores of n keys from j on, for `valid` queries from i on: -inf where they
   do not attend. */
static void hide(const rp_attention *a, int64_t head, int64_t i,
                 int64_t valid, int64_t j, int64_t n, real *s) {
  if (a->causal)
    for (int64_t k = 0; k < n; k++) {
      const int64_t from = least(queries_from(a, j + k) - i, LANES);
      for (int64_t l = 0; l < from; l++) s[k * LANES + l] = (real)-INFINITY;
    }
  if (a->mask.data == NULL) return;
  const uint8_t *mask =
      (const uint8_t *)a->mask.data + j * a->mask.d +
      offset_of(&a->mask, head / a->heads, head % a->heads, i);
  for (int64_t k = 0; k < n; k++, mask += a->mask.d)
    if (a->mask.t == 0) {
      if (*mask) continue;
      for (int64_t l = 0; l < LANES; l++) s[k * LANES + l] = (real)-INFINITY;
    } else {
      for (int64_t l = 0; l < valid; l++)
        if (!mask[l * a->mask.t]) s[k * LANES + l] = (real)-INFINITY;
    }
}

/* ---- dropout ------------------------------------------------------------ */

enum { W = VECTOR_BYTES / 8 };
typedef uint64_t words __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t halves __attribute__((vector_size(VECTOR_BYTES / 2)));

#if defined __AVX512F__
#include <immintrin.h>
RP_INLINE words low_product(words a, uint32_t b) {
  return (words)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
}
#elif defined __AVX2__
#include <immintrin.h>
RP_INLINE words low_product(words a, uint32_t b) {
  return (words)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
}
#else
RP_INLINE words low_product(words a, uint32_t b) {
  return (a & 0xffffffffu) * (uint64_t)b;
}
#endif

/* rp_philox's second counter half and round keys, in every lane. */
typedef struct philox {
  words c2, c3, k0[10], k1[10];
} philox;

RP_INLINE philox philox_of(const rp_attention *a) {
  philox f = {.c2 = (words){0} + (uint32_t)a->stream,
              .c3 = (words){0} + (uint32_t)(a->stream >> 32)};
  uint32_t k0 = (uint32_t)a->seed, k1 = (uint32_t)(a->seed >> 32);
  for (int round = 0; round < 10; round++) {
    f.k0[round] = (words){0} + k0;
    f.k1[round] = (words){0} + k1;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return f;
}

/* Word r of block[lane] at out[r * LANES + lane], r < 4: rp_philox for W
   counters at once. The upper halves of c0..c3 may hold anything. */
RP_INLINE void philox_lanes(const philox *f, words block, uint32_t *out) {
  words c0 = block, c1 = block >> 32, c2 = f->c2, c3 = f->c3;
#pragma GCC unroll 10
  for (int round = 0; round < 10; round++) {
    const words p0 = low_product(c0, 0xD2511F53u);
    const words p1 = low_product(c2, 0xCD9E8D57u);
    c0 = p1 >> 32 ^ c1 ^ f->k0[round];
    c1 = p1;
    c2 = p0 >> 32 ^ c3 ^ f->k1[round];
    c3 = p0;
  }
  const words c[4] = {c0, c1, c2, c3};
  for (int r = 0; r < 4; r++) {
    const halves narrow = __builtin_convertvector(c[r], halves);
    memcpy(out + r * LANES, &narrow, sizeof narrow);
  }
}

/* Words of n keys from j on (a multiple of 4) for the strip whose first query
   is row `row` of all. */
static void draw(const rp_attention *a, int64_t row, int64_t j, int64_t n,
                 uint32_t *out) {
  const int64_t blocks = (a->keys + 3) / 4;
  const philox f = philox_of(a);
  for (int l = 0; l < LANES; l += W) {
    words first;
    for (int w = 0; w < W; w++)
      first[w] = (uint64_t)((row + l + w) * blocks + j / 4);
    for (int64_t k = 0; k < n; k += 4)
      philox_lanes(&f, first + (uint64_t)(k / 4), out + k * LANES + l);
  }
}

/* A word from here on keeps; what is kept is multiplied by `factor`. */
typedef struct keeping {
  uint32_t from;
  real factor;
} keeping;

static keeping keeping_of(const rp_attention *a) {
  const double from = ceil(a->p * 0x1p24);
  if (from >= 0x1p24) return (keeping){UINT32_MAX, 0};
  return (keeping){(uint32_t)from << 8, (real)(1 / (1 - a->p))};
}
