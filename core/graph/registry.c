#include "graph/registry.h"

#include <string.h>

#define RP_OP(name) extern const rp_op rp_op_##name;
#include "ops/registry.def"
#undef RP_OP

static const rp_op *const ops[] = {
#define RP_OP(name) &rp_op_##name,
#include "ops/registry.def"
#undef RP_OP
};
enum { OPS = sizeof ops / sizeof *ops, SLOTS = 1024 };
_Static_assert(2 * OPS < SLOTS, "the registry's tables need more slots");

/* Written once, by the first look-up, with values that depend on nothing:
   the registry is constant, not state. */
static int16_t by_name[SLOTS], by_address[SLOTS]; /* index + 1, 0 free */
static uint8_t kernels[OPS];                      /* bit = dtype */

static uint32_t hash_name(const char *name) {
  uint32_t h = 5381;
  for (; *name; name++) h = h * 33 + (uint8_t)*name;
  return (h ^ h >> 11) % SLOTS;
}
static uint32_t hash_address(const rp_op *op) {
  const uintptr_t p = (uintptr_t)op;
  return (uint32_t)((p >> 4) * 2654435761u >> 7) % SLOTS;
}

static void fill(void) {
  if (by_name[hash_name(ops[0]->name)]) return;
  for (int i = OPS - 1; i >= 0; i--) {
    uint32_t at = hash_name(ops[i]->name);
    while (by_name[at]) at = (at + 1) % SLOTS;
    by_name[at] = (int16_t)(i + 1);
    at = hash_address(ops[i]);
    while (by_address[at]) at = (at + 1) % SLOTS;
    by_address[at] = (int16_t)(i + 1);
  }
}

int rp_op_index(const rp_op *op) {
  fill();
  for (uint32_t at = hash_address(op); by_address[at]; at = (at + 1) % SLOTS)
    if (ops[by_address[at] - 1] == op) return by_address[at] - 1;
  return -1;
}

const rp_op *rp_op_find(const char *name) {
  fill();
  for (uint32_t at = hash_name(name); by_name[at]; at = (at + 1) % SLOTS)
    if (strcmp(ops[by_name[at] - 1]->name, name) == 0)
      return ops[by_name[at] - 1];
  return NULL;
}

int rp_op_count(void) { return OPS; }
const rp_op *rp_op_at(int i) { return i >= 0 && i < OPS ? ops[i] : NULL; }

void rp_op_add_kernel(const rp_op *op, rp_dtype dtype) {
  const int i = rp_op_index(op);
  if (i >= 0) kernels[i] |= (uint8_t)(1u << dtype);
}

bool rp_op_has_kernel(const rp_op *op, rp_dtype dtype) {
  const int i = rp_op_index(op);
  return i >= 0 && (kernels[i] >> dtype) & 1u;
}

void rp_op_describe(const rp_op *op, rp_op_info *out) {
  *out = (rp_op_info){
      .name = op->name,
      .inputs = op->inputs,
      .variadic = op->flags & RP_VARIADIC,
      .outputs = op->outputs,
      .elementwise = op->flags & RP_ELEMENTWISE,
      .random = op->flags & RP_RANDOM,
      .view = op->flags & RP_VIEW,
      .effect = op->flags & RP_EFFECT,
      .differentiable = (op->grad || op->decompose) &&
                        !(op->flags & RP_NOT_DIFFERENTIABLE),
      .decomposes = op->decompose != NULL,
  };
}
