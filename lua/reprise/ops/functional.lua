--- Functions of networks: products, normalisations, dropout, attention.

local arguments = require 'reprise.ops.arguments'
local failure = require 'reprise.failure'
local record = require 'reprise.ops.record'
local shape = require 'reprise.ops.shape'
local tensor = require 'reprise.tensor'
local binding = require 'reprise.ffi'

local C = binding.C
local ints, reals, pointer = record.ints, record.reals, tensor.pointer
local rank_of, size_of = arguments.rank, arguments.size

local functional = {}

local matmul_op = record.op 'matmul'

--- a:(..., M, K) x b:(..., K, N) -> (..., M, N), leading dims broadcast. A
-- 1-D operand is a row on the left and a column on the right, and its dim is
-- removed from the result.
function functional.matmul(a, b)
  pointer(a, 'matmul')
  pointer(b, 'matmul')
  local row, column = rank_of(a) == 1, rank_of(b) == 1
  if not row and not column then return record.two(matmul_op, a, b) end
  if row then a = shape.unsqueeze(a, 1) end
  if column then b = shape.unsqueeze(b, 2) end
  local y = record.two(matmul_op, a, b)
  if column then y = shape.squeeze(y, -1) end
  if row then y = shape.squeeze(y, column and -1 or -2) end
  return y
end

local linear_op = record.op 'linear'

--- x:(..., in), weight:(out, in), bias:(out) or nil -> (..., out).
function functional.linear(x, weight, bias)
  pointer(x, 'linear')
  pointer(weight, 'linear')
  if bias == nil then return record.two(linear_op, x, weight) end
  pointer(bias, 'linear')
  return record.many(linear_op, {x, weight, bias}, 3)
end

local softmax_op = record.op 'softmax'
local log_softmax_op = record.op 'log_softmax'

--- exp(x) over its sum along dim (-1 when absent).
function functional.softmax(x, dim)
  pointer(x, 'softmax')
  ints[0] = arguments.dim(x, dim or -1, 'softmax')
  return record.one(softmax_op, x, 1)
end

--- log(softmax(x)) along dim (-1 when absent).
function functional.log_softmax(x, dim)
  pointer(x, 'log_softmax')
  ints[0] = arguments.dim(x, dim or -1, 'log_softmax')
  return record.one(log_softmax_op, x, 1)
end

local masked_op = record.op 'scaled_masked_softmax'

--- softmax of scale * x over the last dim, where mask (bool, broadcast: true
-- attends) and causality allow; a row that nothing allows gives zeros.
-- Options: mask, causal (or is_causal), scale (1 when absent).
function functional.scaled_masked_softmax(x, options)
  local where = 'scaled_masked_softmax'
  pointer(x, where)
  options = arguments.options(options,
    {mask = true, causal = true, is_causal = true, scale = true}, where)
  ints[0] = (options.causal or options.is_causal) and 1 or 0
  reals[0] = arguments.number(options.scale or 1, where, 'scale')
  if options.mask == nil then return record.one(masked_op, x, 1, 1) end
  pointer(options.mask, where)
  return record.two(masked_op, x, options.mask, 1, 1)
end

local expand_op = record.op 'expand'

--- A scale or shift of a normalisation that was not given: value everywhere.
local function constant_of(x, sizes, value)
  local scalar = record.weight(value, x)
  return record.one(expand_op, scalar, record.put_sizes(sizes, 0))
end

--- PyTorch's calls have the normalised sizes second; here they may be left
-- out, for the weight has them.
local function without_sizes(where, sizes, ...)
  if sizes ~= nil and not tensor.is(sizes) then
    if type(sizes) == 'number' then sizes = {sizes} end
    return (arguments.sizes(where, sizes)), ...
  end
  return nil, sizes, ...
end

local layer_norm_op = record.op 'layer_norm'

--- (x - mean) / sqrt(var + eps) * weight + bias over the trailing dims that
-- weight has: layer_norm(x, weight, bias, eps), or PyTorch's
-- layer_norm(x, sizes, weight, bias, eps). eps is 1e-5 when absent.
function functional.layer_norm(x, ...)
  pointer(x, 'layer_norm')
  local sizes, weight, bias, eps = without_sizes('layer_norm', ...)
  weight = weight or constant_of(x, sizes or {size_of(x, rank_of(x) - 1)}, 1)
  pointer(weight, 'layer_norm')
  bias = bias or constant_of(x, weight.shape, 0)
  pointer(bias, 'layer_norm')
  reals[0] = arguments.number(eps or 1e-5, 'layer_norm', 'eps')
  return record.many(layer_norm_op, {x, weight, bias}, 3, 0, 1)
end

local rms_norm_op = record.op 'rms_norm'
local epsilon = {f64 = 2.220446049250313e-16}

--- x / sqrt(mean(x^2) + eps) * weight over the trailing dims that weight
-- has: rms_norm(x, weight, eps) or rms_norm(x, sizes, weight, eps). eps is
-- the dtype's epsilon when absent, as in PyTorch.
function functional.rms_norm(x, ...)
  pointer(x, 'rms_norm')
  local sizes, weight, eps = without_sizes('rms_norm', ...)
  weight = weight or constant_of(x, sizes or {size_of(x, rank_of(x) - 1)}, 1)
  pointer(weight, 'rms_norm')
  eps = eps or epsilon[x.dtype] or 1.1920928955078125e-07
  reals[0] = arguments.number(eps, 'rms_norm', 'eps')
  return record.two(rms_norm_op, x, weight, 0, 1)
end

local dropout_op = record.op 'dropout'

--- x with values dropped with probability p (0.5 when absent), the others
-- divided by 1 - p. x itself when p is 0 or training is false.
function functional.dropout(x, p, training)
  pointer(x, 'dropout')
  if type(p) == 'table' then
    local options = arguments.options(p, {p = true, training = true}, 'dropout')
    p, training = options.p, options.training
  end
  p = arguments.number(p or 0.5, 'dropout', 'p')
  if not (p >= 0 and p <= 1) then
    failure.raise('[dropout] p is in 0..1, not %g', p)
  end
  if training == false or p == 0 then return x end
  reals[0] = p
  return record.one(dropout_op, x, 0, 1)
end

local attention_options = {
  mask = true, attn_mask = true, is_causal = true, causal = true,
  dropout_p = true, scale = true,
}

--- softmax(q k^T / sqrt(width) where mask allows) v; q:(..., Tq, width),
-- k:(..., Tk, width), v:(..., Tk, E). Options: mask (bool, true attends, or
-- a number added to each score), is_causal, dropout_p, scale; a tensor in
-- place of the options is the mask.
function functional.scaled_dot_product_attention(q, k, v, options)
  local where = 'scaled_dot_product_attention'
  pointer(q, where)
  pointer(k, where)
  pointer(v, where)
  if tensor.is(options) then options = {mask = options} end
  options = arguments.options(options, attention_options, where)
  local scale = options.scale or 1 / math.sqrt(size_of(q, rank_of(q) - 1))
  local mask = options.mask or options.attn_mask
  local scores = functional.matmul(q, shape.transpose(k, -2, -1))
  if mask ~= nil and C.rp_tensor_type(pointer(mask, where)).dtype ~= C.RP_BOOL then
    scores, scale, mask = scores * scale + mask, 1, nil
  end
  local weights = functional.scaled_masked_softmax(scores, {
    mask = mask, causal = options.is_causal or options.causal, scale = scale,
  })
  return functional.matmul(functional.dropout(weights, options.dropout_p or 0), v)
end

return functional
