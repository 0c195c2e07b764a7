--- Losses. reduction is 'mean' (when absent), 'sum' or 'none'.

local arguments = require 'reprise.ops.arguments'
local functional = require 'reprise.ops.functional'
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
local codes = {mean = 0, sum = 1, none = 2}

-- Puts ignore_index and reduction into the attributes; returns the code.
local function put_attributes(options, where)
  local code = codes[options.reduction or 'mean']
  if not code then
    failure.raise("[%s] reduction is 'mean', 'sum' or 'none', not '%s'", where,
      tostring(options.reduction))
  end
  local ignored = arguments.number(options.ignore_index or -100, where,
    'ignore_index')
  if not (ignored % 1 == 0 and math.abs(ignored) <= 2 ^ 53) then
    failure.raise('[%s] ignore_index is a label, a whole number, not %g', where,
      ignored)
  end
  ints[0] = ignored
  ints[1] = code
  return code
end

local cross_entropy_options = {ignore_index = true, reduction = true}

--- -log softmax(logits)[label] over the last dim: logits (..., V), labels
-- (...) i32 or i64, 0-based. Labels equal to ignore_index (-100 when absent)
-- do not count, not even in the mean.
function loss.cross_entropy(logits, labels, options)
  pointer(logits, 'cross_entropy')
  pointer(labels, 'cross_entropy')
  put_attributes(arguments.options(options, cross_entropy_options,
    'cross_entropy'), 'cross_entropy')
  return record.two(cross_entropy, logits, labels, 2)
end

local fused = record.op 'linear_cross_entropy'
local fused_options = {bias = true, ignore_index = true, reduction = true}

--- cross_entropy(linear(x, weight, bias), labels) whose logits are never held:
-- x (..., C), weight (V, C), labels (...); options bias (V) and
-- cross_entropy's. With reduction 'none' the logits are held after all.
---@param x reprise.Tensor
---@param weight reprise.Tensor
---@param labels reprise.Tensor
---@param options table?
---@return reprise.Tensor
function loss.linear_cross_entropy(x, weight, labels, options)
  local where = 'linear_cross_entropy'
  pointer(x, where)
  pointer(weight, where)
  pointer(labels, where)
  options = arguments.options(options, fused_options, where)
  local bias = options.bias
  if bias ~= nil then pointer(bias, where) end
  if put_attributes(options, where) == codes.none then
    return loss.cross_entropy(functional.linear(x, weight, bias), labels,
      {ignore_index = options.ignore_index, reduction = 'none'})
  end
  return record.many(fused, {x, weight, labels, bias}, bias and 4 or 3, 2)
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
