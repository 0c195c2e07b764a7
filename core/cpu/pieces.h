/* Groups of elementwise ops in pieces of their result that stay in the
   first-level cache while every op runs over them, in order, by its own row
   function. So values are those of the ops run one by one, bit for bit.

   Invariants
     - dims are the result's with neighbours merged wherever every operand
       goes on through them with one stride; strides[j] are operand j's along
       them, 0 where it is broadcast.
     - a piece is at most RP_PIECE neighbours along the last dim: a run of the
       contiguous result.
     - slot[i] is where part i's values lie in a thread's workspace, -1 for
       the last part, which writes the result. A slot is free again behind its
       last reader. */
#ifndef RP_CPU_PIECES_H
#define RP_CPU_PIECES_H

#include <omp.h>

#include "cpu/elementwise.h"
#include "graph/op.h"

/* RP_PIECE: a slot and what else a part touches fit into the first-level
   cache together; random words come in blocks that divide it. */
enum { RP_PIECE_OPERANDS = 16, RP_PIECE = 1024 };

typedef struct rp_pieces {
  rp_fusion fusion; /* attributes are the graph's */
  rp_row_kernel kernels[RP_PARTS];
  rp_array made[RP_PARTS]; /* types alone */
  int rank;
  int64_t dims[RP_RANK], strides[RP_PIECE_OPERANDS][RP_RANK];
  int64_t count, size[RP_PIECE_OPERANDS], out_size;
  int32_t slot[RP_PARTS], n_slots;
  int64_t slot_bytes;
  int threads; /* that have slots */
} rp_pieces;

/* For the group of args->fusion. */
rp_status rp_pieces_prepare(rp_pieces *pieces, const rp_kernel_args *args);
static inline int64_t rp_pieces_slot_bytes(const rp_pieces *pieces) {
  return pieces->n_slots * pieces->slot_bytes; /* of one thread */
}

typedef struct rp_pieces_run {
  const rp_pieces *pieces;
  const rp_kernel_args *args;
  rp_kernel_args own[RP_PARTS]; /* what row functions read of them */
} rp_pieces_run;

void rp_pieces_start(rp_pieces_run *run, const rp_pieces *pieces,
                     const rp_kernel_args *args);
/* Elements first .. end - 1 of the result, to `out`. */
void rp_pieces_make(const rp_pieces_run *run, int64_t first, int64_t end,
                    void *out, char *slots);

/* A value that is nowhere as a whole: what reads it (a reduction, whose
   args->source this is) has it made, at most `room` elements at a time, on at
   most `threads` threads. Its prepare says room, and is told nothing else. */
typedef struct rp_source {
  int64_t room;
  rp_pieces_run run;
  int threads;
  char *workspace; /* a thread's slots, then its buffer */
  int64_t thread_bytes;
} rp_source;

static inline char *rp_source_slots(const rp_source *source) {
  return source->workspace + omp_get_thread_num() * source->thread_bytes;
}
static inline char *rp_source_buffer(const rp_source *source) {
  return rp_source_slots(source) + rp_pieces_slot_bytes(source->run.pieces);
}
/* n elements from `first` on, to `out`. */
static inline void rp_source_make(const rp_source *source, int64_t first,
                                  int64_t n, void *out) {
  rp_pieces_make(&source->run, first, first + n, out, rp_source_slots(source));
}

#endif
