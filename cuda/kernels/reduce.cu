/* Reductions: sum, mean, max, min, var, logsumexp, sum_to, sum_squares. The
   parts of long folds lie in the workspace and are folded in turn. */
#include "fold.h"

namespace rp {
namespace {

/* ---- layouts ------------------------------------------------------------ */

enum {
  BLOCKS = 1024,       /* enough for any device */
  PART = 32 * BLOCK,   /* elements that are worth a block */
  COLUMN_PART = 64,    /* rows that are */
  FEW_ROWS = 32
};

/* x's dims in `set`, or those not in it, without the innermost `without`. */
walk<1> dims_of(const rp_array *x, uint32_t set, bool in_set, int without) {
  rp_type over = {};
  rp_array a = {};
  for (int d = 0; d < x->type.rank - without; d++) {
    if ((set >> d & 1u) != (uint32_t)in_set) continue;
    a.strides[over.rank] = x->strides[d];
    over.dims[over.rank++] = x->type.dims[d];
  }
  a.type = over;
  const rp_array *const arrays[1] = {&a};
  return walk_over<1>(&over, arrays);
}

struct layout {
  bool by_rows;
  row_layout rows;
  column_layout columns;
  int64_t outputs, reduced;

  int64_t parts() const { return by_rows ? rows.parts : columns.parts; }
};

/* How many parts an output is cut into, of `grain` at least. */
int64_t parts_of(int64_t length, int64_t grain, int64_t outputs,
                 int64_t *chunk) {
  int64_t parts = outputs < BLOCKS ? BLOCKS / (outputs ? outputs : 1) : 1;
  if (parts > length / grain) parts = length / grain;
  if (parts < 1) parts = 1;
  *chunk = ((length + parts - 1) / parts + 63) / 64 * 64;
  if (*chunk == 0) *chunk = 64;
  return length == 0 ? 1 : (length + *chunk - 1) / *chunk;
}

/* x (contiguous) over the dims in set. */
template <typename T> layout layout_of(const rp_array *x, uint32_t set) {
  const int unit = UNIT<T>;
  layout l = {};
  int inner = x->type.rank; /* the innermost group: dims inner.. */
  int64_t run = 1;
  bool found = false;
  while (inner > 0) {
    const int64_t size = x->type.dims[inner - 1];
    const bool is_reduced = set >> (inner - 1) & 1u;
    if (size != 1 && found && is_reduced != l.by_rows) break;
    if (size != 1) l.by_rows = is_reduced, found = true;
    run *= size;
    inner--;
  }
  if (!found) l.by_rows = true;
  const bool aligned = is_aligned(x->data);
  const int without = x->type.rank - inner;
  l.outputs = l.reduced = 1;
  for (int d = 0; d < x->type.rank; d++)
    (set >> d & 1u ? l.reduced : l.outputs) *= x->type.dims[d];
  if (l.by_rows) {
    row_layout *r = &l.rows;
    r->kept = dims_of(x, set, false, 0);
    r->reduced = dims_of(x, set, true, 0);
    r->how = r->reduced.flat ? WHOLE : run % unit == 0 ? UNITS : SINGLES;
    if (r->how == UNITS) {
      r->reduced.dims[0] /= unit;
      r->reduced.strides[0][0] = unit;
      r->reduced.count /= unit;
    }
    r->rows = l.outputs;
    r->length = l.reduced;
    r->parts = parts_of(r->length, PART, r->rows, &r->chunk);
    if (r->parts == 1) r->chunk = r->length;
    r->by = r->parts > 1 ? team{BLOCK} : team_for(r->length / unit);
    r->aligned = aligned;
    return l;
  }
  column_layout *c = &l.columns;
  c->kept = dims_of(x, set, false, without);
  c->reduced = dims_of(x, set, true, without);
  c->run = run;
  c->outer = run ? l.outputs / run : 0;
  c->rows = l.reduced;
  const int64_t threads = is_fast<T> && run % unit == 0 ? run / unit : run;
  c->across = 1;
  while (c->across < WARP && c->across < threads) c->across *= 2;
  c->tiles = (threads + c->across - 1) / c->across;
  c->parts = parts_of(c->rows, COLUMN_PART, c->outer * c->tiles, &c->chunk);
  c->aligned = aligned;
  return l;
}

/* ---- launching ---------------------------------------------------------- */

template <typename T, typename Y, typename F>
rp_status launch_columns(const rp_kernel_args *args, const char *name,
                         const T *x, Y *y, const column_layout &l, ending e,
                         const typename F::type *shifts) {
  const int64_t blocks = l.outer * l.parts * l.tiles;
  const dim3 grid((unsigned)(blocks < 1 << 30 ? blocks : 1 << 30));
  if constexpr (is_fast<T>) {
    if (l.parts == 1 &&
        (l.rows <= FEW_ROWS ||
         (l.run < WARP && l.outer * l.run >= BLOCKS * WARP)))
      return launch(args, name, fold_each_column<T, Y, F>,
                    grid_for(l.outer * l.run), dim3(BLOCK), 0, x, y, l, e,
                    shifts);
    if (l.run % UNIT<T> == 0)
      return launch(args, name, fold_columns<T, Y, F, UNIT<T>>, grid,
                    dim3(BLOCK), 0, x, y, l, e, shifts);
  }
  return launch(args, name, fold_columns<T, Y, F, 1>, grid, dim3(BLOCK), 0, x,
                y, l, e, shifts);
}

template <typename T, typename Y, typename F>
rp_status launch_rows(const rp_kernel_args *args, const char *name, const T *x,
                      Y *y, const row_layout &l, ending e,
                      const typename F::type *shifts) {
  return launch(args, name, fold_rows<T, Y, F>, grid_of(l.by, l.rows * l.parts),
                dim3(BLOCK), 0, x, y, l, e, shifts);
}

/* One fold of x into y, through `partials` where it is cut. */
template <typename T, typename Y, typename F>
rp_status fold(const rp_kernel_args *args, const char *name, const layout &l,
               const T *x, Y *y, ending e, typename F::type *partials,
               const typename F::type *shifts) {
  typedef typename F::type A;
  const ending as_is = {AS_IS, 1};
  if (l.parts() == 1)
    return l.by_rows
               ? launch_rows<T, Y, F>(args, name, x, y, l.rows, e, shifts)
               : launch_columns<T, Y, F>(args, name, x, y, l.columns, e,
                                         shifts);
  rp_array parts = {};
  parts.data = partials;
  parts.type.rank = 3;
  parts.type.dims[0] = l.by_rows ? l.rows.rows : l.columns.outer;
  parts.type.dims[1] = l.parts();
  parts.type.dims[2] = l.by_rows ? 1 : l.columns.run;
  parts.strides[2] = 1;
  parts.strides[1] = parts.type.dims[2];
  parts.strides[0] = parts.type.dims[1] * parts.type.dims[2];
  layout join = layout_of<A>(&parts, 2);
  if (l.by_rows) {
    const rp_status status =
        launch_rows<T, A, F>(args, name, x, partials, l.rows, as_is, shifts);
    if (status != RP_OK) return status;
  } else {
    const rp_status status = launch_columns<T, A, F>(
        args, name, x, partials, l.columns, as_is, shifts);
    if (status != RP_OK) return status;
  }
  /* At most BLOCKS parts: they are not cut again. */
  if (join.by_rows) {
    join.rows.parts = 1;
    join.rows.chunk = join.rows.length;
    return launch_rows<A, Y, typename F::again>(args, name, partials, y,
                                                join.rows, e, shifts);
  }
  join.columns.parts = 1;
  join.columns.chunk = join.columns.rows;
  return launch_columns<A, Y, typename F::again>(args, name, partials, y,
                                                 join.columns, e, shifts);
}

int64_t bytes_256(int64_t bytes) { return (bytes + 255) / 256 * 256; }

template <typename A> int64_t partial_bytes(const layout &l) {
  return l.parts() == 1
             ? 0 : bytes_256(l.outputs * l.parts() * (int64_t)sizeof(A));
}

template <typename T, typename A, int PASSES>
int64_t workspace_of(const layout &l) {
  const bool shifts = PASSES == 2 && !(l.by_rows && l.parts() == 1);
  return partial_bytes<A>(l) +
         (shifts ? bytes_256(l.outputs * (int64_t)sizeof(A)) : 0);
}

/* A G shifted by an F. */
template <typename T, typename F, typename G>
rp_status fold_twice(const rp_kernel_args *args, const char *name,
                     const layout &l, ending first, ending second) {
  typedef typename F::type A;
  const T *x = (const T *)args->in[0].data;
  A *y = (A *)args->out[0].data, *partials = (A *)args->workspace;
  if (l.by_rows && l.parts() == 1)
    return launch(args, name, fold_rows_twice<T, F, G>,
                  grid_of(l.rows.by, l.rows.rows), dim3(BLOCK), 0, x, y,
                  l.rows, first, second);
  A *shifts = (A *)((char *)args->workspace + partial_bytes<A>(l));
  const A *none = nullptr;
  const rp_status status =
      fold<T, A, F>(args, name, l, x, shifts, first, partials, none);
  if (status != RP_OK) return status;
  return fold<T, A, G>(args, name, l, x, y, second, partials, shifts);
}

/* ---- ops ---------------------------------------------------------------- */

/* The dims among the attributes from `first` on; all when there is none. */
uint32_t set_of(const rp_kernel_args *args, int first) {
  uint32_t set = 0;
  for (int i = first; i < args->n_ints; i++) set |= 1u << args->ints[i];
  return set ? set : (1u << RP_RANK) - 1;
}

/* The dims in which the result is narrower than x, or that it lacks. */
uint32_t set_to(const rp_kernel_args *args) {
  const rp_type *x = &args->in[0].type, *y = &args->out[0].type;
  const int added = x->rank - y->rank;
  uint32_t set = 0;
  for (int i = 0; i < x->rank; i++)
    if (i < added || y->dims[i - added] != x->dims[i]) set |= 1u << i;
  return set;
}

enum dims { OTHERS, AFTER_TWO, TO, ALL };

template <dims D> uint32_t set_for(const rp_kernel_args *args) {
  return D == OTHERS      ? set_of(args, 1)
         : D == AFTER_TWO ? set_of(args, 2)
         : D == TO        ? set_to(args)
                          : (1u << RP_RANK) - 1;
}

template <typename T, typename A, dims D, int PASSES>
rp_status prepare(const rp_kernel_args *args, void **, int64_t *bytes) {
  *bytes = workspace_of<T, A, PASSES>(layout_of<T>(&args->in[0],
                                                   set_for<D>(args)));
  return RP_OK;
}

template <typename T, typename Y, typename F, dims D = OTHERS,
          finish E = AS_IS>
rp_status once(const rp_kernel_args *args) {
  const layout l = layout_of<T>(&args->in[0], set_for<D>(args));
  if (l.outputs == 0) return RP_OK;
  const typename F::type *none = nullptr;
  return fold<T, Y, F>(args, "reduce", l, (const T *)args->in[0].data,
                       (Y *)args->out[0].data, ending{E, (double)l.reduced},
                       (typename F::type *)args->workspace, none);
}

template <typename T> rp_status var(const rp_kernel_args *args) {
  const layout l = layout_of<T>(&args->in[0], set_for<AFTER_TWO>(args));
  if (l.outputs == 0) return RP_OK;
  const int64_t correction = args->n_ints > 1 ? args->ints[1] : 0;
  const int64_t n = l.reduced > correction ? l.reduced - correction : 0;
  return fold_twice<T, fold_sum<T>, fold_deviation<T>>(
      args, "var", l, ending{DIVIDE, (double)l.reduced},
      ending{DIVIDE, (double)n});
}

template <typename T> rp_status logsumexp(const rp_kernel_args *args) {
  const layout l = layout_of<T>(&args->in[0], set_for<OTHERS>(args));
  if (l.outputs == 0) return RP_OK;
  return fold_twice<T, fold_top<T>, fold_exp<T>>(args, "logsumexp", l,
                                                 ending{AS_IS, 1},
                                                 ending{LOG, 1});
}

template <typename T, typename Y, typename F, dims D = OTHERS,
          finish E = AS_IS>
rp_kernel row_of(const char *name, rp_dtype dtype) {
  return row(name, dtype, once<T, Y, F, D, E>,
             prepare<T, typename F::type, D, 1>);
}

} // namespace

RP_ROWS(
    reduce, row_of<float, float, fold_sum<float>>("sum", RP_F32),
    row_of<double, double, fold_sum<double>>("sum", RP_F64),
    row_of<int32_t, uint64_t, fold_sum<uint64_t>>("sum", RP_I32),
    row_of<uint64_t, uint64_t, fold_sum<uint64_t>>("sum", RP_I64),
    row_of<uint8_t, uint64_t, fold_sum<uint64_t>>("sum", RP_BOOL),
    row_of<float, float, fold_sum<float>, OTHERS, DIVIDE>("mean", RP_F32),
    row_of<double, double, fold_sum<double>, OTHERS, DIVIDE>("mean", RP_F64),
    row_of<float, float, fold_top<float>>("max", RP_F32),
    row_of<double, double, fold_top<double>>("max", RP_F64),
    row_of<int32_t, int32_t, fold_top<int32_t>>("max", RP_I32),
    row_of<int64_t, int64_t, fold_top<int64_t>>("max", RP_I64),
    row_of<float, float, fold_bottom<float>>("min", RP_F32),
    row_of<double, double, fold_bottom<double>>("min", RP_F64),
    row_of<int32_t, int32_t, fold_bottom<int32_t>>("min", RP_I32),
    row_of<int64_t, int64_t, fold_bottom<int64_t>>("min", RP_I64),
    row("var", RP_F32, var<float>, prepare<float, float, AFTER_TWO, 2>),
    row("var", RP_F64, var<double>, prepare<double, double, AFTER_TWO, 2>),
    row("logsumexp", RP_F32, logsumexp<float>,
        prepare<float, float, OTHERS, 2>),
    row("logsumexp", RP_F64, logsumexp<double>,
        prepare<double, double, OTHERS, 2>),
    row_of<float, float, fold_sum<float>, TO>("sum_to", RP_F32),
    row_of<double, double, fold_sum<double>, TO>("sum_to", RP_F64),
    row_of<bf16, float, fold_sum<float>, TO>("sum_to", RP_BF16),
    row_of<float, float, fold_squares<float>, ALL>("sum_squares", RP_F32),
    row_of<double, double, fold_squares<double>, ALL>("sum_squares", RP_F64));

} // namespace rp
