/* What the backend takes for granted of a device and its libraries, one thing
   after the other, by the backend's own functions: addresses, copies, results
   that come while a program runs, recordings and what may happen between two
   replays. On a GPU it is the first thing to run (make test-cuda): where it
   fails, its line says on what nothing else can stand. */
#include <cstdio>
#include <cstring>
#include <vector>

#include "compare.h"
#include "opened.h"
#include "totals.h"

extern "C" const rp_loaded_backend *rp_backend_load(void);

namespace {

#ifdef RP_EMULATED
enum { REPLAYS = 4 };
const int64_t LARGE = 3 << 20;
#else
enum { REPLAYS = 50 };
const int64_t LARGE = (int64_t)256 << 20;
#endif
const int64_t MANY = 64 << 20; /* more than a heap keeps to spare */

int passed, failed;
rp_device device;
const rp_backend *backend;

bool check(bool holds, const char *what) {
  printf("%s %s%s%s\n", holds ? "ok" : "not ok", what,
         holds || !*rp_message(device.ctx) ? "" : ": ",
         holds ? "" : rp_message(device.ctx));
  fflush(stdout);
  holds ? passed++ : failed++;
  return holds;
}

bool ok(rp_status status) { return status == RP_OK; }

/* ---- what programs are made of ------------------------------------------ */

struct block {
  explicit block(int64_t bytes)
      : size(bytes), data(device.memory->alloc(&device, bytes)) {}
  ~block() { give_back(); }
  block(const block &) = delete;
  void give_back() {
    if (data) device.memory->release(&device, data, size);
    data = nullptr;
  }
  int64_t size;
  void *data;
};

bool write(void *to, int64_t value) {
  return ok(device.memory->write(&device, to, &value, sizeof value,
                                 device.runs + 1));
}
bool copy(void *to, const void *from, int64_t size) {
  return ok(device.memory->copy(&device, to, from, size));
}
int64_t read(const void *from) {
  int64_t value = -1;
  return ok(device.memory->read(&device, &value, from, sizeof value)) ? value
                                                                      : -1;
}

void ran() {
  device.runs++;
  backend->ran(&device);
}

/* program's calls, recorded; null where they could not be. */
template <typename F> void *record(F program) {
  void *made = nullptr;
  if (!ok(backend->record(&device))) return nullptr;
  if (!program()) {
    backend->end_record(&device, nullptr);
    return nullptr;
  }
  return ok(backend->end_record(&device, &made)) ? made : nullptr;
}

bool replay(void *recording) {
  const bool fine = recording && ok(backend->replay(&device, recording));
  ran();
  return fine;
}

/* An op's row over contiguous arrays. */
struct node {
  node(const char *op, std::vector<rp_array> inputs, rp_array output)
      : row(cases::cuda_row(op, inputs[0].type.dtype)), in(inputs),
        out(output) {
    args.in = in.data();
    args.out = &out;
    args.n_in = (int32_t)in.size();
    args.n_out = 1;
    args.device = device.state;
    args.ctx = device.ctx;
  }
  ~node() {
    if (args.state) row->destroy(args.state);
    if (args.workspace) device.memory->release(&device, args.workspace, bytes);
  }
  node(const node &) = delete;
  bool prepare() {
    if (row == nullptr) return false;
    if (row->prepare && !ok(row->prepare(&args, &args.state, &bytes)))
      return false;
    bytes = (bytes + 255) / 256 * 256;
    if (bytes) args.workspace = device.memory->alloc(&device, bytes);
    return bytes == 0 || args.workspace;
  }
  bool run() { return ok(row->run(&args)); }

  const rp_kernel *row;
  std::vector<rp_array> in;
  rp_array out;
  rp_kernel_args args = {};
  int64_t bytes = 0;
};

rp_array matrix(rp_dtype dtype, void *data, int64_t rows, int64_t columns) {
  rp_type type = {};
  type.dtype = (int8_t)dtype;
  type.rank = 2;
  type.dims[0] = rows;
  type.dims[1] = columns;
  return cases::array_like(&type, data);
}

/* ---- memory ------------------------------------------------------------- */

void check_copies() {
  const int64_t n = (20 << 20) / 8; /* through both pinned buffers, and again */
  std::vector<int64_t> from((size_t)n), to((size_t)n);
  for (int64_t i = 0; i < n; i++) from[(size_t)i] = i * 0x9E3779B9;
  block a(n * 8), b(n * 8);
  if (!check(a.data && b.data, "storage is given")) return;
  check(ok(device.memory->write(&device, a.data, from.data(), n * 8, 0)),
        "20 MiB are written");
  check(copy(b.data, a.data, n * 8), "and copied");
  check(ok(device.memory->read(&device, to.data(), b.data, n * 8)) &&
            to == from, "and read as they were");
  check(ok(device.memory->zero(&device, b.data, n * 8)) && read(b.data) == 0,
        "zeros are zeros");
}

/* A range grows and shrinks, and begins where it did. */
void check_arena() {
  void *first = device.memory->resize_arena(&device, nullptr, 0, MANY);
  void *grown = device.memory->resize_arena(&device, first, MANY, 3 * MANY);
  check(first && grown == first, "an arena grows where it lies");
  check(write((char *)grown + 3 * MANY - 8, 7) &&
            read((char *)grown + 3 * MANY - 8) == 7,
        "its new end is memory");
  device.memory->resize_arena(&device, grown, 3 * MANY, 0);
  void *again = device.memory->resize_arena(&device, nullptr, 0, MANY);
  check(again == first, "and comes back where it was");
  device.memory->resize_arena(&device, again, MANY, 0);
}

/* ---- recordings --------------------------------------------------------- */

/* A result that leaves in the middle of a long program: what collect gives is
   this replay's, though it is asked for right behind the launch. */
void check_delivery() {
  block word(256), result(256), from(LARGE), to(LARGE);
  const int32_t slot = backend->take_slot(&device);
  const auto program = [&] {
    bool fine = true;
    for (int k = 0; k < 4; k++) fine = fine && copy(to.data, from.data, LARGE);
    fine = fine && copy(result.data, word.data, 8) &&
           ok(backend->deliver(&device, slot, result.data, 8));
    for (int k = 0; k < 8; k++) fine = fine && copy(to.data, from.data, LARGE);
    return fine;
  };
  int64_t got = -1;
  check(write(word.data, 1000) && program() &&
            ok(backend->collect(&device, slot, &got, 8)) && got == 1000,
        "a result comes while its program runs");
  ran();
  void *recording = record(program);
  if (!check(recording, "such a program is recorded")) return;
  int right = 0, ahead = 0;
  for (int64_t i = 0; i < REPLAYS; i++) {
    write(word.data, i);
    replay(recording);
    got = -1;
    right += ok(backend->collect(&device, slot, &got, 8)) && got == i;
    ahead += cudaStreamQuery(((rp_cuda_device *)device.state)->stream) ==
             cudaErrorNotReady;
    (void)cudaGetLastError();
  }
  check(right == REPLAYS, "each replay's result is its own");
  printf("     %d of %d came before their program had ended\n", ahead,
         (int)REPLAYS);
  check(ok(backend->synchronize(&device)), "and all of it has run");
  backend->forget(&device, recording);
  backend->give_slot(&device, slot);
}

/* Memory that is taken away and put back at the same addresses between two
   replays. */
void check_remapped() {
  block *a = new block(MANY), *b = new block(MANY);
  void *const at = a->data, *const to = b->data;
  void *recording = record([&] { return copy(to, at, MANY); });
  check(recording && write((char *)at + MANY - 8, 5) && replay(recording) &&
            read((char *)to + MANY - 8) == 5, "a copy is replayed");
  delete b;
  delete a;
  block c(MANY), d(MANY);
  if (!check(c.data == at && d.data == to, "memory comes back where it was"))
    return;
  check(write((char *)at + MANY - 8, 6) && replay(recording) &&
            read((char *)to + MANY - 8) == 6,
        "a recording outlives the memory behind its addresses");
  backend->forget(&device, recording);
}

/* Rows that nobody has run yet, in a recording: kernels are loaded when they
   are first used, those of libraries too. */
void check_unloaded() {
  enum { N = 64 };
  const rp_dtype dtypes[] = {RP_F32, RP_BF16};
  for (const rp_dtype dtype : dtypes) {
    block a(N * N * 4), b(N * N * 4), first(N * N * 4), second(N * N * 4);
    std::vector<uint16_t> values(N * N * 2);
    for (size_t i = 0; i < values.size(); i++) /* small numbers, as either */
      values[i] = (uint16_t)(0x3c00 + i * 37 % 512);
    for (block *each : {&a, &b})
      device.memory->write(&device, each->data, values.data(), N * N * 4,
                           device.runs + 1);
    for (const char *op : {"add", "matmul"}) {
      node into(op, {matrix(dtype, a.data, N, N), matrix(dtype, b.data, N, N)},
                matrix(dtype, first.data, N, N));
      printf("     %s in %s\n", op, rp_dtype_name(dtype));
      if (!check(into.prepare(), "a row is prepared")) continue;
      device.memory->zero(&device, first.data, N * N * 4);
      void *recording = record([&] { return into.run(); });
      if (!check(recording && replay(recording),
                 "recorded before anything of it ran"))
        continue;
      into.out.data = second.data;
      device.memory->zero(&device, second.data, N * N * 4);
      check(into.run() && ok(backend->synchronize(&device)), "run as it is");
      std::vector<unsigned char> x(N * N * 4), y(N * N * 4), none(N * N * 4);
      device.memory->read(&device, x.data(), first.data, N * N * 4);
      device.memory->read(&device, y.data(), second.data, N * N * 4);
      check(x == y && x != none, "with the same bits");
      backend->forget(&device, recording);
    }
  }
}

/* A batch arrives while a program runs, and the next one reads it. */
void check_batches() {
  const int64_t size = 4 << 20;
  block batch(size), seen(size), from(LARGE), to(LARGE);
  void *recording = record([&] {
    bool fine = true;
    for (int k = 0; k < 4; k++) fine = fine && copy(to.data, from.data, LARGE);
    return fine && copy(seen.data, batch.data, size);
  });
  std::vector<int64_t> bytes((size_t)size / 8);
  int right = 0;
  for (int64_t i = 0; i < REPLAYS; i++) {
    bytes.assign(bytes.size(), i);
    device.memory->write(&device, batch.data, bytes.data(), size,
                         device.runs);
    replay(recording);
    right += read((char *)seen.data + size - 8) == i;
  }
  check(right == REPLAYS, "each program reads its own batch");
  if (recording) backend->forget(&device, recording);
}

void say_versions() {
  int runtime = 0, driver = 0;
  cudaRuntimeGetVersion(&runtime);
  cudaDriverGetVersion(&driver);
  printf("     runtime %d, driver %d, cuBLASLt %zu, cuDNN %zu\n", runtime,
         driver, cublasLtGetVersion(), cudnnGetVersion());
}

} // namespace

int main() {
  if (!has_device()) {
    printf("skipped: no CUDA device\n");
    return 77;
  }
  backend = rp_backend_load()->backend;
  device.ctx = rp_context_new();
  device.backend = backend;
  device.memory = backend->memory;
  say_versions();
  size_t before = 0, after = 0, all = 0;
  cudaMemGetInfo(&before, &all);
  if (check(ok(backend->open(&device)), "the device opens")) {
    int64_t total, free_bytes;
    printf("     %s\n", backend->describe(&device, &total, &free_bytes));
    cudaMemGetInfo(&after, &all);
    printf("     %lld MiB behind the context go to streams and libraries\n",
           ((long long)before - (long long)after) >> 20);
    check_copies();
    check_arena();
    check_delivery();
    check_remapped();
    check_unloaded();
    check_batches();
    check(ok(backend->synchronize(&device)), "nothing went wrong unnoticed");
    backend->close(&device);
  }
  rp_context_free(device.ctx);
  say_totals(passed, failed);
  return failed != 0;
}
