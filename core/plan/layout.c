/* Arena offsets. Instances that take over each other's bytes form one box
   (they are equal in size and follow each other in time); workspaces are
   boxes of one instruction.

   Method: place boxes one by one, each at the lowest offset where it meets no
   placed box that is alive at the same time (Pisarchyk & Lee, "Efficient
   Memory Management for Deep Neural Net Inference", 2020: greedy by size),
   in three orders; keep the smallest arena. Where very many are of the least
   size (a long computation with scalars), they are given slots first: boxes of
   one size need no more slots than are alive at once, in whatever order their
   time comes. */
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "plan/plan.h"

typedef struct box {
  int64_t size, offset;
  int32_t start, end; /* first and last instruction alive */
  int32_t id;
} box;

bool rp_may_share(const rp_graph *graph, const rp_graph_node *node,
                  int32_t input) {
  if (input >= 32 || !(node->in_place >> input & 1u)) return false;
  const rp_operand *in = rp_graph_in(graph, node, input);
  if (in->value < 0) return false;
  const rp_graph_value *from = &graph->values.at[in->value];
  const rp_type *to = &graph->values.at[node->first_value].type;
  return rp_type_equal(&in->type, to) && in->strides.offset == 0 &&
         rp_strides_are_contiguous(&in->type, &in->strides) &&
         rp_type_bytes(&from->type) == rp_type_bytes(to);
}

static int by_size(const void *a, const void *b) {
  const box *x = a, *y = b;
  if (x->size != y->size) return x->size > y->size ? -1 : 1;
  if (x->start != y->start) return x->start < y->start ? -1 : 1;
  return (x->id > y->id) - (x->id < y->id);
}

static int by_start(const void *a, const void *b) {
  const box *x = a, *y = b;
  if (x->start != y->start) return x->start < y->start ? -1 : 1;
  return by_size(a, b);
}

static int by_area(const void *a, const void *b) {
  const box *x = a, *y = b;
  const double p = (double)x->size * (x->end - x->start + 1);
  const double q = (double)y->size * (y->end - y->start + 1);
  if (p != q) return p > q ? -1 : 1;
  return by_size(a, b);
}

/* Placed boxes, by offset: all of them, and those alive in each of CHUNKS equal
   parts of the program. Most boxes live within one part, where few others
   do. */
enum { CHUNKS = 64, LISTS = CHUNKS + 1 };

typedef struct shelf {
  int32_t *lists;             /* box indices, list after list */
  int32_t first[LISTS], n[LISTS];
  int32_t length;             /* instructions of a part */
} shelf;

static rp_status shelf_open(shelf *s, rp_context *ctx, const box *boxes,
                            int32_t n, int32_t instructions) {
  s->length = instructions / CHUNKS + 1;
  int32_t room[LISTS] = {0};
  room[CHUNKS] = n;
  for (int32_t i = 0; i < n; i++)
    for (int32_t c = boxes[i].start / s->length;
         c <= boxes[i].end / s->length; c++)
      room[c]++;
  int32_t total = 0;
  for (int32_t c = 0; c < LISTS; c++) {
    s->first[c] = total;
    total += room[c];
  }
  s->lists = rp_alloc(ctx, (size_t)total * sizeof *s->lists);
  return s->lists ? RP_OK : RP_NOMEM;
}

static void shelf_close(shelf *s, rp_context *ctx, const box *boxes,
                        int32_t n) {
  if (s->lists == NULL) return;
  size_t total = (size_t)n;
  for (int32_t i = 0; i < n; i++)
    total += (size_t)(boxes[i].end / s->length - boxes[i].start / s->length +
                      1);
  rp_free(ctx, s->lists, total * sizeof *s->lists);
}

/* The lowest offset at which b meets none of the listed boxes. */
static int64_t fit(const box *boxes, const box *b, const int32_t *list,
                   int32_t n) {
  int64_t at = 0;
  for (int32_t j = 0; j < n; j++) {
    const box *other = &boxes[list[j]];
    if (other->end < b->start || other->start > b->end) continue;
    if (other->offset >= at + b->size) break; /* it fits in front */
    const int64_t end = other->offset + other->size;
    if (end > at) at = end;
  }
  return at;
}

static void put(shelf *s, int32_t c, const box *boxes, int32_t i) {
  int32_t *list = s->lists + s->first[c];
  int32_t low = 0, high = s->n[c];
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (boxes[list[middle]].offset > boxes[i].offset) high = middle;
    else low = middle + 1;
  }
  memmove(list + low + 1, list + low,
          (size_t)(s->n[c]++ - low) * sizeof *list);
  list[low] = i;
}

/* Places the boxes in their order, until the arena is larger than `most`.
   Returns its size. */
static int64_t place(box *boxes, int32_t n, int64_t most, shelf *s) {
  int64_t arena = 0;
  memset(s->n, 0, sizeof s->n);
  for (int32_t i = 0; i < n && arena <= most; i++) {
    box *b = &boxes[i];
    const int32_t from = b->start / s->length, to = b->end / s->length;
    const int32_t c = from == to ? from : CHUNKS;
    b->offset = fit(boxes, b, s->lists + s->first[c], s->n[c]);
    if (b->offset + b->size > arena) arena = b->offset + b->size;
    put(s, CHUNKS, boxes, i);
    for (int32_t k = from; k <= to; k++) put(s, k, boxes, i);
  }
  return arena;
}

/* Boxes of the least size that are worth slots of their own. */
enum { MANY = 1024 };

/* Boxes, all of one size and by start, into slots at the arena's beginning, by
   what is free when each starts. Returns the slots' bytes; -1 without
   memory. */
static int64_t give_slots(box *boxes, int32_t n, rp_context *ctx,
                          int32_t instructions) {
  /* Boxes by their end: the first of each instruction, and the next one. */
  const size_t ends_size = (size_t)instructions * sizeof(int32_t);
  const size_t size = (size_t)n * sizeof(int32_t);
  int32_t *ends = rp_alloc(ctx, ends_size), *next = rp_alloc(ctx, size);
  int32_t *unused = rp_alloc(ctx, size);
  int32_t slots = 0, n_unused = 0, at = 0;
  const bool made = ends && next && unused;
  for (int32_t i = 0; made && i < instructions; i++) ends[i] = -1;
  for (int32_t i = 0; made && i < n; i++) {
    for (; at < boxes[i].start; at++)
      for (int32_t b = ends[at]; b >= 0; b = next[b])
        unused[n_unused++] = (int32_t)(boxes[b].offset / boxes[b].size);
    const int32_t slot = n_unused > 0 ? unused[--n_unused] : slots++;
    boxes[i].offset = slot * boxes[i].size;
    next[i] = ends[boxes[i].end];
    ends[boxes[i].end] = i;
  }
  rp_free(ctx, ends, ends_size);
  rp_free(ctx, next, size);
  rp_free(ctx, unused, size);
  return made ? slots * boxes[0].size : -1;
}

/* All boxes, sorted by size: those of the least one in slots, the others
   behind these. *arena stays as it is where slots are not worth it. */
static rp_status place_behind_slots(box *boxes, int32_t n, int64_t most,
                                    shelf *s, rp_context *ctx,
                                    int32_t instructions, int64_t *arena) {
  int32_t end = n; /* of those that have a size */
  while (end > 0 && boxes[end - 1].size == 0) boxes[--end].offset = 0;
  int32_t first = end; /* of the least */
  while (first > 0 && boxes[first - 1].size == boxes[end - 1].size) first--;
  if (end - first < MANY) return RP_OK;
  const int64_t slots =
      give_slots(boxes + first, end - first, ctx, instructions);
  if (slots < 0) return RP_NOMEM;
  if (slots > most) return RP_OK;
  const int64_t behind = place(boxes, first, most - slots, s);
  for (int32_t i = 0; i < first; i++) boxes[i].offset += slots;
  *arena = slots + behind;
  return RP_OK;
}

/* Boxes of instances, then of workspaces; box id = index of the first
   instance, or n_instances + instruction. */
static int32_t make_boxes(box *boxes, const rp_graph *graph,
                          const rp_program *program,
                          const int64_t *workspace_bytes, int32_t *box_of) {
  int32_t n = 0;
  for (int32_t v = 0; v < program->instances.n; v++) {
    const rp_instance *instance = &program->instances.at[v];
    box_of[v] = -1;
    if (graph->values.at[instance->value].target) continue;
    if (instance->shares >= 0) {
      box_of[v] = box_of[instance->shares];
      if (instance->last_read > boxes[box_of[v]].end)
        boxes[box_of[v]].end = instance->last_read;
      continue;
    }
    box_of[v] = n;
    boxes[n++] = (box){.size = rp_value_bytes(graph, instance->value),
                       .start = instance->born, .end = instance->last_read,
                       .id = v};
  }
  for (int32_t i = 0; i < program->instructions.n; i++) {
    const rp_instruction *run = &program->instructions.at[i];
    if (run->opcode != RP_OP_RUN || workspace_bytes[run->node] == 0) continue;
    boxes[n++] = (box){.size = rp_align(workspace_bytes[run->node]),
                       .start = i, .end = i,
                       .id = program->instances.n + i};
  }
  return n;
}

/* The most that is alive at one instruction. */
static rp_status live_bound(rp_layout *layout, rp_context *ctx,
                            const box *boxes, int32_t n, int32_t length) {
  const size_t size = (size_t)(length + 2) * sizeof(int64_t);
  int64_t *change = rp_alloc(ctx, size);
  if (change == NULL) return RP_NOMEM;
  for (int32_t i = 0; i < n; i++) {
    change[boxes[i].start] += boxes[i].size;
    change[boxes[i].end + 1] -= boxes[i].size;
  }
  int64_t live = 0;
  for (int32_t i = 0; i < length; i++) {
    live += change[i];
    if (live > layout->live_bytes) {
      layout->live_bytes = live;
      layout->peak_instruction = i;
    }
  }
  rp_free(ctx, change, size);
  return RP_OK;
}

rp_status rp_layout_make(rp_layout *layout, rp_context *ctx,
                         const rp_graph *graph, const rp_program *program,
                         const int64_t *workspace_bytes, int64_t most_bytes) {
  const int32_t n_instances = program->instances.n;
  const int32_t length = program->instructions.n;
  const size_t most = (size_t)(n_instances + length);
  box *boxes = rp_alloc(ctx, most * sizeof(box));
  int32_t *box_of = rp_alloc(ctx, (size_t)n_instances * sizeof(int32_t));
  int64_t *best = rp_alloc(ctx, most * sizeof(int64_t));
  layout->offsets = rp_alloc(ctx, (size_t)n_instances * sizeof(int64_t));
  layout->n_offsets = n_instances;
  layout->workspaces = rp_alloc(ctx, (size_t)length * sizeof(int64_t));
  layout->n_workspaces = length;
  rp_status status = boxes && box_of && best && layout->offsets &&
                             layout->workspaces ? RP_OK : RP_NOMEM;
  int32_t n = 0;
  shelf s = {0};
  if (status == RP_OK) {
    n = make_boxes(boxes, graph, program, workspace_bytes, box_of);
    status = live_bound(layout, ctx, boxes, n, length);
  }
  if (status == RP_OK) status = shelf_open(&s, ctx, boxes, n, length);
  if (status == RP_OK) {
    static int (*const orders[])(const void *, const void *) = {
        by_size, by_area, by_start};
    layout->arena_bytes = INT64_MAX;
    /* Another order is tried while it could gain more than 1/256. */
    const int64_t enough = layout->live_bytes + layout->live_bytes / 256;
    for (int o = -1; o < 3 && layout->arena_bytes > enough; o++) {
      int64_t arena = INT64_MAX;
      qsort(boxes, (size_t)n, sizeof(box), orders[o < 0 ? 0 : o]);
      if (o >= 0) arena = place(boxes, n, most_bytes, &s);
      else status = place_behind_slots(boxes, n, most_bytes, &s, ctx, length,
                                       &arena);
      if (status != RP_OK) break;
      if (arena > most_bytes || arena >= layout->arena_bytes) continue;
      layout->arena_bytes = most_bytes = arena;
      for (int32_t i = 0; i < n; i++) best[boxes[i].id] = boxes[i].offset;
    }
    for (int32_t v = 0; v < n_instances; v++) {
      const int32_t shares = program->instances.at[v].shares;
      layout->offsets[v] = box_of[v] < 0 ? -1
                           : shares >= 0 ? layout->offsets[shares]
                                         : best[v];
    }
    for (int32_t i = 0; i < length; i++) {
      const rp_instruction *run = &program->instructions.at[i];
      const bool has = run->opcode == RP_OP_RUN &&
                       workspace_bytes[run->node] > 0;
      layout->workspaces[i] = has ? best[n_instances + i] : -1;
    }
  }
  shelf_close(&s, ctx, boxes, n);
  rp_free(ctx, boxes, most * sizeof(box));
  rp_free(ctx, box_of, (size_t)n_instances * sizeof(int32_t));
  rp_free(ctx, best, most * sizeof(int64_t));
  if (status != RP_OK) rp_layout_free(layout, ctx);
  return status;
}

rp_status rp_layout_bound(int64_t *live_bytes, rp_context *ctx,
                          const rp_graph *graph, const rp_program *program,
                          const int64_t *workspace_bytes) {
  const int32_t n_instances = program->instances.n;
  const int32_t length = program->instructions.n;
  const size_t most = (size_t)(n_instances + length);
  box *boxes = rp_alloc(ctx, most * sizeof(box));
  int32_t *box_of = rp_alloc(ctx, (size_t)n_instances * sizeof(int32_t));
  rp_layout layout = {0};
  rp_status status = boxes && box_of ? RP_OK : RP_NOMEM;
  if (status == RP_OK)
    status = live_bound(&layout, ctx, boxes,
                        make_boxes(boxes, graph, program, workspace_bytes,
                                   box_of), length);
  *live_bytes = layout.live_bytes;
  rp_free(ctx, boxes, most * sizeof(box));
  rp_free(ctx, box_of, (size_t)n_instances * sizeof(int32_t));
  return status;
}

void rp_layout_free(rp_layout *layout, rp_context *ctx) {
  rp_free(ctx, layout->offsets, (size_t)layout->n_offsets * sizeof(int64_t));
  rp_free(ctx, layout->workspaces,
          (size_t)layout->n_workspaces * sizeof(int64_t));
  *layout = (rp_layout){0};
}
