/* What the table of cases is written with. */
#ifndef RP_SPEC_CUDA_WRITER_H
#define RP_SPEC_CUDA_WRITER_H

#include "cases.h"

namespace cases {

typedef std::vector<int64_t> dims;
typedef std::vector<rp_tensor *> tensors;

/* How an input lies in its root. */
enum class lie {
  plain,
  offset,     /* contiguous, an element behind the root's first */
  transposed, /* the last two dims */
  stepped,    /* every other element of the last dim */
  columns,    /* a part of the last dim */
  expanded,   /* stride 0 along the first dim */
};

class writer {
public:
  writer(book &b, const std::string &op, rp_dtype dtype)
      : b(b), op(op), dtype(dtype) {}

  /* `as` < 0: of the row's dtype. */
  rp_tensor *leaf(const dims &d, fill f = fill::any, int as = -1);
  rp_tensor *given(const dims &d, const std::vector<double> &values, int as);
  rp_tensor *number(double value, int as = -1);
  rp_tensor *view(lie how, const dims &d, fill f = fill::any, int as = -1);
  rp_tensor *record(const char *name, const tensors &in, const dims &ints = {},
                    const std::vector<double> &reals = {});
  rp_tensor *output(rp_tensor *t, int k);

  /* One case of the op, as these make it (call.made_apart). */
  call *add_apart(const tensors &in, const tensors &out,
                  const char *note = "");
  /* One case of the op. */
  call *add(const tensors &in, const dims &ints = {},
            const std::vector<double> &reals = {}, const char *note = "");

  bool is_float() const { return rp_dtype_is_float(dtype); }
  /* Of weights and statistics beside values of the row's dtype. */
  int wide() const { return dtype == RP_BF16 ? RP_F32 : dtype; }

  book &b;
  const std::string op;
  const rp_dtype dtype;
  std::vector<call> calls;

private:
  void note_inputs(call &c, const char *note);
  rp_tensor *keep(rp_tensor *t, const char *what);
};

/* Fills w.calls for w.op and w.dtype: table.cc. */
void write_cases(writer &w);

/* Products with what is behind them: products.cc. */
void write_products(writer &w);

/* Fused nodes, random chains of what the graph would fuse: chains.cc. */
void write_chains(writer &w);

} // namespace cases

#endif
