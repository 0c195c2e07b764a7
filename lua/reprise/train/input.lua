--- Input leaves that data code fills in place: they have no bytes until they
-- are first filled, so that a plan costs none.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'
local tensor = require 'reprise.tensor'

local C, ctx = binding.C, binding.ctx

local element = {f32 = 'float', f64 = 'double', i32 = 'int32_t'}

---@class reprise.Input
---@field tensor reprise.Tensor the leaf
---@field private data? ffi.cdata*
local Input = {}
Input.__index = Input

local input = {}

--- A leaf of that dtype and shape.
---@param name string in messages and reports
---@param dtype 'f32'|'f64'|'i32'
---@param dims integer[]
---@return reprise.Input
function input.new(name, dtype, dims)
  local kind = ffi.new 'rp_type'
  kind.dtype, kind.rank = tensor.dtype_codes[dtype], #dims
  local count = 1
  for i, size in ipairs(dims) do
    kind.dims[i - 1], count = size, count * size
  end
  local leaf = tensor.own(C.rp_leaf(ctx, C.RP_INPUT, kind))
  failure.check(C.rp_leaf_set_name(leaf.ptr, name))
  return setmetatable({tensor = leaf, count = count, element = element[dtype]},
    Input)
end

--- The array to fill, made when first asked for.
---@return ffi.cdata*
function Input:array()
  if not self.data then
    self.data = ffi.new(self.element .. '[?]', self.count)
  end
  return self.data
end

--- Copies the array into the leaf: its next version.
function Input:commit()
  failure.check(C.rp_leaf_write(self.tensor.ptr, self:array(),
    self.count * ffi.sizeof(self.element)))
end

return input
