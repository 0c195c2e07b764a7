/* Mutants of a program, for the test of verify; and a judge of them that
   shares no code with it.

   The judge executes the program on tags instead of numbers: arena bytes hold
   the tag last written to them, a RUN's result is a hash of its node and of
   the tags its operands' bytes hold now. A mutant is harmless when every
   result and every updated leaf ends with the tag the right program gives it
   and each effect ran once: then any machine would have computed the same. */
#include <string.h>

#include "base/context.h"
#include "base/random.h"
#include "plan/plan.h"

enum mutation {
  DROP_RUN, SWAP, FREE_EARLIER, EFFECT_EARLIER, EFFECT_TWICE, OVERLAP
};

static uint64_t mix(uint64_t h, uint64_t x) {
  h = (h ^ x) * 0x9E3779B97F4A7C15u;
  return h ^ h >> 31;
}

/* ---- the judge ---------------------------------------------------------- */

typedef struct machine {
  const rp_plan *plan;
  const rp_program *program;
  const int64_t *offsets;
  uint64_t *memory; /* a tag for each RP_ALIGN bytes of the arena */
  uint64_t *results, *leaves; /* by value, by leaf */
  uint64_t *stored;           /* by instance: what its RUN wrote */
  int64_t n_memory;
} machine;

static int64_t blocks_of(const machine *m, int32_t instance) {
  const int32_t value = m->program->instances.at[instance].value;
  return rp_value_bytes(&m->plan->graph, value) / RP_ALIGN;
}

static uint64_t load(const machine *m, int32_t instance) {
  const int64_t at = m->offsets[instance] / RP_ALIGN;
  if (m->offsets[instance] < 0)
    return m->results[m->program->instances.at[instance].value];
  uint64_t tag = 1;
  for (int64_t b = 0; b < blocks_of(m, instance); b++)
    tag = mix(tag, m->memory[at + b] + (uint64_t)b);
  return tag;
}

static void store(machine *m, int32_t instance, uint64_t tag) {
  const int64_t at = m->offsets[instance] / RP_ALIGN;
  m->stored[instance] = tag;
  if (m->offsets[instance] < 0) {
    m->results[m->program->instances.at[instance].value] = tag;
    return;
  }
  for (int64_t b = 0; b < blocks_of(m, instance); b++)
    m->memory[at + b] = tag;
}

/* What is freed may be overwritten by anybody: it is, but for bytes that
   another instance has taken over since. */
static void discard(machine *m, int32_t instance) {
  const int64_t at = m->offsets[instance] / RP_ALIGN;
  if (m->offsets[instance] < 0) return;
  for (int64_t b = 0; b < blocks_of(m, instance); b++)
    if (m->memory[at + b] == m->stored[instance])
      m->memory[at + b] = mix(0xdead, (uint64_t)instance);
}

static void step(machine *m, int32_t i) {
  const rp_instruction *at = &m->program->instructions.at[i];
  if (at->opcode == RP_OP_FREE) {
    discard(m, at->instance);
    return;
  }
  const rp_graph_node *node = &m->plan->graph.nodes.at[at->node];
  const int32_t *refs = m->program->refs.at + at->first_ref;
  uint64_t tag = mix(7, (uint64_t)at->node);
  for (int32_t k = 0; k < node->n_operands; k++)
    tag = mix(tag, refs[k] < 0 ? m->leaves[-1 - refs[k]] : load(m, refs[k]));
  const int64_t workspace = m->plan->layout.workspaces[at->instance];
  if (workspace >= 0) {
    const int64_t size = rp_align(m->plan->workspace_bytes[at->node]);
    for (int64_t b = 0; b < size / RP_ALIGN; b++)
      m->memory[workspace / RP_ALIGN + b] = mix(0xbad, (uint64_t)i);
  }
  for (int32_t k = 0; k < node->n_values; k++)
    store(m, refs[node->n_operands + k], mix(tag, (uint64_t)k));
  for (int32_t k = 0; k < node->n_operands; k++)
    if (node->op->writes >> k & 1u)
      m->leaves[-1 - refs[k]] = mix(tag, (uint64_t)k);
}

/* One hash of all results and leaves; 0 without memory. */
static uint64_t outcome(const rp_plan *plan, const rp_program *program,
                        const int64_t *offsets) {
  rp_context *ctx = plan->ctx;
  machine m = {.plan = plan, .program = program, .offsets = offsets};
  m.n_memory = plan->layout.arena_bytes / RP_ALIGN;
  const size_t memory = (size_t)m.n_memory * sizeof(uint64_t);
  const size_t values = (size_t)plan->graph.values.n * sizeof(uint64_t);
  const size_t leaves = (size_t)plan->graph.leaves.n * sizeof(uint64_t);
  const size_t instances = (size_t)program->instances.n * sizeof(uint64_t);
  m.stored = rp_alloc(ctx, instances);
  m.memory = rp_alloc(ctx, memory);
  m.results = rp_alloc(ctx, values);
  m.leaves = rp_alloc(ctx, leaves);
  uint64_t tag = 0;
  if (m.memory && m.results && m.leaves && m.stored) {
    tag = 1;
    for (int32_t l = 0; l < plan->graph.leaves.n; l++)
      m.leaves[l] = mix(3, (uint64_t)l);
    for (int32_t i = 0; i < program->instructions.n; i++) step(&m, i);
    for (int32_t v = 0; v < plan->graph.values.n; v++)
      if (plan->graph.values.at[v].target) tag = mix(tag, m.results[v]);
    for (int32_t l = 0; l < plan->graph.leaves.n; l++)
      tag = mix(tag, m.leaves[l]);
  }
  rp_free(ctx, m.memory, memory);
  rp_free(ctx, m.results, values);
  rp_free(ctx, m.leaves, leaves);
  rp_free(ctx, m.stored, instances);
  return tag;
}

/* ---- mutants ------------------------------------------------------------ */

typedef struct mutant {
  rp_program program; /* own instructions; the rest is the plan's */
  int64_t *offsets;
} mutant;

static uint64_t draw(uint64_t seed, uint32_t which, uint64_t below) {
  uint32_t words[4];
  rp_philox_block(seed, 77, which, words);
  return (((uint64_t)words[0] << 32) | words[1]) % below;
}

static bool is_run(const rp_plan *plan, const rp_instruction *at,
                   bool effect) {
  return at->opcode == RP_OP_RUN &&
         (bool)(plan->graph.nodes.at[at->node].op->flags & RP_EFFECT) ==
             effect;
}

/* The (n mod count)-th instruction of a kind, -1 when there is none. */
static int32_t pick(const rp_plan *plan, const rp_program *p, uint64_t n,
                    bool free_wanted, bool effect) {
  int32_t count = 0;
  for (int pass = 0; pass < 2; pass++) {
    int64_t left = pass == 0 ? -1 : (int64_t)(n % (uint64_t)count);
    for (int32_t i = 0; i < p->instructions.n; i++) {
      const rp_instruction *at = &p->instructions.at[i];
      const bool fits = free_wanted ? at->opcode == RP_OP_FREE
                                    : is_run(plan, at, effect);
      if (!fits) continue;
      if (pass == 0) count++;
      else if (left-- == 0) return i;
    }
    if (count == 0) return -1;
  }
  return -1;
}

static void move_up(rp_program *p, int32_t from, int32_t to) {
  const rp_instruction moved = p->instructions.at[from];
  memmove(&p->instructions.at[to + 1], &p->instructions.at[to],
          (size_t)(from - to) * sizeof moved);
  p->instructions.at[to] = moved;
}

/* Changes the copy; false when the program has nothing of the kind. */
static bool mutate(const rp_plan *plan, mutant *m, int kind, uint64_t seed) {
  rp_program *p = &m->program;
  const uint64_t a = draw(seed, 0, UINT64_MAX), b = draw(seed, 1, UINT64_MAX);
  const int32_t n = p->instructions.n;
  if (kind == DROP_RUN) {
    const int32_t i = pick(plan, p, a, false, b % 4 == 0);
    if (i < 0) return false;
    memmove(&p->instructions.at[i], &p->instructions.at[i + 1],
            (size_t)(--p->instructions.n - i) * sizeof *p->instructions.at);
  } else if (kind == SWAP) {
    const int32_t i = (int32_t)(a % (uint64_t)n), j = (int32_t)(b % (uint64_t)n);
    const rp_instruction swapped = p->instructions.at[i];
    p->instructions.at[i] = p->instructions.at[j];
    p->instructions.at[j] = swapped;
  } else if (kind == FREE_EARLIER || kind == EFFECT_EARLIER) {
    const int32_t i =
        pick(plan, p, a, kind == FREE_EARLIER, kind == EFFECT_EARLIER);
    if (i < 1) return false;
    move_up(p, i, (int32_t)(b % (uint64_t)i));
  } else if (kind == EFFECT_TWICE) {
    const int32_t i = pick(plan, p, a, false, true);
    if (i < 0) return false;
    p->instructions.at[p->instructions.n] = p->instructions.at[i];
    move_up(p, p->instructions.n,
            i + 1 + (int32_t)(b % (uint64_t)(p->instructions.n - i)));
    p->instructions.n++;
  } else if (kind == OVERLAP) {
    const int32_t i = (int32_t)(a % (uint64_t)p->instances.n);
    const int32_t j = (int32_t)(b % (uint64_t)p->instances.n);
    if (m->offsets[i] < 0 || m->offsets[j] < 0) return false;
    const int64_t size = rp_value_bytes(&plan->graph,
                                        p->instances.at[i].value);
    if (m->offsets[j] + size > plan->layout.arena_bytes) return false;
    m->offsets[i] = m->offsets[j];
  } else {
    return false;
  }
  return true;
}

bool rp_plan_mutate(rp_plan *plan, int kind, uint64_t seed, bool *harmless) {
  rp_context *ctx = plan->ctx;
  *harmless = true;
  const int32_t n = plan->program.instructions.n;
  const size_t instructions = (size_t)(n + 1) * sizeof(rp_instruction);
  const size_t offsets = (size_t)plan->program.instances.n * sizeof(int64_t);
  mutant m = {.program = plan->program};
  m.program.instructions.at = rp_alloc(ctx, instructions);
  m.offsets = rp_alloc(ctx, offsets);
  bool rejected = false;
  if (plan->ready && n > 0 && m.program.instructions.at && m.offsets) {
    memcpy(m.program.instructions.at, plan->program.instructions.at,
           (size_t)n * sizeof(rp_instruction));
    memcpy(m.offsets, plan->layout.offsets, offsets);
    /* A workspace goes with its RUN: remembered in the unused field. */
    for (int32_t i = 0; i < n; i++)
      if (m.program.instructions.at[i].opcode == RP_OP_RUN)
        m.program.instructions.at[i].instance = i;
    const uint64_t right = outcome(plan, &m.program, m.offsets);
    if (mutate(plan, &m, kind, seed)) {
      *harmless = outcome(plan, &m.program, m.offsets) == right;
      rp_layout layout = plan->layout;
      layout.offsets = m.offsets;
      layout.workspaces =
          rp_alloc(ctx, (size_t)(n + 1) * sizeof(int64_t));
      if (layout.workspaces) {
        for (int32_t i = 0; i < m.program.instructions.n; i++) {
          const rp_instruction *at = &m.program.instructions.at[i];
          layout.workspaces[i] = at->opcode == RP_OP_RUN
                                     ? plan->layout.workspaces[at->instance]
                                     : -1;
        }
        rejected = rp_verify(ctx, &plan->graph, &m.program, &layout,
                             plan->workspace_bytes) == RP_ILLEGAL;
        rp_clear_error(ctx);
      }
      rp_free(ctx, layout.workspaces, (size_t)(n + 1) * sizeof(int64_t));
    }
  }
  rp_free(ctx, m.program.instructions.at, instructions);
  rp_free(ctx, m.offsets, offsets);
  return rejected;
}
