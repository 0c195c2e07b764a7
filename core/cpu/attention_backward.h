/* Backward: one head. Blocks of queries are the outer loop; a block's part of
   dq is summed over the tiles of keys before it is written, those of dk and
   dv over the blocks (Dao, FlashAttention-2, 2023, with the loops the other
   way round: no sum is shared between threads).

     w = exp(s - lse)    a = dropout(w)      dv = a^T dout
     da = dout v^T       ds = w (dropout(da) - delta),
     delta[i] = sum_j w dropout(da) = dout[i] . out[i]
     dq = scale ds k     dk = ds^T (scale q) */
#include "cpu/attention_forward.h"

/* Of a strip: rows [lane][d] and columns [d][lane], and a tile's weights and
   gradients of scores, [key][lane]. */
typedef struct backward_strip {
  real *q_rows, *dy_rows, *q, *dy, *dq, *weights, *ds;
  real lse[LANES], delta[LANES];
  int64_t first, valid, n;
} backward_strip;

static int64_t backward_bytes(const rp_attention *a) {
  const int64_t d = padded(a->depth), e = padded(a->value_depth);
  const int64_t reals =
      (round_up(a->keys, ROWS) + tile_of(a)) * (d + e) + LANES * (d + e) +
      strips_of(a) * LANES * (3 * d + 2 * e + 2 * tile_of(a));
  const int64_t bytes = reals * (int64_t)sizeof(real) + random_bytes(a);
  return round_up(bytes, RP_ALIGN) +
         round_up(sizeof(backward_strip[STRIPS]), RP_ALIGN);
}

static void strip_open(const rp_attention *a, int64_t head, real *rows,
                       backward_strip *x) {
  const int64_t d = padded(a->depth), e = padded(a->value_depth);
  const int64_t i = x->first;
  read_rows(a, &a->q, head, i, x->valid, LANES, a->depth, (real)a->scale,
            x->q_rows);
  transpose(x->q_rows, d, LANES, d, x->q, LANES);
  read_rows(a, &a->dout, head, i, x->valid, LANES, a->value_depth, 1,
            x->dy_rows);
  transpose(x->dy_rows, e, LANES, e, x->dy, LANES);
  read_rows(a, &a->out, head, i, x->valid, LANES, a->value_depth, 1, rows);
  const real *lse = lse_at(a, head, i);
  for (int64_t l = 0; l < LANES; l++) {
    x->delta[l] =
        sizeof(real) == 4
            ? (real)rp_dot_f32((const float *)(rows + l * e),
                               (const float *)(x->dy_rows + l * e), e)
            : (real)rp_dot_f64((const double *)(rows + l * e),
                               (const double *)(x->dy_rows + l * e), e);
    x->lse[l] = l < x->valid ? lse[l] : 0;
  }
  memset(x->dq, 0, (size_t)(LANES * d) * sizeof(real));
}

/* From scores (in weights) and da (in ds) to dropped weights and ds. */
static void soften_again(int64_t n, const backward_strip *x) {
  real *w = x->weights, *ds = x->ds;
  for (int64_t j = 0; j < n; j++, w += LANES, ds += LANES)
#pragma GCC ivdep
    for (int l = 0; l < LANES; l++) {
      const real e = exp_down(w[l] - x->lse[l]);
      ds[l] = e * (ds[l] - x->delta[l]);
      w[l] = e;
    }
}

static void soften_again_dropped(int64_t n, const backward_strip *x,
                                 const uint32_t *random, keeping keep) {
  real *w = x->weights, *ds = x->ds;
  for (int64_t j = 0; j < n; j++, w += LANES, ds += LANES, random += LANES)
#pragma GCC ivdep
    for (int l = 0; l < LANES; l++) {
      const real e = exp_down(w[l] - x->lse[l]);
      const real kept = random[l] >= keep.from ? keep.factor : 0;
      ds[l] = e * (ds[l] * kept - x->delta[l]);
      w[l] = e * kept;
    }
}

/* sum[j][c] += sum_i w[j][i] rows[i][c] over the block's strips, for n keys
   from j on. */
static void scatter(const rp_attention *a, int64_t n_strips,
                    const backward_strip *strips, bool is_value, int64_t j,
                    int64_t n, real *sum) {
  const int64_t columns = padded(is_value ? a->value_depth : a->depth);
  for (int64_t k = 0; k < n; k += ROWS)
    for (int64_t c = 0; c < columns; c += LANES) {
      vec block[ROWS][2];
      block_load(sum + k * columns + c, columns, block);
      for (int64_t t = 0; t < n_strips; t++) {
        const backward_strip *x = &strips[t];
        if (k >= x->n) continue;
        const int64_t from = most(0, queries_from(a, j + k) - x->first);
        const real *w = is_value ? x->weights : x->ds;
        const real *rows = is_value ? x->dy_rows : x->q_rows;
        multiply(x->valid - from, w + k * LANES + from, LANES, 1,
                 rows + from * columns + c, columns, block);
      }
      block_store(sum + k * columns + c, columns, block);
    }
}

/* What the block from query i on reads, or the next head's first one. */
static void expect_block(const rp_attention *a, int64_t head, int64_t i,
                         ahead *next) {
  if (i >= a->queries) {
    if (++head == a->batch * a->heads) return;
    i = 0;
  }
  expect(a, &a->q, head, i, BLOCK, a->queries, a->depth, next);
  expect(a, &a->dout, head, i, BLOCK, a->queries, a->value_depth, next);
  expect(a, &a->out, head, i, BLOCK, a->queries, a->value_depth, next);
  expect_tile(a, head, 0, next);
}

static void backward(const rp_attention *a, int64_t head, void *scratch) {
  const int64_t d = padded(a->depth), e = padded(a->value_depth);
  const int64_t all_keys = round_up(a->keys, ROWS);
  const keeping keep = keeping_of(a);
  backward_strip *strips = scratch;
  real *at = (real *)((char *)scratch +
                      round_up(sizeof(backward_strip[STRIPS]), RP_ALIGN));
  real *dk = at, *dv = at += all_keys * d;
  memset(dk, 0, (size_t)(all_keys * (d + e)) * sizeof(real));
  real *keys = at += all_keys * e;
  real *values = at += tile_of(a) * d;
  real *rows = at += tile_of(a) * e;
  at += LANES * (d + e);
  for (int64_t t = 0; t < strips_of(a); t++) {
    backward_strip *x = &strips[t];
    x->q_rows = at;
    x->q = at += LANES * d;
    x->dq = at += LANES * d;
    x->dy_rows = at += LANES * d;
    x->dy = at += LANES * e;
    x->weights = at += LANES * e;
    x->ds = at += tile_of(a) * LANES;
    at += tile_of(a) * LANES;
  }
  uint32_t *random = (uint32_t *)at;
  real one[LANES];
  for (int l = 0; l < LANES; l++) one[l] = 1;

  for (int64_t first = 0; first < a->queries; first += BLOCK) {
    const int64_t n_strips =
        least(STRIPS, (a->queries - first + LANES - 1) / LANES);
    for (int64_t t = 0; t < n_strips; t++) {
      strips[t].first = first + t * LANES;
      strips[t].valid = least(LANES, a->queries - strips[t].first);
      strip_open(a, head, rows, &strips[t]);
    }
    const int64_t last = least(first + BLOCK, a->queries) - 1;
    const int64_t limit = keys_until(a, last);
    for (int64_t j = 0; j < limit; j += KEYS) {
      const int64_t tile = least(KEYS, limit - j);
      const int64_t whole = round_up(tile, ROWS);
      read_rows(a, &a->k, head, j, tile, whole, a->depth, 1, keys);
      read_rows(a, &a->v, head, j, tile, whole, a->value_depth, 1, values);
      ahead next = {.n = 0};
      if (j + KEYS < limit) expect_tile(a, head, j + KEYS, &next);
      else expect_block(a, head, first + BLOCK, &next);
      for (int64_t t = 0; t < n_strips; t++) {
        backward_strip *x = &strips[t];
        const int64_t i = x->first;
        x->n = most(0, least(tile, keys_until(a, i + x->valid - 1) - j));
        if (x->n == 0) continue;
        const int64_t low = keys_below(a, i, j, x->n);
        score(x->n, low, a->depth, keys, d, x->q, x->weights, &next);
        hide(a, head, i, x->valid, j, x->n, x->weights);
        score(x->n, low, a->value_depth, values, e, x->dy, x->ds, &next);
        if (a->p > 0) {
          draw(a, head * a->queries + i, j, x->n, random);
          soften_again_dropped(x->n, x, random, keep);
        } else {
          soften_again(x->n, x);
        }
        const size_t rest =
            (size_t)((round_up(x->n, ROWS) - x->n) * LANES) * sizeof(real);
        memset(x->weights + x->n * LANES, 0, rest);
        memset(x->ds + x->n * LANES, 0, rest);
        gather(x->n, low, a->depth, keys, d, x->ds, one, x->dq);
      }
      scatter(a, n_strips, strips, true, j, tile, dv + j * e);
      scatter(a, n_strips, strips, false, j, tile, dk + j * d);
    }
    for (int64_t t = 0; t < n_strips; t++) {
      const backward_strip *x = &strips[t];
      for (int64_t k = 0; k < a->depth * LANES; k++)
        x->dq[k] *= (real)a->scale;
      transpose(x->dq, LANES, d, LANES, rows, d);
      write_rows(a, &a->dq, head, x->first, x->valid, a->depth, rows);
    }
  }
  write_rows(a, &a->dk, head, 0, a->keys, a->depth, dk);
  write_rows(a, &a->dv, head, 0, a->keys, a->value_depth, dv);
}
