--- A loader of batches of fixed shapes. Each field has two leaves that are
-- refilled alternately: the graph of the step before still finds the values
-- that it recorded, and a step finds its plan again, for nothing but bytes
-- changes.

local binding = require 'reprise.ffi'
local arguments = require 'reprise.ops.arguments'
local failure = require 'reprise.failure'
local values = require 'reprise.values'

local C = binding.C

---@class reprise.Loader
---@field batches integer  how many have been filled
local Loader = {}
Loader.__index = Loader

local function field_of(given, i)
  local where = 'data.loader'
  if type(given) ~= 'table' then
    failure.raise("[%s] field %d is a %s, not a shape {8, 256, dtype = 'i32'}", where, i,
      type(given))
  end
  local options = arguments.options(given, {dtype = true, shape = true}, where)
  local sizes = arguments.sizes(where, given.shape or {unpack(given)})
  local dtype = options.dtype or arguments.get_default_dtype()
  arguments.dtype(dtype, where)
  local n = 1
  for _, size in ipairs(sizes) do n = n * size end
  return {
    array = values.array(dtype, n), n = n,
    size_bytes = n * values.element_bytes[dtype],
    leaves = {
      values.leaf(C.RP_INPUT, dtype, sizes), values.leaf(C.RP_INPUT, dtype, sizes),
    },
  }
end

--- A loader.
--
--   local batches = rp.data.loader({
--     {8, 256, dtype = 'i32'}, {8, 256, dtype = 'i32'},
--   }, function(x, y, step) for i = 0, 8 * 256 - 1 do x[i], y[i] = ... end end)
--   for step = 1, steps do local x, y = batches:next() ... end
--
---@param fields table[]  shapes with their dtype, one for each tensor
---@param fill fun(...): boolean?  gets an FFI array (0-based, flat) for each
-- field and the batch's number; false ends the loader
---@return reprise.Loader
local function loader(fields, fill)
  if type(fields) ~= 'table' or #fields == 0 or type(fill) ~= 'function' then
    failure.raise('[data.loader] a list of shapes and a function that fills ' ..
      'their arrays are wanted')
  end
  local self = setmetatable({fields = {}, arrays = {}, fill = fill, batches = 0}, Loader)
  for i, given in ipairs(fields) do
    self.fields[i] = field_of(given, i)
    self.arrays[i] = self.fields[i].array
  end
  return self
end

--- The next batch as tensors, one for each field; nil when fill said false.
-- They hold their values until the call after the next.
---@return reprise.Tensor? ...
function Loader:next()
  self.arrays[#self.fields + 1] = self.batches + 1
  if self.fill(unpack(self.arrays, 1, #self.fields + 1)) == false then return nil end
  self.batches = self.batches + 1
  local which = self.batches % 2 + 1
  local out = {}
  for i, field in ipairs(self.fields) do
    out[i] = field.leaves[which]
    failure.check(C.rp_leaf_write(out[i].ptr, field.array, field.size_bytes))
  end
  return unpack(out)
end

--- for x, y in batches:each() do ... end, until fill says false.
function Loader:each()
  return function() return self:next() end
end

return loader
