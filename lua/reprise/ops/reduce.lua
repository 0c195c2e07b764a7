--- Reductions. dims is nil (all), a dim, or a list of dims; reduced dims stay
-- as 1s when keepdim.

local arguments = require 'reprise.ops.arguments'
local record = require 'reprise.ops.record'
local tensor = require 'reprise.tensor'
local failure = require 'reprise.failure'

local ints, pointer = record.ints, tensor.pointer

--- Writes the dims into record.ints from position `at`; returns the position
-- behind.
local function put_dims(x, dims, at, where)
  if dims == nil then return at end
  if type(dims) ~= 'table' then
    ints[at] = arguments.dim(x, dims, where)
    return at + 1
  end
  local seen = {}
  for i = 1, #dims do
    local d = arguments.dim(x, dims[i], where)
    if seen[d] then failure.raise('[%s] dim %d twice', where, dims[i]) end
    seen[d] = true
    ints[at + i - 1] = d
  end
  return at + #dims
end

local function reduction(name)
  local op = record.op(name)
  return function(x, dims, keepdim)
    pointer(x, name)
    local n = put_dims(x, dims, 1, name)
    ints[0] = keepdim and 1 or 0
    return record.one(op, x, n)
  end
end

local reduce = {}

--- Sum over dims; bool counts as i64.
reduce.sum = reduction 'sum'
--- Mean over dims.
reduce.mean = reduction 'mean'
--- log(sum(exp(x))) over dims, without overflow.
reduce.logsumexp = reduction 'logsumexp'

-- PyTorch's torch.max(a, b) of two tensors is the elementwise one.
for name, elementwise in pairs{max = 'maximum', min = 'minimum'} do
  local over_dims = reduction(name)
  local of_two = record.binary(record.op(elementwise), name)
  --- Largest (least) value over dims; values only, argmax gives positions.
  reduce[name] = function(x, dims, keepdim)
    if tensor.is(dims) then return of_two(x, dims) end
    return over_dims(x, dims, keepdim)
  end
  reduce['a' .. name] = over_dims
end

local var = record.op 'var'
local sqrt = record.unary(record.op 'sqrt', 'std')

local function variance(x, dims, keepdim, correction, where)
  pointer(x, where)
  if type(keepdim) == 'table' then
    local options = arguments.options(keepdim,
      {keepdim = true, correction = true}, where)
    keepdim, correction = options.keepdim, options.correction
  end
  local n = put_dims(x, dims, 2, where)
  ints[0] = keepdim and 1 or 0
  ints[1] = arguments.count(correction or 1, 0, where, 'correction')
  return record.one(var, x, n)
end

--- Variance over dims, divided by n - correction (1 when absent).
function reduce.var(x, dims, keepdim, correction)
  return variance(x, dims, keepdim, correction, 'var')
end
--- Square root of var.
function reduce.std(x, dims, keepdim, correction)
  return sqrt(variance(x, dims, keepdim, correction, 'std'))
end

local argmax = record.op 'argmax'
--- 0-based position of the first largest value along dim (i64); over all
-- values, flattened, when dim is nil.
function reduce.argmax(x, dim, keepdim)
  pointer(x, 'argmax')
  ints[1] = dim == nil and -1 or arguments.dim(x, dim, 'argmax')
  ints[0] = keepdim and 1 or 0
  return record.one(argmax, x, 2)
end

local cumsum = record.op 'cumsum'
--- Running sums along dim.
function reduce.cumsum(x, dim)
  pointer(x, 'cumsum')
  ints[0] = arguments.dim(x, dim, 'cumsum')
  return record.one(cumsum, x, 1)
end

local square = record.unary(record.op 'square', 'norm')
local abs = record.unary(record.op 'abs', 'norm')
local sum, max = reduction 'sum', reduction 'max'
--- The p-norm over dims, p 1, 2 (when absent) or math.huge.
function reduce.norm(x, p, dims, keepdim)
  pointer(x, 'norm')
  if p == nil or p == 2 then
    return sqrt(sum(square(x), dims, keepdim))
  elseif p == 1 then
    return sum(abs(x), dims, keepdim)
  elseif p == math.huge then
    return max(abs(x), dims, keepdim)
  end
  return failure.raise('[norm] p is 1, 2 or math.huge, not %s', tostring(p))
end

return reduce
