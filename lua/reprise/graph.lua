--- The graph of a plan as a strategy sees it: plain Lua tables, positions
-- from 1, forward nodes first.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local front_of = require 'reprise.front'
local segments = require 'reprise.segments'
local tensor = require 'reprise.tensor'

local C = binding.C

---@class reprise.GraphNode
---@field first integer  its own position, as is last: a node can be a segment
---@field last integer
---@field op string
---@field scope string
---@field shape integer[]
---@field dtype string
---@field bytes integer             of all its outputs
---@field workspace_bytes integer
---@field seconds number
---@field flops number
---@field inputs integer[]          producing nodes; -k is leaf k
---@field random boolean
---@field costly boolean
---@field kept boolean              marked by t:keep()
---@field mark integer              innermost rp.checkpoint, 0 none
---@field backward boolean
---@field effect boolean
---@field read_by_backward boolean
---@field layer integer?            position in graph.layers
---@field block integer?            position in graph.blocks

---@class reprise.GraphSpan
---@field name string
---@field first integer
---@field last integer
---@field input_bytes integer
---@field saved_bytes integer
---@field seconds number
---@field flops number

---@class reprise.Graph
---@field n_forward integer         nodes 1..n_forward are the forward pass
---@field nodes reprise.GraphNode[]
---@field layers reprise.GraphSpan[]
---@field blocks reprise.GraphSpan[]
---@field persistent_bytes integer  of the step, whatever the strategy
---@field front fun(): reprise.Front  the time-memory front
---@field evaluate fun(answer: table): integer, number  exact peak in bytes and
-- predicted seconds of what a strategy may return

local function optional(index)
  if index < 0 then return nil end
  return index + 1
end

local function node_of(view, index)
  local inputs = {}
  for k = 0, view.n_inputs - 1 do
    local input = view.inputs[k]
    inputs[k + 1] = input >= 0 and input + 1 or input
  end
  return {
    first = index, last = index,
    op = ffi.string(view.op), scope = ffi.string(view.scope),
    shape = tensor.shape_of(view.type),
    dtype = tensor.dtype_names[view.type.dtype],
    bytes = tonumber(view.bytes),
    workspace_bytes = tonumber(view.workspace_bytes),
    seconds = view.seconds, flops = view.flops, inputs = inputs,
    random = view.random, costly = view.costly, kept = view.kept,
    mark = view.mark, backward = view.backward, effect = view.effect,
    read_by_backward = view.read_by_backward,
    layer = optional(view.layer), block = optional(view.block),
  }
end

local function spans_of(array, n)
  local spans = {}
  for i = 0, n - 1 do
    local span = array[i]
    spans[i + 1] = {
      name = ffi.string(span.name), first = span.first + 1, last = span.last + 1,
      input_bytes = tonumber(span.input_bytes),
      saved_bytes = tonumber(span.saved_bytes),
      seconds = span.seconds, flops = span.flops,
    }
  end
  return spans
end

--- Exact peak and predicted seconds of an answer, or an error text without
-- position.
local function evaluate(plan, shape, answer)
  local point = ffi.new 'rp_front_point'
  -- The point borrows them.
  local steps, flat
  if answer.program ~= nil then
    steps, point.n_steps = segments.program(answer.program, shape.n_nodes)
    point.steps = steps
  else
    flat = segments.flatten(answer, shape.n_forward)
    point.segments, point.n_segments = flat.array, flat.n
  end
  local status = C.rp_plan_evaluate(plan, point)
  if status ~= C.RP_OK then
    error(ffi.string(C.rp_message(binding.ctx)), 0)
  end
  return tonumber(point.peak_bytes), point.seconds
end

--- The graph of a C plan.
---@return reprise.Graph? nil when the core refused, with its message
return function(plan)
  local view = C.rp_plan_view(plan)
  if view == nil then return nil end
  local nodes = {}
  for i = 0, view.n_nodes - 1 do nodes[i + 1] = node_of(view.nodes[i], i + 1) end
  local shape = {n_nodes = view.n_nodes, n_forward = view.n_forward}
  local info = ffi.new 'rp_plan_info'
  C.rp_plan_describe(plan, info)
  local graph
  graph = {
    persistent_bytes = tonumber(info.persistent_bytes),
    front = function() return front_of(plan, graph) end,
    evaluate = function(answer) return evaluate(plan, shape, answer) end,
    n_forward = view.n_forward,
    nodes = nodes,
    layers = spans_of(view.layers, view.n_layers),
    blocks = spans_of(view.blocks, view.n_blocks),
  }
  return graph
end
