--- A program over its RUN instructions, as plain numbers for pictures and
-- traces: what is in memory at each, by kind, and where it lies.

local summary = require 'reprise.report.summary'

local timeline = {}

--- Kinds of what the arena holds, from the bottom of a stack upward.
timeline.kinds = {'kept', 'recomputed', 'passing', 'gradient', 'workspace'}

local function kind_of(instance, node, graph, instructions)
  if instance.workspace then return 'workspace' end
  if node.backward then return 'gradient' end
  if instance.replay then return 'recomputed' end
  local reader = instructions[instance.read_by]
  local last = reader and graph.nodes[reader.run or reader.free]
  return last and last.backward and 'kept' or 'passing'
end

-- The layer whose scope a node was recorded under; backward nodes carry the
-- scope of what they are the gradient of.
local function layer_of(node, layers)
  for i, layer in ipairs(layers) do
    if node.scope == layer.name
      or node.scope:sub(1, #layer.name + 1) == layer.name .. '.' then
      return i
    end
  end
end

---@class reprise.TimelineRun
---@field name string
---@field op string
---@field kind 'forward'|'replay'|'backward'|'update'
---@field layer? integer
---@field instruction integer 1-based
---@field live_bytes integer in the arena
---@field seconds number predicted

---@class reprise.TimelineBox
---@field first integer the run that makes it
---@field last integer the run that reads it last
---@field offset integer
---@field size_bytes integer
---@field kind string of timeline.kinds
---@field name string
---@field reason string

---@class reprise.Timeline
---@field runs reprise.TimelineRun[]
---@field boxes reprise.TimelineBox[]
---@field live table<string, integer[]> bytes by kind and run
---@field peak integer the run where most is live
---@field persistent_bytes integer
---@field arena_bytes integer

-- Updates and sums of gradients have no scope; amid a layer's runs they belong
-- to it.
local function fill_layers(runs)
  local from
  for i, run in ipairs(runs) do
    if run.layer then
      if from and runs[from].layer == run.layer
        and runs[from].kind ~= 'forward' then
        for k = from + 1, i - 1 do runs[k].layer = run.layer end
      end
      from = i
    end
  end
end

local function runs_of(graph, instructions)
  local runs, at = {}, {}
  for i, instruction in ipairs(instructions) do
    if instruction.run then
      local node = graph.nodes[instruction.run]
      runs[#runs + 1] = {
        name = summary.name_of(node), op = node.op, instruction = i,
        kind = instruction.replay and 'replay' or node.effect and node.backward
          and 'update' or node.backward and 'backward' or 'forward',
        layer = layer_of(node, graph.layers),
        live_bytes = instruction.live_bytes,
        seconds = node.seconds,
      }
    end
    at[i] = math.max(#runs, 1)
  end
  fill_layers(runs)
  return runs, at
end

-- Bytes that are taken over in place at a run belong to the new value there.
local function counted_last(box, starts)
  for _, other in ipairs(starts[box.last] or {}) do
    if other ~= box and other.first > box.first and other.offset == box.offset
      and other.size_bytes == box.size_bytes and other.kind ~= 'workspace' then
      return box.last - 1
    end
  end
  return box.last
end

--- The timeline of a plan.
---@param plan reprise.Plan
---@return reprise.Timeline
function timeline.of(plan)
  local graph, instructions = plan:graph(), plan:instructions()
  local runs, at = runs_of(graph, instructions)
  local boxes, starts = {}, {}
  for _, instance in ipairs(plan:instances()) do
    if instance.in_arena and instance.size_bytes > 0 then
      local node = graph.nodes[instance.node]
      local box = {
        first = at[instance.born], last = at[instance.read_by or instance.born],
        offset = instance.offset, size_bytes = instance.size_bytes,
        kind = kind_of(instance, node, graph, instructions),
        name = summary.name_of(node),
        reason = summary.reason_of(graph, instructions, instance),
      }
      boxes[#boxes + 1] = box
      starts[box.first] = starts[box.first] or {}
      table.insert(starts[box.first], box)
    end
  end
  local live = {}
  for _, kind in ipairs(timeline.kinds) do
    live[kind] = {}
    for i = 1, #runs do live[kind][i] = 0 end
  end
  for _, box in ipairs(boxes) do
    local bytes = live[box.kind]
    for i = box.first, counted_last(box, starts) do
      bytes[i] = bytes[i] + box.size_bytes
    end
  end
  return {
    runs = runs, boxes = boxes, live = live, peak = at[plan.peak_instruction],
    persistent_bytes = plan.persistent_bytes, arena_bytes = plan.arena_bytes,
    layers = graph.layers,
  }
end

return timeline
