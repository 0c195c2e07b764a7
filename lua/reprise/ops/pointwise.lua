--- Elementwise functions with attributes or numbers among their arguments.

local arguments = require 'reprise.ops.arguments'
local device = require 'reprise.device'
local record = require 'reprise.ops.record'
local tensor = require 'reprise.tensor'
local failure = require 'reprise.failure'
local binding = require 'reprise.ffi'

local C, ctx = binding.C, binding.ctx
local ints, reals, pointer = record.ints, record.reals, tensor.pointer

--- x as a tensor: a number takes the dtype of `like`, or the default one.
local function lift(x, like, where)
  if type(x) ~= 'number' then
    pointer(x, where)
    return x
  end
  if tensor.is(like) then return record.number(x, like, where) end
  return tensor.own(C.rp_number(ctx, x, arguments.dtype(nil, where)))
end

local pointwise = {}

local Tensor = tensor.class

local square = record.unary(record.op 'square', 'pow')
local sqrt = record.unary(record.op 'sqrt', 'pow')
local reciprocal = record.unary(record.op 'reciprocal', 'pow')
local power = record.binary(record.op 'pow', 'pow')
local pow_scalar = record.op 'pow_scalar'

--- x^exponent. A number as exponent is part of the graph, unlike other
-- numbers in arithmetic.
local function pow(x, exponent)
  if type(exponent) ~= 'number' then return power(x, exponent) end
  pointer(x, 'pow')
  if exponent == 1 then return x end
  if exponent == 2 then return square(x) end
  if exponent == 0.5 then return sqrt(x) end
  if exponent == -1 then return reciprocal(x) end
  reals[0] = exponent
  return record.one(pow_scalar, x, 0, 1)
end
pointwise.pow = pow

local quotient = record.binary(record.op 'div', 'div')
--- a / b; of whole numbers, in the default dtype, as in PyTorch.
function pointwise.div(a, b)
  if tensor.is(a) and record.is_whole(a) then
    if type(b) == 'number' or tensor.is(b) and record.is_whole(b) then
      a = record.floating(a)
      if type(b) ~= 'number' then b = record.floating(b) end
    end
  elseif type(a) == 'number' and tensor.is(b) and record.is_whole(b) then
    b = record.floating(b)
  end
  return quotient(a, b)
end

Tensor.__add = record.binary(record.op 'add', 'add')
Tensor.__sub = record.binary(record.op 'sub', 'sub')
Tensor.__mul = record.binary(record.op 'mul', 'mul')
Tensor.__div = pointwise.div
Tensor.__pow = pow
Tensor.__unm = record.unary(record.op 'neg', 'neg')

local clamp = record.op 'clamp'
--- x limited to lo..hi; either may be nil. Also clamp(x, {min=, max=}).
function pointwise.clamp(x, lo, hi)
  pointer(x, 'clamp')
  if type(lo) == 'table' then
    local options = arguments.options(lo, {min = true, max = true}, 'clamp')
    lo, hi = options.min, options.max
  end
  reals[0] = arguments.number(lo or -math.huge, 'clamp', 'min')
  reals[1] = arguments.number(hi or math.huge, 'clamp', 'max')
  return record.one(clamp, x, 0, 2)
end

local cast = record.op 'cast'
--- A leaf of x's value on another device; no gradient passes.
local function moved(x, name)
  local slot = device.slot(name, 'to')
  if C.rp_tensor_device(pointer(x, 'to')) == slot then return x end
  if C.rp_tensor_requires_grad(x.ptr) and not C.rp_tensor_is_leaf(x.ptr) then
    failure.raise("[to] this is a recipe that a gradient passes through; moves have no " ..
      "gradient: move inputs and parameters, or x:detach():to'%s'", name)
  end
  local leaf = C.rp_tensor_to(x.ptr, slot)
  if leaf == nil then failure.from_core() end
  return tensor.own(leaf)
end

--- x with another dtype (x:to 'i64') or on another device (x:to 'cuda': its
-- value, run if need be). x itself when it is so already.
function pointwise.to(x, dtype)
  if device.is_name(dtype) then return moved(x, dtype) end
  if type(dtype) == 'string' and not tensor.dtype_codes[dtype] then
    failure.raise("[to] '%s' is no dtype (f32, f64, bf16, i32, i64, bool) and no device " ..
      "(cpu, cuda, cuda:1)", dtype)
  end
  local code = arguments.dtype(dtype, 'to')
  if C.rp_tensor_type(pointer(x, 'to')).dtype == code then return x end
  ints[0] = code
  return record.one(cast, x, 1)
end

local where = record.op 'where'
--- a where condition (bool) holds, else b. a and b may be numbers.
function pointwise.where(condition, a, b)
  pointer(condition, 'where')
  local x = lift(a, b, 'where')
  local y = lift(b, x, 'where')
  return record.many(where, {condition, x, y}, 3)
end

local masked_fill = record.op 'masked_fill'
--- x with `value` (a number or scalar tensor) where mask (bool) is true.
function pointwise.masked_fill(x, mask, value)
  pointer(x, 'masked_fill')
  pointer(mask, 'masked_fill')
  return record.many(masked_fill, {x, mask, lift(value, x, 'masked_fill')}, 3)
end

local gelu_tanh = record.unary(record.op 'gelu_tanh', 'gelu')
local gelu = record.unary(record.op 'gelu', 'gelu')
--- GELU by erf, or by tanh: gelu(x, {approximate = 'tanh'}).
function pointwise.gelu(x, options)
  if options == nil then return gelu(x) end
  local approximate = options
  if type(options) == 'table' then
    approximate = arguments.options(options, {approximate = true}, 'gelu').approximate
  end
  if approximate == 'tanh' then return gelu_tanh(x) end
  if approximate == nil or approximate == 'none' then return gelu(x) end
  return failure.raise("[gelu] approximate is 'none' or 'tanh', not '%s'",
    tostring(approximate))
end

return pointwise
