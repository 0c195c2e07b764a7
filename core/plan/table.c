/* Candidates from the chain programme's table: slots, coarsening, and what
   coarsening loses. */
#include <math.h>

#include "base/context.h"
#include "plan/chain.h"
#include "plan/front.h"

/* BLOCKS_MOST, TABLE_BYTES, TABLE_STEPS: what one table may take. POINT_NODES:
   nodes that evaluations of its schedules may look at. */
enum { BLOCKS_MOST = 1000, COARSE = 200, SLOTS_LEAST = 200,
       SLOTS_MOST = 2000, SIZES = 16, PREFIX = 120, POINTS_LEAST = 60,
       POINTS_MOST = 400, DENSE = 40 };
static const double TABLE_BYTES = 48e6, TABLE_STEPS = 3e9,
                    POINT_NODES = 3e5;

/* ---- slots -------------------------------------------------------------- */

static int32_t slots_of(int64_t bytes, int64_t slot) {
  return (int32_t)((bytes + slot - 1) / slot);
}

/* Bytes that rounding up adds to what may be held. */
static int64_t waste(const rp_stretches *all, int64_t slot) {
  int64_t added = 0;
  for (int32_t i = 0; i < all->n; i++) {
    const rp_stretch *s = &all->at[i];
    added += slots_of(s->input_bytes, slot) * slot - s->input_bytes;
    for (int32_t k = 0; k < s->n_options; k++)
      added += slots_of(s->options[k].kept_bytes, slot) * slot -
               s->options[k].kept_bytes;
  }
  return added;
}

/* The first few distinct sizes that may be held. */
static int32_t find_sizes(const rp_stretches *all, int64_t *sizes) {
  int32_t n = 0;
  for (int32_t i = 0; i < all->n; i++)
    for (int32_t k = -1; k < all->at[i].n_options && n < SIZES; k++) {
      const int64_t bytes = k < 0 ? all->at[i].input_bytes
                                  : all->at[i].options[k].kept_bytes;
      bool known = bytes == 0;
      for (int32_t j = 0; j < n; j++) known |= sizes[j] == bytes;
      if (!known) sizes[n++] = bytes;
    }
  return n;
}

/* A slot of at least most / slots bytes that wastes least: some whole part of
   a size that occurs. A table of equal sizes is exact that way. */
static int64_t choose_slot(const rp_stretches *all, int64_t most,
                           int32_t slots) {
  const int64_t least = most / slots + 1;
  int64_t best = least, added = waste(all, least), sizes[SIZES];
  const int32_t n = find_sizes(all, sizes);
  for (int32_t i = 0; i < n; i++)
    for (int64_t parts = 1; sizes[i] / parts >= least; parts++) {
      const int64_t slot = (sizes[i] + parts - 1) / parts;
      if (slot > 4 * least) continue;
      const int64_t other = waste(all, slot);
      if (other > added || (other == added && slot <= best)) continue;
      best = slot;
      added = other;
    }
  return best;
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

/* ---- coarsening --------------------------------------------------------- */

/* The slots that a table of these stretches can afford. */
static rp_status affordable_slots(const rp_stretches *all, rp_context *ctx,
                                  int64_t most, int32_t *slots,
                                  int32_t *kinds) {
  const size_t size = (size_t)all->n * sizeof(rp_chain_block);
  rp_chain_block *blocks = rp_alloc(ctx, size);
  if (blocks == NULL) return RP_NOMEM;
  chain_blocks(all, choose_slot(all, most, SLOTS_MOST), blocks);
  rp_chain_words words = {0};
  const rp_status status = rp_chain_words_find(&words, ctx, blocks, all->n);
  double least = TABLE_BYTES / (4.0 * (double)words.n_words + 1);
  if (TABLE_STEPS / (words.work + 1) < least)
    least = TABLE_STEPS / (words.work + 1);
  *slots = least < SLOTS_MOST ? (int32_t)least - 1 : SLOTS_MOST;
  *kinds = words.n_kinds;
  if (status == RP_OK) rp_chain_words_free(&words, ctx);
  rp_free(ctx, blocks, size);
  return status;
}

rp_status rp_front_cut(rp_search *search, int64_t most) {
  rp_context *ctx = search->plan->ctx;
  rp_front_chain *chain = &search->front->chain;
  const rp_view *view = rp_plan_view(search->plan);
  if (view == NULL) return RP_NOMEM;
  rp_status status = RP_OK;
  int32_t each = (view->n_blocks + BLOCKS_MOST - 1) / BLOCKS_MOST;
  for (each = each > 0 ? each : 1;; each += 1 + each / 2) {
    status = rp_stretches_make(&search->stretches, search->plan,
                               each);
    if (status == RP_OK)
      status = affordable_slots(&search->stretches, ctx, most, &chain->slots,
                                &chain->n_kinds);
    chain->n_blocks = view->n_blocks;
    chain->n_solved = search->stretches.n;
    if (status != RP_OK || chain->slots >= SLOTS_LEAST ||
        chain->n_solved <= 2)
      break;
    rp_stretches_free(&search->stretches, ctx);
  }
  return status;
}

/* ---- what coarsening loses ---------------------------------------------- */

typedef struct solved {
  rp_stretches stretches; /* borrows the options */
  rp_chain_block *blocks;
  rp_chain table;
} solved;

static rp_status solve(solved *s, rp_context *ctx, int64_t slot,
                       int32_t slots) {
  const int32_t n = s->stretches.n;
  s->blocks = rp_alloc(ctx, (size_t)n * sizeof *s->blocks);
  if (s->blocks == NULL) return RP_NOMEM;
  chain_blocks(&s->stretches, slot, s->blocks);
  return rp_chain_solve(&s->table, ctx, s->blocks, n, slots);
}

static void free_solved(solved *s, rp_context *ctx) {
  rp_chain_free(&s->table, ctx);
  rp_free(ctx, s->blocks, (size_t)s->stretches.n * sizeof *s->blocks);
}

/* Compares the first PREFIX blocks, solved as they are, with the same stretch
   coarsened: the mean of what is lost in time over all memory at which both
   are feasible, and what is lost in the least memory. */
static rp_status measure_loss(const rp_search *search, int64_t most) {
  rp_context *ctx = search->plan->ctx;
  rp_front_chain *chain = &search->front->chain;
  rp_stretches fine = {0};
  rp_status status =
      rp_stretches_make(&fine, search->plan, 1);
  solved coarse = {.stretches = search->stretches};
  int32_t last = 0;
  while (last < search->stretches.n - 1 &&
         search->stretches.at[last + 1].last < search->plan->graph.n_forward &&
         last < PREFIX * chain->n_solved / chain->n_blocks)
    last++;
  coarse.stretches.n = last + 1;
  solved exact = {.stretches = fine};
  double forward = 0, all_forward = 0;
  int32_t n = 0;
  for (int32_t i = 0; status == RP_OK && i < fine.n; i++) {
    all_forward += fine.at[i].forward_seconds;
    if (fine.at[i].last > search->stretches.at[last].last) continue;
    forward += fine.at[i].forward_seconds;
    n++;
  }
  exact.stretches.n = n;
  const int64_t slot =
      (int64_t)((double)most * n / (fine.n + 1)) / SLOTS_LEAST + 1;
  if (status == RP_OK) status = solve(&exact, ctx, slot, SLOTS_LEAST);
  if (status == RP_OK) status = solve(&coarse, ctx, slot, SLOTS_LEAST);
  const rp_front *front = search->front;
  const double step = front->points.at[front->points.n - 1].seconds *
                      forward / all_forward;
  int32_t least_fine = -1, least_coarse = -1;
  double lost = 0;
  for (int32_t m = 0; status == RP_OK && m <= SLOTS_LEAST; m++) {
    const double a = rp_chain_seconds(&exact.table, m, 0, n - 1);
    const double b = rp_chain_seconds(&coarse.table, m, 0, last);
    if (isfinite(a) && least_fine < 0) least_fine = m;
    if (isinf(b)) continue;
    if (least_coarse < 0) least_coarse = m;
    lost += (b - a) / step;
  }
  if (least_coarse >= 0)
    chain->lost_time = lost / (SLOTS_LEAST + 1 - least_coarse);
  if (least_fine > 0 && least_coarse > 0)
    chain->lost_memory = (double)least_coarse / least_fine - 1;
  free_solved(&exact, ctx);
  free_solved(&coarse, ctx);
  rp_stretches_free(&fine, ctx);
  return status;
}

/* ---- candidates --------------------------------------------------------- */

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
      if (choice > 0) /* option 0 keeps everything */
        status = rp_candidate_add(c, ctx, s->first, s->last, parent,
                             s->options[choice].keep, s->options[choice].n);
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

/* Offers the least memory of each time; where there are many all of the least
   ones, which decide what budget can be met, and every few of the others. */
static rp_status offer_schedules(const rp_search *search,
                                 const rp_chain *chain) {
  const rp_stretches *all = &search->stretches;
  int32_t different = 0;
  double before = -1;
  for (int32_t m = 0; m <= chain->slots; m++) {
    const double seconds = rp_chain_seconds(chain, m, 0, all->n - 1);
    different += isfinite(seconds) && seconds != before;
    if (isfinite(seconds)) before = seconds;
  }
  double most = POINT_NODES / search->plan->graph.nodes.n;
  if (most < POINTS_LEAST) most = POINTS_LEAST;
  if (most > POINTS_MOST) most = POINTS_MOST;
  const int32_t each = different > DENSE ? (int32_t)((different - DENSE) /
                                                     (most - DENSE)) + 1 : 1;
  rp_status status = RP_OK;
  int32_t at = 0;
  before = -1;
  for (int32_t m = 0; m <= chain->slots && status == RP_OK; m++) {
    const double seconds = rp_chain_seconds(chain, m, 0, all->n - 1);
    if (isinf(seconds) || seconds == before) continue;
    before = seconds;
    if (at++ >= DENSE && at % each != 0) continue;
    rp_candidate c = {0};
    status = read_table(&c, search->plan->ctx, chain, all, m, 0, all->n - 1,
                        -1);
    status = rp_front_offer(search, &c, status);
  }
  return status;
}

/* Solves with slots of this size and offers what it found. */
static rp_status offer_solved(const rp_search *search, int64_t slot,
                              int32_t slots) {
  rp_context *ctx = search->plan->ctx;
  solved all = {.stretches = search->stretches};
  rp_status status = solve(&all, ctx, slot, slots);
  if (status == RP_OK) status = offer_schedules(search, &all.table);
  free_solved(&all, ctx);
  return status;
}

/* Coarse slots round up more, which makes up for what a block's sizes do not
   say: among the least plans theirs are often the smaller ones. Few stretches
   have long kept sets to choose from, which serve large budgets better than
   many with two or three ways to run each. */
rp_status rp_front_offer_table(rp_search *search, int64_t most) {
  rp_front_chain *chain = &search->front->chain;
  if (search->stretches.n == 0) return RP_OK;
  const int64_t slot = choose_slot(&search->stretches, most, chain->slots);
  chain->slots = (int32_t)(most / slot) + 1;
  rp_status status = offer_solved(search, slot, chain->slots);
  if (status == RP_OK && chain->n_solved < chain->n_blocks)
    status = measure_loss(search, most);
  const bool is_long = chain->n_solved > COARSE;
  if (status == RP_OK && is_long) {
    rp_stretches_free(&search->stretches, search->plan->ctx);
    status = rp_stretches_make(&search->stretches, search->plan,
                               (chain->n_blocks + COARSE - 1) / COARSE);
  }
  if (status == RP_OK && (is_long || chain->slots > SLOTS_LEAST))
    status = offer_solved(search, most / SLOTS_LEAST + 1, SLOTS_LEAST);
  return status;
}
