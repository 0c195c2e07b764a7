--- Values between Lua and tensors: rp.tensor, item, totable, bytes.

local ffi = require 'ffi'
local arguments = require 'reprise.ops.arguments'
local device = require 'reprise.device'
local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'
local record = require 'reprise.ops.record'
local tensor = require 'reprise.tensor'

local C, ctx = binding.C, binding.ctx
local methods = tensor.methods

local values = {}

local array_types = {
  f32 = ffi.typeof 'float[?]', f64 = ffi.typeof 'double[?]',
  bf16 = ffi.typeof 'uint16_t[?]', i32 = ffi.typeof 'int32_t[?]',
  i64 = ffi.typeof 'int64_t[?]', bool = ffi.typeof 'uint8_t[?]',
}
local element_bytes = {f32 = 4, f64 = 8, bf16 = 2, i32 = 4, i64 = 8, bool = 1}

values.element_bytes = element_bytes

--- An FFI array for n values of a dtype.
function values.array(dtype, n)
  return array_types[dtype](n)
end

local new_type = ffi.typeof 'rp_type'

--- A leaf of that role, dtype and sizes, without bytes yet.
---@return reprise.Tensor
function values.leaf(role, dtype, sizes)
  local t = new_type()
  t.dtype, t.rank = tensor.dtype_codes[dtype], #sizes
  for i = 1, #sizes do t.dims[i - 1] = sizes[i] end
  return tensor.own(C.rp_leaf(ctx, role, t))
end

--- Sizes of nested lists, by their first entries.
local function sizes_of(data)
  local sizes, level = {}, data
  while type(level) == 'table' and not tensor.is(level) do
    sizes[#sizes + 1] = #level
    if #level == 0 then break end
    level = level[1]
  end
  return sizes, level
end

local function whole_number(x, low, high)
  return x == math.floor(x) and x >= low and x <= high
end

--- What may be written into an array of the dtype, as text for messages; nil
-- when x may.
local function unfit(x, dtype)
  if dtype == 'bool' then
    if type(x) == 'boolean' or x == 0 or x == 1 then return nil end
    return 'true or false'
  end
  if type(x) ~= 'number' then return 'a number' end
  if dtype == 'i32' and not whole_number(x, -2147483648, 2147483647) then
    return 'a whole number of 32 bits'
  end
  if dtype == 'i64' and not whole_number(x, -2^53, 2^53) then
    return 'a whole number of at most 2^53'
  end
end

local function fill(array, data, sizes, dtype)
  local position = 0
  local is_bool = dtype == 'bool'
  local function walk(level, depth)
    if depth > #sizes then
      local wanted = unfit(level, dtype)
      if wanted then
        failure.raise('[tensor] value %d is %s, and %s wants %s', position + 1,
          type(level) == 'table' and 'a list' or tostring(level), dtype, wanted)
      end
      if is_bool then level = (level == true or level == 1) and 1 or 0 end
      array[position] = level
      position = position + 1
      return
    end
    if type(level) ~= 'table' or #level ~= sizes[depth] then
      failure.raise('[tensor] ragged lists: at depth %d one has %d entries, another %s',
        depth, sizes[depth], type(level) == 'table' and #level or 'is a ' .. type(level))
    end
    for i = 1, sizes[depth] do walk(level[i], depth + 1) end
  end
  walk(data, 1)
end

local function product(sizes)
  local n = 1
  for i = 1, #sizes do n = n * sizes[i] end
  return n
end

local cdata_dtypes = {
  float = 'f32', double = 'f64', int = 'i32', int64_t = 'i64', bool = 'bool',
}

--- The dtype of an FFI array or pointer, from its element type.
local function dtype_of_cdata(data)
  local name = tostring(ffi.typeof(data)):gsub('^ctype<', ''):gsub('^const ', '')
  return cdata_dtypes[name:match '^(%S+) [%[%*%(]']
end

local known = {dtype = true, device = true, requires_grad = true, shape = true}

local function from_cdata(data, options)
  local dtype = options.dtype or dtype_of_cdata(data)
  if not dtype then
    failure.raise('[tensor] the dtype of %s is not known: say {dtype = ...}',
      tostring(ffi.typeof(data)))
  end
  arguments.dtype(dtype, 'tensor')
  local sizes = options.shape
  local available = ffi.sizeof(data)
  local is_array = tostring(ffi.typeof(data)):find '%['
  if not sizes then
    if not is_array then
      failure.raise('[tensor] a pointer needs {shape = ...}')
    end
    sizes = {available / element_bytes[dtype]}
  end
  sizes = arguments.sizes('tensor', sizes)
  local size_bytes = product(sizes) * element_bytes[dtype]
  if is_array and size_bytes > available then
    failure.raise('[tensor] shape %s needs %d bytes, the array has %d',
      '(' .. table.concat(sizes, ',') .. ')', size_bytes, available)
  end
  return dtype, sizes, data, size_bytes
end

local function from_lists(data, options)
  local sizes, first = sizes_of(data)
  local dtype = options.dtype or
    (type(first) == 'boolean' and 'bool' or arguments.get_default_dtype())
  arguments.dtype(dtype, 'tensor')
  local n = product(sizes)
  -- bf16 is rounded from f32 by the library.
  local array = values.array(dtype == 'bf16' and 'f32' or dtype, n)
  fill(array, data, sizes, dtype)
  if options.shape then
    local wanted = arguments.sizes('tensor', options.shape)
    if product(wanted) ~= n then
      failure.raise('[tensor] %d values do not fill shape (%s)', n,
        table.concat(wanted, ','))
    end
    sizes = wanted
  end
  return dtype, sizes, array, n * element_bytes[dtype]
end

--- A tensor with the given values: nested lists, a number, true or false, or
-- an FFI array (copied; a pointer needs shape). Numbers become the default
-- dtype (f32), booleans bool. Options: dtype, shape, requires_grad.
---@param data any
---@param options table?
---@return reprise.Tensor a leaf
values.tensor = device.aware('tensor', function(data, options)
  if type(options) == 'string' then options = {dtype = options} end
  options = arguments.options(options, known, 'tensor')
  if tensor.is(data) then
    failure.raise('[tensor] this is a tensor already; x:detach() is one ' ..
      'without its gradient, x:to(dtype) one of another dtype')
  end
  local kind = type(data)
  if kind ~= 'table' and kind ~= 'number' and kind ~= 'boolean' and kind ~= 'cdata' then
    failure.raise('[tensor] a number, a list or an array is wanted, not %s', kind)
  end
  local dtype, sizes, array, size_bytes =
    (kind == 'cdata' and from_cdata or from_lists)(data, options)
  local role = options.requires_grad and C.RP_PARAMETER or C.RP_INPUT
  local leaf
  if dtype == 'bf16' and kind ~= 'cdata' then
    local wide = values.leaf(C.RP_INPUT, 'f32', sizes)
    failure.check(C.rp_leaf_write(wide.ptr, array, size_bytes * 2))
    record.ints[0] = C.RP_BF16
    leaf = tensor.own(C.rp_leaf_from(role, record.one(record.op 'cast', wide, 1).ptr))
  else
    leaf = values.leaf(role, dtype, sizes)
    failure.check(C.rp_leaf_write(leaf.ptr, array, size_bytes))
  end
  if options.requires_grad then leaf.requires_grad = true end
  return leaf
end)

--- The values as an FFI array, run if need be; bf16 arrives as f32. Returns
-- the array, the number of values and the array's dtype.
function values.read(t)
  if t.dtype == 'bf16' then t = t:to 'f32' end
  local dtype, n = t.dtype, t:numel()
  local array = values.array(dtype, n)
  failure.check(C.rp_tensor_read(t.ptr, array, n * element_bytes[dtype]))
  failure.drain()
  return array, n, dtype
end

--- Element i of an array of the dtype as a Lua value.
local function element(array, i, dtype)
  if dtype == 'bool' then return array[i] ~= 0 end
  return tonumber(array[i])
end

values.element = element

--- The one value of a tensor, run if need be: a number, or true or false.
---@return number|boolean
function methods.item(t)
  local n = t:numel()
  if n ~= 1 then
    failure.raise('[item] a tensor of shape %s has %d values; item() wants one',
      tostring(t.shape), n)
  end
  local array, _, dtype = values.read(t)
  return element(array, 0, dtype)
end

--- The values as nested lists of numbers (or of true and false), run if need
-- be; of a scalar, the value itself.
function methods.totable(t)
  local array, _, dtype = values.read(t)
  local sizes, position = t.shape, 0
  local function build(depth)
    if depth > #sizes then
      position = position + 1
      return element(array, position - 1, dtype)
    end
    local list = {}
    for i = 1, sizes[depth] do list[i] = build(depth + 1) end
    return list
  end
  return build(1)
end

--- The value's bytes as a string, for comparing to the last bit.
---@return string
function methods.bytes(t)
  local size = t:numel() * element_bytes[t.dtype]
  local array = ffi.new('uint8_t[?]', size)
  failure.check(C.rp_tensor_read(t.ptr, array, size))
  failure.drain()
  return ffi.string(array, size)
end

--- to'cuda'.
function methods.cuda(t) return t:to 'cuda' end

--- to'cpu'.
function methods.cpu(t) return t:to 'cpu' end

--- Overwrites a leaf with values: a tensor of its type (run if need be), or
-- what rp.tensor takes. Recipes that read the older value can no longer run.
---@return reprise.Tensor self
function methods.copy_(t, source)
  if not C.rp_tensor_is_leaf(t.ptr) then
    failure.raise('[copy_] this is a recipe, and only leaves can be written: ' ..
      'parameters, buffers, what rp.tensor makes')
  end
  if not tensor.is(source) then
    source = values.tensor(source, {dtype = t.dtype, shape = t.shape})
  end
  failure.check(C.rp_leaf_assign(t.ptr, source:to(t.dtype).ptr))
  return t
end

return values
