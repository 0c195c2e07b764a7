/* Reading and adding at indices.

   Additions: positions are sorted by the row that they add to, once for a
   launch, so that each row's own thread adds them in order. Where an array is
   walked by many columns, or the positions are few, a column's own thread
   walks them instead. Which of both follows from the shape. */
#include "indices.h"
#include "rows.h"
#include "sort.h"

namespace rp {
namespace {

enum {
  PIECE = 32,          /* sorted positions that are added up by one thread */
  FEW = 16,            /* positions that are not worth sorting */
  MANY_COLUMNS = 4096  /* columns that keep a device busy */
};

/* x:(outer, n, inner) and indices:(k), or (outer, k, inner) for a gather. */
struct shape {
  extent e;
  int64_t k;
  bool gathers;
};

__global__ void __launch_bounds__(BLOCK)
check_all(checked_indices idx, int64_t n) {
  RP_EACH(i, n) idx[i];
}

/* ---- reading ------------------------------------------------------------- */

/* Rows of `inner` pieces of the size of P. */
template <typename P>
__global__ void __launch_bounds__(BLOCK)
select_rows(const P *x, P *y, checked_indices idx, shape s) {
  RP_EACH(i, s.e.outer * s.k * s.e.inner) {
    int64_t row, o;
    const int64_t j = divide(i, s.e.inner, &row);
    const int64_t at = idx[divide(row, s.k, &o)];
    y[i] = x[(o * s.e.n + at) * s.e.inner + j];
  }
}

template <typename P>
__global__ void __launch_bounds__(BLOCK)
gather_each(const P *x, P *y, checked_indices idx, shape s) {
  RP_EACH(i, s.e.outer * s.k * s.e.inner) {
    int64_t row, o;
    const int64_t j = divide(i, s.e.inner, &row);
    divide(row, s.k, &o);
    y[i] = x[(o * s.e.n + idx[i]) * s.e.inner + j];
  }
}

template <typename P>
rp_status select_by(const rp_kernel_args *args, checked_indices idx, shape s,
                    int64_t row_bytes) {
  s.e.inner = row_bytes / (int64_t)sizeof(P);
  return launch(args, "index_select", select_rows<P>,
                grid_for(s.e.outer * s.k * s.e.inner), dim3(BLOCK), 0,
                (const P *)args->in[0].data, (P *)args->out[0].data, idx, s);
}

rp_status check_only(const rp_kernel_args *args, checked_indices idx,
                     int64_t n) {
  if (n == 0) return RP_OK;
  return launch(args, "indices", check_all, grid_for(n), dim3(BLOCK), 0, idx,
                n);
}

rp_status select_at(const rp_kernel_args *args, int64_t dim) {
  const rp_array *x = &args->in[0], *y = &args->out[0];
  const shape s = {extent_of(&x->type, dim), rp_type_count(&args->in[1].type),
                   false};
  const checked_indices idx = checked(args, 1, s.e.n);
  if (s.e.n == 0 || rp_type_count(&y->type) == 0)
    return check_only(args, idx, s.k);
  const int64_t bytes =
      s.e.inner * (int64_t)rp_dtype_size((rp_dtype)x->type.dtype);
  const uintptr_t all =
      (uintptr_t)x->data | (uintptr_t)y->data | (uintptr_t)bytes;
  if (all % 16 == 0) return select_by<uint4>(args, idx, s, bytes);
  if (all % 8 == 0) return select_by<uint64_t>(args, idx, s, bytes);
  if (all % 4 == 0) return select_by<uint32_t>(args, idx, s, bytes);
  if (all % 2 == 0) return select_by<uint16_t>(args, idx, s, bytes);
  return select_by<uint8_t>(args, idx, s, bytes);
}

rp_status embedding(const rp_kernel_args *args) { return select_at(args, 0); }
rp_status index_select(const rp_kernel_args *args) {
  return select_at(args, args->ints[0]);
}

template <typename P> rp_status gather(const rp_kernel_args *args) {
  const rp_type *x = &args->in[0].type, *at = &args->in[1].type;
  const shape s = {extent_of(x, args->ints[0]), at->dims[args->ints[0]], true};
  const checked_indices idx = checked(args, 1, s.e.n);
  const int64_t count = rp_type_count(at);
  if (s.e.n == 0 || count == 0) return check_only(args, idx, count);
  return launch(args, "gather", gather_each<P>, grid_for(count), dim3(BLOCK),
                0, (const P *)args->in[0].data, (P *)args->out[0].data, idx,
                s);
}

/* ---- adding -------------------------------------------------------------- */

/* dx:(outer, n, inner) = dw (NULL: 0), and then dx[.., idx[i], ..] += dy[..,
   i, ..]. */
template <typename T> struct addition {
  const T *dw, *dy;
  T *dx;
  shape s;
};

/* The row, or for a gather the element, that position i adds to. */
struct row_keys {
  checked_indices idx;
  shape s;
  __device__ __forceinline__ uint32_t key(int64_t i) const {
    if (!s.gathers) return (uint32_t)idx[i];
    int64_t row, o;
    const int64_t j = divide(i, s.e.inner, &row);
    divide(row, s.k, &o);
    return (uint32_t)((o * s.e.n + idx[i]) * s.e.inner + j);
  }
  __device__ __forceinline__ uint32_t position(int64_t i) const {
    return (uint32_t)i;
  }
};

/* starts[v]: the first of the sorted keys that is not below v. */
__global__ void __launch_bounds__(BLOCK)
find_starts(const uint32_t *keys, int64_t n, uint32_t *starts, int64_t rows) {
  RP_EACH(v, rows + 1) {
    int64_t low = 0, high = n;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if ((int64_t)keys[middle] < v) low = middle + 1;
      else high = middle;
    }
    starts[v] = (uint32_t)low;
  }
}

/* V neighbours: 1 or, of f32, a unit of 16 bytes. Summed up in wide<T>, and
   rounded once. */
template <typename T, int V> struct neighbours {
  wide<T> at[V];
  template <typename S> __device__ __forceinline__ void read(const S *from) {
    if constexpr (V == 1) at[0] = widen<S>(*from);
    else read_unit(from, true, at);
  }
  template <typename S> __device__ __forceinline__ void write(S *to) const {
    if constexpr (V == 1) *to = narrow<S>(at[0]);
    else write_unit(to, true, at);
  }
  __device__ __forceinline__ void add(const neighbours &other) {
    for (int j = 0; j < V; j++) at[j] += other.at[j];
  }
};

/* Adds rows order[first..last-1] of x (rows of `inner`) in this order, or
   rows first..last-1 where `order` is NULL; four are read ahead. */
template <typename T, int V, typename S>
__device__ __forceinline__ void add_in_order(neighbours<T, V> *sum, const S *x,
                                             const uint32_t *order,
                                             int64_t first, int64_t last,
                                             int64_t inner) {
  for (; first + 4 <= last; first += 4) {
    neighbours<T, V> next[4];
    for (int k = 0; k < 4; k++)
      next[k].read(x + (order ? (int64_t)order[first + k] : first + k) *
                           inner);
    for (int k = 0; k < 4; k++) sum->add(next[k]);
  }
  for (; first < last; first++) {
    neighbours<T, V> next;
    next.read(x + (order ? (int64_t)order[first] : first) * inner);
    sum->add(next);
  }
}

/* Where PIECE sorted positions (from a multiple of PIECE on) add to one row:
   sums[o, piece]: what they add. */
template <typename T, int V>
__global__ void __launch_bounds__(BLOCK)
add_pieces(addition<T> a, sorted_keys sorted, wide<T> *sums,
           int64_t pieces) {
  const int64_t width = a.s.e.inner / V;
  RP_EACH(i, a.s.e.outer * pieces * width) {
    int64_t at, o;
    const int64_t j = divide(i, width, &at) * V;
    const int64_t first = divide(at, pieces, &o) * PIECE;
    if (sorted.keys[first] != sorted.keys[first + PIECE - 1]) continue;
    neighbours<T, V> sum = {};
    add_in_order<T, V>(&sum, a.dy + o * a.s.k * a.s.e.inner + j,
                       sorted.positions, first, first + PIECE, a.s.e.inner);
    sum.write(sums + at * a.s.e.inner + j);
  }
}

template <typename T, int V>
__global__ void __launch_bounds__(BLOCK)
add_rows(addition<T> a, sorted_keys sorted, const uint32_t *starts,
         const wide<T> *sums, int64_t pieces) {
  const extent e = a.s.e;
  const int64_t width = e.inner / V;
  RP_EACH(i, e.outer * e.n * width) {
    int64_t row, o;
    const int64_t j = divide(i, width, &row) * V;
    const int64_t v = divide(row, e.n, &o);
    const int64_t first = starts[v], last = starts[v + 1];
    if (first == last && a.dw == a.dx) continue;
    const int64_t to = row * e.inner + j;
    neighbours<T, V> sum = {};
    if (a.dw) sum.read(a.dw + to);
    const T *dy = a.dy + o * a.s.k * e.inner + j;
    const int64_t from = (first + PIECE - 1) / PIECE, until = last / PIECE;
    if (from >= until) {
      add_in_order<T, V>(&sum, dy, sorted.positions, first, last, e.inner);
    } else {
      add_in_order<T, V>(&sum, dy, sorted.positions, first, from * PIECE,
                         e.inner);
      add_in_order<T, V>(&sum, sums + o * pieces * e.inner + j, nullptr, from,
                         until, e.inner);
      add_in_order<T, V>(&sum, dy, sorted.positions, until * PIECE, last,
                         e.inner);
    }
    sum.write(a.dx + to);
  }
}

/* dx before anything is added. */
template <typename T>
__global__ void __launch_bounds__(BLOCK)
begin_rows(addition<T> a) {
  RP_EACH(i, a.s.e.outer * a.s.e.n * a.s.e.inner)
    a.dx[i] = a.dw ? a.dw[i] : narrow<T>(0);
}

/* Column j of what positions first .. k-1 of a few add to their first one's
   row, rounded once; nothing where an earlier one adds to that row too. */
template <typename T>
__device__ __forceinline__ void add_once(addition<T> a, checked_indices idx,
                                         int64_t o, int64_t j, int64_t first) {
  const extent e = a.s.e;
  const int64_t row = idx[first];
  for (int64_t r = 0; r < first; r++)
    if (idx[r] == row) return;
  T *to = &a.dx[(o * e.n + row) * e.inner + j];
  wide<T> sum = widen<T>(*to);
  for (int64_t r = first; r < a.s.k; r++)
    if (idx[r] == row) sum += widen<T>(a.dy[(o * a.s.k + r) * e.inner + j]);
  *to = narrow<T>(sum);
}

/* A thread a column, which it alone adds to. */
template <typename T>
__global__ void __launch_bounds__(BLOCK, 1)
add_columns(addition<T> a, checked_indices idx) {
  const extent e = a.s.e;
  RP_EACH(i, e.outer * e.inner) {
    int64_t o;
    const int64_t j = divide(i, e.inner, &o);
    for (int64_t r = 0; r < a.s.k; r++) {
      if constexpr (sizeof(T) < sizeof(wide<T>)) {
        add_once(a, idx, o, j, r);
      } else {
        const int64_t at = (o * a.s.k + r) * e.inner + j;
        const int64_t row = idx[a.s.gathers ? at : r];
        a.dx[(o * e.n + row) * e.inner + j] += a.dy[at];
      }
    }
  }
}

/* How the sum is to be found, and what for it lies in the workspace. */
struct method {
  bool sorts;
  shape s;             /* a sorted gather is one of elements */
  int64_t positions, rows, pieces, bytes;
  sorting by;
  uint32_t *starts;
  void *sums;
};

method method_of(const shape &given, size_t size, void *workspace) {
  method m = {};
  const extent e = given.e;
  m.s = given;
  m.positions = given.gathers ? e.outer * given.k * e.inner : given.k;
  m.rows = given.gathers ? e.outer * e.n * e.inner : e.n;
  m.sorts = given.k > FEW && m.positions < UINT32_MAX && m.rows < UINT32_MAX &&
            !(given.gathers && e.outer * e.inner >= MANY_COLUMNS);
  if (!m.sorts) return m;
  if (given.gathers)
    m.s = shape{extent{1, m.rows, 1}, m.positions, false};
  m.pieces = m.positions / PIECE;
  m.by = sorting_of(m.positions, m.rows);
  m.sums = workspace;
  m.bytes = m.s.e.outer * m.pieces * m.s.e.inner * (int64_t)size;
  m.bytes = (m.bytes + 255) / 256 * 256;
  if (workspace) m.starts = (uint32_t *)((char *)workspace + m.bytes);
  m.bytes += (m.rows + 1) * (int64_t)sizeof(uint32_t);
  m.bytes = sorting_place(&m.by, workspace, m.bytes);
  return m;
}

template <typename T, int V>
rp_status add_sorted(const rp_kernel_args *args, addition<T> a,
                     const method &m, sorted_keys sorted) {
  const char *name = "index_add";
  const extent e = a.s.e;
  wide<T> *sums = (wide<T> *)m.sums;
  const int64_t part = e.outer * m.pieces * e.inner / V;
  if (part > 0) {
    const rp_status status =
        launch(args, name, add_pieces<T, V>, grid_for(part), dim3(BLOCK), 0, a,
               sorted, sums, m.pieces);
    if (status != RP_OK) return status;
  }
  return launch(args, name, add_rows<T, V>,
                grid_for(e.outer * e.n * e.inner / V), dim3(BLOCK), 0, a,
                sorted, m.starts, sums, m.pieces);
}

template <typename T>
rp_status add_at(const rp_kernel_args *args, const shape &s, int dy) {
  const char *name = "index_add";
  addition<T> a = {dy > 0 ? (const T *)args->in[0].data : nullptr,
                   (const T *)args->in[dy].data, (T *)args->out[0].data, s};
  const checked_indices idx = checked(args, dy + 1, s.e.n);
  const int64_t count = s.e.outer * s.e.n * s.e.inner;
  const method m = method_of(s, sizeof(wide<T>), args->workspace);
  if (count == 0) return check_only(args, idx, m.positions);
  rp_status status = RP_OK;
  if (!m.sorts) {
    if (a.dw != a.dx)
      status = launch(args, name, begin_rows<T>, grid_for(count), dim3(BLOCK),
                      0, a);
    if (status != RP_OK || s.k == 0) return status;
    return launch(args, name, add_columns<T>,
                  grid_for(s.e.outer * s.e.inner), dim3(BLOCK), 0, a, idx);
  }
  sorted_keys sorted = {};
  status = sort(args, name, m.by, row_keys{idx, s}, &sorted);
  if (status == RP_OK)
    status = launch(args, name, find_starts, grid_for(m.rows + 1),
                    dim3(BLOCK), 0, sorted.keys, m.positions, m.starts,
                    m.rows);
  if (status != RP_OK) return status;
  a.s = m.s;
  if constexpr (sizeof(T) == 4)
    if (m.s.e.inner % UNIT<T> == 0 && is_aligned(a.dx) && is_aligned(a.dy) &&
        is_aligned(a.dw))
      return add_sorted<T, UNIT<T>>(args, a, m, sorted);
  return add_sorted<T, 1>(args, a, m, sorted);
}

/* dy is input `dy`, the indices the next one; dim < 0: the attribute says. */
template <bool GATHERS>
shape adding_shape(const rp_kernel_args *args, int dy, int64_t dim) {
  const rp_type *idx = &args->in[dy + 1].type;
  if (dim < 0) dim = args->ints[0];
  return shape{extent_of(&args->out[0].type, dim),
               GATHERS ? idx->dims[dim] : rp_type_count(idx), GATHERS};
}

template <typename T, bool GATHERS, int DY, int DIM>
rp_status prepare(const rp_kernel_args *args, void **, int64_t *bytes) {
  const shape s = adding_shape<GATHERS>(args, DY, DIM);
  *bytes = method_of(s, sizeof(wide<T>), nullptr).bytes;
  return RP_OK;
}

template <typename T, bool GATHERS, int DY, int DIM>
rp_status add(const rp_kernel_args *args) {
  return add_at<T>(args, adding_shape<GATHERS>(args, DY, DIM), DY);
}

template <typename T, bool GATHERS, int DY, int DIM>
rp_kernel adding(const char *name, rp_dtype dtype) {
  return row(name, dtype, add<T, GATHERS, DY, DIM>,
             prepare<T, GATHERS, DY, DIM>);
}

} // namespace

RP_ROWS(index, row("embedding", RP_F32, embedding),
        row("embedding", RP_F64, embedding),
        row("embedding", RP_BF16, embedding),
        adding<float, false, 0, 0>("embedding_grad", RP_F32),
        adding<double, false, 0, 0>("embedding_grad", RP_F64),
        adding<bf16, false, 0, 0>("embedding_grad", RP_BF16),
        adding<float, false, 1, 0>("embedding_grad_add", RP_F32),
        adding<double, false, 1, 0>("embedding_grad_add", RP_F64),
        adding<bf16, false, 1, 0>("embedding_grad_add", RP_BF16),
        row("index_select", RP_F32, index_select),
        row("index_select", RP_F64, index_select),
        row("index_select", RP_I32, index_select),
        row("index_select", RP_I64, index_select),
        row("index_select", RP_BOOL, index_select),
        adding<float, false, 0, -1>("index_select_grad", RP_F32),
        adding<double, false, 0, -1>("index_select_grad", RP_F64),
        row("gather", RP_F32, gather<uint32_t>),
        row("gather", RP_F64, gather<uint64_t>),
        row("gather", RP_I32, gather<uint32_t>),
        row("gather", RP_I64, gather<uint64_t>),
        row("gather", RP_BOOL, gather<uint8_t>),
        adding<float, true, 0, -1>("gather_grad", RP_F32),
        adding<double, true, 0, -1>("gather_grad", RP_F64));

} // namespace rp
