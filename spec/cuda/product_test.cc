/* cuda/product.h against sums in f64: what the ops' own cases do not reach,
   operands that no leading dimension describes, more batch dims and matrices
   than the library takes at once, products that add, odd places. */
#include <cmath>
#include <vector>

#include "check.h"
#include "opened.h"
#include "product.h"
#include "totals.h"

namespace {

/* An array of the device, `shift` elements behind an aligned address; its
   elements come from a generator, or are all `fill`. */
struct tensor {
  rp_array array = {};
  std::vector<char> host;
  char *root = nullptr;
  int shift;
  tensor(rp_dtype dtype, const std::vector<int64_t> &dims,
         const std::vector<int64_t> &strides, int shift, uint64_t seed)
      : shift(shift) {
    array.type.dtype = dtype;
    array.type.rank = (int32_t)dims.size();
    int64_t elements = 1 + shift;
    for (size_t i = 0; i < dims.size(); i++) {
      array.type.dims[i] = dims[i];
      array.strides[i] = strides[i];
      elements += (dims[i] > 0 ? dims[i] - 1 : 0) * strides[i];
    }
    host.resize((size_t)elements * size());
    for (int64_t i = 0; i < elements; i++) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      set(i, (double)(int64_t)(seed >> 40) * 0x1p-23 - 1);
    }
    must(cudaMalloc((void **)&root, host.size()), "cudaMalloc");
    must(cudaMemcpy(root, host.data(), host.size(), cudaMemcpyHostToDevice),
         "cudaMemcpy");
  }
  ~tensor() { cudaFree(root); }
  tensor(const tensor &) = delete;
  size_t size() const { return rp_dtype_size((rp_dtype)array.type.dtype); }
  rp_array with_data() const {
    rp_array a = array;
    a.data = root + (size_t)shift * size();
    return a;
  }
  void set(int64_t i, double x) {
    char *at = host.data() + (size_t)i * size();
    if (array.type.dtype == RP_F64) *(double *)at = x;
    else if (array.type.dtype == RP_F32) *(float *)at = (float)x;
    else *(uint16_t *)at = rp_f32_to_bf16((float)x);
  }
  double at(int64_t offset) const {
    const char *p = host.data() + (size_t)(offset + shift) * size();
    if (array.type.dtype == RP_F64) return *(const double *)p;
    if (array.type.dtype == RP_F32) return *(const float *)p;
    return rp_bf16_to_f32(*(const uint16_t *)p);
  }
  std::vector<char> read() const {
    std::vector<char> now(host.size());
    must(cudaMemcpy(now.data(), root, now.size(), cudaMemcpyDeviceToHost),
         "cudaMemcpy");
    return now;
  }
};

typedef std::vector<int64_t> dims;

struct problem {
  const char *name;
  dims a, a_strides, b, b_strides, y, y_strides;
  double alpha = 1;
  bool adds = false, has_bias = false;
  int shift = 0; /* of everything */
};

int64_t offset_of(const rp_array &x, const int64_t *batch, int batch_rank,
                  int64_t row, int64_t column) {
  const int r = x.type.rank;
  int64_t at = row * x.strides[r - 2] + column * x.strides[r - 1];
  for (int i = 0; i < r - 2; i++)
    if (x.type.dims[i] > 1)
      at += batch[batch_rank - (r - 2) + i] * x.strides[i];
  return at;
}

/* Sums of K products in f32 are off by at most K roundings of 2^-24 of the
   sum of their absolute values; bf16 rounds the result and the bias. */
void check(const problem &p, rp_dtype from, rp_dtype to, rp_dtype bias_dtype) {
  const char *name = p.name;
  rp_cuda_device *device = open_device();
  tensor a(from, p.a, p.a_strides, p.shift, 1),
      b(from, p.b, p.b_strides, p.shift, 2),
      y(to, p.y, p.y_strides, p.shift, 3);
  const int64_t n = p.b.back(), k = p.a.back(), m = p.y[p.y.size() - 2];
  tensor bias(bias_dtype, {n}, {1}, p.shift, 4);
  rp_kernel_args args = {};
  args.device = device;
  rp::product *made = nullptr;
  int64_t bytes = 0;
  const rp_array *bias_type = p.has_bias ? &bias.array : nullptr;
  CHECK(rp::product_make(&args, a.array, b.array, bias_type, y.array, &made,
                         &bytes, p.alpha) == RP_OK);
  CHECK(bytes <= (33 << 20) + (int64_t)(a.host.size() + b.host.size()) * 64);
  void *workspace = nullptr;
  must(cudaMalloc(&workspace, (size_t)bytes + 1), "cudaMalloc");
  const rp_array bias_data = bias.with_data();
  CHECK(rp::product_run(made, &args, a.with_data(), b.with_data(),
                        p.has_bias ? &bias_data : nullptr, y.with_data(),
                        workspace, p.adds) == RP_OK);
  must(cudaStreamSynchronize(device->stream), name);
  const std::vector<char> before = y.host;
  const std::vector<char> after = y.read();
  rp::product_free(made);
  cudaFree(workspace);
  CHECK(a.read() == a.host && b.read() == b.host);

  tensor now(to, p.y, p.y_strides, p.shift, 3);
  now.host = after;
  std::vector<char> touched(after.size() / y.size());
  const int batch_rank = (int)p.y.size() - 2;
  int64_t index[RP_RANK] = {};
  int64_t batches = 1;
  for (int i = 0; i < batch_rank; i++) batches *= p.y[i];
  for (int64_t q = 0; q < batches; q++) {
    int64_t left = q;
    for (int i = batch_rank - 1; i >= 0; i--) {
      index[i] = left % p.y[i];
      left /= p.y[i];
    }
    for (int64_t i = 0; i < m; i++)
      for (int64_t j = 0; j < n; j++) {
        double sum = 0, size = 0;
        for (int64_t l = 0; l < k; l++) {
          const double term =
              a.at(offset_of(a.array, index, batch_rank, i, l)) *
              b.at(offset_of(b.array, index, batch_rank, l, j));
          sum += term;
          size += fabs(term);
        }
        const int64_t at = offset_of(y.array, index, batch_rank, i, j);
        const double old = p.adds ? y.at(at) : 0;
        const double plus = p.has_bias ? bias.at(j) : 0;
        const double wanted = p.alpha * sum + old + plus;
        const double unit = from == RP_F64 ? 0x1p-53 : 0x1p-24;
        double most = (double)(k + 3) * unit *
                      (fabs(p.alpha) * size + fabs(old) + fabs(plus));
        if (to == RP_BF16) most += 0x1p-8 * fabs(wanted) + 0x1p-8 * fabs(plus);
        CHECK(fabs(now.at(at) - wanted) <= most);
        touched[(size_t)(at + p.shift)] = 1;
      }
  }
  for (size_t i = 0; i < touched.size(); i++)
    CHECK(touched[i] || memcmp(&after[i * y.size()], &before[i * y.size()],
                               y.size()) == 0);
}

int problems; /* checked */

/* Whether the library does it in its epilogue, for an aux or y of M x N. */
bool ends(rp_dtype dtype, rp::ending end, bool has_aux, const dims &x,
          int64_t n) {
  rp_cuda_device *device = open_device();
  dims over(x), strides(x.size(), 1), over_strides(x.size(), 1);
  over.back() = n;
  for (size_t i = x.size() - 1; i > 0; i--) {
    strides[i - 1] = strides[i] * x[i];
    over_strides[i - 1] = over_strides[i] * over[i];
  }
  tensor a(dtype, x, strides, 0, 1), b(dtype, {x.back(), n}, {n, 1}, 0, 2),
      y(dtype, over, over_strides, 0, 3);
  rp_kernel_args args = {};
  args.device = device;
  rp::product *made = nullptr;
  int64_t bytes = 0;
  const char *name = "an ending";
  CHECK(rp::product_make_ended(&args, a.array, b.array, nullptr, y.array, end,
                               has_aux ? &y.array : nullptr, &made,
                               &bytes) == RP_OK);
  rp::product_free(made);
  problems++;
  return made != nullptr;
}

/* ops_test has the values; here, that they are the epilogue's. */
void check_endings() {
  const char *name = "an ending";
  for (rp::ending end : {rp::ending::GELU, rp::ending::GELU_GRAD}) {
    CHECK(ends(RP_BF16, end, true, {5, 7}, 16));
    CHECK(ends(RP_BF16, end, true, {3, 5, 7}, 8)); /* rows after rows */
    CHECK(!ends(RP_BF16, end, true, {5, 7}, 12));
    CHECK(!ends(RP_BF16, end, true, {5, 0}, 16));
    CHECK(!ends(RP_F32, end, true, {5, 7}, 16));
    CHECK(!ends(RP_F64, end, true, {5, 7}, 16));
  }
  CHECK(ends(RP_BF16, rp::ending::GELU, false, {5, 7}, 11));
}

void check_all(const problem &p) {
  check(p, RP_F32, RP_F32, RP_F32);
  check(p, RP_F64, RP_F64, RP_F64);
  for (rp_dtype to : {RP_F32, RP_BF16})
    for (rp_dtype bias : {RP_F32, RP_BF16}) check(p, RP_BF16, to, bias);
  problems++;
}

} // namespace

int main() {
  if (!has_device()) {
    printf("skipped: no CUDA device\n");
    return 77;
  }
  problem p = {"every other column",
               {5, 7}, {28, 2}, {7, 3}, {3, 1}, {5, 3}, {3, 1}};
  check_all(p);
  p = {"one row for all, one column for all",
       {5, 7}, {0, 1}, {7, 3}, {1, 0}, {5, 3}, {3, 1}};
  check_all(p);
  p = {"rows in one another", {5, 7}, {2, 1}, {7, 3}, {3, 1}, {5, 3}, {3, 1}};
  check_all(p);
  p = {"gaps behind y's rows, and a bias",
       {5, 7}, {7, 1}, {7, 3}, {1, 9}, {5, 3}, {64, 1}};
  p.has_bias = true;
  check_all(p);
  p.shift = 1;
  p.name = "the same from odd places";
  check_all(p);
  p.has_bias = false;
  p.adds = true;
  p.alpha = -0.75;
  p.name = "half as much again";
  check_all(p);
  p = {"heads inside of rows, one b for a batch",
       {2, 3, 5, 4}, {60, 4, 12, 1}, {3, 4, 6}, {24, 6, 1},
       {2, 3, 5, 6}, {90, 30, 6, 1}};
  check_all(p);
  p = {"three batch dims that are not one",
       {2, 3, 2, 3, 4}, {8, 16, 48, 96, 1}, {2, 1, 2, 4, 5},
       {40, 0, 20, 1, 4}, {2, 3, 2, 3, 5}, {90, 30, 15, 5, 1}};
  check_all(p);
  p = {"70000 matrices",
       {70000, 1, 2}, {2, 2, 1}, {70000, 2, 1}, {2, 1, 1}, {70000, 1, 1},
       {1, 1, 1}};
  check_all(p);
  p = {"70000 matrices by b's of a batch",
       {2, 70000, 2, 1}, {2, 4, 1, 1}, {70000, 1, 2}, {2, 2, 1},
       {2, 70000, 2, 2}, {280000, 4, 2, 1}};
  check_all(p);
  p = {"nothing to sum", {5, 0}, {0, 1}, {0, 3}, {3, 1}, {5, 3}, {7, 1}};
  p.has_bias = true;
  check_all(p);
  p.has_bias = false;
  check_all(p);
  p.adds = true;
  p.name = "nothing to add";
  check_all(p);
  p = {"a long sum", {2, 3000}, {3000, 1}, {3000, 3}, {1, 3000}, {2, 3},
       {3, 1}};
  check_all(p);
  check_endings();
  say_totals(problems, 0);
  return 0;
}
