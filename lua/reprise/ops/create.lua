--- Tensors from nothing. All but rp.tensor are recipes: full, zeros and ones
-- are a number broadcast, and hold no bytes. With requires_grad the recipe
-- becomes the first value of a leaf that can be trained.

local arguments = require 'reprise.ops.arguments'
local device = require 'reprise.device'
local record = require 'reprise.ops.record'
local tensor = require 'reprise.tensor'
local failure = require 'reprise.failure'
local binding = require 'reprise.ffi'

local C, ctx = binding.C, binding.ctx
local ints, pointer, own = record.ints, tensor.pointer, tensor.own

local expand_op = record.op 'expand'
local known = {dtype = true, device = true, requires_grad = true}

--- The options applied to a recipe: itself, or a trainable leaf.
local function finished(recipe, options)
  if not options.requires_grad then return recipe end
  local leaf = own(C.rp_leaf_from(C.RP_PARAMETER, recipe.ptr))
  leaf.requires_grad = true
  return leaf
end

local function number(value, code)
  return own(C.rp_number(ctx, value, code))
end

local function filled(where, value, ...)
  local sizes, options = arguments.sizes(where, ...)
  arguments.options(options, known, where)
  local scalar = number(value, arguments.dtype(options.dtype, where))
  local n = record.put_sizes(sizes, 0)
  return finished(record.one(expand_op, scalar, n), options)
end

local function filled_like(where, x, value, options)
  pointer(x, where)
  options = arguments.options(options, known, where)
  local code = options.dtype and arguments.dtype(options.dtype, where) or
    C.rp_tensor_type(x.ptr).dtype
  local scalar = number(value, code)
  return finished(record.one(expand_op, scalar, record.put_dims(x)), options)
end

local cast_op = record.op 'cast'

--- Draws of a random op with `first` and further leading attributes; bf16 is
-- drawn in f32 and rounded.
local function drawn(op, code, sizes, options, ...)
  local narrow = code == C.RP_BF16
  ints[0] = narrow and C.RP_F32 or code
  local at = 1
  for i = 1, select('#', ...) do
    ints[at] = (select(i, ...))
    at = at + 1
  end
  local recipe = record.many(op, sizes, 0, record.put_sizes(sizes, at))
  if narrow then
    ints[0] = code
    recipe = record.one(cast_op, recipe, 1)
  end
  return finished(recipe, options)
end

local function random(name)
  local op = record.op(name)
  return function(...)
    local sizes, options = arguments.sizes(name, ...)
    arguments.options(options, known, name)
    return drawn(op, arguments.dtype(options.dtype, name), sizes, options)
  end
end

local function random_like(name)
  local op, where = record.op(name), name .. '_like'
  return function(x, options)
    pointer(x, where)
    options = arguments.options(options, known, where)
    local code = options.dtype and arguments.dtype(options.dtype, where) or
      C.rp_tensor_type(x.ptr).dtype
    return drawn(op, code, x.shape, options)
  end
end

local create = {}

--- full({2, 3}, value, options)
function create.full(sizes, value, options)
  return filled('full', arguments.number(value, 'full', 'value'), sizes, options)
end
--- zeros(2, 3), zeros({2, 3}, {dtype = 'f64'})
function create.zeros(...) return filled('zeros', 0, ...) end
--- ones(2, 3)
function create.ones(...) return filled('ones', 1, ...) end

--- A tensor of x's shape and dtype, all `value`.
function create.full_like(x, value, options)
  return filled_like('full_like', x, arguments.number(value, 'full_like', 'value'), options)
end
function create.zeros_like(x, options)
  return filled_like('zeros_like', x, 0, options)
end
function create.ones_like(x, options)
  return filled_like('ones_like', x, 1, options)
end

--- Uniform in [0, 1).
create.rand = random 'rand'
--- Standard normal.
create.randn = random 'randn'
create.rand_like = random_like 'rand'
create.randn_like = random_like 'randn'

local randint = record.op 'randint'
--- Whole numbers low..high-1 (low 0 when only high is given), dtype i64:
-- randint(low, high, sizes, options).
function create.randint(low, high, sizes, options)
  if type(high) == 'table' then low, high, sizes, options = 0, low, high, sizes end
  arguments.number(low, 'randint', 'low')
  arguments.number(high, 'randint', 'high')
  if high <= low then
    failure.raise('[randint] no whole number from %g up to, not including, %g', low, high)
  end
  local list
  list, options = arguments.sizes('randint', sizes or {}, options)
  arguments.options(options, known, 'randint')
  local code = arguments.dtype(options.dtype or 'i64', 'randint')
  return drawn(randint, code, list, options, low, high)
end

local arange = record.op 'arange'
--- arange(n): 0..n-1; arange(first, stop[, step]): stop is not included.
function create.arange(...)
  local n = select('#', ...)
  local list, options = {...}, nil
  if type(list[n]) == 'table' then options, list[n], n = list[n], nil, n - 1 end
  options = arguments.options(options, known, 'arange')
  local first, stop, step = 0, list[1], 1
  if n > 1 then first, stop, step = list[1], list[2], list[3] or 1 end
  arguments.number(first, 'arange', 'first')
  arguments.number(stop, 'arange', 'stop')
  if arguments.number(step, 'arange', 'step') == 0 then
    failure.raise('[arange] step 0 goes nowhere')
  end
  local code = arguments.dtype(options.dtype, 'arange')
  ints[0] = math.max(0, math.ceil((stop - first) / step))
  local ends = {number(first, code), number(step, code)}
  return finished(record.two(arange, ends[1], ends[2], 1), options)
end

--- fn(x, ...) where x lies, unless its options name a device.
local function beside(fn)
  return function(x, ...)
    local n = select('#', ...)
    local options = n > 0 and select(n, ...)
    local named = type(options) == 'table' and rawget(options, 'device')
    if named or not tensor.is(x) then return fn(x, ...) end
    return device.beside(x, fn, x, ...)
  end
end

-- {device = ...} says where what is made lies.
for name, fn in pairs(create) do
  create[name] = device.aware(name, name:match '_like$' and beside(fn) or fn)
end

return create
