--- Losses. reduction is 'mean' (when absent), 'sum' or, except for
-- cross_entropy, 'none'.

local arguments = require 'reprise.ops.arguments'
local record = require 'reprise.ops.record'
local reduce = require 'reprise.ops.reduce'
local tensor = require 'reprise.tensor'
local failure = require 'reprise.failure'

local ints, pointer = record.ints, tensor.pointer

local loss = {}

local function reduced(x, options, where)
  options = arguments.options(options, {reduction = true}, where)
  local reduction = options.reduction or 'mean'
  if reduction == 'mean' then return reduce.mean(x) end
  if reduction == 'sum' then return reduce.sum(x) end
  if reduction == 'none' then return x end
  return failure.raise("[%s] reduction is 'mean', 'sum' or 'none', not '%s'",
    where, tostring(reduction))
end

local cross_entropy = record.op 'cross_entropy'
local codes = {mean = 0, sum = 1}

--- -log softmax(logits)[label] over the last dim: logits (..., V), labels
-- (...) i32 or i64, 0-based. Labels equal to ignore_index (-100 when absent)
-- do not count, not even in the mean.
function loss.cross_entropy(logits, labels, options)
  pointer(logits, 'cross_entropy')
  pointer(labels, 'cross_entropy')
  options = arguments.options(options, {ignore_index = true, reduction = true},
    'cross_entropy')
  local code = codes[options.reduction or 'mean']
  if not code then
    failure.raise("[cross_entropy] reduction is 'mean' or 'sum', not '%s'",
      tostring(options.reduction))
  end
  ints[0] = arguments.number(options.ignore_index or -100, 'cross_entropy',
    'ignore_index')
  ints[1] = code
  return record.two(cross_entropy, logits, labels, 2)
end

--- (x - y)^2, reduced.
function loss.mse_loss(x, y, options)
  pointer(x, 'mse_loss')
  pointer(y, 'mse_loss')
  return reduced((x - y) ^ 2, options, 'mse_loss')
end

local bce = record.op 'bce_with_logits'

--- -(y log s(x) + (1 - y) log(1 - s(x))) with s the sigmoid, reduced.
function loss.binary_cross_entropy_with_logits(x, target, options)
  pointer(x, 'binary_cross_entropy_with_logits')
  pointer(target, 'binary_cross_entropy_with_logits')
  return reduced(record.two(bce, x, target), options,
    'binary_cross_entropy_with_logits')
end

return loss
