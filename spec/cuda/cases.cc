#include "cases.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "writer.h"

extern "C" {
#include "graph/record.h"
}

namespace cases {

const char *const unregistered[] = {"fused", "batch_norm_statistics",
                                    "batch_norm_apply", "linear+gelu_tanh",
                                    "matmul+gelu_tanh_grad", nullptr};

/* ---- arrays -------------------------------------------------------------- */

double element(const void *data, int32_t dtype, int64_t i) {
  switch (dtype) {
    case RP_F32: return ((const float *)data)[i];
    case RP_F64: return ((const double *)data)[i];
    case RP_BF16: return rp_bf16_to_f32(((const uint16_t *)data)[i]);
    case RP_I32: return ((const int32_t *)data)[i];
    case RP_I64: return (double)((const int64_t *)data)[i];
    default: return ((const uint8_t *)data)[i];
  }
}

void set_element(void *data, int32_t dtype, int64_t i, double v) {
  switch (dtype) {
    case RP_F32: ((float *)data)[i] = (float)v; break;
    case RP_F64: ((double *)data)[i] = v; break;
    case RP_BF16: ((uint16_t *)data)[i] = rp_f32_to_bf16((float)v); break;
    case RP_I32: ((int32_t *)data)[i] = (int32_t)v; break;
    case RP_I64: ((int64_t *)data)[i] = (int64_t)v; break;
    default: ((uint8_t *)data)[i] = v != 0; break;
  }
}

rp_array array_like(const rp_type *type, void *data) {
  rp_array a = {};
  rp_strides s = {};
  rp_strides_contiguous(type, &s);
  a.data = data;
  a.type = *type;
  memcpy(a.strides, s.at, sizeof a.strides);
  return a;
}

rp_array array_of(const rp_tensor *t, void *root) {
  rp_array a = {};
  a.type = t->type;
  memcpy(a.strides, t->strides.at, sizeof a.strides);
  if (root)
    a.data = (char *)root +
             t->strides.offset * (int64_t)rp_dtype_size((rp_dtype)t->type.dtype);
  return a;
}

int32_t row_dtype(const call &c) {
  return c.in.empty() ? c.out[0].dtype : c.in[0]->type.dtype;
}

const rp_kernel *cpu_row(const std::string &op, int32_t dtype) {
  for (int t = 0; t < rp_cpu.n_tables; t++)
    for (int i = 0; i < rp_cpu.tables[t]->n; i++) {
      const rp_kernel *row = &rp_cpu.tables[t]->rows[i];
      if (row->op->name == op && row->dtype == dtype) return row;
    }
  return nullptr;
}

/* ---- values ------------------------------------------------------------- */

static uint64_t next(uint64_t &state) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return state >> 33;
}

static double special_float(uint64_t r, bool wide) {
  static const double some[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0, 1.0, -1.0,
                                1e-40, -1e-40};
  static const double wider[] = {2147483647.0, -2147483648.0, 4e9, -4e9, 1e20,
                                 -1e20, 3e38, 254.5, 1.5, 2.5, -0.5};
  const size_t n = sizeof some / sizeof *some,
               m = sizeof wider / sizeof *wider;
  const size_t i = r % (wide ? n + m : n);
  return i < n ? some[i] : wider[i - n];
}

/* The ends are written as integers: no double holds INT64_MAX. */
static void set_special_integer(void *data, int32_t dtype, int64_t i,
                                uint64_t r) {
  const bool low = r % 4 == 0, high = r % 4 == 1;
  if (dtype == RP_I32)
    ((int32_t *)data)[i] = low ? INT32_MIN : high ? INT32_MAX : 0;
  else
    ((int64_t *)data)[i] = low ? INT64_MIN : high ? INT64_MAX : 0;
}

void book::fill_leaf(const rp_tensor *leaf, bytes &data) {
  const int32_t dtype = leaf->type.dtype;
  const int64_t n = rp_type_count(&leaf->type);
  const auto how = fills.find(leaf);
  const fill f = how == fills.end() ? fill::any : how->second;
  const auto index = indices.find(leaf);
  uint64_t state = 77 + 1000003 * leaf->node->ordinal;
  for (int64_t i = 0; i < n; i++) {
    const double u = (double)next(state) * 0x1p-31;
    const uint64_t r = next(state);
    if (f == fill::given) {
      const std::vector<double> &v = givens[leaf];
      set_element(data.data(), dtype, i, v[(size_t)i % v.size()]);
    } else if (index != indices.end()) {
      const rp_index_range &range = index->second;
      const bool allowed = range.has_allowed && r % 5 == 0;
      set_element(data.data(), dtype, i,
                  allowed ? (double)range.allowed
                          : std::floor(u * (double)range.limit));
    } else if (dtype == RP_BOOL) {
      set_element(data.data(), dtype, i, u < 0.6);
    } else if (rp_dtype_is_float((rp_dtype)dtype)) {
      double v = f == fill::positive ? 0.05 + 2 * u : 4 * u - 2;
      if ((f == fill::special || f == fill::wide) && r % 3 == 0)
        v = special_float(r / 3, f == fill::wide);
      set_element(data.data(), dtype, i, v);
    } else if (f == fill::special && r % 3 == 0) {
      set_special_integer(data.data(), dtype, i, r / 3);
    } else {
      set_element(data.data(), dtype, i,
                  f == fill::positive ? 1 + std::floor(9 * u)
                                      : std::floor(19 * u) - 9);
    }
  }
}

/* What a number or a filled leaf holds, or what the CPU makes of a recipe. */
const bytes &book::value(const rp_tensor *root) {
  const auto known = values.find(root);
  if (known != values.end()) return known->second;
  if (!root->node->leaf) {
    const call c = of_node(root->node);
    std::vector<bytes> out;
    if (run_cpu(*this, c, out) != RP_OK) {
      fprintf(stderr, "%s: %s\n", c.op.c_str(), rp_message(ctx));
      abort();
    }
    for (int k = 0; k < root->node->n_outputs; k++)
      values[&root->node->outputs[k]] = out[(size_t)k];
    return values[root];
  }
  bytes data((size_t)rp_type_bytes(&root->type));
  if (root->node->leaf->role == RP_NUMBER)
    memcpy(data.data(), root->node->leaf->number, data.size());
  else fill_leaf(root, data);
  return values[root] = data;
}

/* ---- the CPU's row ------------------------------------------------------ */

enum { GUARD = 64 };

/* Owns aligned bytes with a sentinel behind them. */
struct guarded {
  explicit guarded(int64_t size) : size(size) {
    data = (unsigned char *)aligned_alloc(RP_ALIGN,
                                          (size_t)rp_align(size + GUARD));
    memset(data, 0xa5, (size_t)(size + GUARD));
  }
  ~guarded() {
    for (int i = 0; i < GUARD; i++)
      if (data[size + i] != 0xa5) {
        fprintf(stderr, "the CPU's row wrote past its end\n");
        abort();
      }
    free(data);
  }
  int64_t size;
  unsigned char *data;
};

rp_kernel_args args_of(book &b, const call &c, std::vector<rp_array> &in,
                       std::vector<rp_array> &out) {
  rp_kernel_args args = {};
  args.in = in.data();
  args.out = out.data();
  args.n_in = (int32_t)in.size();
  args.n_out = (int32_t)out.size();
  args.ints = c.ints.data();
  args.n_ints = (int32_t)c.ints.size();
  args.reals = c.reals.data();
  args.n_reals = (int32_t)c.reals.size();
  args.fusion = c.fusion.get();
  args.ctx = b.context();
  return args;
}

rp_status run_cpu(book &b, const call &c, std::vector<bytes> &out) {
  for (const rp_tensor *t : c.made_apart) out.push_back(b.value(t));
  if (!out.empty()) return RP_OK;
  const rp_kernel *row = cpu_row(c.op, row_dtype(c));
  std::vector<std::unique_ptr<guarded>> roots, made;
  std::vector<rp_array> in, types, outs, out_types;
  for (rp_tensor *t : c.in) {
    const bytes &value = b.value(t->root);
    roots.emplace_back(new guarded((int64_t)value.size()));
    if (!value.empty()) memcpy(roots.back()->data, value.data(), value.size());
    in.push_back(array_of(t, roots.back()->data));
    types.push_back(array_of(t, nullptr));
  }
  for (const rp_type &type : c.out) {
    made.emplace_back(new guarded(rp_type_bytes(&type)));
    outs.push_back(array_like(&type, made.back()->data));
    out_types.push_back(array_like(&type, nullptr));
  }
  rp_kernel_args args = args_of(b, c, types, out_types);
  args.seed = c.stream.seed;
  args.stream = c.stream.draw;
  int64_t size = 0;
  rp_status status =
      row->prepare ? row->prepare(&args, &args.state, &size) : RP_OK;
  if (status == RP_OK) {
    guarded workspace(size);
    args.in = in.data();
    args.out = outs.data();
    args.workspace = workspace.data;
    status = row->run(&args);
  }
  if (row->destroy && args.state) row->destroy(args.state);
  for (const auto &m : made)
    out.emplace_back(m->data, m->data + m->size);
  for (size_t i = 0; i < in.size(); i++)
    if (c.writes >> i & 1u)
      out.emplace_back(roots[i]->data, roots[i]->data + roots[i]->size);
  return status;
}

/* ---- writing cases ------------------------------------------------------ */

book::book() : ctx(rp_context_new()) { rp_manual_seed(ctx, 20261122); }
book::~book() { rp_context_free(ctx); }

std::vector<call> book::of(const std::string &op, rp_dtype dtype) {
  writer w(*this, op, dtype);
  write_cases(w);
  return w.calls;
}

rp_tensor *writer::keep(rp_tensor *t, const char *what) {
  if (t) return t;
  fprintf(stderr, "%s: %s: %s\n", op.c_str(), what, rp_message(b.ctx));
  abort();
}

rp_tensor *writer::leaf(const dims &d, fill f, int as) {
  rp_type type = {};
  type.dtype = as < 0 ? dtype : as;
  type.rank = (int32_t)d.size();
  std::copy(d.begin(), d.end(), type.dims);
  rp_tensor *t = keep(rp_leaf(b.ctx, RP_INPUT, &type), "leaf");
  b.fills[t] = f;
  return t;
}

rp_tensor *writer::given(const dims &d, const std::vector<double> &values,
                         int as) {
  rp_tensor *t = leaf(d, fill::given, as);
  b.givens[t] = values;
  return t;
}

rp_tensor *writer::number(double value, int as) {
  return keep(rp_number(b.ctx, value, (rp_dtype)(as < 0 ? dtype : as)),
              "number");
}

rp_tensor *writer::record(const char *name, const tensors &in,
                          const dims &ints, const std::vector<double> &reals) {
  return keep(rp_record(b.ctx, rp_op_find(name), in.data(), (int)in.size(),
                        ints.data(), (int)ints.size(), reals.data(),
                        (int)reals.size()),
              name);
}

rp_tensor *writer::view(lie how, const dims &d, fill f, int as) {
  const size_t last = d.size() - 1;
  dims root = d;
  int64_t n = 1;
  for (int64_t size : d) n *= size;
  switch (how) {
    case lie::plain: return leaf(d, f, as);
    case lie::offset:
      return record("reshape",
                    {record("narrow", {leaf({n + 1}, f, as)}, {0, 1, n, 1})},
                    d);
    case lie::transposed: {
      if (d.size() < 2) return leaf(d, f, as);
      std::swap(root[last], root[last - 1]);
      dims order;
      for (size_t i = 0; i < d.size(); i++) order.push_back((int64_t)i);
      std::swap(order[last], order[last - 1]);
      return record("permute", {leaf(root, f, as)}, order);
    }
    case lie::stepped:
      if (d.empty()) return leaf(d, f, as);
      root[last] = 2 * d[last] + 1;
      return record("narrow", {leaf(root, f, as)},
                    {(int64_t)last, 1, d[last], 2});
    case lie::columns:
      if (d.empty()) return leaf(d, f, as);
      root[last] = d[last] + 3;
      return record("narrow", {leaf(root, f, as)},
                    {(int64_t)last, 2, d[last], 1});
    default:
      if (d.empty()) return leaf(d, f, as);
      root[0] = 1;
      return record("expand", {leaf(root, f, as)}, d);
  }
}

rp_tensor *writer::output(rp_tensor *t, int k) { return &t->node->outputs[k]; }

call book::of_node(const rp_node *node) {
  call c;
  c.op = node->op->name;
  for (int i = 0; i < node->n_inputs; i++)
    if (!(node->op->effect_inputs >> i & 1u)) c.in.push_back(node->inputs[i]);
  for (int k = 0; k < node->n_outputs; k++)
    c.out.push_back(node->outputs[k].type);
  c.ints.assign(node->ints, node->ints + node->n_ints);
  c.reals.assign(node->reals, node->reals + node->n_reals);
  c.stream = node->stream;
  c.in_place = node->op->in_place;
  c.writes = node->op->writes;
  c.flags = node->op->flags;
  if (node->op->ranges) {
    rp_index_range ranges[2];
    const int n = node->op->ranges(node, ranges);
    c.ranges.assign(ranges, ranges + n);
    for (int i = 0; i < n; i++) {
      const rp_tensor *root = node->inputs[ranges[i].input]->root;
      if (root->node->leaf) indices[root] = ranges[i];
    }
  }
  return c;
}

void writer::note_inputs(call &c, const char *note) {
  c.note = note;
  for (rp_tensor *each : c.in) {
    char text[RP_DIMS_TEXT];
    c.note += " ";
    c.note += rp_dtype_name((rp_dtype)each->type.dtype);
    c.note += rp_dims_text(&each->type, text);
    const auto f = b.fills.find(each->root);
    if (f != b.fills.end() &&
        (f->second == fill::special || f->second == fill::wide))
      c.special = true;
  }
}

call *writer::add(const tensors &in, const dims &ints,
                  const std::vector<double> &reals, const char *note) {
  rp_tensor *t = rp_record_with_stream(
      b.ctx, rp_op_find(op.c_str()), in.data(), (int)in.size(), ints.data(),
      (int)ints.size(), reals.data(), (int)reals.size(), nullptr);
  keep(t, note);
  calls.push_back(b.of_node(t->node));
  call &c = calls.back();
  note_inputs(c, note);
  for (int64_t i : ints) c.note += " " + std::to_string(i);
  return &c;
}

call *writer::add_apart(const tensors &in, const tensors &out,
                        const char *note) {
  call c;
  c.op = op;
  c.in = in;
  for (const rp_tensor *t : out) {
    c.out.push_back(t->type);
    c.made_apart.push_back(t);
  }
  note_inputs(c, note);
  c.note += " to " + std::to_string(out.size());
  calls.push_back(c);
  return &calls.back();
}

} // namespace cases
