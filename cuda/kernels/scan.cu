/* argmax and cumsum: x is (outer, n, inner) around the dim that is walked.
   Long rows are cut into parts, whose number follows from the shape alone. */
#include "rows.h"

namespace rp {
namespace {

enum {
  BLOCKS = 1024,      /* enough for any device */
  PART = 32 * BLOCK,  /* elements that are worth a block */
  EACH = 4            /* neighbours that one thread sums */
};

/* n of each of `outer` rows, cut. */
struct cut {
  int64_t chunk, parts;
};

cut cut_of(int64_t outer, int64_t n) {
  int64_t parts = outer > 0 && outer < BLOCKS ? BLOCKS / outer : 1;
  if (parts > n / PART) parts = n / PART;
  if (parts < 1) parts = 1;
  const int64_t chunk = (n + parts - 1) / parts;
  return cut{chunk, chunk ? (n + chunk - 1) / chunk : 1};
}

/* ---- argmax -------------------------------------------------------------- */

template <typename T> struct place {
  T value;
  int64_t at; /* -1: none yet */
};

/* The greater value, the first of equals; NaN beats every number. */
template <typename T>
__device__ __forceinline__ place<T> better(place<T> a, place<T> b) {
  if (a.at < 0) return b;
  if (b.at < 0) return a;
  const bool more = b.value > a.value || (b.value != b.value &&
                                          a.value == a.value);
  const bool less = a.value > b.value || (a.value != a.value &&
                                          b.value == b.value);
  if (more || less) return more ? b : a;
  return b.at < a.at ? b : a;
}

template <typename T>
__device__ __forceinline__ place<T> warp_best(place<T> p) {
  for (int step = WARP / 2; step > 0; step /= 2)
    p = better(p, place<T>{__shfl_xor_sync(0xffffffffu, p.value, step),
                           __shfl_xor_sync(0xffffffffu, p.at, step)});
  return p;
}

template <typename T>
__device__ __forceinline__ place<T> team_best(team by, place<T> p, T *values,
                                              int64_t *places) {
  if (by.size == 1) return p;
  p = warp_best(p);
  if (by.size == WARP) return p;
  __syncthreads();
  if (threadIdx.x % WARP == 0) {
    values[threadIdx.x / WARP] = p.value;
    places[threadIdx.x / WARP] = p.at;
  }
  __syncthreads();
  const int lane = threadIdx.x % WARP;
  if (lane < BLOCK / WARP) p = place<T>{values[lane], places[lane]};
  else p = place<T>{values[0], places[0]};
  return warp_best(p);
}

/* y[k * parts + p]: where in row k its part p has its greatest. */
template <typename T>
__global__ void __launch_bounds__(BLOCK)
argmax_rows(const T *x, int64_t *y, int64_t rows, int64_t n, cut c, team by) {
  __shared__ T values[WARP];
  __shared__ int64_t places[WARP];
  for (int64_t i = by.first(); i < rows * c.parts; i += by.step()) {
    int64_t k;
    const int64_t first = divide(i, c.parts, &k) * c.chunk;
    const int64_t last = n - first < c.chunk ? n : first + c.chunk;
    const T *row = x + k * n;
    place<T> best = {T(0), -1};
    for (int64_t j = first + by.lane(); j < last; j += by.size)
      best = better(best, place<T>{row[j], j});
    best = team_best(by, best, values, places);
    if (by.lane() == 0) y[i] = best.at;
  }
}

/* Of each row's parts, in order: the first of equals lies in the first. */
template <typename T>
__global__ void __launch_bounds__(BLOCK)
argmax_join(const T *x, const int64_t *parts, int64_t *y, int64_t rows,
            int64_t n, int64_t count) {
  const team by = {WARP};
  for (int64_t k = by.first(); k < rows; k += by.step()) {
    place<T> best = {T(0), -1};
    for (int64_t p = by.lane(); p < count; p += WARP) {
      const int64_t at = parts[k * count + p];
      best = better(best, place<T>{x[k * n + at], at});
    }
    best = warp_best(best);
    if (by.lane() == 0) y[k] = best.at;
  }
}

template <typename T>
__global__ void __launch_bounds__(BLOCK)
argmax_columns(const T *x, int64_t *y, extent e) {
  RP_EACH(i, e.outer * e.inner) {
    int64_t o;
    const int64_t j = divide(i, e.inner, &o);
    const T *column = x + o * e.n * e.inner + j;
    place<T> best = {column[0], 0};
    for (int64_t k = 1; k < e.n; k++) {
      const T value = column[k * e.inner];
      if (value > best.value || (value != value && best.value == best.value))
        best = place<T>{value, k};
    }
    y[i] = best.at;
  }
}

extent argmax_extent(const rp_kernel_args *args) {
  const rp_type *x = &args->in[0].type;
  const int64_t dim = args->n_ints > 1 ? args->ints[1] : -1;
  return dim >= 0 ? extent_of(x, dim) : extent{1, rp_type_count(x), 1};
}

rp_status prepare_argmax(const rp_kernel_args *args, void **, int64_t *bytes) {
  const extent e = argmax_extent(args);
  const cut c = cut_of(e.outer, e.n);
  *bytes = e.inner == 1 && c.parts > 1
               ? e.outer * c.parts * (int64_t)sizeof(int64_t) : 0;
  return RP_OK;
}

template <typename T> rp_status argmax(const rp_kernel_args *args) {
  const extent e = argmax_extent(args);
  const T *x = (const T *)args->in[0].data;
  int64_t *y = (int64_t *)args->out[0].data;
  if (e.outer * e.n * e.inner == 0) return RP_OK;
  if (e.inner != 1)
    return launch(args, "argmax", argmax_columns<T>,
                  grid_for(e.outer * e.inner), dim3(BLOCK), 0, x, y, e);
  const cut c = cut_of(e.outer, e.n);
  const team by = c.parts > 1 ? team{BLOCK} : team_for(e.n / 4);
  int64_t *parts = c.parts > 1 ? (int64_t *)args->workspace : y;
  const rp_status status =
      launch(args, "argmax", argmax_rows<T>, grid_of(by, e.outer * c.parts),
             dim3(BLOCK), 0, x, parts, e.outer, e.n, c, by);
  if (status != RP_OK || c.parts == 1) return status;
  return launch(args, "argmax", argmax_join<T>,
                grid_of(team{WARP}, e.outer), dim3(BLOCK), 0, x, parts, y,
                e.outer, e.n, c.parts);
}

/* ---- cumsum -------------------------------------------------------------- */
/* Sums of f32 run in f64, sums of integers in 64 bits. x and y may be one. */

/* The sum over the threads of the block before this one; *all: over all of
   them. No difference is taken: infinities stay what they are. */
template <typename A>
__device__ __forceinline__ A block_scan(A x, A *scratch, A *all) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  for (int by = 1; by < WARP; by *= 2) {
    const A before = __shfl_up_sync(0xffffffffu, x, by);
    if (lane >= by) x += before;
  }
  __syncthreads();
  if (lane == WARP - 1) scratch[warp] = x;
  __syncthreads();
  A before = 0, total = 0;
  for (int w = 0; w < BLOCK / WARP; w++) {
    if (w == warp) before = total;
    total += scratch[w];
  }
  *all = total;
  const A left = __shfl_up_sync(0xffffffffu, x, 1);
  return lane == 0 ? before : before + left;
}

/* Element i of a row that is walked from either end. */
__device__ __forceinline__ int64_t element(int64_t i, int64_t n,
                                           bool reverse) {
  return reverse ? n - 1 - i : i;
}

template <typename T, typename A>
__global__ void __launch_bounds__(BLOCK)
cumsum_parts(const T *x, A *sums, int64_t rows, int64_t n, cut c,
             bool reverse) {
  __shared__ A scratch[WARP];
  for (int64_t i = blockIdx.x; i < rows * c.parts; i += gridDim.x) {
    int64_t k;
    const int64_t first = divide(i, c.parts, &k) * c.chunk;
    const int64_t last = n - first < c.chunk ? n : first + c.chunk;
    A sum = 0;
    for (int64_t j = first + threadIdx.x; j < last; j += BLOCK)
      sum += (A)x[k * n + element(j, n, reverse)];
    sum = block_reduce(sum, A(0), scratch, sum_of());
    if (threadIdx.x == 0) sums[i] = sum;
  }
}

/* Each part's sum becomes that of the parts before it. */
template <typename A>
__global__ void __launch_bounds__(BLOCK)
cumsum_before(A *sums, int64_t rows, int64_t parts) {
  RP_EACH(k, rows) {
    A sum = 0;
    for (int64_t p = 0; p < parts; p++) {
      const A part = sums[k * parts + p];
      sums[k * parts + p] = sum;
      sum += part;
    }
  }
}

template <typename T, typename Y, typename A>
__global__ void __launch_bounds__(BLOCK)
cumsum_rows(const T *x, Y *y, const A *before, int64_t rows, int64_t n, cut c,
            bool reverse) {
  __shared__ A scratch[WARP];
  for (int64_t i = blockIdx.x; i < rows * c.parts; i += gridDim.x) {
    int64_t k;
    const int64_t first = divide(i, c.parts, &k) * c.chunk;
    const int64_t last = n - first < c.chunk ? n : first + c.chunk;
    A sum = before ? before[i] : A(0);
    for (int64_t from = first; from < last; from += BLOCK * EACH) {
      const int64_t at = from + threadIdx.x * EACH;
      A mine[EACH], total = 0, all;
      for (int j = 0; j < EACH; j++) {
        if (at + j < last) total += (A)x[k * n + element(at + j, n, reverse)];
        mine[j] = total;
      }
      const A here = sum + block_scan(total, scratch, &all);
      for (int j = 0; j < EACH; j++)
        if (at + j < last)
          y[k * n + element(at + j, n, reverse)] = (Y)(here + mine[j]);
      sum += all;
    }
  }
}

template <typename T, typename Y, typename A>
__global__ void __launch_bounds__(BLOCK)
cumsum_columns(const T *x, Y *y, extent e, bool reverse) {
  RP_EACH(i, e.outer * e.inner) {
    int64_t o;
    const int64_t j = divide(i, e.inner, &o);
    A sum = 0;
    for (int64_t r = 0; r < e.n; r++) {
      const int64_t at = (o * e.n + element(r, e.n, reverse)) * e.inner + j;
      sum += (A)x[at];
      y[at] = (Y)sum;
    }
  }
}

rp_status prepare_cumsum(const rp_kernel_args *args, void **, int64_t *bytes) {
  const extent e = extent_of(&args->in[0].type, args->ints[0]);
  const cut c = cut_of(e.outer, e.n);
  *bytes = e.inner == 1 && c.parts > 1
               ? e.outer * c.parts * (int64_t)sizeof(int64_t) : 0;
  return RP_OK;
}

template <typename T, typename Y, typename A>
rp_status cumsum(const rp_kernel_args *args) {
  const extent e = extent_of(&args->in[0].type, args->ints[0]);
  const bool reverse = args->n_ints > 1 && args->ints[1];
  const T *x = (const T *)args->in[0].data;
  Y *y = (Y *)args->out[0].data;
  if (e.outer * e.n * e.inner == 0) return RP_OK;
  if (e.inner != 1)
    return launch(args, "cumsum", cumsum_columns<T, Y, A>,
                  grid_for(e.outer * e.inner), dim3(BLOCK), 0, x, y, e,
                  reverse);
  const cut c = cut_of(e.outer, e.n);
  const dim3 grid = grid_of(team{BLOCK}, e.outer * c.parts);
  A *before = nullptr;
  if (c.parts > 1) {
    before = (A *)args->workspace;
    rp_status status =
        launch(args, "cumsum", cumsum_parts<T, A>, grid, dim3(BLOCK), 0, x,
               before, e.outer, e.n, c, reverse);
    if (status == RP_OK)
      status = launch(args, "cumsum", cumsum_before<A>, grid_for(e.outer),
                      dim3(BLOCK), 0, before, e.outer, c.parts);
    if (status != RP_OK) return status;
  }
  return launch(args, "cumsum", cumsum_rows<T, Y, A>, grid, dim3(BLOCK), 0, x,
                y, before, e.outer, e.n, c, reverse);
}

} // namespace

RP_ROWS(scan, row("argmax", RP_F32, argmax<float>, prepare_argmax),
        row("argmax", RP_F64, argmax<double>, prepare_argmax),
        row("argmax", RP_I32, argmax<int32_t>, prepare_argmax),
        row("argmax", RP_I64, argmax<int64_t>, prepare_argmax),
        row("cumsum", RP_F32, cumsum<float, float, double>, prepare_cumsum),
        row("cumsum", RP_F64, cumsum<double, double, double>, prepare_cumsum),
        row("cumsum", RP_I32, cumsum<int32_t, int64_t, uint64_t>,
            prepare_cumsum),
        row("cumsum", RP_I64, cumsum<int64_t, int64_t, uint64_t>,
            prepare_cumsum));

} // namespace rp
