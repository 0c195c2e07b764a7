/* Candidates from one option everywhere, from the layers, from pieces of equal
   size. */
#include "base/context.h"
#include "plan/chain.h"
#include "plan/front.h"

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

rp_status rp_front_offer_plain(const rp_search *search) {
  rp_status status = offer_all(search);
  if (status == RP_OK) status = offer_layers(search);
  if (status == RP_OK) status = offer_options(search);
  if (status == RP_OK) status = offer_pieces(search);
  return status;
}
