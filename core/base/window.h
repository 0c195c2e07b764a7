/* Windows over the last two dims of (..., H, W): convolution and pooling.
   Output (i, j) reads rows i stride - pad + a dilation for a in 0..kernel-1,
   those inside of 0..H-1, and columns likewise. Index 0 is H's, 1 is W's. */
#ifndef RP_BASE_WINDOW_H
#define RP_BASE_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

typedef struct rp_window {
  int64_t kernel[2], stride[2], pad[2], dilation[2];
} rp_window;

/* How far a window reaches. */
static inline int64_t rp_window_reach(const rp_window *w, int d) {
  return w->dilation[d] * (w->kernel[d] - 1) + 1;
}

/* Windows along d over `size`; at most 0: it is too small for one. With
   `ceiling` a last window may hang over, if it begins inside (PyTorch's
   ceil_mode). */
static inline int64_t rp_window_count(const rp_window *w, int d, int64_t size,
                                      bool ceiling) {
  const int64_t room = size + 2 * w->pad[d] - rp_window_reach(w, d);
  if (room < 0) return 0;
  int64_t n = (room + (ceiling ? w->stride[d] - 1 : 0)) / w->stride[d] + 1;
  if (ceiling && (n - 1) * w->stride[d] >= size + w->pad[d]) n--;
  return n;
}

/* The outputs along d for which tap a of the window lies inside of 0..size-1:
   from *first to before *end, which may be *first. */
static inline void rp_window_inside(const rp_window *w, int d, int64_t tap,
                                    int64_t size, int64_t count,
                                    int64_t *first, int64_t *end) {
  const int64_t shift = tap * w->dilation[d] - w->pad[d], s = w->stride[d];
  *first = shift < 0 ? (-shift + s - 1) / s : 0;
  const int64_t last = size - 1 - shift;
  *end = last < 0 ? 0 : last / s + 1;
  if (*end > count) *end = count;
  if (*first > *end) *first = *end;
}

#endif
