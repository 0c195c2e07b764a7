/* What we ask of the real cuDNN, which needs no GPU to say whether it has a
   deterministic engine for it, and in how much scratch: it is given an A100's
   and an H100's properties in writing, and a driver that does nothing
   (no_driver.c). Attention's graphs are ours and are planned to the end; of
   convolutions, which run through the classic API, this says what that has to
   choose from. cudnn_test 80 or 90 for one of the two. Skipped where this cuDNN
   takes no such properties. */
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "cudnn_attention.h"
#include "totals.h"

namespace {

enum { SKIPPED = 77 };

struct device {
  int capability, multiprocessors, shared_per_block;
  const char *name;
};
const device devices[] = {{80, 108, 166912, "NVIDIA A100-SXM4-80GB"},
                          {90, 132, 232448, "NVIDIA H100 80GB HBM3"}};

/* NULL where it is refused. */
cudnnBackendDescriptor_t properties_of(const device &d) {
  char text[1024];
  const int length = snprintf(
      text, sizeof text,
      "{\"deviceName\": \"%s\", \"deviceVer\": %d, \"cudaDeviceId\": 0, "
      "\"pciDeviceId\": 0, \"driverVer\": 13000, \"isTccDriver\": 0, "
      "\"supportCoopLaunch\": 1, \"warpSize\": 32, "
      "\"multiProcessorCount\": %d, \"maxCtasPerSM\": 32, "
      "\"maxThreadsPerSM\": 2048, \"maxThreadsPerBlock\": 1024, "
      "\"maxBlockSize\": [1024, 1024, 64], "
      "\"maxGridSize\": [2147483647, 65535, 65535], "
      "\"regsPerBlock\": 65536, \"maxRegistersPerSM\": 65536, "
      "\"maxSharedMemoryPerBlock\": 49152, "
      "\"maxSharedMemoryPerBlockOptin\": %d, "
      "\"reservedSharedMemoryPerBlock\": 1024, \"l2CacheSize\": 52428800, "
      "\"smClockRateKHz\": 1410000, \"memClockRateKHz\": 1593000, "
      "\"totalGlobalMem\": 85000000000}",
      d.name, 10 * d.capability, d.multiprocessors, d.shared_per_block);
  cudnnBackendDescriptor_t made = nullptr;
  if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR,
                                   &made) != CUDNN_STATUS_SUCCESS)
    return nullptr;
  if (cudnnBackendSetAttribute(made, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                               CUDNN_TYPE_CHAR, length, text) ==
          CUDNN_STATUS_SUCCESS &&
      cudnnBackendFinalize(made) == CUDNN_STATUS_SUCCESS)
    return made;
  cudnnBackendDestroyDescriptor(made);
  return nullptr;
}

/* ---- attention ---------------------------------------------------------- */

/* q, k and v side by side in one array, as a layer's projection leaves them. */
rp::cudnn_attention_problem packed(int64_t batch, int64_t heads, int64_t length,
                                   int64_t depth, bool causal) {
  rp::cudnn_attention_problem p = {};
  p.batch = batch;
  p.heads = heads;
  p.queries = p.keys = length;
  p.depth = depth;
  p.causal = causal;
  p.scale = 0.125;
  const int64_t width = heads * depth;
  const rp::cudnn_strides side = {3 * length * width, depth, 3 * width};
  p.q = p.k = p.v = p.dq = p.dk = p.dv = side;
  p.out = p.dout = {length * width, depth, width};
  return p;
}

int passed, failures;

void say(bool good, const device &d, const std::string &what,
         const std::string &found) {
  printf("%ssm_%d, %s: %s\n", good ? "" : "not ok: ", d.capability,
         what.c_str(), found.c_str());
  ++(good ? passed : failures);
}

void check_attention(const device &d, cudnnBackendDescriptor_t properties,
                     const std::string &name,
                     const rp::cudnn_attention_problem &p, bool wanted) {
  for (bool backward : {false, true}) {
    rp::cudnn_graph graph;
    if (backward)
      rp::cudnn_attention_backward(&graph, p);
    else
      rp::cudnn_attention_forward(&graph, p);
    const bool planned = graph.plan(nullptr, properties);
    say(planned == wanted, d, name + (backward ? ", backward" : ", forward"),
        planned ? "planned, " + std::to_string(graph.workspace_bytes()) +
                      " bytes of scratch"
                : graph.message());
  }
}

/* ---- convolutions ------------------------------------------------------- */

/* Descriptors freed together; `failed` stays once something was refused. */
struct descriptors {
  std::vector<cudnnBackendDescriptor_t> all;
  bool failed = false;
  ~descriptors() {
    for (size_t i = all.size(); i-- > 0;) cudnnBackendDestroyDescriptor(all[i]);
  }
  cudnnBackendDescriptor_t make(cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t made = nullptr;
    failed = failed || cudnnBackendCreateDescriptor(type, &made);
    if (made) all.push_back(made);
    return made;
  }
  template <typename T>
  void set(cudnnBackendDescriptor_t of, cudnnBackendAttributeName_t name,
           cudnnBackendAttributeType_t type, const T &value, int64_t n = 1) {
    failed = failed || cudnnBackendSetAttribute(of, name, type, n, &value);
  }
  void finish(cudnnBackendDescriptor_t of) {
    failed = failed || cudnnBackendFinalize(of);
  }
};

struct convolution {
  const char *name;
  int64_t in, size, out, kernel, stride, pad, groups;
};
/* ResNet-18's, and what is odd. */
const convolution convolutions[] = {
    {"7x7 of 3 channels", 3, 224, 64, 7, 2, 3, 1},
    {"3x3 of 64", 64, 56, 64, 3, 1, 1, 1},
    {"3x3 of 64, stride 2", 64, 56, 128, 3, 2, 1, 1},
    {"1x1 of 64, stride 2", 64, 56, 128, 1, 2, 0, 1},
    {"3x3 of 256", 256, 14, 256, 3, 1, 1, 1},
    {"3x3 of 512", 512, 7, 512, 3, 1, 1, 1},
    {"3x3 of 5 channels", 5, 9, 7, 3, 1, 1, 1},
    {"3x3 in 4 groups", 64, 28, 64, 3, 1, 1, 4},
    {"3x3 of each channel", 64, 28, 64, 3, 1, 1, 64}};

cudnnBackendDescriptor_t tensor(descriptors *of, int64_t id,
                                cudnnDataType_t dtype,
                                const int64_t (&dims)[4]) {
  const int64_t strides[4] = {dims[1] * dims[2] * dims[3], dims[2] * dims[3],
                              dims[3], 1};
  const int64_t alignment = 16;
  cudnnBackendDescriptor_t made = of->make(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  of->set(made, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, dtype);
  of->set(made, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, dims[0], 4);
  of->set(made, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, strides[0], 4);
  of->set(made, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, id);
  of->set(made, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, alignment);
  of->finish(made);
  return made;
}

/* Deterministic engines, and those of them on tensor cores, for a weight's
   gradient. */
struct engines { int deterministic, on_tensor_cores; };

engines engines_of(cudnnBackendDescriptor_t properties, const convolution &c,
                   cudnnDataType_t from, cudnnDataType_t to) {
  enum { BATCH = 64, MOST = 64 };
  descriptors all;
  const int64_t count = (c.size + 2 * c.pad - c.kernel) / c.stride + 1;
  const auto x = tensor(&all, 1, from, {BATCH, c.in, c.size, c.size});
  const auto dy = tensor(&all, 2, from, {BATCH, c.out, count, count});
  const auto dw =
      tensor(&all, 3, to, {c.out, c.in / c.groups, c.kernel, c.kernel});
  const int64_t pads[2] = {c.pad, c.pad}, strides[2] = {c.stride, c.stride},
                dilations[2] = {1, 1}, rank = 2;
  const auto how = all.make(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  all.set(how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE,
          CUDNN_DATA_FLOAT);
  all.set(how, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE,
          CUDNN_CROSS_CORRELATION);
  all.set(how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, rank);
  all.set(how, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64,
          dilations[0], 2);
  all.set(how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64,
          strides[0], 2);
  all.set(how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, pads[0],
          2);
  all.set(how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, pads[0],
          2);
  all.finish(how);
  const auto made =
      all.make(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR);
  const cudnnBackendAttributeType_t link = CUDNN_TYPE_BACKEND_DESCRIPTOR;
  all.set(made, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, link, x);
  all.set(made, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, link, dy);
  all.set(made, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, link, dw);
  all.set(made, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, link,
          how);
  all.set(made, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
          CUDNN_TYPE_FLOAT, 1.0f);
  all.set(made, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
          CUDNN_TYPE_FLOAT, 1.0f);
  all.finish(made);
  const auto graph = all.make(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  all.set(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, link, made);
  all.finish(graph);
  const auto heuristics = all.make(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  all.set(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, link, graph);
  all.set(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE,
          CUDNN_HEUR_MODE_A);
  all.set(heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, link, properties);
  all.finish(heuristics);
  cudnnBackendDescriptor_t configs[MOST];
  for (auto &each : configs)
    each = all.make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  int64_t n = 0;
  engines found = {0, 0};
  if (all.failed ||
      cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, link,
                               MOST, &n, configs))
    return found;
  for (int64_t i = 0; i < n && i < MOST; i++) {
    auto engine = all.make(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    cudnnBackendNumericalNote_t notes[32];
    int64_t n_notes = 0, one = 0;
    if (cudnnBackendGetAttribute(configs[i], CUDNN_ATTR_ENGINECFG_ENGINE, link,
                                 1, &one, &engine) ||
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                 CUDNN_TYPE_NUMERICAL_NOTE, 32, &n_notes,
                                 notes))
      continue;
    bool repeats = true, on_tensor_cores = false;
    for (int64_t k = 0; k < n_notes && k < 32; k++) {
      repeats = repeats && notes[k] != CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
      on_tensor_cores =
          on_tensor_cores || notes[k] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
    }
    found.deterministic += repeats;
    found.on_tensor_cores += repeats && on_tensor_cores;
  }
  return found;
}

void check_convolution(const device &d, cudnnBackendDescriptor_t properties,
                       const convolution &c) {
  const struct { cudnnDataType_t from, to; const char *name; } cases[] = {
      {CUDNN_DATA_FLOAT, CUDNN_DATA_FLOAT, "f32 of f32"},
      {CUDNN_DATA_BFLOAT16, CUDNN_DATA_BFLOAT16, "bf16 of bf16"},
      {CUDNN_DATA_BFLOAT16, CUDNN_DATA_FLOAT, "f32 of bf16"}};
  for (const auto &each : cases) {
    const engines found = engines_of(properties, c, each.from, each.to);
    const std::string what =
        std::string(c.name) + ", weight's gradient in " + each.name;
    const std::string text =
        std::to_string(found.deterministic) + " deterministic engines, " +
        std::to_string(found.on_tensor_cores) + " on tensor cores";
    /* Why there is wide_conv.h: 9.19 has none, one that has is as good. */
    if (each.from != each.to)
      printf("sm_%d, %s: %s\n", d.capability, what.c_str(), text.c_str());
    else
      say(found.deterministic > 0, d, what, text);
  }
}

} // namespace

int main(int argc, char **argv) {
  for (const device &d : devices) {
    if (argc > 1 && atoi(argv[1]) != d.capability) continue;
    cudnnBackendDescriptor_t properties = properties_of(d);
    if (properties == nullptr) {
      printf("skipped: cuDNN %zu takes no properties of a device in writing\n",
             cudnnGetVersion());
      return SKIPPED;
    }
    check_attention(d, properties, "causal attention",
                    packed(8, 12, 1024, 64, true), true);
    check_attention(d, properties, "attention to all",
                    packed(2, 3, 256, 128, false), true);
    /* That it says yes is worth something. */
    check_attention(d, properties, "heads of 12 columns",
                    packed(2, 3, 256, 12, true), false);
    for (const convolution &c : convolutions)
      check_convolution(d, properties, c);
    cudnnBackendDestroyDescriptor(properties);
  }
  say_totals(passed, failures);
  return failures ? 1 : 0;
}
