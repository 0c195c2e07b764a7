--- Selection by integer tensors. Numbers inside tensors are 0-based, as in
-- the files that they come from; dims are 1-based.

local arguments = require 'reprise.ops.arguments'
local record = require 'reprise.ops.record'
local tensor = require 'reprise.tensor'
local binding = require 'reprise.ffi'

local C = binding.C
local ints, pointer = record.ints, tensor.pointer

local index = {}

local embedding = record.op 'embedding'
--- Rows of weight (V, C) for the indices: (...) -> (..., C). PyTorch's
-- order is (indices, weight); the integer one is taken as the indices.
function index.embedding(indices, weight)
  pointer(indices, 'embedding')
  pointer(weight, 'embedding')
  if C.rp_tensor_type(indices.ptr).dtype <= C.RP_BF16 then
    indices, weight = weight, indices
  end
  return record.two(embedding, weight, indices)
end

local index_select = record.op 'index_select'
--- Positions `indices` (1-D, 0-based) of dim.
function index.index_select(x, dim, indices)
  pointer(x, 'index_select')
  pointer(indices, 'index_select')
  ints[0] = arguments.dim(x, dim, 'index_select')
  return record.two(index_select, x, indices, 1)
end

local gather = record.op 'gather'
--- y[i][j][k] = x[indices[i][j][k]][j][k] for dim 1; 0-based indices.
function index.gather(x, dim, indices)
  pointer(x, 'gather')
  pointer(indices, 'gather')
  ints[0] = arguments.dim(x, dim, 'gather')
  return record.two(gather, x, indices, 1)
end

return index
