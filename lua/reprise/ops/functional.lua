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
  dropout_p = true, dropout = true, scale = true,
}
local attention_op = record.op 'attention'
local packed_op = record.op 'packed_attention'

--- Options as the ops want them: mask, causal (a boolean), scale, dropout.
local function attention_settings(options, width, where)
  if tensor.is(options) then options = {mask = options} end
  options = arguments.options(options, attention_options, where)
  local p = arguments.number(options.dropout_p or options.dropout or 0, where,
    'dropout_p')
  if not (p >= 0 and p <= 1) then
    failure.raise('[%s] dropout_p is in 0..1, not %g', where, p)
  end
  local mask = options.mask or options.attn_mask
  if mask ~= nil then pointer(mask, where) end
  local causal = options.is_causal or options.causal or false
  if type(causal) ~= 'boolean' then
    failure.raise('[%s] is_causal is true or false, not %s', where, tostring(causal))
  end
  return {
    mask = mask, causal = causal,
    scale = arguments.number(options.scale or 1 / math.sqrt(width), where,
      'scale'),
    dropout = p,
  }
end

local function put_settings(o)
  ints[0] = o.causal and 1 or 0
  reals[0], reals[1] = o.scale, o.dropout
end

local function is_bool(mask)
  return mask == nil or C.rp_tensor_type(mask.ptr).dtype == C.RP_BOOL
end

--- bf16 as f32, for the softmax.
local function wide(x)
  return x and x.dtype == 'bf16' and x:to 'f32' or x
end

--- Attention by way of its weights: for numbers added to the scores, and for
-- more than two leading dims.
local function composite_attention(q, k, v, o)
  local scores = wide(functional.matmul(q, shape.transpose(k, -2, -1)))
  local scale, mask = o.scale, wide(o.mask)
  if not is_bool(mask) then scores, scale, mask = scores * scale + mask, 1, nil end
  local weights = functional.dropout(functional.scaled_masked_softmax(scores, {
    mask = mask, causal = o.causal, scale = scale,
  }), o.dropout)
  if v.dtype == 'bf16' then weights = weights:to 'bf16' end
  return functional.matmul(weights, v)
end

--- The sizes of x:(..., T, D) as (batch, heads, T, D).
local function four(x)
  local rank = rank_of(x)
  return rank > 3 and size_of(x, 0) or 1, rank > 2 and size_of(x, rank - 3) or 1,
    size_of(x, rank - 2), size_of(x, rank - 1)
end

--- The common size of a leading dim: 1 is repeated.
local function broadcast(a, b, what, where)
  if a ~= 1 and b ~= 1 and a ~= b then
    failure.raise('[%s] %s differ: %d and %d; only 1 is repeated', where, what, a, b)
  end
  return a == 1 and b or a
end

--- x:(..., T, D) as (batch, heads, T, D), a view.
local function as_four(x, batch, heads)
  local b, h, length, width = four(x)
  if rank_of(x) < 4 then x = shape.reshape(x, b, h, length, width) end
  if b ~= batch or h ~= heads then
    x = shape.expand(x, batch, heads, length, width)
  end
  return x
end

--- dropout(softmax(q k^T scale where mask allows)) v; q:(..., Tq, width),
-- k:(..., Tk, width), v:(..., Tk, E), at most two leading dims, broadcast.
-- Options: mask (bool, true attends, or a number added to each score),
-- is_causal, dropout_p, scale (1 / sqrt(width) when absent); a tensor in
-- place of the options is the mask. The weights are never stored, whatever
-- the strategy, unless the mask is numbers or there are more leading dims.
function functional.scaled_dot_product_attention(q, k, v, options)
  local where = 'scaled_dot_product_attention'
  pointer(q, where)
  pointer(k, where)
  pointer(v, where)
  local rank = math.max(rank_of(q), rank_of(k), rank_of(v))
  if math.min(rank_of(q), rank_of(k), rank_of(v)) < 2 then
    failure.raise('[%s] q, k and v need at least 2 dims (length, width)', where)
  end
  local o = attention_settings(options, size_of(q, rank_of(q) - 1), where)
  if rank > 4 or not is_bool(o.mask) then
    return composite_attention(q, k, v, o)
  end
  local batch, heads, length = four(q)
  for _, x in ipairs {k, v} do
    local b, h = four(x)
    batch = broadcast(batch, b, 'batch sizes', where)
    heads = broadcast(heads, h, 'numbers of heads', where)
  end
  q, k, v = as_four(q, batch, heads), as_four(k, batch, heads),
    as_four(v, batch, heads)
  put_settings(o)
  local y = record.many(attention_op, {q, k, v, o.mask}, o.mask and 4 or 3, 1, 2)
  if rank == 4 then return shape.transpose(y, 2, 3) end
  local sizes = {length, size_of(v, 3)}
  if rank == 3 then table.insert(sizes, 1, heads) end
  return shape.reshape(shape.transpose(y, 2, 3), sizes)
end

--- Self-attention over qkv:(batch, length, 3, heads, width), as one product
-- makes it -> (batch, length, heads, width). Options as above.
function functional.packed_attention(qkv, options)
  local where = 'packed_attention'
  pointer(qkv, where)
  if rank_of(qkv) ~= 5 then
    failure.raise('[%s] qkv has %d dims: needs (batch, length, 3, heads, width)',
      where, rank_of(qkv))
  end
  local o = attention_settings(options, size_of(qkv, 4), where)
  if not is_bool(o.mask) then
    local parts = {}
    for i = 1, 3 do
      parts[i] = shape.transpose(shape.select(qkv, 3, i), 2, 3)
    end
    return shape.transpose(composite_attention(parts[1], parts[2], parts[3], o), 2, 3)
  end
  put_settings(o)
  return record.many(packed_op, {qkv, o.mask}, o.mask and 2 or 1, 1, 2)
end

return functional
