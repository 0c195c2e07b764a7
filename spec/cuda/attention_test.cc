/* Attention's CUDA kernels on the emulated device against the CPU's on the
   same numbers: every dtype, odd sizes, lengths that differ, masks, dropout,
   packed operands, operands whose rows are not where they would lie by
   themselves. The same bits in whatever order threads run, and what lies around the outputs
   as it was. */
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "device.h"
#include "exec/backend.h"
#include "graph/op.h"
#include "hooks.h"

extern "C" rp_kernel_table rp_cuda_attention;
extern "C" const rp_kernel_table rp_cpu_attention;

rp_status rp_cuda_launched(const rp_kernel_args *args, const char *kernel,
                           cudaError_t error) {
  (void)args;
  if (error == cudaSuccess) return RP_OK;
  fprintf(stderr, "%s: %s\n", kernel, cudaGetErrorString(error));
  return RP_INTERNAL;
}

namespace {

int failures = 0;
enum { GUARD = 64 };

void require(cudaError_t error) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "%s: %s\n", cudaGetErrorString(error),
          rp_emulated_message());
  exit(1);
}

/* An array with both its bytes: all its storage, guards before and behind. */
struct value {
  rp_type type = {};
  int64_t strides[RP_RANK] = {};
  int64_t count = 0; /* elements of storage */
  std::vector<unsigned char> bytes;
  unsigned char *device = nullptr;

  size_t size() const { return rp_dtype_size((rp_dtype)type.dtype); }
  rp_array on_host() {
    return array((char *)bytes.data() + GUARD);
  }
  rp_array on_device() { return array((char *)device + GUARD); }
  rp_array nowhere() { return array(nullptr); }
  rp_array array(void *data) {
    rp_array a = {};
    a.data = data;
    a.type = type;
    memcpy(a.strides, strides, sizeof strides);
    return a;
  }
};

uint64_t random_state = 1;
double random_number() {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (double)(random_state >> 40) * 0x1p-24;
}

void put(value &v, int64_t i, double x) {
  unsigned char *at = v.bytes.data() + GUARD + (size_t)i * v.size();
  const float f = (float)x;
  const uint16_t narrow = rp_f32_to_bf16(f);
  if (v.type.dtype == RP_F64) memcpy(at, &x, 8);
  else if (v.type.dtype == RP_F32) memcpy(at, &f, 4);
  else if (v.type.dtype == RP_BF16) memcpy(at, &narrow, 2);
  else *at = x > 0;
}

double get(const value &v, const unsigned char *bytes, int64_t i) {
  const unsigned char *at = bytes + GUARD + (size_t)i * v.size();
  double wide;
  float f;
  uint16_t narrow;
  if (v.type.dtype == RP_F64) return memcpy(&wide, at, 8), wide;
  if (v.type.dtype == RP_F32) return memcpy(&f, at, 4), f;
  return memcpy(&narrow, at, 2), rp_bf16_to_f32(narrow);
}

/* order: dims from outermost to innermost in memory; each dim's elements are
   `more` apart beyond what is in it. */
value made(rp_dtype dtype, std::vector<int64_t> dims, std::vector<int> order,
           int64_t more, bool random) {
  value v;
  v.type.dtype = dtype;
  v.type.rank = (int32_t)dims.size();
  int64_t stride = 1;
  for (size_t k = dims.size(); k-- > 0;) {
    const int d = order[k];
    v.type.dims[d] = dims[(size_t)d];
    v.strides[d] = stride;
    stride *= dims[(size_t)d] + more;
  }
  v.count = stride;
  v.bytes.assign(2 * GUARD + (size_t)v.count * v.size(), 0xa5);
  for (int64_t i = 0; random && i < v.count; i++)
    put(v, i, dtype == RP_BOOL ? random_number() - 0.4
                               : 4 * random_number() - 2);
  return v;
}

void upload(value &v) {
  require(cudaMalloc((void **)&v.device, v.bytes.size()));
  require(cudaMemcpy(v.device, v.bytes.data(), v.bytes.size(),
                     cudaMemcpyHostToDevice));
}

const rp_kernel *cuda_row(const char *name, rp_dtype dtype) {
  for (int i = 0; i < rp_cuda_attention.n; i++)
    if (!strcmp(rp_cuda_attention.rows[i].name, name) &&
        rp_cuda_attention.rows[i].dtype == dtype)
      return &rp_cuda_attention.rows[i];
  abort();
}
const rp_kernel *cpu_row(const char *name, rp_dtype dtype) {
  for (int i = 0; i < rp_cpu_attention.n; i++)
    if (!strcmp(rp_cpu_attention.rows[i].op->name, name) &&
        rp_cpu_attention.rows[i].dtype == dtype)
      return &rp_cpu_attention.rows[i];
  abort();
}

struct options {
  int64_t causal = 0;
  double scale = 0.3, p = 0;
};

/* Runs both; the CPU's outputs stay in `out`, for a gradient to read. */
void compare(const char *name, const char *what, std::vector<value *> in,
             std::vector<value *> out, options o) {
  const rp_dtype dtype = (rp_dtype)in[0]->type.dtype;
  const rp_kernel *cpu = cpu_row(name, dtype), *cuda = cuda_row(name, dtype);
  const double reals[2] = {o.scale, o.p};
  std::vector<rp_array> ins, outs;
  rp_kernel_args args = {};
  args.ints = &o.causal;
  args.reals = reals;
  args.n_ints = 1;
  args.n_reals = 2;
  args.seed = 77;
  args.stream = 5;
  const auto set = [&](rp_array (value::*where)()) {
    ins.clear();
    outs.clear();
    for (value *v : in) ins.push_back((v->*where)());
    for (value *v : out) outs.push_back((v->*where)());
    args.in = ins.data();
    args.out = outs.data();
    args.n_in = (int32_t)ins.size();
    args.n_out = (int32_t)outs.size();
  };
  const auto prepare = [&](const rp_kernel *row) {
    int64_t bytes = 0;
    args.state = nullptr;
    set(&value::nowhere);
    if (row->prepare && row->prepare(&args, &args.state, &bytes) != RP_OK)
      abort();
    return (size_t)bytes;
  };
  for (value *v : out) v->bytes.assign(v->bytes.size(), 0xa5);
  size_t bytes = prepare(cpu);
  args.workspace = aligned_alloc(64, (bytes + 64) / 64 * 64);
  set(&value::on_host);
  if (cpu->run(&args) != RP_OK) abort();
  free(args.workspace);
  if (cpu->destroy) cpu->destroy(args.state);

  rp_cuda_device device = {};
  require(cudaStreamCreate(&device.stream));
  const uint64_t draw[2] = {args.seed, args.stream};
  void *on_device, *workspace;
  bytes = prepare(cuda);
  require(cudaMalloc(&workspace, bytes + 1));
  require(cudaMalloc(&on_device, sizeof draw));
  require(cudaMemcpy(on_device, draw, sizeof draw, cudaMemcpyHostToDevice));
  args.seed = args.stream = 0;
  args.draw = (const uint64_t *)on_device;
  args.workspace = workspace;
  args.device = &device;
  for (value *v : in) upload(*v);
  std::vector<std::vector<unsigned char>> first;
  for (const char *order : {"forward", "3"}) {
    rp_emulated_order(order);
    for (value *v : out) {
      if (v->device) require(cudaFree(v->device));
      std::vector<unsigned char> keep = v->bytes;
      v->bytes.assign(v->bytes.size(), 0xa5);
      upload(*v);
      v->bytes = keep;
    }
    set(&value::on_device);
    if (cuda->run(&args) != RP_OK) exit(1);
    require(cudaStreamSynchronize(device.stream));
    for (size_t k = 0; k < out.size(); k++) {
      value &v = *out[k];
      std::vector<unsigned char> got(v.bytes.size());
      require(cudaMemcpy(got.data(), v.device, got.size(),
                         cudaMemcpyDeviceToHost));
      double error = 0, norm = 0;
      for (int64_t i = 0; i < v.count; i++) {
        const double want = get(v, v.bytes.data(), i);
        const double is = get(v, got.data(), i);
        error += (is - want) * (is - want);
        norm += want * want;
      }
      const double limit =
          dtype == RP_F64 ? 1e-26 : dtype == RP_F32 ? 1e-10 : 1e-4;
      bool good = error <= limit * (norm + 0.01 * (double)v.count);
      for (int g = 0; g < GUARD; g++)
        good = good && got[(size_t)g] == 0xa5 &&
               got[got.size() - 1 - (size_t)g] == 0xa5;
      if (first.size() > k) good = good && got == first[k];
      if (!good) failures++;
      if (!good || getenv("VERBOSE"))
        printf("%s %s %s %s: output %d: %g of %g%s\n", good ? "ok" : "FAIL",
               name, rp_dtype_name(dtype), what, (int)k, error / norm, limit,
               first.size() > k && got != first[k] ? ", other bits" : "");
      if (first.size() <= k) first.push_back(got);
    }
  }
  for (value *v : in) require(cudaFree(v->device)), v->device = nullptr;
  for (value *v : out) require(cudaFree(v->device)), v->device = nullptr;
  require(cudaFree(workspace));
  require(cudaFree(on_device));
  require(cudaStreamDestroy(device.stream));
}

struct sizes {
  int64_t b, h, tq, tk, d, e;
};

const std::vector<int> by_head = {0, 1, 2, 3}, by_time = {0, 2, 1, 3},
                       across = {0, 1, 3, 2};

void check(sizes s, rp_dtype dtype, options o, int mask_kind,
           std::vector<int> order, int64_t more) {
  char what[128];
  snprintf(what, sizeof what,
           "%dx%dx(%d,%d)x(%d,%d) causal %d p %g mask %d order %d more %d",
           (int)s.b, (int)s.h, (int)s.tq, (int)s.tk, (int)s.d, (int)s.e,
           (int)o.causal, o.p, mask_kind, order[1] * 10 + order[3], (int)more);
  const rp_dtype statistic = dtype == RP_BF16 ? RP_F32 : dtype;
  value q = made(dtype, {s.b, s.h, s.tq, s.d}, order, more, true);
  value k = made(dtype, {s.b, s.h, s.tk, s.d}, order, more, true);
  value v = made(dtype, {s.b, s.h, s.tk, s.e}, order, more, true);
  value out = made(dtype, {s.b, s.tq, s.h, s.e}, by_head, 0, false);
  value lse = made(statistic, {s.b, s.h, s.tq}, {0, 1, 2}, 0, false);
  value dout = made(dtype, {s.b, s.tq, s.h, s.e}, order, more, true);
  value dq = made(dtype, {s.b, s.tq, s.h, s.d}, by_head, 0, false);
  value dk = made(dtype, {s.b, s.tk, s.h, s.d}, by_head, 0, false);
  value dv = made(dtype, {s.b, s.tk, s.h, s.e}, by_head, 0, false);
  value mask = mask_kind == 1
                   ? made(RP_BOOL, {s.b, 1, s.tq, s.tk}, by_head, 0, true)
                   : made(RP_BOOL, {s.tk}, {0}, 1, true);
  std::vector<value *> in = {&q, &k, &v};
  std::vector<value *> grad = {&dout, &q, &k, &v, &out, &lse};
  if (mask_kind) {
    in.push_back(&mask);
    grad.push_back(&mask);
  }
  compare("attention", what, in, {&out, &lse}, o);
  compare("attention_grad", what, grad, {&dq, &dk, &dv}, o);
}

void check_packed(sizes s, rp_dtype dtype, options o) {
  char what[128];
  snprintf(what, sizeof what, "%dx%dx%dx%d causal %d p %g", (int)s.b,
           (int)s.h, (int)s.tq, (int)s.d, (int)o.causal, o.p);
  const rp_dtype statistic = dtype == RP_BF16 ? RP_F32 : dtype;
  const std::vector<int> plain = {0, 1, 2, 3, 4};
  value qkv = made(dtype, {s.b, s.tq, 3, s.h, s.d}, plain, 0, true);
  value out = made(dtype, {s.b, s.tq, s.h, s.d}, by_head, 0, false);
  value lse = made(statistic, {s.b, s.h, s.tq}, {0, 1, 2}, 0, false);
  value dout = made(dtype, {s.b, s.tq, s.h, s.d}, by_head, 0, true);
  value dqkv = made(dtype, {s.b, s.tq, 3, s.h, s.d}, plain, 0, false);
  compare("packed_attention", what, {&qkv}, {&out, &lse}, o);
  compare("packed_attention_grad", what, {&dout, &qkv, &out, &lse}, {&dqkv},
          o);
}

} // namespace

int main(int argc, char **argv) {
  const bool quick = argc > 1;
  (void)argv;
  for (rp_dtype dtype : {RP_F32, RP_F64, RP_BF16}) {
    const sizes all[] = {
        {1, 1, 1, 1, 1, 1},     {2, 3, 5, 7, 3, 2},
        {1, 2, 33, 65, 33, 31}, {1, 2, 129, 200, 64, 7},
        {2, 1, 200, 90, 5, 70}, {0, 2, 3, 3, 4, 4},
        {1, 2, 0, 3, 4, 4},     {1, 2, 3, 0, 4, 4},
        {2, 2, 70, 70, 16, 16}, {1, 1, 40, 50, 0, 8},
        {1, 1, 40, 50, 8, 0},   {1, 1, 20, 70, 136, 150},
        {1, 2, 150, 150, 96, 80}, {1, 1, 140, 70, 128, 128},
    };
    int n = 0;
    for (const sizes &s : all) {
      n++;
      for (int causal = 0; causal < 2; causal++) {
        options o;
        o.causal = causal;
        check(s, dtype, o, 0, by_head, 0);
        if (quick) continue;
        o.p = 0.25;
        o.scale = n % 3 ? 0.2 : -0.2;
        check(s, dtype, o, n % 3, by_time, n % 2 * 8);
        o.p = n % 2 ? 1 : 0;
        check(s, dtype, o, 2 - n % 3, across, n % 5);
      }
    }
    for (int causal = 0; causal < 2; causal++) {
      options o;
      o.causal = causal;
      o.scale = 0.125;
      check_packed({2, 3, 130, 130, 64, 64}, dtype, o);
      o.p = 0.1;
      check_packed({1, 2, 67, 67, 24, 24}, dtype, o);
      check_packed({1, 2, 35, 35, 9, 9}, dtype, o);
    }
  }
  if (failures) printf("%d failed\n", failures);
  return failures != 0;
}
