--- Input leaves that data code fills in place: they have no bytes until they
-- are first filled, so that a plan costs none.

local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'
local values = require 'reprise.values'

local C = binding.C

---@class reprise.Input
---@field tensor reprise.Tensor the leaf
---@field private dtype string
---@field private count integer
---@field private data? ffi.cdata*
local Input = {}
Input.__index = Input

local input = {}

--- A leaf of that dtype and shape.
---@param name string in messages and reports
---@param dtype string
---@param dims integer[]
---@return reprise.Input
function input.new(name, dtype, dims)
  local leaf = values.leaf(C.RP_INPUT, dtype, dims)
  failure.check(C.rp_leaf_set_name(leaf.ptr, name))
  return setmetatable({tensor = leaf, dtype = dtype, count = leaf:numel()},
    Input)
end

--- The array to fill, made when first asked for.
---@return ffi.cdata*
function Input:array()
  self.data = self.data or values.array(self.dtype, self.count)
  return self.data
end

--- Copies the array into the leaf: its next version.
function Input:commit()
  failure.check(C.rp_leaf_write(self.tensor.ptr, self:array(),
    self.count * values.element_bytes[self.dtype]))
end

return input
