#include "plan/chain.h"

#include <math.h>
#include <string.h>

#include "base/context.h"

/* Rows of one (i, j) hold all m, so that the inner loops run over memory in
   order. Pairs i <= j are packed by length. */
static size_t row(const rp_chain *c, int32_t i, int32_t j) {
  const size_t length = (size_t)(j - i), n = (size_t)c->n;
  const size_t before = length * n - length * (length - 1) / 2;
  return (before + (size_t)i) * (size_t)(c->slots + 1);
}

double rp_chain_seconds(const rp_chain *c, int32_t m, int32_t i, int32_t j) {
  if (i > j) return 0;
  return m < 0 ? INFINITY : (double)c->seconds[row(c, i, j) + (size_t)m];
}

int32_t rp_chain_choice(const rp_chain *c, int32_t m, int32_t i, int32_t j) {
  return m < 0 ? -1 : c->choice[row(c, i, j) + (size_t)m];
}

static void offer(float *best, int16_t *choice, float seconds, int32_t what) {
  if (seconds < *best) {
    *best = seconds;
    *choice = (int16_t)what;
  }
}

/* Keep all that option k of block i keeps, then go on behind it. */
static void try_options(rp_chain *c, int32_t i, int32_t j) {
  const rp_chain_block *block = &c->blocks[i];
  float *best = c->seconds + row(c, i, j);
  int16_t *choice = c->choice + row(c, i, j);
  for (int32_t k = 0; k < block->n_options; k++) {
    const rp_chain_option *option = &block->options[k];
    const float *rest = i < j ? c->seconds + row(c, i + 1, j) : NULL;
    int32_t least = option->kept + option->backward;
    if (least < block->forward) least = block->forward;
    for (int32_t m = least; m <= c->slots; m++)
      offer(&best[m], &choice[m],
            (float)option->seconds + (rest ? rest[m - option->kept] : 0), k);
  }
}

/* Keep only the input of block p: i..p-1 run once for it, and again later. */
static void try_inputs(rp_chain *c, int32_t i, int32_t j) {
  float *best = c->seconds + row(c, i, j);
  int16_t *choice = c->choice + row(c, i, j);
  double again = 0;
  int32_t scratch = 0;
  for (int32_t p = i + 1; p <= j; p++) {
    again += c->blocks[p - 1].forward_seconds;
    /* While block p-1 runs, its own input is there too, but for the first,
       whose input the caller holds. */
    const int32_t held = p - 1 > i ? c->blocks[p - 1].input : 0;
    if (held + c->blocks[p - 1].forward > scratch)
      scratch = held + c->blocks[p - 1].forward;
    const int32_t input = c->blocks[p].input;
    const float *right = c->seconds + row(c, p, j);
    const float *left = c->seconds + row(c, i, p - 1);
    const int32_t least = scratch > input ? scratch : input;
    for (int32_t m = least; m <= c->slots; m++)
      offer(&best[m], &choice[m],
            (float)again + right[m - input] + left[m],
            RP_CHAIN_OPTIONS + p - i);
  }
}

rp_status rp_chain_solve(rp_chain *chain, rp_context *ctx,
                         const rp_chain_block *blocks, int32_t n,
                         int32_t slots) {
  *chain = (rp_chain){.n = n, .slots = slots, .blocks = blocks};
  const size_t size = (size_t)n * (size_t)(n + 1) / 2 * (size_t)(slots + 1);
  chain->seconds = rp_alloc(ctx, size * sizeof(float));
  chain->choice = rp_alloc(ctx, size * sizeof(int16_t));
  if (chain->seconds == NULL || chain->choice == NULL) {
    rp_chain_free(chain, ctx);
    return RP_NOMEM;
  }
  for (size_t k = 0; k < size; k++) {
    chain->seconds[k] = INFINITY;
    chain->choice[k] = -1;
  }
  for (int32_t length = 0; length < n; length++)
    for (int32_t i = 0; i + length < n; i++) {
      try_options(chain, i, i + length);
      try_inputs(chain, i, i + length);
    }
  return RP_OK;
}

void rp_chain_free(rp_chain *chain, rp_context *ctx) {
  const size_t size = (size_t)chain->n * (size_t)(chain->n + 1) / 2 *
                      (size_t)(chain->slots + 1);
  rp_free(ctx, chain->seconds, size * sizeof(float));
  rp_free(ctx, chain->choice, size * sizeof(int16_t));
  chain->seconds = NULL;
  chain->choice = NULL;
}
