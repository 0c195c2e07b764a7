--- Views and rearrangements. Views cost no bytes where strides allow.

local arguments = require 'reprise.ops.arguments'
local record = require 'reprise.ops.record'
local tensor = require 'reprise.tensor'
local failure = require 'reprise.failure'
local custom_vjp = require 'reprise.grad'.custom_vjp
local binding = require 'reprise.ffi'

local C = binding.C
local ints, pointer = record.ints, tensor.pointer
local rank_of, size_of = arguments.rank, arguments.size

local reshape_op = record.op 'reshape'
local permute_op = record.op 'permute'
local expand_op = record.op 'expand'
local narrow_op = record.op 'narrow'
local cat_op = record.op 'cat'
local pad_op = record.op 'pad'

local shape = {}

--- The sizes of x as a list.
local function sizes_of(x)
  local list = {}
  for i = 0, rank_of(x) - 1 do list[i + 1] = size_of(x, i) end
  return list
end

local function reshaped(x, sizes)
  return record.one(reshape_op, x, record.put_sizes(sizes, 0))
end

--- Numbers given one by one or as a list.
local function listed(first, ...)
  if type(first) == 'table' then return first end
  return {first, ...}
end

--- The same values in other dims; one size may be -1: what is left.
function shape.reshape(x, ...)
  pointer(x, 'reshape')
  local sizes = listed(...)
  local open, product = nil, 1
  for i = 1, #sizes do
    local size = sizes[i]
    if size == -1 then
      if open then failure.raise('[reshape] only one size may be -1') end
      open = i
    else
      product = product * arguments.count(size, 0, 'reshape', 'a size')
    end
  end
  if open then
    local n = x:numel()
    if product == 0 or n % product ~= 0 then
      failure.raise('[reshape] %d values do not divide into (%s)', n,
        table.concat(sizes, ','))
    end
    local whole = {}
    for i = 1, #sizes do whole[i] = i == open and n / product or sizes[i] end
    sizes = whole
  end
  return reshaped(x, sizes)
end

--- Dims first..last as one (1 and -1 when absent).
function shape.flatten(x, first, last)
  pointer(x, 'flatten')
  if rank_of(x) == 0 then return reshaped(x, {1}) end
  local a = arguments.dim(x, first or 1, 'flatten')
  local b = arguments.dim(x, last or -1, 'flatten')
  if a > b then failure.raise('[flatten] dim %d lies behind dim %d', first, last) end
  local sizes, product = {}, 1
  for i = 0, rank_of(x) - 1 do
    if i < a or i > b then
      sizes[#sizes + 1] = size_of(x, i)
    else
      product = product * size_of(x, i)
      if i == b then sizes[#sizes + 1] = product end
    end
  end
  return reshaped(x, sizes)
end

--- Without its dims of size 1, or without `dim` if that has size 1.
function shape.squeeze(x, dim)
  pointer(x, 'squeeze')
  local only = dim and arguments.dim(x, dim, 'squeeze')
  local sizes = {}
  for i = 0, rank_of(x) - 1 do
    local size = size_of(x, i)
    if size ~= 1 or (only and i ~= only) then sizes[#sizes + 1] = size end
  end
  return reshaped(x, sizes)
end

--- With a dim of size 1 put in at `dim`.
function shape.unsqueeze(x, dim)
  pointer(x, 'unsqueeze')
  local at = arguments.dim_of(dim, rank_of(x) + 1, 'unsqueeze')
  local sizes = sizes_of(x)
  table.insert(sizes, at + 1, 1)
  return reshaped(x, sizes)
end

--- Dims in another order: permute(x, 2, 1).
function shape.permute(x, ...)
  pointer(x, 'permute')
  local dims, rank = listed(...), rank_of(x)
  if #dims ~= rank then
    failure.raise('[permute] %d dims for a tensor of %d', #dims, rank)
  end
  local seen = {}
  for i = 1, rank do
    local d = arguments.dim(x, dims[i], 'permute')
    if seen[d] then failure.raise('[permute] dim %d twice', dims[i]) end
    seen[d] = true
    ints[i - 1] = d
  end
  return record.one(permute_op, x, rank)
end

local function swapped(x, a, b)
  local rank = rank_of(x)
  for i = 0, rank - 1 do ints[i] = i end
  ints[a], ints[b] = b, a
  return record.one(permute_op, x, rank)
end

--- Two dims exchanged.
function shape.transpose(x, a, b)
  pointer(x, 'transpose')
  return swapped(x, arguments.dim(x, a, 'transpose'),
    arguments.dim(x, b, 'transpose'))
end

--- A matrix's transpose.
function shape.t(x)
  pointer(x, 't')
  local rank = rank_of(x)
  if rank > 2 then
    failure.raise('[t] %s has %d dims; t() is for matrices, write ' ..
      'x:transpose(-2, -1)', tostring(x.shape), rank)
  end
  if rank < 2 then return x end
  return swapped(x, 0, 1)
end

--- Broadcast to the sizes; -1 keeps a dim's size.
function shape.expand(x, ...)
  pointer(x, 'expand')
  local sizes, rank = listed(...), rank_of(x)
  local new = #sizes - rank
  for i = 1, #sizes do
    local size = sizes[i]
    if size == -1 then
      if i <= new then failure.raise('[expand] -1 for a dim that x does not have') end
      size = size_of(x, i - 1 - new)
    end
    ints[i - 1] = arguments.count(size, 0, 'expand', 'a size')
  end
  return record.one(expand_op, x, #sizes)
end

--- Broadcast to y's shape.
function shape.expand_as(x, y)
  pointer(x, 'expand_as')
  pointer(y, 'expand_as')
  return record.one(expand_op, x, record.put_dims(y))
end

local function narrowed(x, dim, start, length, step)
  ints[0], ints[1], ints[2], ints[3] = dim, start, length, step
  return record.one(narrow_op, x, 4)
end

--- length positions of dim from start (1-based, negative from the end),
-- every step-th.
function shape.narrow(x, dim, start, length, step)
  pointer(x, 'narrow')
  local d = arguments.dim(x, dim, 'narrow')
  local size = size_of(x, d)
  step = arguments.count(step or 1, 1, 'narrow', 'step')
  length = arguments.count(length, 0, 'narrow', 'length')
  local from = arguments.position(start, size, 'narrow', length == 0)
  local last = from + math.max(length - 1, 0) * step
  if length > 0 and last >= size then
    failure.raise('[narrow] positions %d..%d of dim %d, which has %d', from + 1,
      last + 1, dim, size)
  end
  return narrowed(x, d, from, length, step)
end

--- Positions first..last of dim, both included (1 and -1 when absent), every
-- step-th. Empty when last lies before first.
function shape.slice(x, dim, first, last, step)
  pointer(x, 'slice')
  local d = arguments.dim(x, dim, 'slice')
  local size = size_of(x, d)
  step = arguments.count(step or 1, 1, 'slice', 'step')
  if size == 0 then return narrowed(x, d, 0, 0, 1) end
  local from = arguments.position(first or 1, size, 'slice', true)
  local to = arguments.position(last or -1, size, 'slice')
  local length = math.max(0, math.floor((to - from) / step) + 1)
  return narrowed(x, d, from, length, step)
end

--- Position i of dim, the dim removed. t[i] is select(t, 1, i).
function shape.select(x, dim, i)
  pointer(x, 'select')
  local d = arguments.dim(x, dim, 'select')
  local at = arguments.position(i, size_of(x, d), 'select')
  local sizes = sizes_of(x)
  table.remove(sizes, d + 1)
  return reshaped(narrowed(x, d, at, 1, 1), sizes)
end

--- Consecutive pieces of dim d. Their gradients are put side by side once;
-- those of narrow would each be widened with zeros and then be added.
local function cut(x, d, sizes)
  local function pieces_of(whole)
    local pieces, at = {}, 0
    for i, length in ipairs(sizes) do
      pieces[i] = narrowed(whole, d, at, length, 1)
      at = at + length
    end
    return unpack(pieces)
  end
  if #sizes == 1 or not C.rp_tensor_requires_grad(x.ptr) then return pieces_of(x) end
  return custom_vjp(pieces_of, function(...)
    return shape.cat({unpack({...}, 1, #sizes)}, d + 1)
  end)(x)
end

--- Pieces of `size` along dim (1 when absent), the last perhaps shorter; or
-- pieces of the listed sizes.
---@return reprise.Tensor ...
function shape.split(x, size, dim)
  pointer(x, 'split')
  local d = arguments.dim(x, dim or 1, 'split')
  local total, sizes, at = size_of(x, d), {}, 0
  if type(size) == 'table' then
    for i = 1, #size do
      sizes[i] = arguments.count(size[i], 0, 'split', 'a size')
      at = at + sizes[i]
    end
    if at ~= total then
      failure.raise('[split] sizes (%s) do not add up to %d',
        table.concat(size, ','), total)
    end
    return cut(x, d, sizes)
  end
  arguments.count(size, 1, 'split', 'the size')
  repeat
    sizes[#sizes + 1] = math.min(size, total - at)
    at = at + size
  until at >= total
  return cut(x, d, sizes)
end

--- n pieces along dim (1 when absent), the last perhaps shorter.
---@return reprise.Tensor ...
function shape.chunk(x, n, dim)
  pointer(x, 'chunk')
  local d = arguments.dim(x, dim or 1, 'chunk')
  arguments.count(n, 1, 'chunk', 'the number of pieces')
  return shape.split(x, math.max(1, math.ceil(size_of(x, d) / n)), d + 1)
end

local function tensors(list, where)
  if type(list) ~= 'table' or tensor.is(list) or #list == 0 then
    failure.raise('[%s] a list of tensors is wanted', where)
  end
  for i = 1, #list do pointer(list[i], where) end
  return list
end

--- The tensors one after the other along dim (1 when absent).
function shape.cat(list, dim)
  tensors(list, 'cat')
  ints[0] = arguments.dim(list[1], dim or 1, 'cat')
  return record.many(cat_op, list, #list, 1)
end

--- The tensors side by side along a new dim (1 when absent).
function shape.stack(list, dim)
  tensors(list, 'stack')
  local d = arguments.dim_of(dim or 1, rank_of(list[1]) + 1, 'stack') + 1
  local wide = {}
  for i = 1, #list do wide[i] = shape.unsqueeze(list[i], d) end
  return shape.cat(wide, d)
end

--- x with `value` (0 when absent) around it: widths are {before, after} of
-- the last dim, then of the one before it, and so on.
function shape.pad(x, widths, value)
  pointer(x, 'pad')
  local rank = rank_of(x)
  if type(widths) ~= 'table' or #widths % 2 ~= 0 or #widths > 2 * rank then
    failure.raise('[pad] widths are {before, after} pairs for at most %d dims', rank)
  end
  for i = 0, 2 * rank - 1 do ints[i] = 0 end
  for i = 1, #widths, 2 do
    local d = rank - 1 - (i - 1) / 2
    ints[2 * d] = arguments.count(widths[i], 0, 'pad', 'a width')
    ints[2 * d + 1] = arguments.count(widths[i + 1], 0, 'pad', 'a width')
  end
  record.reals[0] = arguments.number(value or 0, 'pad', 'value')
  return record.one(pad_op, x, 2 * rank, 1)
end

--- The size of dim d, or all sizes.
function tensor.methods.size(x, d)
  if d == nil then return x.shape end
  return tonumber(C.rp_tensor_type(x.ptr).dims[arguments.dim(x, d, 'size')])
end

shape.view = shape.reshape

return shape
