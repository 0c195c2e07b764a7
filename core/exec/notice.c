#include "exec/notice.h"

#include "base/context.h"
#include "graph/op.h"
#include "graph/optimizer.h"
#include "graph/recorder.h"

static bool in_optimizer(const rp_optimizer *opt, const rp_tensor *leaf) {
  for (int32_t i = 0; i < opt->slots.n; i++)
    if (opt->slots.at[i].param == leaf) return true;
  return false;
}

/* A trainable leaf that the loss reaches and no optimizer has. */
static void notice_forgotten(rp_context *ctx, const rp_request *r,
                             const rp_walk *walk) {
  for (int32_t i = 0; i < walk->leaves.n; i++) {
    rp_tensor *leaf = &walk->leaves.at[i]->outputs[0];
    if (!leaf->requires_grad || in_optimizer(r->optimizer, leaf)) continue;
    const char *name = rp_leaf_name(leaf);
    rp_notice(ctx, "the loss reaches the trainable leaf %s, which the "
              "optimizer does not have: it stays as it is. Pass it to the "
              "optimizer, or set requires_grad = false.",
              *name ? name : "(unnamed)");
    return;
  }
}

/* Is node's value held while something it is made from is not? Then a
   backward runs that again. */
static void notice_ran_twice(rp_context *ctx, const rp_walk *walk) {
  if (ctx->recorder->ran_twice) return;
  for (int32_t i = 0; i < walk->nodes.n; i++) {
    const rp_node *node = walk->nodes.at[i];
    if (node->n_outputs == 0 || node->outputs[0].storage == NULL ||
        !node->outputs[0].requires_grad)
      continue;
    for (int k = 0; k < node->n_inputs; k++) {
      if (rp_is_available(node->inputs[k])) continue;
      const char *scope = rp_scope_text(ctx, node->place.scope);
      rp_notice(ctx, "%s%s%s was run before its backward, by a look at its value "
                "or another backward, so what it is made from runs again. To "
                "read a value of a step without that: opt:minimize(loss, {also "
                "= {value}}), or value:tap 'name' in the forward.",
                node->op->name, *scope ? " in " : "", scope);
      ctx->recorder->ran_twice = true;
      return;
    }
  }
}

void rp_notice_request(rp_context *ctx, const rp_request *request,
                       const rp_walk *walk) {
  if (request->action == RP_MINIMIZE) notice_forgotten(ctx, request, walk);
  if (request->action != RP_RUN) notice_ran_twice(ctx, walk);
}
