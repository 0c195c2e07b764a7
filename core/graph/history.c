/* What a value was made from. */
#include "base/context.h"
#include "graph/recorder.h"
#include "graph/walk.h"

int rp_tensor_history(rp_tensor *t, rp_tensor **out, int room) {
  rp_context *ctx = t->node->ctx;
  rp_sweep(ctx);
  rp_walk walk = {0};
  rp_status status =
      rp_walk_collect(&walk, ctx, &t, 1, RP_WALK_ALL, NULL, 0);
  int n = 0;
  for (int32_t i = 0; i < walk.nodes.n && status == RP_OK; i++) {
    /* A dead recipe has let go what it was made from. */
    if (walk.nodes.at[i]->flags & RP_NODE_DEAD)
      status = rp_node_check_fresh(walk.nodes.at[i]);
    if (n < room) out[n] = &walk.nodes.at[i]->outputs[0];
    n++;
  }
  rp_walk_free(&walk, ctx);
  return status == RP_OK ? n : -1;
}
