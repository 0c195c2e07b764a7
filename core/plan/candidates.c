/* Candidates from the chain programme's table, from one option everywhere, and
   from the layers. */
#include <math.h>
#include <string.h>

#include "base/context.h"
#include "plan/chain.h"
#include "plan/front.h"

enum { SLOTS = 200 };

/* ---- from the table ------------------------------------------------------------------ */

static int32_t slots_of(int64_t bytes, int64_t slot) {
  return (int32_t)((bytes + slot - 1) / slot);
}

static void chain_blocks(const rp_stretches *all, int64_t slot,
                         rp_chain_block *blocks) {
  for (int32_t i = 0; i < all->n; i++) {
    const rp_stretch *s = &all->at[i];
    blocks[i] = (rp_chain_block){
        .input = slots_of(s->input_bytes, slot),
        .forward = slots_of(s->forward_bytes, slot),
        .forward_seconds = s->forward_seconds,
        .n_options = s->n_options};
    for (int32_t k = 0; k < s->n_options; k++)
      blocks[i].options[k] = (rp_chain_option){
          .kept = slots_of(s->options[k].kept_bytes, slot),
          .backward = slots_of(s->options[k].restored_bytes +
                               s->backward_bytes, slot),
          .seconds = s->options[k].seconds};
  }
}

/* Segments of blocks i..j in m slots, as the table chose. Recursion goes to
   the inside of a segment only; its depth is at most the number of blocks. */
static rp_status read_table(rp_candidate *c, rp_context *ctx,
                            const rp_chain *chain, const rp_stretches *all,
                            int32_t m, int32_t i, int32_t j, int32_t parent) {
  rp_status status = RP_OK;
  while (i <= j && status == RP_OK) {
    const int32_t choice = rp_chain_choice(chain, m, i, j);
    if (choice < 0)
      return rp_fail(ctx, RP_INTERNAL, "the chain table has no entry");
    const rp_stretch *s = &all->at[i];
    if (choice < RP_CHAIN_OPTIONS) {
      if (choice > 0) /* option 0 is what no segment gives */
        status = rp_candidate_add(c, ctx, s->first, s->last, parent,
                                  s->options[choice].keep,
                                  s->options[choice].n);
      m -= chain->blocks[i].options[choice].kept;
      i++;
      continue;
    }
    const int32_t p = i + choice - RP_CHAIN_OPTIONS;
    const int32_t own = c->segments.n;
    status = rp_candidate_add(c, ctx, s->first, all->at[p - 1].last, parent,
                              NULL, 0);
    if (status == RP_OK)
      status = read_table(c, ctx, chain, all, m, i, p - 1, own);
    m -= chain->blocks[p].input;
    i = p;
  }
  return status;
}

static rp_status offer_table(const rp_search *search, int64_t most) {
  const rp_stretches *all = &search->stretches;
  rp_context *ctx = search->plan->ctx;
  const int64_t slot = most / SLOTS + 1;
  const size_t size = (size_t)all->n * sizeof(rp_chain_block);
  rp_chain_block *blocks = rp_alloc(ctx, size);
  if (blocks == NULL) return RP_NOMEM;
  chain_blocks(all, slot, blocks);
  rp_chain chain = {0};
  rp_status status = rp_chain_solve(&chain, ctx, blocks, all->n, SLOTS);
  double before = -1;
  for (int32_t m = 0; m <= SLOTS && status == RP_OK && all->n > 0; m++) {
    const double seconds = rp_chain_seconds(&chain, m, 0, all->n - 1);
    if (isinf(seconds) || seconds == before) continue;
    before = seconds; /* the least memory of each time */
    rp_candidate c = {0};
    status = read_table(&c, ctx, &chain, all, m, 0, all->n - 1, -1);
    status = rp_front_offer(search, &c, status);
  }
  rp_chain_free(&chain, ctx);
  rp_free(ctx, blocks, size);
  return status;
}

/* ---- plain candidates ------------------------------------------------------------------ */

/* One option of every stretch: the k-th, or the last it has. */
static rp_status offer_options(const rp_search *search) {
  const rp_stretches *all = &search->stretches;
  rp_status status = RP_OK;
  for (int32_t k = 0; k < RP_CHAIN_OPTIONS && status == RP_OK; k++) {
    rp_candidate c = {0};
    for (int32_t i = 0; i < all->n && status == RP_OK; i++) {
      const rp_stretch *s = &all->at[i];
      const int32_t at = k < s->n_options ? k : s->n_options - 1;
      if (at > 0)
        status = rp_candidate_add(&c, search->plan->ctx, s->first, s->last, -1,
                                  s->options[at].keep, s->options[at].n);
    }
    status = rp_front_offer(search, &c, status);
  }
  return status;
}

/* Everything, light values too. */
static rp_status offer_all(const rp_search *search) {
  rp_context *ctx = search->plan->ctx;
  const int32_t n = search->plan->graph.n_forward;
  const size_t size = (size_t)n * sizeof(int32_t);
  int32_t *keep = rp_alloc(ctx, size);
  if (keep == NULL) return RP_NOMEM;
  for (int32_t i = 0; i < n; i++) keep[i] = i;
  rp_candidate c = {0};
  rp_status status =
      n ? rp_candidate_add(&c, ctx, 0, n - 1, -1, keep, n) : RP_OK;
  rp_free(ctx, keep, size);
  return rp_front_offer(search, &c, status);
}

/* Layers in runs of n, every run, or every second run, a segment. */
static rp_status offer_layers(const rp_search *search) {
  const rp_view *view = rp_plan_view(search->plan);
  if (view == NULL) return RP_NOMEM;
  rp_status status = RP_OK;
  for (int32_t n = 1; n <= view->n_layers && status == RP_OK; n *= 2)
    for (int32_t every = 1; every <= 2 && status == RP_OK; every++) {
      rp_candidate c = {0};
      for (int32_t i = 0; i < view->n_layers && status == RP_OK;
           i += n * every) {
        const int32_t end =
            i + n <= view->n_layers ? i + n - 1 : view->n_layers - 1;
        status = rp_candidate_add(&c, search->plan->ctx, view->layers[i].first,
                             view->layers[end].last, -1, NULL, 0);
      }
      status = rp_front_offer(search, &c, status);
    }
  return status;
}

/* Pieces of about equal saved bytes, as Chen et al. (2016) cut: every piece a
   segment, or all but the last, with which backward begins. */
static rp_status offer_pieces(const rp_search *search) {
  const rp_stretches *all = &search->stretches;
  double total = 0;
  for (int32_t i = 0; i < all->n; i++)
    total += (double)all->at[i].options[0].kept_bytes;
  rp_status status = RP_OK;
  for (int32_t pieces = 2; pieces <= all->n && status == RP_OK;
       pieces += 1 + pieces / 8)
    for (int whole = 0; whole < 2 && status == RP_OK; whole++) {
      rp_candidate c = {0};
      int32_t first = 0;
      double sum = 0;
      for (int32_t i = 0; i < all->n && status == RP_OK; i++) {
        sum += (double)all->at[i].options[0].kept_bytes;
        const bool ends = i == all->n - 1;
        if (!ends && sum < total / pieces) continue;
        if (!ends || whole)
          status = rp_candidate_add(&c, search->plan->ctx,
                                    all->at[first].first, all->at[i].last, -1,
                                    NULL, 0);
        first = i + 1;
        sum = 0;
      }
      status = rp_front_offer(search, &c, status);
    }
  return status;
}

rp_status rp_front_offer_plain(const rp_search *search, int64_t most_bytes) {
  rp_status status = offer_all(search);
  if (status == RP_OK) status = offer_layers(search);
  if (status == RP_OK) status = offer_options(search);
  if (status == RP_OK) status = offer_pieces(search);
  if (status == RP_OK) status = offer_table(search, most_bytes);
  return status;
}
