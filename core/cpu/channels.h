/* Norms of planes: x:(N, C, S) is runs of S values, a run for each image and
   channel; every sum is taken over whole runs, in their order, in f64 across
   runs. For batch_norm.c and group_norm.c.

   dx may be written over dy or x, y over x or z: the same array or another one,
   so that loops have no dependence between iterations (ivdep). `wide` and
   `type`, x's dtype, are constants wherever a function is inlined. bf16 is
   widened a block at a time; its statistics and weights are f32. */
#ifndef RP_CPU_CHANNELS_H
#define RP_CPU_CHANNELS_H

#include "cpu/lanes.h"
#include "cpu/parallel.h"
#include "exec/backend.h"

typedef struct shape {
  int64_t images, channels, run; /* N, C, S */
} shape;

static inline shape shape_of(const rp_type *x) {
  shape s = {x->dims[0], x->dims[1], 1};
  for (int i = 2; i < x->rank; i++) s.run *= x->dims[i];
  return s;
}

static inline double real_of(const rp_kernel_args *args, int i,
                             double fallback) {
  return i < args->n_reals ? args->reals[i] : fallback;
}

RP_INLINE double load(const void *x, int64_t i, bool wide) {
  return wide ? ((const double *)x)[i] : (double)((const float *)x)[i];
}
RP_INLINE void store(void *x, int64_t i, bool wide, double value) {
  if (wide) ((double *)x)[i] = value;
  else ((float *)x)[i] = (float)value;
}

/* ---- one run ------------------------------------------------------------- */

RP_INLINE double fold(rp_fold what, const void *x, int64_t at, int64_t n,
                      double shift, rp_dtype type) {
  switch (type) {
    case RP_F64: return rp_fold_f64(what, (const double *)x + at, n, shift);
    case RP_F32:
      return rp_fold_f32(what, (const float *)x + at, n, (float)shift);
    default:
      return rp_fold_bf16(what, (const uint16_t *)x + at, n, (float)shift);
  }
}

/* What is behind the norm: z is added where there is one, and negatives may go
   (not NaN). Not for bf16, which would round in between. */
typedef struct ending {
  const void *z;
  bool rectifies;
} ending;

/* y = (x - mean) scale + b. */
RP_INLINE void affine_f32(const float *from, float *to, int64_t n, float mean,
                          float scale, float b, const float *z,
                          bool rectifies) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    float y = (from[i] - mean) * scale + b;
    if (z) y = y + z[i];
    to[i] = rectifies && y < 0 ? 0 : y;
  }
}

RP_INLINE void affine_run(const void *x, void *y, int64_t at, int64_t n,
                          double mean, double scale, double b, ending end,
                          rp_dtype type) {
  if (type == RP_F64) {
    const double *from = (const double *)x + at;
    const double *z = end.z ? (const double *)end.z + at : NULL;
    double *to = (double *)y + at;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
      double v = (from[i] - mean) * scale + b;
      if (z) v = v + z[i];
      to[i] = end.rectifies && v < 0 ? 0 : v;
    }
  } else if (type == RP_F32) {
    affine_f32((const float *)x + at, (float *)y + at, n, (float)mean,
               (float)scale, (float)b,
               end.z ? (const float *)end.z + at : NULL, end.rectifies);
  } else {
    float values[RP_LANE_BLOCK];
    for (int64_t i = 0; i < n; i += RP_LANE_BLOCK) {
      const int64_t m = n - i < RP_LANE_BLOCK ? n - i : RP_LANE_BLOCK;
      rp_bf16_widen(values, (const uint16_t *)x + at + i, 1, m);
      affine_f32(values, values, m, (float)mean, (float)scale, (float)b, NULL,
                 false);
      rp_bf16_round((uint16_t *)y + at + i, values, m);
    }
  }
}

/* dx = scale dy - level - slope (x - mean). */
RP_INLINE void grad_f32(const float *g, const float *from, float *to,
                        int64_t n, float mean, float scale, float level,
                        float slope) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++)
    to[i] = g[i] * scale - level - (from[i] - mean) * slope;
}

RP_INLINE void grad_run(const void *dy, const void *x, void *dx, int64_t at,
                        int64_t n, double mean, double scale, double level,
                        double slope, rp_dtype type) {
  if (type == RP_F64) {
    const double *g = (const double *)dy + at, *from = (const double *)x + at;
    double *to = (double *)dx + at;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++)
      to[i] = g[i] * scale - level - (from[i] - mean) * slope;
  } else if (type == RP_F32) {
    grad_f32((const float *)dy + at, (const float *)x + at, (float *)dx + at,
             n, (float)mean, (float)scale, (float)level, (float)slope);
  } else {
    float g[RP_LANE_BLOCK], from[RP_LANE_BLOCK];
    for (int64_t i = 0; i < n; i += RP_LANE_BLOCK) {
      const int64_t m = n - i < RP_LANE_BLOCK ? n - i : RP_LANE_BLOCK;
      rp_bf16_widen(g, (const uint16_t *)dy + at + i, 1, m);
      rp_bf16_widen(from, (const uint16_t *)x + at + i, 1, m);
      grad_f32(g, from, g, m, (float)mean, (float)scale, (float)level,
               (float)slope);
      rp_bf16_round((uint16_t *)dx + at + i, g, m);
    }
  }
}

/* Adds the run's sums of dy and of dy (x - mean). */
RP_INLINE void sums_f32(const float *dy, const float *x, int64_t n, float mean,
                        double *sum, double *product) {
  for (int64_t block = 0; block < n; block += RP_LANE_BLOCK) {
    const int64_t end = n - block < RP_LANE_BLOCK ? n : block + RP_LANE_BLOCK;
    float p[RP_F32_LANES] = {0}, q[RP_F32_LANES] = {0};
    int64_t i = block;
    for (; i + RP_F32_LANES <= end; i += RP_F32_LANES)
      for (int l = 0; l < RP_F32_LANES; l++) {
        p[l] += dy[i + l];
        q[l] += dy[i + l] * (x[i + l] - mean);
      }
    for (int l = 0; i < end; i++, l++) {
      p[l] += dy[i];
      q[l] += dy[i] * (x[i] - mean);
    }
    *sum += rp_lanes_join_f32(RP_FOLD_SUM, p);
    *product += rp_lanes_join_f32(RP_FOLD_SUM, q);
  }
}

RP_INLINE void sums_f64(const double *dy, const double *x, int64_t n,
                        double mean, double *sum, double *product) {
  double p[RP_F64_LANES] = {0}, q[RP_F64_LANES] = {0};
  int64_t i = 0;
  for (; i + RP_F64_LANES <= n; i += RP_F64_LANES)
    for (int l = 0; l < RP_F64_LANES; l++) {
      p[l] += dy[i + l];
      q[l] += dy[i + l] * (x[i + l] - mean);
    }
  for (int l = 0; i < n; i++, l++) {
    p[l] += dy[i];
    q[l] += dy[i] * (x[i] - mean);
  }
  *sum += rp_lanes_join_f64(RP_FOLD_SUM, p);
  *product += rp_lanes_join_f64(RP_FOLD_SUM, q);
}

RP_INLINE void run_sums(const void *dy, const void *x, int64_t at, int64_t n,
                        double mean, double *sum, double *product,
                        rp_dtype type) {
  if (type == RP_F64) {
    sums_f64((const double *)dy + at, (const double *)x + at, n, mean, sum,
             product);
  } else if (type == RP_F32) {
    sums_f32((const float *)dy + at, (const float *)x + at, n, (float)mean,
             sum, product);
  } else {
    float g[RP_LANE_BLOCK], from[RP_LANE_BLOCK];
    for (int64_t i = 0; i < n; i += RP_LANE_BLOCK) {
      const int64_t m = n - i < RP_LANE_BLOCK ? n - i : RP_LANE_BLOCK;
      rp_bf16_widen(g, (const uint16_t *)dy + at + i, 1, m);
      rp_bf16_widen(from, (const uint16_t *)x + at + i, 1, m);
      sums_f32(g, from, m, (float)mean, sum, product);
    }
  }
}

#endif
