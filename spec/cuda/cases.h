/* Cases for the comparison of CUDA's rows with the CPU's: recorded nodes, and
   what they read. A leaf's bytes are random, any other value is made by the
   CPU's rows, so gradients are handed what their forward ops gave. */
#ifndef RP_SPEC_CUDA_CASES_H
#define RP_SPEC_CUDA_CASES_H

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "exec/backend.h"
#include "graph/op.h"

namespace cases {

typedef std::vector<unsigned char> bytes;

/* What a leaf is filled with. */
enum class fill {
  any,      /* -2 .. 2; integers -9 .. 9; bools */
  positive, /* 0.05 .. 2.05; integers 1 .. 9 */
  special,  /* any, with infinities, NaN, zeros of both signs, denormals and
               integers' ends in it */
  wide,     /* special, with what no integer holds */
  given     /* as the case says */
};

struct call {
  std::string op, note;
  std::vector<rp_tensor *> in;
  std::vector<rp_type> out;
  std::vector<int64_t> ints;
  std::vector<double> reals;
  rp_stream stream = {};
  uint32_t in_place = 0, writes = 0, flags = 0;
  std::vector<rp_index_range> ranges;
  std::shared_ptr<rp_fusion> fusion;
  std::vector<const rp_node *> parts; /* of a fused node */
  /* The outputs, by the CPU's rows one after the other, where it has no row
     for all of it. The op may round less than they do, and where inputs lie
     says where. */
  std::vector<const rp_tensor *> made_apart;
  bool special = false;
};

const rp_kernel *cpu_row(const std::string &op, int32_t dtype);

/* Whether the op's cases are made apart. */
bool is_made_apart(const std::string &op, int32_t dtype);

/* input i as the kernel sees it, in `root`, the bytes of its root. */
rp_array array_of(const rp_tensor *t, void *root);
rp_array array_like(const rp_type *type, void *data);

/* The dtype by which the row is found. */
int32_t row_dtype(const call &c);

class book {
public:
  book();
  ~book();
  book(const book &) = delete;
  book &operator=(const book &) = delete;

  /* Every case of op whose row is dtype's. */
  std::vector<call> of(const std::string &op, rp_dtype dtype);
  /* The bytes of a root, before the case runs. */
  const bytes &value(const rp_tensor *root);
  /* Another value for a root, and back to its own. */
  void put(const rp_tensor *root, const bytes &value) { values[root] = value; }
  void forget(const rp_tensor *root) { values.erase(root); }
  /* A recorded node as a case. */
  call of_node(const rp_node *node);
  rp_context *context() { return ctx; }

private:
  friend class writer;
  rp_context *ctx;
  std::map<const rp_tensor *, fill> fills;
  std::map<const rp_tensor *, std::vector<double>> givens;
  std::map<const rp_tensor *, rp_index_range> indices;
  std::map<const rp_tensor *, bytes> values;
  int leaves = 0;
  void fill_leaf(const rp_tensor *leaf, bytes &data);
};

/* What a row is handed, but for streams, device and workspace. */
rp_kernel_args args_of(book &b, const call &c, std::vector<rp_array> &in,
                       std::vector<rp_array> &out);
/* Runs the CPU's row: outputs, then the inputs that the op writes, in order. */
rp_status run_cpu(book &b, const call &c, std::vector<bytes> &out);

/* The op's records that are in no registry. */
extern const char *const unregistered[];

double element(const void *data, int32_t dtype, int64_t i);
void set_element(void *data, int32_t dtype, int64_t i, double value);

} // namespace cases

#endif
