#include "compare.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>

#include "opened.h"

#ifdef RP_EMULATED
#include "hooks.h"
#endif

#define RP_TABLE(name) extern "C" rp_kernel_table rp_cuda_##name;
#include "tables.def"
#undef RP_TABLE

namespace cases {
namespace {

rp_kernel_table *const tables[] = {
#define RP_TABLE(name) &rp_cuda_##name,
#include "tables.def"
#undef RP_TABLE
    nullptr};

std::string text(const char *format, ...) __attribute__((format(printf, 1, 2)));
std::string text(const char *format, ...) {
  char buffer[512];
  va_list list;
  va_start(list, format);
  vsnprintf(buffer, sizeof buffer, format, list);
  va_end(list);
  return buffer;
}

/* ---- the device's memory ------------------------------------------------ */

enum { GUARD = 256, SENTINEL = 0xa5, NODE = 6 };

/* Bytes of the device between sentinels, freed at the end. */
struct block {
  block(int64_t size, unsigned char rubbish, int64_t moved = 0)
      : size(size), front(GUARD + moved) {
    must(cudaMalloc((void **)&base, room()), "cudaMalloc");
    bytes all(room(), SENTINEL);
    std::fill(all.begin() + front, all.end() - GUARD, rubbish);
    must(cudaMemcpy(base, all.data(), all.size(), cudaMemcpyHostToDevice),
         "cudaMemcpy");
  }
  explicit block(const bytes &value, int64_t moved = 0)
      : block((int64_t)value.size(), 0, moved) {
    if (!value.empty())
      must(cudaMemcpy(data(), value.data(), value.size(),
                      cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  block(const block &) = delete;
  ~block() { cudaFree(base); }
  unsigned char *data() { return base + front; }
  /* What is there now; false where a sentinel is gone. */
  bool read(bytes &out) {
    bytes all(room());
    must(cudaMemcpy(all.data(), base, all.size(), cudaMemcpyDeviceToHost),
         "cudaMemcpy");
    out.assign(all.begin() + front, all.end() - GUARD);
    bool intact = true;
    for (size_t i = 0; i < all.size(); i++)
      intact = intact && ((i >= (size_t)front && i < all.size() - GUARD) ||
                          all[i] == SENTINEL);
    return intact;
  }
  size_t room() const { return (size_t)(front + size + GUARD); }
  int64_t size, front;
  unsigned char *base = nullptr;
};

/* Runs into a recording, then the recording. */
rp_status run_recorded(rp_cuda_device *device, const rp_kernel *row,
                       const rp_kernel_args *args) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  must(cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeThreadLocal),
       "cudaStreamBeginCapture");
  const rp_status status = row->run(args);
  must(cudaStreamEndCapture(device->stream, &graph), "cudaStreamEndCapture");
  must(cudaGraphInstantiateWithFlags(&ready, graph, 0), "instantiate");
  must(cudaGraphLaunch(ready, device->stream), "cudaGraphLaunch");
  must(cudaStreamSynchronize(device->stream), "a replay");
  cudaGraphExecDestroy(ready);
  cudaGraphDestroy(graph);
  return status;
}

} // namespace

const rp_kernel *cuda_row(const std::string &op, int32_t dtype) {
  for (rp_kernel_table *const *t = tables; *t; t++)
    for (int i = 0; i < (*t)->n; i++)
      if (op == (*t)->rows[i].name && (*t)->rows[i].dtype == dtype)
        return &(*t)->rows[i];
  return nullptr;
}

/* ---- running ------------------------------------------------------------ */

/* The roots' bytes; the same root is one block. */
static bytes root_value(book &b, const call &c, size_t i, const manner &how) {
  bytes value = b.value(c.in[i]->root);
  if (how.break_index < 0) return value;
  const rp_index_range &range = c.ranges[(size_t)how.break_index];
  if (range.input == (int)i && !value.empty())
    set_element(value.data(), c.in[i]->type.dtype, c.in[i]->strides.offset,
                (double)range.limit);
  return value;
}

result run_cuda(book &b, rp_cuda_device *device, const call &c,
                const rp_kernel *row, const manner &how) {
  result r = {};
  std::map<const rp_tensor *, std::unique_ptr<block>> roots;
  std::vector<std::unique_ptr<block>> made;
  std::vector<bytes> before;
  std::vector<rp_array> in, types, outs, out_types;
  for (size_t i = 0; i < c.in.size(); i++) {
    const rp_tensor *root = c.in[i]->root;
    before.push_back(root_value(b, c, i, how));
    const int64_t moved =
        how.moved ? (int64_t)rp_dtype_size((rp_dtype)root->type.dtype) : 0;
    if (!roots.count(root)) roots[root].reset(new block(before.back(), moved));
    in.push_back(array_of(c.in[i], roots[root]->data()));
    types.push_back(array_of(c.in[i], nullptr));
  }
  for (size_t k = 0; k < c.out.size(); k++) {
    const bool over = k == 0 && how.over >= 0;
    made.emplace_back(over ? nullptr : new block(rp_type_bytes(&c.out[k]),
                                                 how.rubbish));
    outs.push_back(array_like(&c.out[k], over ? in[(size_t)how.over].data
                                              : made.back()->data()));
    out_types.push_back(array_like(&c.out[k], nullptr));
  }
  const uint64_t words[2] = {c.stream.seed, c.stream.draw};
  block draw(bytes((const unsigned char *)words,
                   (const unsigned char *)words + sizeof words));
  rp_kernel_args args = args_of(b, c, types, out_types);
  args.node = NODE;
  args.device = device;
  /* What a row must not look at. */
  args.seed = args.stream = 0xbad;
  int64_t size = 0;
  if (row->prepare) r.status = row->prepare(&args, &args.state, &size);
  if (r.status != RP_OK) {
    r.wrong = text("prepare: %s", rp_message(b.context()));
    if (row->destroy && args.state) row->destroy(args.state);
    return r;
  }
  block workspace(size, how.rubbish);
  args.fusion = nullptr;
  args.in = in.data();
  args.out = outs.data();
  args.workspace = workspace.data();
  args.draw = (const uint64_t *)draw.data();
  /* Copies may still be on their way: this stream does not wait for them. */
  must(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  *device->host_fault = {};
  if (how.faulty) device->host_fault->node = 99;
#ifdef RP_EMULATED
  rp_emulated_order(how.order);
#endif
  r.status = how.recorded ? run_recorded(device, row, &args) : row->run(&args);
  const cudaError_t error = cudaStreamSynchronize(device->stream);
  r.fault = *device->host_fault;
  if (row->destroy && args.state) row->destroy(args.state);
  if (r.status != RP_OK)
    r.wrong = text("run: %s", rp_message(b.context()));
  else if (error != cudaSuccess)
    r.wrong = text("run: %s", cudaGetErrorString(error));
  if (!r.wrong.empty()) return r;

  bytes now;
  if (!workspace.read(now)) r.wrong = "wrote outside of its workspace";
  for (size_t k = 0; k < c.out.size(); k++) {
    const bool over = k == 0 && how.over >= 0;
    const rp_tensor *root = over ? c.in[(size_t)how.over]->root : nullptr;
    if (!(over ? roots[root].get() : made[k].get())->read(now))
      r.wrong = text("wrote outside of output %zu", k);
    if (over) { /* the input's part of its root */
      const int64_t at = c.in[(size_t)how.over]->strides.offset *
                         (int64_t)rp_dtype_size((rp_dtype)c.out[0].dtype);
      now = bytes(now.begin() + at, now.begin() + at +
                  rp_type_bytes(&c.out[0]));
    }
    r.values.push_back(now);
  }
  for (size_t i = 0; i < c.in.size(); i++) {
    if (!roots[c.in[i]->root]->read(now))
      r.wrong = text("wrote outside of input %zu", i);
    if (c.writes >> i & 1u) r.values.push_back(now);
    else if (now != before[i] &&
             (how.over < 0 || c.in[(size_t)how.over]->root != c.in[i]->root))
      r.wrong = text("changed input %zu", i);
  }
  return r;
}

/* ---- comparing ---------------------------------------------------------- */

/* NMSE, and what a single element may be off by, of its own value and of the
   array's: loose enough for a sum's rounding, not for a wrong element. */
struct bound { double nmse, element; };

/* Whether what is made in f32 of bf16 is a sum in f32, rounded no further. */
static bool sums_in_f32(const call &c) {
  return c.op == "conv2d_grad_input" || c.op == "conv2d_grad_weight";
}

static bound bound_of(const call &c, int32_t dtype) {
  if (dtype == RP_F32 && sums_in_f32(c)) return {1e-7, 5e-3};
  bool narrow = dtype == RP_BF16;
  for (const rp_tensor *t : c.in)
    narrow = narrow ||
             (t->type.dtype == RP_BF16 && !(c.flags & RP_ELEMENTWISE));
  if (narrow) return {1e-3, 0.1};
  return dtype == RP_F64 ? bound{1e-14, 1e-5} : bound{1e-7, 5e-3};
}

static std::string differ(const call &c, size_t k, const rp_type &type,
                          const bytes &got, const bytes &want) {
  const int64_t n = rp_type_count(&type);
  if (!rp_dtype_is_float((rp_dtype)type.dtype)) {
    for (int64_t i = 0; i < n; i++)
      if (memcmp(&got[(size_t)i * rp_dtype_size((rp_dtype)type.dtype)],
                 &want[(size_t)i * rp_dtype_size((rp_dtype)type.dtype)],
                 rp_dtype_size((rp_dtype)type.dtype)) != 0)
        return text("value %zu [%lld] is %.17g, the CPU's %.17g", k,
                    (long long)i, element(got.data(), type.dtype, i),
                    element(want.data(), type.dtype, i));
    return "";
  }
  double squares = 0, errors = 0;
  int64_t finite = 0;
  for (int64_t i = 0; i < n; i++) {
    const double a = element(got.data(), type.dtype, i);
    const double b = element(want.data(), type.dtype, i);
    const bool same = std::isnan(b) ? std::isnan(a)
                      : std::isinf(b) ? a == b : std::isfinite(a);
    if (!same)
      return text("value %zu [%lld] is %g, the CPU's %g", k, (long long)i, a,
                  b);
    if (!std::isfinite(b)) continue;
    finite++;
    squares += b * b;
    errors += (a - b) * (a - b);
  }
  if (finite == 0) return "";
  const bound limit = bound_of(c, type.dtype);
  /* Below 1e-3 it is noise: what is 0 but for rounding. */
  const double scale = squares / (double)finite + 1e-6;
  const double nmse = errors / (double)finite / scale;
  if (!(nmse <= limit.nmse))
    return text("value %zu: NMSE %.3g, above %g", k, nmse, limit.nmse);
  const double level = c.special ? 1e-3 : std::sqrt(scale);
  for (int64_t i = 0; i < n; i++) {
    const double a = element(got.data(), type.dtype, i);
    const double b = element(want.data(), type.dtype, i);
    if (std::isfinite(b) &&
        !(std::fabs(a - b) <= limit.element * (std::fabs(b) + level)))
      return text("value %zu [%lld] is %.9g, the CPU's %.9g", k, (long long)i,
                  a, b);
  }
  return "";
}

/* The types of result.values. */
static std::vector<rp_type> value_types(const call &c) {
  std::vector<rp_type> types = c.out;
  for (size_t i = 0; i < c.in.size(); i++)
    if (c.writes >> i & 1u) types.push_back(c.in[i]->root->type);
  return types;
}

/* Any NaN is as good as another: which one an operation of two gives is not
   said anywhere. */
static bool same_bits(const std::vector<rp_type> &types,
                      const std::vector<bytes> &a,
                      const std::vector<bytes> &b) {
  for (size_t k = 0; k < types.size(); k++) {
    const size_t size = rp_dtype_size((rp_dtype)types[k].dtype);
    for (int64_t i = 0; i < rp_type_count(&types[k]); i++)
      if (memcmp(&a[k][(size_t)i * size], &b[k][(size_t)i * size], size) != 0 &&
          !(std::isnan(element(a[k].data(), types[k].dtype, i)) &&
            std::isnan(element(b[k].data(), types[k].dtype, i))))
        return false;
  }
  return true;
}

static bool may_lie_over(const call &c, size_t i) {
  const rp_tensor *t = c.in[i];
  if (!(c.in_place >> i & 1u) || c.out.empty() ||
      !rp_type_equal(&t->type, &c.out[0]) ||
      !rp_strides_are_contiguous(&t->type, &t->strides))
    return false;
  for (size_t j = 0; j < c.in.size(); j++)
    if (j != i && c.in[j]->root == t->root) return false;
  return true;
}

/* An effect writes nothing once something was wrong. */
static std::string compare_faulty(book &b, rp_cuda_device *device,
                                  const call &c, const rp_kernel *row) {
  manner how;
  how.faulty = true;
  const result r = run_cuda(b, device, c, row, how);
  if (!r.wrong.empty()) return "after a fault: " + r.wrong;
  size_t k = c.out.size();
  for (size_t i = 0; i < c.in.size(); i++)
    if (c.writes >> i & 1u && r.values[k++] != b.value(c.in[i]->root))
      return text("wrote input %zu after a fault", i);
  return "";
}

static std::string compare_broken_index(book &b, rp_cuda_device *device,
                                        const call &c, const rp_kernel *row) {
  for (size_t k = 0; k < c.ranges.size(); k++) {
    if (rp_type_count(&c.in[(size_t)c.ranges[k].input]->type) == 0) continue;
    manner how;
    how.break_index = (int)k;
    const result r = run_cuda(b, device, c, row, how);
    if (!r.wrong.empty()) return "with an index past the end: " + r.wrong;
    if (r.fault.node != NODE + 1 || r.fault.found != c.ranges[k].limit ||
        r.fault.limit != c.ranges[k].limit)
      return text("an index of %lld leaves the fault at node %d, found %lld, "
                  "limit %lld", (long long)c.ranges[k].limit, r.fault.node,
                  r.fault.found, r.fault.limit);
  }
  return "";
}

static bool same_bits(const rp_type &type, const bytes &a, const bytes &b) {
  if (a == b) return true;
  const size_t size = rp_dtype_size((rp_dtype)type.dtype);
  for (size_t i = 0; i * size < a.size(); i++)
    if (memcmp(&a[i * size], &b[i * size], size) != 0 &&
        !(std::isnan(element(a.data(), type.dtype, (int64_t)i)) &&
          std::isnan(element(b.data(), type.dtype, (int64_t)i))))
      return false;
  return true;
}

/* A fused node has the bits of its parts' own rows, run one by one; NaNs are
   all alike. */
static std::string compare_parts(book &b, rp_cuda_device *device,
                                 const call &c, const bytes &fused) {
  std::string wrong;
  for (const rp_node *node : c.parts) {
    const call part = b.of_node(node);
    const rp_kernel *row = cuda_row(part.op, row_dtype(part));
    if (row == nullptr) {
      wrong = part.op + " has no row to compare with";
      break;
    }
    const result r = run_cuda(b, device, part, row, manner());
    if (!r.wrong.empty()) {
      wrong = part.op + ": " + r.wrong;
      break;
    }
    b.put(&node->outputs[0], r.values[0]);
  }
  if (wrong.empty() &&
      !same_bits(c.out[0], fused, b.value(&c.parts.back()->outputs[0])))
    wrong = "other bits than its parts, one by one";
  for (const rp_node *node : c.parts) b.forget(&node->outputs[0]);
  return wrong;
}

/* ---- many at once ------------------------------------------------------- */

/* Where the roots of all effects lie in one block, sentinels between them. */
struct places {
  bytes host;
  std::vector<std::map<const rp_tensor *, size_t>> at; /* by effect */

  /* Bools that an effect reads (its guard) are those of the one before, where
     that is of the same case. */
  void add(book &b, const call &c, bool moved, bool follows) {
    std::map<const rp_tensor *, size_t> own;
    for (size_t i = 0; i < c.in.size(); i++) {
      const rp_tensor *root = c.in[i]->root;
      if (own.count(root)) continue;
      if (follows && root->type.dtype == RP_BOOL && !(c.writes >> i & 1u)) {
        own[root] = at.back().at(root);
        continue;
      }
      const bytes &value = b.value(root);
      const size_t size = rp_dtype_size((rp_dtype)root->type.dtype);
      own[root] = (host.size() + GUARD + 255) / 256 * 256 + (moved ? size : 0);
      host.resize(own[root], SENTINEL);
      host.insert(host.end(), value.begin(), value.end());
    }
    at.push_back(own);
  }
};

/* Each of `all` so many times, every third an element off. want[i]: the leaves
   that all[i] writes, when it runs alone. */
static std::string run_many(book &b, rp_cuda_device *device,
                            const std::vector<call> &all, size_t times,
                            const rp_kernel *row, const char *order,
                            bool faulty,
                            const std::vector<std::vector<bytes>> &want) {
  places lie;
  const size_t n = times * all.size();
  for (size_t i = 0; i < n; i++)
    lie.add(b, all[i / times], i % 3 == 1, i % times > 0);
  block memory(lie.host);
  std::vector<std::vector<rp_array>> in(n);
  std::vector<rp_kernel_args> args(n);
  for (size_t i = 0; i < n; i++) {
    const call &c = all[i / times];
    for (const rp_tensor *t : c.in)
      in[i].push_back(
          array_of(t, memory.data() + lie.at[i].at(t->root)));
    args[i].in = in[i].data();
    args[i].n_in = (int32_t)in[i].size();
    args[i].ints = c.ints.data();
    args[i].n_ints = (int32_t)c.ints.size();
    args[i].reals = c.reals.data();
    args[i].n_reals = (int32_t)c.reals.size();
    args[i].node = NODE;
    args[i].ctx = b.context();
    args[i].device = device;
  }
  must(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  *device->host_fault = {};
  if (faulty) device->host_fault->node = 99;
#ifdef RP_EMULATED
  rp_emulated_order(order);
#endif
  const rp_status status = row->run_many(args.data(), (int32_t)n);
  const cudaError_t error = cudaStreamSynchronize(device->stream);
  *device->host_fault = {};
  if (status != RP_OK) return text("run_many: %s", rp_message(b.context()));
  if (error != cudaSuccess)
    return text("run_many: %s", cudaGetErrorString(error));
  bytes now;
  if (!memory.read(now)) return "wrote outside of everything";
  for (size_t i = 0; i < n; i++) {
    const call &c = all[i / times];
    size_t k = 0;
    for (size_t j = 0; j < c.in.size(); j++) {
      const rp_tensor *root = c.in[j]->root;
      const bool writes = c.writes >> j & 1u;
      const bytes &right = writes && !faulty ? want[i / times][k]
                                             : b.value(root);
      k += writes;
      const size_t at = lie.at[i].at(root);
      const bytes got(now.begin() + (long)at,
                      now.begin() + (long)(at + right.size()));
      if (!same_bits(root->type, got, right))
        return text("entry %zu (%s): other bits in input %zu", i,
                    c.note.c_str(), j);
      /* What is left when all is back as it was is what lay in between. */
      std::copy_n(lie.host.begin() + (long)at, right.size(),
                  now.begin() + (long)at);
    }
  }
  return now == lie.host ? "" : "wrote between the leaves";
}

std::string compare_many(book &b, rp_cuda_device *device,
                         std::vector<call> all) {
  const rp_kernel *row = cuda_row(all[0].op, row_dtype(all[0]));
  if (row->run_many == nullptr) return "";
  /* Those without a guard side by side: more than fit into one launch. */
  std::stable_sort(all.begin(), all.end(), [](const call &x, const call &y) {
    return x.in.size() < y.in.size();
  });
  size_t plain = 0;
  for (const call &c : all) plain += c.in.size() == all[0].in.size();
  const size_t times = 100 / plain + 1;
  std::vector<std::vector<bytes>> want;
  for (const call &c : all) {
    const result alone = run_cuda(b, device, c, row, manner());
    if (!alone.wrong.empty()) return alone.wrong;
    want.push_back(alone.values);
  }
  for (const char *order : {"forward", "reverse"}) {
    const std::string wrong =
        run_many(b, device, all, times, row, order, false, want);
    if (!wrong.empty()) return wrong;
  }
  const std::string wrong =
      run_many(b, device, all, times, row, "forward", true, want);
  return wrong.empty() ? "" : "after a fault: " + wrong;
}

std::string compare(book &b, rp_cuda_device *device, const call &c,
                    unsigned again) {
  const rp_kernel *row = cuda_row(c.op, row_dtype(c));
  std::vector<bytes> want;
  if (run_cpu(b, c, want) != RP_OK)
    return text("the CPU's row: %s", rp_message(b.context()));
  const std::vector<rp_type> types = value_types(c);
  const result first = run_cuda(b, device, c, row, manner());
  if (!first.wrong.empty()) return first.wrong;
  if (first.fault.node != 0)
    return text("a fault: %lld of %lld", first.fault.found, first.fault.limit);
  for (size_t k = 0; k < types.size(); k++) {
    const std::string wrong = differ(c, k, types[k], first.values[k], want[k]);
    if (!wrong.empty()) return wrong;
  }

  struct { const char *order; bool recorded, moved; const char *name; } const
      ways[] = {
          {"reverse", true, false,
           "replayed from a recording, in another order"},
          {"7", false, true, "in a third order, of inputs an element off"}};
  for (const auto &a : ways) {
    if (!(again >> (&a - ways) & 1u)) continue;
    manner how;
    how.rubbish = 0x5a;
    how.order = a.order;
    how.recorded = a.recorded;
    how.moved = a.moved;
    const result r = run_cuda(b, device, c, row, how);
    if (!r.wrong.empty()) return text("%s: ", a.name) + r.wrong;
    if (a.moved && !c.made_apart.empty()) {
      for (size_t k = 0; k < types.size(); k++) {
        const std::string wrong = differ(c, k, types[k], r.values[k], want[k]);
        if (!wrong.empty()) return text("%s: ", a.name) + wrong;
      }
      continue;
    }
    if (!same_bits(types, r.values, first.values))
      return text("other bits %s", a.name);
  }
  for (size_t i = 0; i < c.in.size(); i++) {
    if (!may_lie_over(c, i)) continue;
    manner how;
    how.over = (int)i;
    const result r = run_cuda(b, device, c, row, how);
    if (!r.wrong.empty()) return text("over input %zu: ", i) + r.wrong;
    if (r.values != first.values) return text("other bits over input %zu", i);
  }
  if (!c.parts.empty()) {
    const std::string wrong = compare_parts(b, device, c, first.values[0]);
    if (!wrong.empty()) return wrong;
  }
  const std::string wrong = c.flags & RP_EFFECT
                                ? compare_faulty(b, device, c, row) : "";
  return wrong.empty() ? compare_broken_index(b, device, c, row) : wrong;
}

} // namespace cases
