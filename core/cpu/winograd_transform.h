/* F(4x4, 3x3) in vectors over channels: one-dimensional passes, and both
   dimensions by one after the other.

   The matrices are Cook and Toom's for the points 0, a, -a, b, -b and
   infinity, with a = 5/8 and b = 3/2: every constant of B and A is exact in
   f32, and the error is half of that with the usual 1 and 2, about 2.5 times
   a direct sum's. Compiled with contraction: one rounding for a product and a
   sum. */
#ifndef RP_CPU_WINOGRAD_TRANSFORM_H
#define RP_CPU_WINOGRAD_TRANSFORM_H

#include <stdint.h>
#include <string.h>

#include "base/vecmath.h"

enum { TILE = 4, KERNEL = 3, BOX = TILE + KERNEL - 1, LANES = 16 };

/* Sixteen lanes whatever the processor's vectors are. */
typedef float vec __attribute__((vector_size(LANES * sizeof(float))));

/* By address: how a vector is handed over by value depends on the processor
   that is compiled for. */
RP_INLINE void rp_vec_load(vec *v, const float *x) {
  memcpy(v, x, sizeof *v);
}
RP_INLINE void rp_vec_store(float *x, const vec *v) {
  memcpy(x, v, sizeof *v);
}

/* ---- channels across lanes ----------------------------------------------- */

/* Rows i and i + 8 alternate in rows 2 i and 2 i + 1: a row's and a column's
   number, written in one, turn by a bit. */
RP_INLINE void rp_vec_turn(const vec *from, vec *to) {
  for (int i = 0; i < LANES / 2; i++) {
    const vec a = from[i], b = from[i + LANES / 2];
    to[2 * i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4,
                                        20, 5, 21, 6, 22, 7, 23);
    to[2 * i + 1] = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11,
                                            27, 12, 28, 13, 29, 14, 30, 15,
                                            31);
  }
}

RP_INLINE void rp_vec_transpose(vec *rows) {
  vec other[LANES];
  rp_vec_turn(rows, other);
  rp_vec_turn(other, rows);
  rp_vec_turn(rows, other);
  rp_vec_turn(other, rows);
}

/* Sixteen planes, `area` apart: n neighbouring values of each to n vectors. */
static inline void rp_vec_gather(const float *x, int64_t area, int64_t n,
                                 vec *to) {
  if (n < LANES) {
    for (int64_t i = 0; i < n; i++)
      for (int l = 0; l < LANES; l++) to[i][l] = x[l * area + i];
    return;
  }
  for (int64_t i = 0; i < n; i += LANES) {
    const int64_t at = i + LANES <= n ? i : n - LANES;
    vec rows[LANES];
    for (int l = 0; l < LANES; l++) rp_vec_load(&rows[l], x + l * area + at);
    rp_vec_transpose(rows);
    for (int l = 0; l < LANES; l++) to[at + l] = rows[l];
  }
}

/* The reverse. */
static inline void rp_vec_scatter(const vec *from, int64_t n, float *x,
                                  int64_t area) {
  if (n < LANES) {
    for (int64_t i = 0; i < n; i++)
      for (int l = 0; l < LANES; l++) x[l * area + i] = from[i][l];
    return;
  }
  for (int64_t i = 0; i < n; i += LANES) {
    const int64_t at = i + LANES <= n ? i : n - LANES;
    vec rows[LANES];
    for (int l = 0; l < LANES; l++) rows[l] = from[at + l];
    rp_vec_transpose(rows);
    for (int l = 0; l < LANES; l++) rp_vec_store(x + l * area + at, &rows[l]);
  }
}

/* ---- passes ------------------------------------------------------------- */

static const float rp_a = 0.625f, rp_b = 1.5f;
static const float rp_a2 = 0.390625f, rp_b2 = 2.25f;
static const float rp_a3 = 0.244140625f, rp_b3 = 3.375f;
static const float rp_sum = 2.640625f, rp_product = 0.87890625f;
/* Of G: 1 over (0 - p)'s product over the other points p, and over those of
   a and of b. */
static const float rp_at_0 = (float)(1 / 0.87890625);
static const float rp_at_a = (float)(1 / (2 * 0.390625 * (0.390625 - 2.25)));
static const float rp_at_b = (float)(1 / (2 * 2.25 * (2.25 - 0.390625)));

/* Reads x[0], x[s], x[2 s] ..., writes likewise at steps of t. */
typedef void rp_pass(const vec *x, int64_t s, vec *y, int64_t t);

/* B': six to six. */
RP_INLINE void rp_values_pass(const vec *x, int64_t s, vec *y,
                              int64_t t) {
  const vec x1 = x[s], x2 = x[2 * s], x3 = x[3 * s], x4 = x[4 * s];
  const vec even_a = x4 - rp_b2 * x2, odd_a = x3 - rp_b2 * x1;
  const vec even_b = x4 - rp_a2 * x2, odd_b = x3 - rp_a2 * x1;
  y[0] = x4 - rp_sum * x2 + rp_product * x[0];
  y[t] = even_a + rp_a * odd_a;
  y[2 * t] = even_a - rp_a * odd_a;
  y[3 * t] = even_b + rp_b * odd_b;
  y[4 * t] = even_b - rp_b * odd_b;
  y[5 * t] = x[5 * s] - rp_sum * x3 + rp_product * x1;
}

/* A: four to six. */
RP_INLINE void rp_gradient_pass(const vec *x, int64_t s, vec *y,
                                int64_t t) {
  const vec x1 = x[s], x2 = x[2 * s], x3 = x[3 * s];
  const vec even_a = x[0] + rp_a2 * x2, odd_a = rp_a * x1 + rp_a3 * x3;
  const vec even_b = x[0] + rp_b2 * x2, odd_b = rp_b * x1 + rp_b3 * x3;
  y[0] = x[0];
  y[t] = even_a + odd_a;
  y[2 * t] = even_a - odd_a;
  y[3 * t] = even_b + odd_b;
  y[4 * t] = even_b - odd_b;
  y[5 * t] = x3;
}

/* A': six to four. */
RP_INLINE void rp_made_pass(const vec *x, int64_t s, vec *y,
                            int64_t t) {
  const vec even_a = x[s] + x[2 * s], odd_a = x[s] - x[2 * s];
  const vec even_b = x[3 * s] + x[4 * s], odd_b = x[3 * s] - x[4 * s];
  y[0] = x[0] + even_a + even_b;
  y[t] = rp_a * odd_a + rp_b * odd_b;
  y[2 * t] = rp_a2 * even_a + rp_b2 * even_b;
  y[3 * t] = x[5 * s] + rp_a3 * odd_a + rp_b3 * odd_b;
}

/* G: three to six. */
RP_INLINE void rp_kernel_pass(const vec *x, int64_t s, vec *y,
                              int64_t t) {
  const vec x1 = x[s], x2 = x[2 * s];
  const vec even_a = rp_at_a * (x[0] + rp_a2 * x2);
  const vec even_b = rp_at_b * (x[0] + rp_b2 * x2);
  const vec odd_a = rp_at_a * (rp_a * x1), odd_b = rp_at_b * (rp_b * x1);
  y[0] = rp_at_0 * x[0];
  y[t] = even_a + odd_a;
  y[2 * t] = even_a - odd_a;
  y[3 * t] = even_b + odd_b;
  y[4 * t] = even_b - odd_b;
  y[5 * t] = x2;
}

/* G': six to three. */
RP_INLINE void rp_kernel_gradient_pass(const vec *x, int64_t s, vec *y,
                                       int64_t t) {
  const vec even_a = rp_at_a * (x[s] + x[2 * s]);
  const vec odd_a = rp_at_a * (x[s] - x[2 * s]);
  const vec even_b = rp_at_b * (x[3 * s] + x[4 * s]);
  const vec odd_b = rp_at_b * (x[3 * s] - x[4 * s]);
  y[0] = rp_at_0 * x[0] + even_a + even_b;
  y[t] = rp_a * odd_a + rp_b * odd_b;
  y[2 * t] = rp_a2 * even_a + rp_b2 * even_b + x[5 * s];
}

/* x:(n, n), rows `pitch` apart, to m * m vectors `step` floats apart: down the
   columns, then along the rows. */
RP_INLINE void rp_both_out(rp_pass *pass, int n, int m, const vec *x,
                           int64_t pitch, float *y, int64_t step) {
  vec middle[BOX * BOX], row[BOX];
  for (int j = 0; j < n; j++) pass(x + j, pitch, middle + j, n);
  for (int i = 0; i < m; i++) {
    pass(middle + i * n, 1, row, 1);
    for (int j = 0; j < m; j++) rp_vec_store(y + (i * m + j) * step, &row[j]);
  }
}

/* n * n vectors, `step` floats apart, to y:(m, m). */
RP_INLINE void rp_both_in(rp_pass *pass, int n, int m, const float *x,
                          int64_t step, vec *y) {
  vec middle[BOX * BOX], column[BOX];
  for (int j = 0; j < n; j++) {
    for (int i = 0; i < n; i++)
      rp_vec_load(&column[i], x + (i * n + j) * step);
    pass(column, 1, middle + j, n);
  }
  for (int i = 0; i < m; i++) pass(middle + i * n, 1, y + i * m, 1);
}

#endif
