/* The chain dynamic programme: which blocks keep what, for every amount of
   memory at once.

   Source: Herrmann, Beaumont, Eyraud-Dubois, Hermann, Joly, Shilova, "Optimal
   checkpointing for heterogeneous chains" (2019); options inside a block
   after Rockmate (Zhao et al., 2023). Sizes are whole slots. */
#ifndef RP_PLAN_CHAIN_H
#define RP_PLAN_CHAIN_H

#include "base/memory.h"

enum { RP_CHAIN_OPTIONS = 12 };

/* One way to run a block so that its backward finds what it needs. */
typedef struct rp_chain_option {
  int32_t kept;     /* slots held until its backward, its output included */
  int32_t backward; /* slots its backward needs besides those */
  double seconds;   /* replay of what it did not keep */
} rp_chain_option;

typedef struct rp_chain_block {
  int32_t input;    /* slots of the value that comes in */
  int32_t forward;  /* slots of a forward that keeps nothing, output included */
  double forward_seconds;
  int32_t n_options;
  rp_chain_option options[RP_CHAIN_OPTIONS];
} rp_chain_block;

typedef struct rp_chain {
  int32_t n, slots; /* blocks; the table answers 0..slots */
  const rp_chain_block *blocks;
  float *seconds;   /* T(m, i, j) beyond forward and backward of each once */
  int16_t *choice;  /* -1 infeasible; < OPTIONS: keep i by that option; else
                       OPTIONS + p - i: keep only the input of block p */
} rp_chain;

/* Fills the table: O(slots n^2 (n + options)). T(m, i, j) is the least time
   of replays for forward and backward of blocks i..j in m slots, the input of
   i held by the caller. RP_NOMEM. */
rp_status rp_chain_solve(rp_chain *chain, rp_context *ctx,
                         const rp_chain_block *blocks, int32_t n,
                         int32_t slots);
void rp_chain_free(rp_chain *chain, rp_context *ctx);

/* T and choice for blocks i..j (i <= j) in m slots. */
double rp_chain_seconds(const rp_chain *chain, int32_t m, int32_t i,
                        int32_t j);
int32_t rp_chain_choice(const rp_chain *chain, int32_t m, int32_t i,
                        int32_t j);

#endif
