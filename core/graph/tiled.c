/* Products that take elementwise work in tiles. See rp_graph_tile.

   An elementwise pass beside a product holds a whole value for no more than the
   product's next rows: a GELU made again for a weight's gradient, or the
   gradient of its output on its way to that of its input. A node of the two
   (rp_op_fused_product) makes one tile of it at a time.

     in front   A value that products alone read, at most one in the forward
                pass and one in backward, so that nothing is made more often
                than before. It is light, or backward does not read it: then
                its operands are there when backward's product runs. Rows or
                columns of it are rows or columns of the result: no sum is split.
     behind     A product whose result the very next node alone reads, element
                for element. That one's other operands may still lend their
                bytes to what it makes.

   Invariants
     - the rule looks at the graph alone, so bits and costs that follow from it
       are the same under every strategy.
     - an operand that a node in front read for the last time now lives until
       the product has run: those weigh no more than the value that vanishes.
     - front[p], behind[p]: the nodes that go into product p, -1 none;
       into[i]: the node that node i goes into, -1 where it stays. A node goes
       into one place behind a product, or in front of several. */
#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "graph/passes.h"

/* LEAST: bytes of a value below which its tile would be most of it. EXTENT: rows
   or columns that make several tiles of a size at which products are at full
   rate; INNER: of the other dims. */
enum { OPERANDS = 12, LEAST = 4 << 20, EXTENT = 768, INNER = 32 };

const rp_op rp_op_fused_product = {
    .name = "fused_product", .inputs = 1, .outputs = 1,
    .flags = RP_COSTLY | RP_STRIDED | RP_VARIADIC,
};

typedef struct plan {
  rp_graph *graph;
  rp_context *ctx;
  rp_runs *runs;
  const void *user;
  int32_t *front, *behind, *into;
  int32_t *readers, *last_reader; /* of values */
} plan;

/* ---- what may take part ------------------------------------------------- */

static bool is_elementwise(const rp_graph_node *node) {
  return node->op == &rp_op_fused || rp_graph_node_fuses(node);
}

static int32_t parts_of(const rp_graph_node *node) {
  return node->fusion ? node->fusion->n : 1;
}

static bool is_dense(const rp_operand *in) {
  return in->strides.offset == 0 &&
         rp_strides_are_contiguous(&in->type, &in->strides);
}

static int64_t last_dim(const rp_type *type) {
  return type->dims[type->rank - 1];
}

/* Rows of the matrix that `type` is. */
static int64_t rows_of(const rp_type *type) {
  return rp_type_count(type) / last_dim(type);
}

/* A product of two matrices: of input 0's leading dims as more rows. */
static bool is_matrix_product(const plan *s, const rp_graph_node *node) {
  const rp_graph *graph = s->graph;
  if (node->op->product == RP_NO_PRODUCT || node->n_operands > RP_PART_INPUTS)
    return false;
  const rp_operand *a = rp_graph_in(graph, node, 0);
  const rp_operand *b = rp_graph_in(graph, node, 1);
  const rp_type *y = &graph->values.at[node->first_value].type;
  if (a->type.rank < 2 || b->type.rank != 2 || y->rank < 2 ||
      (a->type.rank > 2 && !is_dense(a)))
    return false;
  return last_dim(&a->type) >= INNER && last_dim(y) >= INNER &&
         rows_of(y) >= INNER &&
         s->runs(s->user, &rp_op_fused_product, (rp_dtype)a->type.dtype);
}

static int32_t is_random(const rp_graph_node *node) {
  return node->stream >= 0;
}

/* Whether what is made of value v goes unnoticed. */
static bool may_vanish(const rp_graph *graph, int32_t v) {
  const rp_graph_value *value = &graph->values.at[v];
  return !value->keep && !value->target && rp_value_bytes(graph, v) >= LEAST;
}

/* The operands that nodes p and, if any, `other` read, without v: those that
   are listed once count once. */
static bool have_room(const plan *s, int32_t p, int32_t e, int32_t g) {
  const rp_graph *graph = s->graph;
  const int32_t nodes[] = {p, e, g};
  int32_t parts = 0, operands = 0, random = 0;
  for (int i = 0; i < 3; i++) {
    if (nodes[i] < 0) continue;
    const rp_graph_node *node = &graph->nodes.at[nodes[i]];
    parts += parts_of(node);
    operands += node->n_operands;
    random += is_random(node);
  }
  operands -= (e >= 0) + (g >= 0);
  return parts <= RP_PARTS && operands <= OPERANDS && random <= 1;
}

/* ---- behind ------------------------------------------------------------- */

/* Node g reads all of what product p made as it lies, and nothing else does. */
static bool may_follow(const plan *s, int32_t p, int32_t g) {
  const rp_graph *graph = s->graph;
  const rp_graph_node *product = &graph->nodes.at[p];
  const rp_graph_node *node = &graph->nodes.at[g];
  const int32_t v = product->first_value;
  if (!is_matrix_product(s, product) || !is_elementwise(node) ||
      !may_vanish(graph, v) || (p < graph->n_forward) != (g < graph->n_forward)
      || !rp_graph_same_stretch(graph, product, node))
    return false;
  const rp_type *made = &graph->values.at[v].type;
  const rp_type *out = &graph->values.at[node->first_value].type;
  int32_t n = 0;
  for (int32_t k = 0; k < node->n_operands; k++) {
    const rp_operand *in = rp_graph_in(graph, node, k);
    if (in->value != v) continue;
    if (!is_dense(in) || !rp_dims_equal(&in->type, out)) return false;
    n++;
  }
  return n > 0 && n == s->readers[v] &&
         rp_type_count(out) == rp_type_count(made) &&
         rows_of(made) >= EXTENT && have_room(s, p, -1, g);
}

/* ---- in front ----------------------------------------------------------- */

/* Product p can have tiles of value v for its operand k: rows of input 0, its
   columns where that is v transposed, or columns of input 1. */
static bool takes_tiles(const plan *s, int32_t p, int32_t k) {
  const rp_graph *graph = s->graph;
  const rp_graph_node *product = &graph->nodes.at[p];
  const rp_operand *in = rp_graph_in(graph, product, k);
  const rp_type *type = &in->type;
  const rp_graph_value *value = &graph->values.at[in->value];
  if (!is_matrix_product(s, product) ||
      rp_type_count(type) != rp_type_count(&value->type) ||
      in->strides.offset != 0)
    return false;
  const bool turned = type->rank == 2 && in->strides.at[0] == 1 &&
                      in->strides.at[1] == type->dims[0];
  if (k == 0) return rows_of(type) >= EXTENT && (is_dense(in) || turned);
  return k == 1 && product->op->product == RP_PRODUCT &&
         last_dim(type) >= EXTENT && is_dense(in) && s->behind[p] < 0;
}

/* Whether what node e reads for the last time, before value v's last reader
   does, weighs at most what v does. */
static bool frees_little(const plan *s, int32_t e, int32_t v) {
  const rp_graph *graph = s->graph;
  const rp_graph_node *node = &graph->nodes.at[e];
  int64_t bytes = 0;
  for (int32_t k = 0; k < node->n_operands; k++) {
    const int32_t w = rp_graph_in(graph, node, k)->value;
    if (w < 0 || s->last_reader[w] >= s->last_reader[v]) continue;
    bytes += rp_value_bytes(graph, w);
  }
  return bytes <= rp_value_bytes(graph, v);
}

static bool may_precede(const plan *s, int32_t e) {
  const rp_graph *graph = s->graph;
  const rp_graph_node *node = &graph->nodes.at[e];
  const int32_t v = node->first_value;
  if (e >= graph->n_forward || s->into[e] >= 0 || !is_elementwise(node) ||
      !may_vanish(graph, v) ||
      !(graph->values.at[v].light || graph->values.at[v].unread) ||
      !frees_little(s, e, v))
    return false;
  int32_t n = 0, last = -1;
  for (int32_t i = e + 1; i <= s->last_reader[v]; i++) {
    const rp_graph_node *reader = &graph->nodes.at[i];
    for (int32_t k = 0; k < reader->n_operands; k++) {
      if (rp_graph_in(graph, reader, k)->value != v) continue;
      if (!takes_tiles(s, i, k) || s->front[i] >= 0 ||
          !rp_graph_same_stretch(graph, node, reader) ||
          !have_room(s, i, e, s->behind[i]) ||
          (last >= 0 && (last < graph->n_forward) == (i < graph->n_forward)))
        return false;
      last = i;
      n++;
    }
  }
  return n > 0;
}

/* Whether anything is to be done. */
static bool decide(plan *s) {
  rp_graph *graph = s->graph;
  bool any = false;
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    s->front[i] = s->behind[i] = s->into[i] = -1;
    for (int32_t k = 0; k < node->n_operands; k++) {
      const int32_t v = rp_graph_in(graph, node, k)->value;
      if (v >= 0) s->last_reader[v] = i;
    }
  }
  rp_graph_count_readers(graph, s->readers);
  for (int32_t p = 0; p + 1 < graph->nodes.n; p++) {
    if (!may_follow(s, p, p + 1)) continue;
    s->behind[p] = p + 1;
    s->into[p] = p + 1;
    s->into[p + 1] = -1;
    any = true;
  }
  for (int32_t e = 0; e < graph->n_forward; e++) {
    if (e > 0 && s->behind[e - 1] == e) continue;
    if (!may_precede(s, e)) continue;
    const int32_t v = graph->nodes.at[e].first_value;
    for (int32_t i = s->last_reader[v]; i > e; i--) {
      const rp_graph_node *reader = &graph->nodes.at[i];
      for (int32_t k = 0; k < reader->n_operands; k++)
        if (rp_graph_in(graph, reader, k)->value == v) {
          s->front[i] = e;
          s->into[e] = i; /* the forward one in the end */
        }
    }
    any = true;
  }
  return any;
}

/* ---- one node of up to three -------------------------------------------- */

typedef struct making {
  rp_graph *graph;
  rp_context *ctx;
  rp_fusion *fusion;
  rp_operand operands[OPERANDS];
  int32_t n_operands;
  size_t used; /* of the name */
} making;

/* Where an operand is, or will be, among those of the node. */
static int32_t operand_at(making *m, const rp_operand *in) {
  for (int32_t j = 0; j < m->n_operands; j++)
    if (rp_operand_equal(&m->operands[j], in)) return j;
  m->operands[m->n_operands] = *in;
  return m->n_operands++;
}

static rp_status add_part(making *m, const rp_part *from) {
  rp_part *part = &m->fusion->parts[m->fusion->n++];
  const size_t ints = (size_t)from->n_ints * sizeof *from->ints;
  const size_t reals = (size_t)from->n_reals * sizeof *from->reals;
  *part = *from;
  part->ints = rp_alloc(m->ctx, ints);
  part->reals = rp_alloc(m->ctx, reals);
  if (part->ints == NULL) part->n_ints = 0;
  if (part->reals == NULL) part->n_reals = 0;
  if (part->ints == NULL || part->reals == NULL) return RP_NOMEM;
  if (ints) memcpy(part->ints, from->ints, ints);
  if (reals) memcpy(part->reals, from->reals, reals);
  if (m->used < sizeof m->fusion->name)
    m->used += (size_t)snprintf(m->fusion->name + m->used,
                                sizeof m->fusion->name - m->used, "%s%s",
                                m->used ? "+" : "", from->op->name);
  return RP_OK;
}

static rp_part as_part(const rp_graph *graph, const rp_graph_node *node) {
  rp_part part = {.op = node->op, .ints = node->ints, .reals = node->reals,
                  .n_ints = node->n_ints, .n_reals = node->n_reals,
                  .n_in = node->n_operands,
                  .type = graph->values.at[node->first_value].type};
  for (int32_t k = 0; k < node->n_operands; k++) part.in[k] = k;
  return part;
}

/* Adds the node's parts; what they read of value v is what part `maker` made. */
static rp_status add_node(making *m, int32_t i, int32_t v, int32_t maker) {
  const rp_graph_node *node = &m->graph->nodes.at[i];
  const int32_t first = m->fusion->n;
  rp_status status = RP_OK;
  for (int32_t q = 0; q < parts_of(node) && status == RP_OK; q++) {
    rp_part part = node->fusion ? node->fusion->parts[q]
                                : as_part(m->graph, node);
    for (int32_t k = 0; k < part.n_in; k++) {
      if (part.in[k] < 0) {
        part.in[k] -= first;
        continue;
      }
      const rp_operand *in = rp_graph_in(m->graph, node, part.in[k]);
      part.in[k] = v >= 0 && in->value == v ? -1 - maker : operand_at(m, in);
    }
    status = add_part(m, &part);
  }
  return status;
}

/* Operand j may be overwritten by the output: only the parts behind the product
   read it, tile after tile before they write there, and the last allows it. */
static bool may_overwrite(const rp_fusion *fusion, int32_t j) {
  for (int32_t i = 0; i < fusion->n; i++)
    for (int32_t k = 0; k < fusion->parts[i].n_in; k++) {
      if (fusion->parts[i].in[k] != j) continue;
      if (i <= fusion->product) return false;
      if (i == fusion->n - 1 && !(fusion->parts[i].op->in_place >> k & 1u))
        return false;
    }
  return true;
}

/* Makes product p and what goes into it one node, at p's place or at that of
   the node behind it. */
static rp_status make_tiled(plan *s, int32_t p) {
  rp_graph *graph = s->graph;
  rp_context *ctx = s->ctx;
  const int32_t e = s->front[p], g = s->behind[p];
  making m = {.graph = graph, .ctx = ctx};
  m.fusion = rp_alloc(ctx, sizeof *m.fusion);
  if (m.fusion == NULL ||
      !rp_array_room(ctx, &graph->operands, sizeof(rp_operand), OPERANDS)) {
    rp_free(ctx, m.fusion, sizeof *m.fusion);
    return RP_NOMEM;
  }
  const rp_graph_node *product = &graph->nodes.at[p];
  const int32_t made = e >= 0 ? graph->nodes.at[e].first_value : -1;
  /* Input 0 of the whole, whose dtype finds the kernel, is the product's own. */
  for (int32_t k = 0; k < product->n_operands; k++) {
    const rp_operand *in = rp_graph_in(graph, product, k);
    if (made < 0 || in->value != made) {
      (void)operand_at(&m, in);
      continue;
    }
    m.fusion->made = in->type;
    m.fusion->made_strides = in->strides;
  }
  rp_status status = RP_OK;
  if (e >= 0) status = add_node(&m, e, -1, 0);
  m.fusion->product = m.fusion->n;
  if (status == RP_OK) status = add_node(&m, p, made, m.fusion->product - 1);
  if (status == RP_OK && g >= 0)
    status = add_node(&m, g, product->first_value, m.fusion->product);
  if (status != RP_OK) {
    rp_fusion_free(ctx, m.fusion);
    return status;
  }
  const int32_t at = g >= 0 ? g : p;
  rp_graph_node whole = graph->nodes.at[at];
  whole.op = &rp_op_fused_product;
  whole.fusion = m.fusion;
  whole.ints = NULL;
  whole.reals = NULL;
  whole.n_ints = whole.n_reals = 0;
  whole.first_operand = graph->operands.n;
  whole.n_operands = m.n_operands;
  whole.in_place = 0;
  whole.bytes = (double)rp_value_bytes(graph, whole.first_value);
  whole.flops = 0;
  const int32_t nodes[] = {p, e, g};
  for (int i = 0; i < 3; i++) {
    if (nodes[i] < 0) continue;
    whole.flops += graph->nodes.at[nodes[i]].flops;
    if (graph->nodes.at[nodes[i]].stream >= 0)
      whole.stream = graph->nodes.at[nodes[i]].stream;
  }
  for (int32_t j = 0; j < m.n_operands; j++) {
    graph->operands.at[graph->operands.n++] = m.operands[j];
    whole.bytes += rp_operand_bytes(graph, &m.operands[j]);
    if (g >= 0 && may_overwrite(m.fusion, j)) whole.in_place |= 1u << j;
  }
  rp_graph_free_attributes(ctx, &graph->nodes.at[p]);
  if (g >= 0) rp_graph_free_attributes(ctx, &graph->nodes.at[g]);
  graph->nodes.at[at] = whole;
  return RP_OK;
}

/* Each node that went into another, which stays or went behind it, is called by
   that one's new place. */
static void drop_tiled(plan *s) {
  rp_graph *graph = s->graph;
  int32_t n = 0, n_forward = 0, *moved = s->front;
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    moved[i] = n;
    if (s->into[i] >= 0) {
      rp_graph_value *value =
          &graph->values.at[graph->nodes.at[i].first_value];
      value->light = value->unread = false;
      rp_graph_free_attributes(s->ctx, &graph->nodes.at[i]);
      continue;
    }
    graph->nodes.at[n++] = graph->nodes.at[i];
    if (i < graph->n_forward) n_forward = n;
  }
  for (int32_t i = graph->nodes.n - 1; i >= 0; i--)
    if (s->into[i] >= 0) moved[i] = moved[s->into[i]];
  graph->nodes.n = n;
  graph->n_forward = n_forward;
  rp_graph_renumber(graph, moved);
}

rp_status rp_graph_tile(rp_graph *graph, rp_context *ctx, rp_runs *runs,
                        const void *user) {
  const size_t nodes = (size_t)graph->nodes.n * sizeof(int32_t);
  const size_t values = (size_t)graph->values.n * sizeof(int32_t);
  const int32_t n = graph->nodes.n;
  plan s = {.graph = graph, .ctx = ctx, .runs = runs, .user = user,
            .front = rp_alloc(ctx, nodes), .behind = rp_alloc(ctx, nodes),
            .into = rp_alloc(ctx, nodes), .readers = rp_alloc(ctx, values),
            .last_reader = rp_alloc(ctx, values)};
  rp_status status = s.front && s.behind && s.into && s.readers &&
                             s.last_reader ? RP_OK : RP_NOMEM;
  const bool any = status == RP_OK && decide(&s);
  for (int32_t p = 0; any && p < n && status == RP_OK; p++)
    if (s.front[p] >= 0 || s.behind[p] >= 0) status = make_tiled(&s, p);
  if (any && status == RP_OK) drop_tiled(&s);
  rp_free(ctx, s.front, nodes);
  rp_free(ctx, s.behind, nodes);
  rp_free(ctx, s.into, nodes);
  rp_free(ctx, s.readers, values);
  rp_free(ctx, s.last_reader, values);
  return any && status == RP_OK ? rp_graph_find_light(graph, ctx) : status;
}
