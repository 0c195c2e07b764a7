/* Forward: a block of queries of one head against all its keys, tile by tile,
   with the softmax's maximum and denominator so far (Milakov & Gimelshein,
   2018; Dao et al., FlashAttention, 2022). */
#include "cpu/attention_tile.h"

/* What a strip has seen: greatest score, sum of exp, sum of weighted values;
   and its queries, [d][lane]. */
typedef struct strip {
  real *queries, *sum_values;
  real top[LANES], sum[LANES];
} strip;

enum { BLOCK = STRIPS * LANES };

static int64_t forward_items(const rp_attention *a) {
  return a->batch * a->heads * ((a->queries + BLOCK - 1) / BLOCK);
}

static int64_t forward_bytes(const rp_attention *a) {
  const int64_t d = padded(a->depth), e = padded(a->value_depth);
  const int64_t reals = (strips_of(a) + 1) * LANES * (d + e) +
                        tile_of(a) * (d + e + LANES);
  const int64_t bytes = reals * (int64_t)sizeof(real) + random_bytes(a);
  return round_up(bytes, RP_ALIGN) + round_up(sizeof(strip[STRIPS]), RP_ALIGN);
}

static inline real exp_down(real x) {
  return sizeof(real) == 4 ? (real)rp_exp_down_f32((float)x)
                           : (real)rp_exp_f64((double)x);
}

/* Scores become exp(s - top); `sum` and `factor` (of what was summed under
   the last maximum) follow. */
static void soften(int64_t n, real *s, strip *x, real *factor) {
  real shift[LANES];
  real top[LANES];
  memcpy(top, x->top, sizeof top);
  for (int64_t j = 0; j < n; j++)
    for (int l = 0; l < LANES; l++)
      top[l] = s[j * LANES + l] > top[l] ? s[j * LANES + l] : top[l];
  for (int l = 0; l < LANES; l++) {
    /* A query that has attended to nothing so far. */
    shift[l] = top[l] > (real)-INFINITY ? top[l] : 0;
    factor[l] = exp_down(x->top[l] - shift[l]);
    x->top[l] = top[l];
  }
  real sum[LANES] = {0};
  for (int64_t j = 0; j < n; j++)
    for (int l = 0; l < LANES; l++) {
      const real e = exp_down(s[j * LANES + l] - shift[l]);
      s[j * LANES + l] = e;
      sum[l] += e;
    }
  for (int l = 0; l < LANES; l++) x->sum[l] = x->sum[l] * factor[l] + sum[l];
}

static void drop(int64_t n, const uint32_t *random, uint32_t from, real *s) {
#pragma GCC ivdep
  for (int64_t k = 0; k < n * LANES; k++) s[k] = random[k] >= from ? s[k] : 0;
}

static void finish(const rp_attention *a, int64_t head, int64_t i, strip *x,
                   real keep, real *rows) {
  const int64_t e = padded(a->value_depth), n = least(LANES, a->queries - i);
  real factor[LANES];
  for (int l = 0; l < LANES; l++)
    factor[l] = x->sum[l] == 0 ? 0 : keep / x->sum[l];
  for (int64_t d = 0; d < a->value_depth; d++)
    for (int l = 0; l < LANES; l++) x->sum_values[d * LANES + l] *= factor[l];
  transpose(x->sum_values, LANES, e, LANES, rows, e);
  write_rows(a, &a->out, head, i, n, a->value_depth, rows);
  real *lse = lse_at(a, head, i);
  for (int64_t l = 0; l < n; l++) {
    const real sum = x->sum[l];
    const real log = sizeof(real) == 4 ? (real)rp_log_f32((float)sum)
                                       : (real)rp_log_f64((double)sum);
    lse[l] = sum == 0 ? 0 : x->top[l] + log;
  }
}

static void expect_item(const rp_attention *a, int64_t item, ahead *next) {
  const int64_t blocks = (a->queries + BLOCK - 1) / BLOCK;
  if (item == forward_items(a)) return;
  expect(a, &a->q, item / blocks, item % blocks * BLOCK, BLOCK, a->queries,
         a->depth, next);
  expect_tile(a, item / blocks, 0, next);
}

static void forward(const rp_attention *a, int64_t item, void *scratch) {
  const int64_t blocks = (a->queries + BLOCK - 1) / BLOCK;
  const int64_t first = item % blocks * BLOCK, head = item / blocks;
  const int64_t d = padded(a->depth), e = padded(a->value_depth);
  const keeping keep = keeping_of(a);
  strip *strips = scratch;
  real *at = (real *)((char *)scratch +
                      round_up(sizeof(strip[STRIPS]), RP_ALIGN));
  real *rows = at;
  real *keys = at += LANES * (d + e);
  real *values = at += tile_of(a) * d;
  real *s = at += tile_of(a) * e;
  at += tile_of(a) * LANES;
  const int64_t n_strips =
      least(STRIPS, (a->queries - first + LANES - 1) / LANES);
  for (int64_t t = 0; t < n_strips; t++) {
    strip *x = &strips[t];
    const int64_t i = first + t * LANES;
    x->queries = at;
    x->sum_values = at += LANES * d;
    at += LANES * e;
    read_rows(a, &a->q, head, i, least(LANES, a->queries - i), LANES,
              a->depth, (real)a->scale, rows);
    transpose(rows, d, LANES, d, x->queries, LANES);
    memset(x->sum_values, 0, (size_t)(LANES * e) * sizeof(real));
    for (int l = 0; l < LANES; l++) {
      x->top[l] = (real)-INFINITY;
      x->sum[l] = 0;
    }
  }
  uint32_t *random = (uint32_t *)at;
  const int64_t last = least(first + BLOCK, a->queries) - 1;
  const int64_t limit = keys_until(a, last);
  for (int64_t j = 0; j < limit; j += KEYS) {
    const int64_t tile = least(KEYS, limit - j);
    read_rows(a, &a->k, head, j, tile, round_up(tile, ROWS), a->depth, 1, keys);
    read_rows(a, &a->v, head, j, tile, tile, a->value_depth, 1, values);
    ahead next = {.n = 0};
    if (j + KEYS < limit) expect_tile(a, head, j + KEYS, &next);
    else expect_item(a, item + 1, &next);
    for (int64_t t = 0; t < n_strips; t++) {
      strip *x = &strips[t];
      const int64_t i = first + t * LANES;
      const int64_t valid = least(LANES, a->queries - i);
      const int64_t n = least(tile, keys_until(a, i + valid - 1) - j);
      if (n <= 0) continue;
      const int64_t low = keys_below(a, i, j, n);
      real factor[LANES];
      score(n, low, a->depth, keys, d, x->queries, s, &next);
      hide(a, head, i, valid, j, n, s);
      soften(n, s, x, factor);
      if (a->p > 0) {
        draw(a, head * a->queries + i, j, n, random);
        drop(n, random, keep.from, s);
      }
      gather(n, low, a->value_depth, values, e, s, factor, x->sum_values);
    }
  }
  for (int64_t t = 0; t < n_strips; t++)
    finish(a, head, first + t * LANES, &strips[t],
           a->p > 0 ? keep.factor : 1, rows);
}
