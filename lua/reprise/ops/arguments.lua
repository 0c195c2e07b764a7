--- Arguments of recorded functions: dims count from 1, or from the end with
-- negative numbers; shapes; options.

local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'
local tensor = require 'reprise.tensor'

local C = binding.C
local floor = math.floor

local arguments = {}

local default_dtype = 'f32'

--- The dtype of new floating tensors: 'f32', 'f64' or 'bf16'.
---@param name string
function arguments.set_default_dtype(name)
  local code = arguments.dtype(name, 'set_default_dtype')
  if code > C.RP_BF16 then
    failure.raise("[set_default_dtype] '%s' is not a floating dtype", name)
  end
  default_dtype = name
end

---@return string
function arguments.get_default_dtype()
  return default_dtype
end

--- The code of a dtype's name; nil is the default dtype.
function arguments.dtype(name, where)
  local code = tensor.dtype_codes[name == nil and default_dtype or name]
  if not code then
    failure.raise("[%s] no dtype '%s'; there are f32, f64, bf16, i32, i64, bool",
      where, tostring(name))
  end
  return tonumber(code)
end

function arguments.rank(x)
  return C.rp_tensor_type(x.ptr).rank
end

--- Size of 0-based dim d.
function arguments.size(x, d)
  return tonumber(C.rp_tensor_type(x.ptr).dims[d])
end

local function dim_range(rank)
  if rank == 0 then return 'a scalar has no dims' end
  if rank == 1 then return 'its only dim is 1, or -1' end
  return ('dims are 1..%d, or -1..-%d from the end'):format(rank, rank)
end

--- 1-based or negative dim to 0-based.
---@param d integer
---@param rank integer
---@param where string  the function's name, for messages
---@return integer
function arguments.dim_of(d, rank, where)
  if type(d) ~= 'number' or d ~= floor(d) then
    failure.raise('[%s] a dim is a whole number, not %s', where, tostring(d))
  end
  if d == 0 then
    failure.raise('[%s] dim 0: dims count from 1; %s', where, dim_range(rank))
  end
  local index = d > 0 and d - 1 or rank + d
  if index < 0 or index >= rank then
    failure.raise('[%s] dim %d: %s', where, d, dim_range(rank))
  end
  return index
end

--- Dim d of x, 0-based.
function arguments.dim(x, d, where)
  return arguments.dim_of(d, C.rp_tensor_type(x.ptr).rank, where)
end

--- 1-based or negative position to 0-based; one past the end is allowed for
-- empty results.
function arguments.position(i, size, where, empty)
  if type(i) ~= 'number' or i ~= floor(i) or i == 0 then
    failure.raise('[%s] position %s: positions count from 1, or from the ' ..
      'end with -1', where, tostring(i))
  end
  local at = i > 0 and i - 1 or size + i
  if at < 0 or at > size or (at == size and not empty) then
    failure.raise('[%s] position %d: there are 1..%d', where, i, size)
  end
  return at
end

--- A whole number of at least `least`.
function arguments.count(n, least, where, what)
  if type(n) ~= 'number' or n ~= floor(n) or n < least then
    failure.raise('[%s] %s is a whole number of at least %d, not %s',
      where, what, least, tostring(n))
  end
  return n
end

--- A finite or infinite number.
function arguments.number(x, where, what)
  if type(x) ~= 'number' then
    failure.raise('[%s] %s is a number, not %s', where, what, type(x))
  end
  return x
end

--- Whether the last of n arguments is options: a table behind something, or
-- one without positions.
local function is_options(x, n)
  if type(x) ~= 'table' or tensor.is(x) then return false end
  return n > 1 or (#x == 0 and next(x) ~= nil)
end

local none = {}

--- Splits (2, 3, {dtype = ...}), ({2, 3}, {dtype = ...}) or
-- {2, 3, dtype = ...} into a list of sizes and the options.
---@return integer[] sizes
---@return table options
function arguments.sizes(where, ...)
  local n = select('#', ...)
  local list, options = {...}, none
  while n > 0 and list[n] == nil do n = n - 1 end
  if n > 0 and is_options(list[n], n) then
    options, list[n], n = list[n], nil, n - 1
  end
  if n == 1 and type(list[1]) == 'table' and not tensor.is(list[1]) then
    list = list[1]
    n = #list
    if options == none then options = list end
  end
  local sizes = {}
  for i = 1, n do
    local size = list[i]
    if type(size) ~= 'number' or size ~= floor(size) or size < 0 then
      failure.raise('[%s] size %d is a whole number of at least 0, not %s',
        where, i, tostring(size))
    end
    sizes[i] = size
  end
  if n > 8 then failure.raise('[%s] %d dims; 8 is the most', where, n) end
  local count = 1
  for i = 1, n do count = count * sizes[i] end
  if count >= 2^53 then
    failure.raise('[%s] (%s) is too large', where, table.concat(sizes, ','))
  end
  return sizes, options
end

--- Errors for options that the function does not know.
function arguments.options(options, known, where)
  if options == nil then return {} end
  if type(options) ~= 'table' or tensor.is(options) then
    failure.raise('[%s] options are a table, not %s', where, type(options))
  end
  for key in pairs(options) do
    if not known[key] and type(key) ~= 'number' then
      local names = {}
      for name in pairs(known) do names[#names + 1] = name end
      table.sort(names)
      failure.raise("[%s] no option '%s'; there are %s", where, tostring(key),
        table.concat(names, ', '))
    end
  end
  return options
end

return arguments
