/* The passes and their order. See rp_graph_pass. */
#include "graph/passes.h"

typedef struct pass {
  bool fuses; /* makes one node of several: only where that is wanted */
  /* One of the two; `run_for` asks which ops the device has rows for. */
  rp_status (*run)(rp_graph *graph, rp_context *ctx);
  rp_status (*run_for)(rp_graph *graph, rp_context *ctx, rp_runs *runs,
                       const void *user);
} pass;

static const pass passes[] = {
    /* Computed twice, or needed by nobody. */
    {.run = rp_graph_simplify},
    /* Ops of two parts, of which backward may want one again alone. */
    {.run = rp_graph_split},
    /* Larger ops take what is next to them before elementwise groups do. */
    {.fuses = true, .run_for = rp_graph_end},
    {.fuses = true, .run_for = rp_graph_beside},
    /* Nodes that let the groups of either half be whole. */
    {.fuses = true, .run_for = rp_graph_repeat},
    {.fuses = true, .run = rp_graph_fuse},
    /* Groups go into the reductions that read them. */
    {.fuses = true, .run_for = rp_graph_fold},
    /* What is light depends on every node that is left. */
    {.run = rp_graph_find_light},
    /* Light values are what products may make again in tiles. */
    {.fuses = true, .run_for = rp_graph_tile},
};

rp_status rp_graph_pass(rp_graph *graph, rp_context *ctx, bool fuses,
                        rp_runs *runs, const void *user) {
  rp_status status = RP_OK;
  for (size_t i = 0; i < sizeof passes / sizeof *passes; i++) {
    const pass *p = &passes[i];
    if (status != RP_OK || (p->fuses && !fuses)) continue;
    status = p->run ? p->run(graph, ctx) : p->run_for(graph, ctx, runs, user);
  }
  return status;
}
