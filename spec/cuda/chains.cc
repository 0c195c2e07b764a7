/* Fused nodes: random chains of what the graph would fuse. Each part reads the
   one before it; other inputs are operands that broadcast, or earlier parts.

   Functions that a library rounds differently (exp) are never read by ops that
   jump (a comparison), nor by those that blow a difference up (sin of a large
   number): else values could not be compared with the CPU's. */
#include <cstring>

#include "writer.h"

namespace cases {
namespace {

enum { OPERANDS = 12, TRIES = 400 };

bool is_one_of(const char *name, std::initializer_list<const char *> names) {
  for (const char *each : names)
    if (strcmp(name, each) == 0) return true;
  return false;
}

bool is_rounded_freely(const char *op) {
  return is_one_of(op, {"exp", "log", "erf", "sin", "cos", "tanh", "sigmoid",
                        "silu", "silu_grad", "gelu", "gelu_grad", "gelu_tanh",
                        "gelu_tanh_grad", "pow", "pow_scalar",
                        "bce_with_logits"});
}
bool is_delicate(const char *op) {
  return is_one_of(op, {"eq", "ne", "lt", "le", "gt", "ge", "sign", "cast",
                        "relu_grad", "clamp_grad", "sin", "cos", "pow",
                        "pow_scalar", "exp", "log", "sqrt", "rsqrt",
                        "reciprocal", "div"});
}

class chain {
public:
  chain(writer &w, const dims &d, uint64_t seed) : w(w), d(d), state(seed) {}

  /* A case of n parts, or NULL where the dtypes led nowhere. */
  bool write(int n);

private:
  uint64_t next(uint64_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % below;
  }
  rp_tensor *operand(int dtype);
  bool add_part();
  int input_of(rp_tensor *t);
  bool fits(const rp_op *op, const tensors &in) const;

  writer &w;
  const dims d;
  uint64_t state;
  tensors made, operands;
  std::vector<bool> exact; /* of made */
  bool random = false;
};

/* As it lies in real programs: whole, or a row or a number to broadcast. */
rp_tensor *chain::operand(int dtype) {
  const lie how[] = {lie::plain, lie::plain, lie::offset, lie::transposed,
                     lie::columns, lie::stepped, lie::expanded};
  dims part = d;
  switch (next(6)) {
    case 0:
      if (!part.empty()) part.erase(part.begin());
      break;
    case 1: part.clear(); break;
    case 2:
      if (!part.empty()) part.back() = 1;
      break;
    default: break;
  }
  return w.view(made.empty() ? lie::plain : how[next(7)], part, fill::any,
                dtype);
}

int chain::input_of(rp_tensor *t) {
  for (size_t i = 0; i < made.size(); i++)
    if (made[i] == t) return -1 - (int)i;
  for (size_t j = 0; j < operands.size(); j++)
    if (operands[j] == t) return (int)j;
  operands.push_back(t);
  return (int)operands.size() - 1;
}

bool chain::fits(const rp_op *op, const tensors &in) const {
  if (!is_delicate(op->name)) return true;
  for (rp_tensor *t : in)
    for (size_t i = 0; i < made.size(); i++)
      if (made[i] == t && !exact[i]) return false;
  return true;
}

/* One more op over what there is, if the one that chance picks will do. */
bool chain::add_part() {
  const rp_op *op = rp_op_at((int)next((uint64_t)rp_op_count()));
  if (!(op->flags & RP_ELEMENTWISE) || op->inputs < 1 || op->outputs != 1 ||
      (op->flags & RP_RANDOM && random))
    return false;
  tensors in;
  for (int k = 0; k < op->inputs; k++) {
    const bool old = !made.empty() && next(3) == 0;
    const int dtype =
        made.empty() && k == 0 ? (int)w.dtype
        : next(3) == 0         ? (int)next(RP_DTYPES)
        : made.empty()         ? (int)w.dtype : made.back()->type.dtype;
    in.push_back(old ? made[next(made.size())] : operand(dtype));
  }
  if (!made.empty()) in[next(in.size())] = made.back();
  /* masked_fill takes one value. */
  if (strcmp(op->name, "masked_fill") == 0 && in[2]->type.rank) return false;
  if (!fits(op, in)) return false;
  dims ints;
  std::vector<double> reals;
  if (strcmp(op->name, "cast") == 0) ints = {(int64_t)next(RP_DTYPES)};
  if (strcmp(op->name, "dropout") == 0) reals = {0.3};
  if (strcmp(op->name, "pow_scalar") == 0) reals = {next(2) ? 2.0 : 3.0};
  if (strncmp(op->name, "clamp", 5) == 0) reals = {-0.7, 1};
  rp_tensor *t = rp_record(w.b.context(), op, in.data(), (int)in.size(),
                           ints.data(), (int)ints.size(), reals.data(),
                           (int)reals.size());
  if (t == nullptr || dims(t->type.dims, t->type.dims + t->type.rank) != d)
    return false;
  const tensors before = operands;
  for (rp_tensor *each : in) input_of(each);
  if (operands.size() > OPERANDS) {
    operands = before;
    return false;
  }
  bool is_exact = !is_rounded_freely(op->name);
  for (rp_tensor *each : in)
    for (size_t i = 0; i < made.size(); i++)
      if (made[i] == each) is_exact = is_exact && exact[i];
  random = random || op->flags & RP_RANDOM;
  made.push_back(t);
  exact.push_back(is_exact);
  return true;
}

bool chain::write(int n) {
  for (int t = 0; t < TRIES && (int)made.size() < n; t++) add_part();
  if ((int)made.size() < n) return false;
  call c;
  c.op = "fused";
  c.in = operands;
  c.out = {made.back()->type};
  c.flags = RP_ELEMENTWISE;
  c.fusion = std::make_shared<rp_fusion>();
  rp_fusion &f = *c.fusion;
  for (rp_tensor *t : made) {
    const rp_node *node = t->node;
    rp_part &part = f.parts[f.n++];
    part.op = node->op;
    part.ints = node->ints;
    part.reals = node->reals;
    part.n_ints = node->n_ints;
    part.n_reals = node->n_reals;
    part.n_in = node->n_inputs;
    for (int k = 0; k < part.n_in; k++)
      part.in[k] = input_of(node->inputs[k]);
    part.type = t->type;
    if (node->op->flags & RP_RANDOM) c.stream = node->stream;
    c.parts.push_back(node);
    c.note += (c.note.empty() ? " " : "+") + std::string(node->op->name);
  }
  snprintf(f.name, sizeof f.name, "%s", c.note.c_str() + 1);
  const rp_part &last = f.parts[f.n - 1];
  for (size_t j = 0; j < c.in.size(); j++) {
    bool may = true;
    for (int k = 0; k < last.n_in; k++)
      may = may && (last.in[k] != (int)j || last.op->in_place >> k & 1u);
    c.in_place |= (uint32_t)may << j;
  }
  for (rp_tensor *t : c.in) {
    char text[RP_DIMS_TEXT];
    c.note += std::string(" ") + rp_dtype_name((rp_dtype)t->type.dtype) +
              rp_dims_text(&t->type, text);
  }
  w.calls.push_back(c);
  return true;
}

} // namespace

void write_chains(writer &w) {
  const dims shapes[] = {{20011}, {7, 33}, {64, 128}, {3, 5, 8},
                         {2, 33, 65}, {}, {4, 0}, {9, 16, 24}};
  uint64_t seed = 31 + 1000 * (uint64_t)w.dtype;
  int parts = 2;
  for (const dims &d : shapes) {
    while (!chain(w, d, seed++).write(parts)) {}
    parts = parts == RP_PARTS ? 2 : parts + 1;
  }
}

} // namespace cases
