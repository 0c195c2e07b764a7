--- Recording a node from Lua. This is the hot path: inputs and attributes go
-- through arrays that are made once, so that a compiled trace allocates
-- nothing but the handle.

local ffi = require 'ffi'
local arguments = require 'reprise.ops.arguments'
local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'
local tensor = require 'reprise.tensor'

local C, ctx = binding.C, binding.ctx
local Tensor, own, pointer = tensor.class, tensor.own, tensor.pointer
local getmetatable, type = getmetatable, type

local record = {}

local inputs = ffi.new('rp_tensor *[8]')
local ints = ffi.new('int64_t[32]')
local reals = ffi.new('double[8]')

record.ints, record.reals = ints, reals

--- The op of that name; a missing one is this module's own error.
function record.op(name)
  local op = C.rp_op_find(name)
  if op == nil then error("reprise: the library has no op '" .. name .. "'", 0) end
  return op
end

--- A function of one tensor.
function record.unary(op, name)
  return function(x)
    if getmetatable(x) ~= Tensor then pointer(x, name) end
    inputs[0] = x.ptr
    return own(C.rp_record(ctx, op, inputs, 1, nil, 0, nil, 0))
  end
end

local function not_a_tensor(a, b, name)
  pointer(getmetatable(a) == Tensor and b or a, name)
end

--- Does x, a tensor, hold whole numbers (or bools)?
function record.is_whole(x)
  return C.rp_tensor_type(x.ptr).dtype > C.RP_BF16
end

--- x, a tensor, in the default dtype.
function record.floating(x)
  inputs[0], ints[0] = x.ptr, arguments.dtype(nil)
  return own(C.rp_record(ctx, record.op 'cast', inputs, 1, ints, 1, nil, 0))
end

-- As in PyTorch: a fraction makes floating numbers of whole ones.
local function beside(x, number)
  return number % 1 ~= 0 and record.is_whole(x) and record.floating(x) or x
end

--- A function of two tensors, or of a tensor and a number bound at run time.
function record.binary(op, name)
  return function(a, b)
    if getmetatable(a) == Tensor then
      if getmetatable(b) == Tensor then
        inputs[0], inputs[1] = a.ptr, b.ptr
        return own(C.rp_record(ctx, op, inputs, 2, nil, 0, nil, 0))
      elseif type(b) == 'number' then
        return own(C.rp_record_number(ctx, op, beside(a, b).ptr, b, false))
      end
    elseif type(a) == 'number' and getmetatable(b) == Tensor then
      return own(C.rp_record_number(ctx, op, beside(b, a).ptr, a, true))
    end
    return not_a_tensor(a, b, name)
  end
end

--- Records op over x with the first attributes of record.ints and reals.
function record.one(op, x, n_ints, n_reals)
  inputs[0] = x.ptr
  return own(C.rp_record(ctx, op, inputs, 1, ints, n_ints or 0, reals,
    n_reals or 0))
end

--- The same over two tensors.
function record.two(op, x, y, n_ints, n_reals)
  inputs[0], inputs[1] = x.ptr, y.ptr
  return own(C.rp_record(ctx, op, inputs, 2, ints, n_ints or 0, reals,
    n_reals or 0))
end

--- The same over a list of n tensors.
function record.many(op, list, n, n_ints, n_reals)
  local array = n <= 8 and inputs or ffi.new('rp_tensor *[?]', n)
  for i = 1, n do array[i - 1] = list[i].ptr end
  return own(C.rp_record(ctx, op, array, n, ints, n_ints or 0, reals,
    n_reals or 0))
end

--- A rank-0 tensor bound at run time, of x's dtype.
function record.number(value, like, where)
  if value % 1 ~= 0 and record.is_whole(like) then
    failure.raise("[%s] %g beside %s: cast with :to'%s'", where, value, like.dtype,
      arguments.get_default_dtype())
  end
  return own(C.rp_number(ctx, value, C.rp_tensor_type(like.ptr).dtype))
end

--- The same for what stands in for a weight that was not given: f32 beside
-- bf16.
function record.weight(value, like)
  local dtype = C.rp_tensor_type(like.ptr).dtype
  return own(C.rp_number(ctx, value, dtype == C.RP_BF16 and C.RP_F32 or dtype))
end

--- Copies sizes (a list) into record.ints from position `at`; returns the
-- position behind.
function record.put_sizes(sizes, at)
  for i = 1, #sizes do ints[at + i - 1] = sizes[i] end
  return at + #sizes
end

--- Copies x's dims into record.ints; returns the rank.
function record.put_dims(x)
  local t = C.rp_tensor_type(x.ptr)
  for i = 0, t.rank - 1 do ints[i] = t.dims[i] end
  return t.rank
end

--- Records any op by name, attributes as its record lists them; dims in them
-- are the core's, 0-based. For tests and for ops of one's own.
---@param name string
---@param list reprise.Tensor[]
---@param int_list integer[]?
---@param real_list number[]?
---@return reprise.Tensor
function record.by_name(name, list, int_list, real_list)
  local op = C.rp_op_find(name)
  if op == nil then failure.raise("[record] no op '%s'", name) end
  for i = 1, #list do pointer(list[i], name) end
  local n_ints = int_list and #int_list or 0
  local n_reals = real_list and #real_list or 0
  for i = 1, n_ints do ints[i - 1] = int_list[i] end
  for i = 1, n_reals do reals[i - 1] = real_list[i] end
  return record.many(op, list, #list, n_ints, n_reals)
end

return record
