--- The tensor class: a counted handle on one output of a recorded node.
--
-- A handle is a small table around the C pointer, not the pointer itself:
-- LuaJIT compares pointers with `<` by address and indexes them with
-- numbers as arrays, and neither asks a metatable.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local edit_distance = require 'reprise.edit_distance'
local failure = require 'reprise.failure'

local C = binding.C
local gc, setmetatable, getmetatable = ffi.gc, setmetatable, getmetatable
local release = C.rp_tensor_release

---@class reprise.Tensor
---@operator add(reprise.Tensor|number): reprise.Tensor
---@operator sub(reprise.Tensor|number): reprise.Tensor
---@operator mul(reprise.Tensor|number): reprise.Tensor
---@operator div(reprise.Tensor|number): reprise.Tensor
---@operator pow(reprise.Tensor|number): reprise.Tensor
---@operator unm: reprise.Tensor
---@field ptr any                 the C handle, owned
---@field shape integer[]         a fresh list; prints as (2,3)
---@field dtype string            'f32', 'f64', 'bf16', 'i32', 'i64', 'bool'
---@field device string           'cpu', 'cuda', ...; of a number the default one
---@field ndim integer
---@field grad reprise.Tensor?    the accumulated gradient; may be set to nil
---@field requires_grad boolean   may be set on leaves
---@field is_leaf boolean
---@field scope string            where it was recorded, '' at top level
local Tensor = {}
local methods, properties = {}, {}

local tensor = {
  class = Tensor,
  methods = methods,
  properties = properties,
}

--- Wraps a reference that the caller owns; a NULL raises the core's message.
---@return reprise.Tensor
function tensor.own(ptr)
  if ptr == nil then return failure.from_core() end
  return setmetatable({ptr = gc(ptr, release)}, Tensor)
end

--- Wraps a borrowed pointer; NULL gives nil.
---@return reprise.Tensor?
function tensor.borrow(ptr)
  if ptr == nil then return nil end
  C.rp_tensor_retain(ptr)
  return setmetatable({ptr = gc(ptr, release)}, Tensor)
end

--- Whether x is a tensor.
---@param x any
---@return boolean
function tensor.is(x)
  return getmetatable(x) == Tensor
end

--- x's C pointer, or an error that names the function that wanted a tensor.
function tensor.pointer(x, name)
  if getmetatable(x) ~= Tensor then
    failure.raise('[%s] a tensor is wanted here, not %s', name, type(x))
  end
  return x.ptr
end

tensor.dtype_names = {
  [0] = 'f32', [1] = 'f64', [2] = 'bf16', [3] = 'i32', [4] = 'i64',
  [5] = 'bool',
}
tensor.dtype_codes = {}
for code, name in pairs(tensor.dtype_names) do
  tensor.dtype_codes[name] = code
end

local Shape = {}

function Shape.__tostring(shape)
  return '(' .. table.concat(shape, ',') .. ')'
end

function Shape.__eq(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

--- The shape of a C type as a list that prints as (2,3).
---@return integer[]
function tensor.shape_of(type)
  local shape = {}
  for i = 1, type.rank do shape[i] = tonumber(type.dims[i - 1]) end
  return setmetatable(shape, Shape)
end

--- How many values a C type has.
function tensor.count_of(type)
  local n = 1
  for i = 0, type.rank - 1 do n = n * tonumber(type.dims[i]) end
  return n
end

local op_info = ffi.new 'rp_op_info'

--- The name of the op that makes t's value; 'leaf' for leaves.
function tensor.op_name(t)
  C.rp_op_describe(C.rp_tensor_op(t.ptr), op_info)
  return ffi.string(op_info.name)
end

function properties.shape(t)
  return tensor.shape_of(C.rp_tensor_type(t.ptr))
end

function properties.dtype(t)
  return tensor.dtype_names[C.rp_tensor_type(t.ptr).dtype]
end

function properties.ndim(t)
  return C.rp_tensor_type(t.ptr).rank
end

function properties.device(t)
  return ffi.string(C.rp_device_name(binding.ctx, C.rp_tensor_device(t.ptr)))
end

function properties.grad(t)
  return tensor.borrow(C.rp_tensor_grad(t.ptr))
end

function properties.requires_grad(t)
  return C.rp_tensor_requires_grad(t.ptr)
end

function properties.is_leaf(t)
  return C.rp_tensor_is_leaf(t.ptr)
end

function properties.scope(t)
  return ffi.string(C.rp_tensor_scope(t.ptr))
end

--- The rank.
---@return integer
function methods.dim(t)
  return C.rp_tensor_type(t.ptr).rank
end

--- How many values the tensor has.
---@return integer
function methods.numel(t)
  return tensor.count_of(C.rp_tensor_type(t.ptr))
end

--- Whether the value's bytes are there now.
---@return boolean
function methods.is_held(t)
  return C.rp_tensor_is_held(t.ptr)
end

--- Whether the strides are those of a plain array.
---@return boolean
function methods.is_contiguous(t)
  return C.rp_tensor_is_contiguous(t.ptr)
end

--- Sets requires_grad and returns the tensor.
---@param on boolean?  true when absent
---@return reprise.Tensor
function methods.requires_grad_(t, on)
  t.requires_grad = on ~= false
  return t
end

--- Keeps the value for the backward pass, whatever the strategy says.
---@return reprise.Tensor self
function methods.keep(t)
  C.rp_tensor_keep(t.ptr)
  return t
end

-- What PyTorch calls otherwise.
local elsewhere = {
  bmm = 'matmul', mm = 'matmul', T = 't()', mT = 'transpose(-2, -1)',
  numpy = 'totable()', tolist = 'totable()', data = 'detach()', type = 'dtype',
  float = "to'f32'", double = "to'f64'", bfloat16 = "to'bf16'", half = "to'bf16'",
  long = "to'i64'", int = "to'i32'", bool = "to'bool'", view_as = 'reshape',
}

local function no_field(key)
  key = tostring(key)
  local other, least = elsewhere[key], math.floor(#key / 2) + 1
  local changing = key:match '^(.*[^_])_$'
  if changing and methods[changing] then
    failure.raise("a tensor has no field '%s': a recipe does not change; write " ..
      'x = x:%s(...)', key, changing)
  end
  local nearest
  for _, names in ipairs {methods, properties} do
    for name in pairs(names) do
      local d = edit_distance(key, name)
      if d < least or d == least and nearest and name < nearest then
        nearest, least = name, d
      end
    end
  end
  failure.raise("a tensor has no field '%s'%s", key, other and '; there is ' .. other
    or nearest and ('; did you mean %s?'):format(nearest) or '')
end

function Tensor.__index(t, key)
  local method = methods[key]
  if method ~= nil then return method end
  local property = properties[key]
  if property then return property(t) end
  if type(key) == 'number' then return methods.select(t, 1, key) end
  return no_field(key)
end

function Tensor.__newindex(t, key, value)
  if key == 'requires_grad' then
    local status = C.rp_tensor_set_requires_grad(t.ptr, value and true or false)
    if status == C.RP_STATE then
      failure.raise('[requires_grad] this is a recipe (%s), not a leaf: make it with ' ..
        '{requires_grad = true}, or nn.Parameter(t) from it', tensor.op_name(t))
    end
    failure.check(status)
  elseif key == 'grad' and value == nil then
    C.rp_tensor_clear_grad(t.ptr)
  elseif properties[key] then
    failure.raise("a tensor's %s cannot be set", key)
  else
    no_field(key)
  end
end

-- Two handles are equal when they are the same recipe's same output.
function Tensor.__eq(a, b)
  return a.ptr == b.ptr
end

local function ordering(name)
  return function()
    failure.raise('tensors are not ordered with < <= > >=: Lua would turn ' ..
      'the result into true or false; write a:%s(b)', name)
  end
end

-- `a > b` arrives here as `b < a`.
Tensor.__lt = ordering 'lt'
Tensor.__le = ordering 'le'

return tensor
