/* Products with the tanh form of GELU, or its gradient, on their way out.

     linear+gelu_tanh        s = x w^T (+ bias), y = gelu_tanh(s): two outputs,
                             s and y, or y alone
     matmul+gelu_tanh_grad   y = gelu_tanh_grad(a b, x)

   In cuBLASLt's epilogue where it has one for these shapes and the operands
   are aligned; else by the product and the elementwise op behind it. Which it
   is follows from shapes and where views begin in their roots, so the bits are
   the same wherever a plan lays things. The epilogue has s, or a b, in f32; the
   elementwise op has it rounded.

   bf16 alone: of f32 (and TF32) cuBLASLt has no kernel with a GELU in it, only
   one of its own behind the product, by a tanh of unsaid accuracy. */
#include <new>

#include "kernel.h"
#include "product.h"

namespace rp {
namespace {

struct operands {
  rp_array a, b, y;     /* y of the product's own dims */
  const rp_array *bias; /* NULL: none */
  const rp_array *aux;  /* s, or x; NULL: s is not asked for */
};

struct products {
  product *ended; /* NULL: the library does not do it */
  product *plain;
};

operands of_linear(const rp_kernel_args *args) {
  const rp_array *made = args->n_out > 1 ? &args->out[0] : nullptr;
  return {rp_at_least_a_row(args->in[0]), rp_matrix_transposed(args->in[1]),
          rp_at_least_a_row(args->out[args->n_out - 1]),
          args->n_in > 2 ? &args->in[2] : nullptr, made};
}

/* x and the output may have other leading dims than the product; all three
   are contiguous. */
operands of_matmul(const rp_kernel_args *args) {
  const rp_array &a = args->in[0], &b = args->in[1];
  rp_array y = args->out[0];
  const int r = a.type.rank > b.type.rank ? a.type.rank : b.type.rank;
  y.type.rank = r;
  int64_t stride = 1;
  for (int back = 0; back < r; back++) {
    const int at_a = a.type.rank - 1 - back, at_b = b.type.rank - 1 - back;
    const int64_t m = at_a < 0 ? 1 : a.type.dims[at_a];
    const int64_t n = at_b < 0 ? 1 : b.type.dims[at_b];
    const int64_t size = back == 0 ? n : back == 1 ? m : m == 1 ? n : m;
    y.type.dims[r - 1 - back] = size;
    y.strides[r - 1 - back] = stride;
    stride *= size;
  }
  return {a, b, y, nullptr, &args->in[2]};
}

/* What an elementwise row gets. */
rp_kernel_args args_of(const rp_kernel_args *args, const rp_array *in,
                       const rp_array *out) {
  rp_kernel_args made = *args;
  made.in = in;
  made.out = out;
  return made;
}

/* s goes where it is asked for, or else where y comes to lie. */
rp_status end_linear(const rp_kernel_args *args) {
  const rp_array *y = &args->out[args->n_out - 1];
  const rp_kernel_args made = args_of(args, &args->out[0], y);
  return gelu_tanh(&made);
}

rp_status end_matmul(const rp_kernel_args *args) {
  const rp_array in[] = {args->out[0], args->in[2]};
  const rp_kernel_args made = args_of(args, in, &args->out[0]);
  return gelu_tanh_grad(&made);
}

typedef operands operands_function(const rp_kernel_args *args);

void destroy(void *state) {
  products *p = static_cast<products *>(state);
  if (p == nullptr) return;
  product_free(p->ended);
  product_free(p->plain);
  delete p;
}

template <operands_function *of, ending end>
rp_status prepare(const rp_kernel_args *args, void **state,
                  int64_t *workspace_bytes) {
  products *p = new (std::nothrow) products();
  if (p == nullptr)
    return rp_fail(args->ctx, RP_NOMEM, "no memory for a matrix product");
  const operands o = of(args);
  int64_t ended_bytes = 0;
  rp_status status = product_make_ended(args, o.a, o.b, o.bias, o.y, end,
                                        o.aux, &p->ended, &ended_bytes);
  if (status == RP_OK)
    status = product_make(args, o.a, o.b, o.bias, o.y, &p->plain,
                          workspace_bytes);
  if (*workspace_bytes < ended_bytes) *workspace_bytes = ended_bytes;
  if (status == RP_OK) *state = p;
  else destroy(p);
  return status;
}

template <operands_function *of, run_function *elementwise>
rp_status run(const rp_kernel_args *args) {
  const products *p = static_cast<const products *>(args->state);
  operands o = of(args);
  if (p->ended && product_takes(p->ended, o.a, o.b, o.bias, o.y, o.aux))
    return product_run_ended(p->ended, args, o.a, o.b, o.bias, o.y, o.aux,
                             args->workspace);
  o.y.data = args->out[0].data;
  const rp_status status = product_run(p->plain, args, o.a, o.b, o.bias, o.y,
                                       args->workspace);
  return status == RP_OK ? elementwise(args) : status;
}

rp_kernel linear() {
  return row("linear+gelu_tanh", RP_BF16, run<of_linear, end_linear>,
             prepare<of_linear, ending::GELU>, destroy);
}
rp_kernel matmul() {
  return row("matmul+gelu_tanh_grad", RP_BF16, run<of_matmul, end_matmul>,
             prepare<of_matmul, ending::GELU_GRAD>, destroy);
}

} // namespace

RP_ROWS(epilogue, linear(), matmul());

} // namespace rp
