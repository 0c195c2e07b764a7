#include "graph/optimizer.h"

#include <string.h>

#include "base/context.h"
#include "graph/op.h"
#include "graph/record.h"
#include "graph/recorder.h"

static int count_numbers(const rp_op *update) {
  int n = 0;
  while (update->numbers && update->numbers[n]) n++;
  return n;
}

rp_optimizer *rp_optimizer_new(rp_context *ctx, const rp_op *update) {
  if (!(update->flags & RP_EFFECT) || update->numbers == NULL) {
    rp_fail(ctx, RP_VALUE, "[optimizer] %s is no update op", update->name);
    return NULL;
  }
  rp_optimizer *opt = rp_alloc(ctx, sizeof *opt);
  if (opt == NULL) return NULL;
  opt->ctx = ctx;
  opt->update = update;
  opt->n_numbers = count_numbers(update);
  return opt;
}

void rp_optimizer_free(rp_optimizer *opt) {
  if (opt == NULL) return;
  for (int32_t i = 0; i < opt->slots.n; i++) {
    rp_tensor_release(opt->slots.at[i].param);
    for (int k = 0; k < 4; k++) rp_tensor_release(opt->slots.at[i].states[k]);
  }
  for (int32_t g = 0; g < opt->groups.n; g++)
    rp_tensor_release(opt->groups.at[g]);
  rp_tensor_release(opt->max_norm);
  rp_array_free(opt->ctx, &opt->slots, sizeof *opt->slots.at);
  rp_array_free(opt->ctx, &opt->groups, sizeof *opt->groups.at);
  rp_free(opt->ctx, opt, sizeof *opt);
}

static rp_status add_slot(rp_optimizer *opt, rp_tensor *param, int group) {
  for (int32_t i = 0; i < opt->slots.n; i++)
    if (opt->slots.at[i].param == param)
      return rp_fail(opt->ctx, RP_VALUE,
                     "[optimizer] parameter %s is given twice",
                     rp_leaf_name(param));
  if (!rp_is_leaf(param) || !rp_dtype_is_float((rp_dtype)param->type.dtype))
    return rp_fail(opt->ctx, RP_VALUE, "[optimizer] a parameter is a leaf of "
                   "a floating dtype, this is %s (%s)", param->node->op->name,
                   rp_dtype_name((rp_dtype)param->type.dtype));
  if (!rp_array_room(opt->ctx, &opt->slots, sizeof *opt->slots.at, 1))
    return RP_NOMEM;
  rp_optimizer_slot slot = {.param = param, .group = group};
  for (int k = 0; k < opt->update->states; k++) {
    slot.states[k] = rp_leaf(opt->ctx, RP_OPTIMIZER, &param->type);
    if (slot.states[k] == NULL) {
      while (k-- > 0) rp_tensor_release(slot.states[k]);
      return RP_NOMEM;
    }
    slot.states[k]->node->device = param->node->device;
  }
  rp_tensor_retain(param);
  opt->slots.at[opt->slots.n++] = slot;
  return RP_OK;
}

static void remove_slots(rp_optimizer *opt, int32_t keep) {
  while (opt->slots.n > keep) {
    rp_optimizer_slot *slot = &opt->slots.at[--opt->slots.n];
    rp_tensor_release(slot->param);
    for (int k = 0; k < 4; k++) rp_tensor_release(slot->states[k]);
  }
}

int rp_optimizer_add_group(rp_optimizer *opt, rp_tensor *const *params,
                           int n_params) {
  const int32_t before = opt->slots.n;
  rp_type type = {.dtype = RP_F64, .rank = 1, .dims = {opt->n_numbers + 1}};
  if (!rp_array_room(opt->ctx, &opt->groups, sizeof *opt->groups.at, 1))
    return -1;
  rp_tensor *numbers = rp_leaf(opt->ctx, RP_OPTIMIZER, &type);
  if (numbers == NULL) return -1;
  numbers->node->device = RP_ANYWHERE;
  for (int i = 0; i < n_params; i++)
    if (add_slot(opt, params[i], opt->groups.n) != RP_OK) {
      remove_slots(opt, before);
      rp_tensor_release(numbers);
      return -1;
    }
  if (rp_leaf_materialize(numbers) != RP_OK) {
    remove_slots(opt, before);
    rp_tensor_release(numbers);
    return -1;
  }
  opt->groups.at[opt->groups.n] = numbers;
  return opt->groups.n++;
}

rp_status rp_optimizer_set(rp_optimizer *opt, int group,
                           const double *numbers, int n_numbers) {
  if (group < 0 || group >= opt->groups.n || n_numbers != opt->n_numbers)
    return rp_fail(opt->ctx, RP_VALUE, "[optimizer] group %d with %d numbers: "
                   "there are %d groups, %s takes %d numbers", group + 1,
                   n_numbers, (int)opt->groups.n, opt->update->name,
                   (int)opt->n_numbers);
  memcpy(rp_root_data(opt->groups.at[group]), numbers,
         (size_t)n_numbers * sizeof *numbers);
  return RP_OK;
}

void rp_optimizer_set_clip(rp_optimizer *opt, double max_norm) {
  rp_tensor_release(opt->max_norm);
  opt->max_norm = max_norm > 0 ? rp_number(opt->ctx, max_norm, RP_F64) : NULL;
}

int rp_optimizer_size(const rp_optimizer *opt) { return opt->slots.n; }
int rp_optimizer_states(const rp_optimizer *opt) { return opt->update->states; }
rp_tensor *rp_optimizer_param(const rp_optimizer *opt, int i) {
  return i >= 0 && i < opt->slots.n ? opt->slots.at[i].param : NULL;
}
rp_tensor *rp_optimizer_state(const rp_optimizer *opt, int i, int k) {
  if (i < 0 || i >= opt->slots.n || k < 0 || k >= opt->update->states)
    return NULL;
  return opt->slots.at[i].states[k];
}
int64_t rp_optimizer_step_count(const rp_optimizer *opt) { return opt->step; }
void rp_optimizer_set_step_count(rp_optimizer *opt, int64_t step) {
  opt->step = step;
}

void rp_optimizer_begin_step(rp_optimizer *opt) {
  for (int32_t g = 0; g < opt->groups.n; g++) {
    double *numbers = rp_root_data(opt->groups.at[g]);
    numbers[opt->n_numbers] = (double)(opt->step + 1);
  }
}

void rp_optimizer_end_step(rp_optimizer *opt) { opt->step++; }

rp_tensor *rp_emit_over_all(rp_tape *tape, const char *op, const char *join,
                            rp_tensor *const *xs, int32_t n) {
  const size_t size = (size_t)n * sizeof *xs;
  rp_tensor **some = rp_alloc(tape->ctx, size);
  if (some == NULL) {
    tape->status = RP_NOMEM;
    return NULL;
  }
  rp_tensor *all = NULL;
  for (int32_t dtype = 0; dtype < RP_DTYPES; dtype++) {
    int32_t m = 0;
    for (int32_t i = 0; i < n; i++) {
      if (xs[i] && xs[i]->type.dtype == dtype) some[m++] = xs[i];
      if (m == 0 || (m < RP_INPUTS_MAX && i + 1 < n)) continue;
      rp_tensor *next =
          rp_emit(tape, rp_op_find(op), some, m, NULL, 0, NULL, 0);
      all = all ? rp_binary(tape, join, all, next) : next;
      m = 0;
    }
  }
  rp_free(tape->ctx, some, size);
  return all;
}

/* min(1, max_norm / (norm + 1e-6)) in f64, over the gradients that are
   there, in slot order: torch.nn.utils.clip_grad_norm_'s formula. */
static rp_tensor *clip_factor(rp_optimizer *opt, rp_tape *tape,
                              rp_tensor **grads) {
  rp_tensor *total =
      rp_emit_over_all(tape, "total_squares", "add", grads, opt->slots.n);
  if (total == NULL) return NULL;
  rp_tensor *norm = rp_unary(tape, "sqrt", total);
  rp_tensor *small = rp_constant(tape, 1e-6, norm);
  rp_tensor *ratio =
      rp_div(tape, opt->max_norm, rp_add(tape, norm, small));
  return rp_binary(tape, "minimum", ratio, rp_constant(tape, 1, ratio));
}

rp_status rp_optimizer_emit(rp_optimizer *opt, rp_tape *tape,
                            rp_tensor **grads, rp_tensor **updates) {
  rp_tensor *factor = opt->max_norm ? clip_factor(opt, tape, grads) : NULL;
  for (int32_t i = 0; i < opt->slots.n && tape->status == RP_OK; i++) {
    const rp_optimizer_slot *slot = &opt->slots.at[i];
    updates[i] = NULL;
    if (grads[i] == NULL) continue;
    rp_tensor *inputs[8] = {slot->param, grads[i]};
    int n = 2;
    for (int k = 0; k < opt->update->states; k++)
      inputs[n++] = slot->states[k];
    inputs[n++] = opt->groups.at[slot->group];
    if (factor)
      inputs[n++] = rp_cast(tape, factor, (rp_dtype)grads[i]->type.dtype);
    updates[i] = rp_emit(tape, opt->update, inputs, n, NULL, 0, NULL, 0);
  }
  return tape->status;
}
