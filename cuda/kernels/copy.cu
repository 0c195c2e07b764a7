/* Copies between strided arrays of any dtype: contiguous, narrow_grad, cat,
   pad. An element is moved as a word of its size; where rows are dense and
   aligned, as many as fit into 16 bytes are one word. */
#include "kernels/pack.h"

namespace rp {
namespace {

template <size_t size> struct word_of;
template <> struct word_of<1> { typedef uint8_t type; };
template <> struct word_of<2> { typedef uint16_t type; };
template <> struct word_of<4> { typedef uint32_t type; };
template <> struct word_of<8> { typedef uint64_t type; };
template <> struct word_of<16> { typedef uint4 type; };

size_t size_of(const rp_array *x) {
  return rp_dtype_size((rp_dtype)x->type.dtype);
}
char *element(const rp_array *x, int64_t offset) {
  return (char *)x->data + offset * (int64_t)size_of(x);
}

/* Calls f with a word of `size` bytes. */
template <typename F> rp_status with_word(size_t size, F f) {
  switch (size) {
    case 1: return f(uint8_t());
    case 2: return f(uint16_t());
    case 4: return f(uint32_t());
    case 8: return f(uint64_t());
    default: return f(uint4());
  }
}

/* ---- from strides to strides --------------------------------------------- */

enum { TO, FROM };

template <typename T>
__global__ void __launch_bounds__(BLOCK)
move(T *to, const T *from, walk<2> w) {
  RP_EACH(i, w.count) {
    int64_t at[2];
    w.at(i, at);
    to[at[TO]] = from[at[FROM]];
  }
}

/* Dim 0 is dense in `to`, dim `down` in `from`: through tiles in shared
   memory, so that both sides go by whole lines. */
enum { TILE = 32, LINES = 8 };

template <typename T>
__global__ void __launch_bounds__(TILE *LINES)
transpose(T *to, const T *from, walk<2> w, int down, int64_t tiles) {
  __shared__ T tile[TILE][TILE + 1];
  const int64_t across_tiles = (w.dims[0] + TILE - 1) / TILE;
  const int64_t down_tiles = (w.dims[down] + TILE - 1) / TILE;
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const int64_t across = t % across_tiles * TILE;
    int64_t rest = t / across_tiles;
    const int64_t first = rest % down_tiles * TILE;
    rest /= down_tiles;
    int64_t to_at = 0, from_at = 0;
    for (int d = 1; d < w.rank; d++) {
      if (d == down) continue;
      const int64_t index = rest % w.dims[d];
      rest /= w.dims[d];
      to_at += index * w.strides[TO][d];
      from_at += index * w.strides[FROM][d];
    }
    for (int64_t k = threadIdx.y; k < TILE; k += LINES)
      if (across + k < w.dims[0] && first + threadIdx.x < w.dims[down])
        tile[k][threadIdx.x] = from[from_at + first + threadIdx.x +
                                    (across + k) * w.strides[FROM][0]];
    __syncthreads();
    for (int64_t k = threadIdx.y; k < TILE; k += LINES)
      if (first + k < w.dims[down] && across + threadIdx.x < w.dims[0])
        to[to_at + across + threadIdx.x +
           (first + k) * w.strides[TO][down]] = tile[threadIdx.x][k];
    __syncthreads();
  }
}

/* The dim that is dense in `from` where that is not dim 0; 0: no transpose,
   or too thin for tiles. */
int dense_in_source(const walk<2> &w) {
  if (w.rank < 2 || w.strides[TO][0] != 1 || w.strides[FROM][0] <= 1 ||
      w.dims[0] < LINES)
    return 0;
  for (int d = 1; d < w.rank; d++)
    if (w.strides[FROM][d] == 1 && w.dims[d] >= LINES) return d;
  return 0;
}

/* Elements that may be moved as one, which the walk then counts. */
int merge_elements(walk<2> *w, size_t size, const void *to, const void *from) {
  if (w->rank == 0 || w->strides[TO][0] != 1 || w->strides[FROM][0] != 1)
    return 1;
  for (int v = (int)(16 / size); v > 1; v /= 2) {
    bool fits = w->dims[0] % v == 0 && (uintptr_t)to % (size * v) == 0 &&
                (uintptr_t)from % (size * v) == 0;
    for (int d = 1; d < w->rank && fits; d++)
      fits = w->strides[TO][d] % v == 0 && w->strides[FROM][d] % v == 0;
    if (!fits) continue;
    w->count /= v;
    w->dims[0] /= v;
    for (int d = 1; d < w->rank; d++)
      w->strides[TO][d] /= v, w->strides[FROM][d] /= v;
    return v;
  }
  return 1;
}

/* to = from, both of from's dims. */
rp_status copy(const rp_kernel_args *args, const char *name, rp_array to,
               const rp_array *from) {
  to.type = from->type;
  const rp_array *const both[] = {&to, from};
  walk<2> w = walk_over<2>(&from->type, both);
  if (w.count == 0) return RP_OK;
  const size_t size = size_of(from);
  if (const int down = dense_in_source(w)) {
    const int64_t tiles = w.count / w.dims[0] / w.dims[down] *
                          ((w.dims[0] + TILE - 1) / TILE) *
                          ((w.dims[down] + TILE - 1) / TILE);
    const dim3 grid((unsigned)(tiles < 0x7fffffff ? tiles : 0x7fffffff));
    return with_word(size, [&](auto word) {
      typedef decltype(word) T;
      return launch(args, name, transpose<T>, grid, dim3(TILE, LINES), 0,
                    (T *)to.data, (const T *)from->data, w, down, tiles);
    });
  }
  const int merged = merge_elements(&w, size, to.data, from->data);
  return with_word(size * merged, [&](auto word) {
    typedef decltype(word) T;
    return launch(args, name, move<T>, grid_for(w.count), BLOCK, 0,
                  (T *)to.data, (const T *)from->data, w);
  });
}

rp_status contiguous(const rp_kernel_args *args) {
  return copy(args, "contiguous", args->out[0], &args->in[0]);
}

rp_status cat(const rp_kernel_args *args) {
  const int64_t dim = args->ints[0];
  rp_array part = args->out[0];
  for (int i = 0; i < args->n_in; i++) {
    const rp_status status = copy(args, "cat", part, &args->in[i]);
    if (status != RP_OK) return status;
    part.data = element(&part,
                        args->in[i].type.dims[dim] * part.strides[dim]);
  }
  return RP_OK;
}

/* ---- into a larger array ------------------------------------------------- */

/* y, contiguous, is x where every index is before + step k, k < x_dims, and
   a constant elsewhere. Dims are innermost first, merged where they can be. */
struct padding {
  int64_t count;
  int rank;
  int64_t dims[RP_RANK], before[RP_RANK], step[RP_RANK], x_dims[RP_RANK],
      x_strides[RP_RANK];
};

template <typename T>
__global__ void __launch_bounds__(BLOCK)
put_inside(T *y, const T *x, T value, padding p) {
  RP_EACH(i, p.count) {
    int64_t rest = i, at = 0;
    bool inside = true;
    for (int d = 0; d < p.rank; d++) {
      const int64_t next = d + 1 < p.rank ? quotient(rest, p.dims[d]) : 0;
      int64_t index = rest - next * p.dims[d] - p.before[d];
      rest = next;
      if (index < 0) {
        inside = false;
        break;
      }
      if (p.step[d] != 1) {
        const int64_t taken = quotient(index, p.step[d]);
        inside = inside && taken * p.step[d] == index;
        index = taken;
      }
      inside = inside && index < p.x_dims[d];
      at += index * p.x_strides[d];
    }
    y[i] = inside ? x[at] : value;
  }
}

padding padding_of(const rp_array *y, const rp_array *x,
                   const int64_t *before, const int64_t *step) {
  padding p = {};
  p.count = rp_type_count(&y->type);
  for (int d = y->type.rank - 1; d >= 0; d--) {
    const int64_t size = y->type.dims[d], n = x->type.dims[d];
    const int inner = p.rank - 1;
    /* A dim that is whole goes into the next outer one. */
    if (p.rank && p.before[inner] == 0 && p.step[inner] == 1 &&
        p.x_dims[inner] == p.dims[inner] && step[d] == 1 &&
        (n == 1 || x->strides[d] == p.x_strides[inner] * p.dims[inner])) {
      p.before[inner] = before[d] * p.dims[inner];
      p.x_dims[inner] *= n;
      p.dims[inner] *= size;
      continue;
    }
    p.dims[p.rank] = size;
    p.before[p.rank] = before[d];
    p.step[p.rank] = step[d];
    p.x_dims[p.rank] = n;
    p.x_strides[p.rank] = x->strides[d];
    p.rank++;
  }
  return p;
}

int merge_elements(padding *p, size_t size, const void *y, const void *x) {
  if (p->rank == 0 || p->x_strides[0] != 1 || p->step[0] != 1) return 1;
  for (int v = (int)(16 / size); v > 1; v /= 2) {
    bool fits = p->dims[0] % v == 0 && p->before[0] % v == 0 &&
                p->x_dims[0] % v == 0 && (uintptr_t)y % (size * v) == 0 &&
                (uintptr_t)x % (size * v) == 0;
    for (int d = 1; d < p->rank && fits; d++)
      fits = p->x_strides[d] % v == 0;
    if (!fits) continue;
    p->count /= v;
    p->dims[0] /= v, p->before[0] /= v, p->x_dims[0] /= v;
    for (int d = 1; d < p->rank; d++) p->x_strides[d] /= v;
    return v;
  }
  return 1;
}

/* `value`: of an element. */
rp_status put(const rp_kernel_args *args, const char *name,
              const int64_t *before, const int64_t *step, const void *value) {
  const rp_array *y = &args->out[0], *x = &args->in[0];
  padding p = padding_of(y, x, before, step);
  if (p.count == 0) return RP_OK;
  const size_t size = size_of(y);
  const int merged = merge_elements(&p, size, y->data, x->data);
  unsigned char bytes[16];
  for (int k = 0; k < merged; k++)
    memcpy(bytes + k * size, value, size);
  return with_word(size * merged, [&](auto word) {
    typedef decltype(word) T;
    memcpy((void *)&word, bytes, sizeof word);
    return launch(args, name, put_inside<T>, grid_for(p.count), BLOCK, 0,
                  (T *)y->data, (const T *)x->data, word, p);
  });
}

/* ints {before0, after0, before1, ...}, reals {value}. */
rp_status pad(const rp_kernel_args *args) {
  int64_t before[RP_RANK] = {}, step[RP_RANK];
  for (int d = 0; d < RP_RANK; d++) step[d] = 1;
  for (int d = 0; 2 * d < args->n_ints; d++) before[d] = args->ints[2 * d];
  const double value = args->n_reals ? args->reals[0] : 0;
  unsigned char bytes[8] = {};
  const auto keep = [&](auto x) { memcpy(bytes, &x, sizeof x); };
  switch (args->out[0].type.dtype) {
    case RP_F32: keep((float)value); break;
    case RP_F64: keep(value); break;
    case RP_BF16: keep(rp_f32_to_bf16((float)value)); break;
    case RP_I32: keep((int32_t)value); break;
    case RP_I64: keep((int64_t)value); break;
    default: keep((uint8_t)(value != 0));
  }
  return put(args, "pad", before, step, bytes);
}

/* ints {dim, start, length, step, size}. */
rp_status narrow_grad(const rp_kernel_args *args) {
  const int64_t zero = 0, dim = args->ints[0];
  int64_t before[RP_RANK] = {}, step[RP_RANK];
  for (int d = 0; d < RP_RANK; d++) step[d] = 1;
  before[dim] = args->ints[1];
  step[dim] = args->ints[3];
  return put(args, "narrow_grad", before, step, &zero);
}

} // namespace

#define RP_ALL(op)                                                           \
  row(#op, RP_F32, op), row(#op, RP_F64, op), row(#op, RP_BF16, op),         \
      row(#op, RP_I32, op), row(#op, RP_I64, op), row(#op, RP_BOOL, op)

RP_ROWS(copy,
        RP_ALL(contiguous), RP_ALL(cat), RP_ALL(pad),
        row("narrow_grad", RP_F32, narrow_grad),
        row("narrow_grad", RP_F64, narrow_grad),
        row("narrow_grad", RP_BF16, narrow_grad));

} // namespace rp
