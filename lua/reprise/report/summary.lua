--- What reports say about a plan, as plain Lua values. Indices are 1-based, as
-- in the graph that a strategy sees.

local LARGEST = 10

---@class reprise.PlanSummary
---@field strategy string
---@field peak_bytes integer
---@field persistent_bytes integer
---@field arena_bytes integer
---@field parameter_bytes integer
---@field optimizer_bytes integer
---@field held_gradient_bytes integer in .grad
---@field gradient_bytes integer in the arena, at the peak
---@field kept_bytes integer at the peak
---@field recomputed_bytes integer at the peak
---@field workspace_bytes integer at the peak
---@field passing_bytes integer at the peak, of forward values on their way
---@field buffer_bytes integer
---@field input_bytes integer
---@field result_bytes integer the loss and what else is delivered
---@field fragmentation_bytes integer what the arena has above its live bytes
---@field seconds number of a step, predicted
---@field min_budget_bytes integer? the least peak of any plan, where asked for
---@field chain reprise.FrontChain? how budgets are planned, where asked for
---@field left_out string[]? of its candidates, where asked for, with reasons
---@field recompute_fraction number replays over the forward pass, in seconds
---@field step_fraction number replays over the step, in seconds
---@field usage reprise.DeviceUsage? of its device, where that is not the CPU
---@field n_segments integer
---@field n_replays integer
---@field n_instructions integer
---@field peak_instruction integer 1-based
---@field peak_at string what runs there
---@field layers string[]
---@field recomputed_layers integer[]
---@field recomputed_nodes integer of segments, that run more than once
---@field light_nodes integer the same of what no strategy keeps
---@field most_replays integer of one node
---@field largest {name: string, shape: string, dtype: string, bytes: integer, reason: string}[]
---@field segments {first: integer, last: integer, from: string, to: string, parent: integer?}[]

local summary = {}

local function name_of(node)
  return node.scope == '' and node.op or node.scope .. '.' .. node.op
end

local function text_of(shape)
  return #shape == 0 and 'scalar' or table.concat(shape, 'x')
end

local function what_runs(graph, instruction)
  if not instruction then return 'nothing' end
  local node = graph.nodes[instruction.run or instruction.free]
  if instruction.replay then return name_of(node) .. ', again' end
  if node.backward then return name_of(node) .. ' in the backward pass' end
  return name_of(node)
end

local function reader_of(node)
  local name = node.scope ~= '' and node.scope or node.op
  return node.backward and 'backward of ' .. name or name
end

-- Why an instance is alive: what it is, and what reads it last.
local function reason_of(graph, instructions, instance)
  local node = graph.nodes[instance.node]
  if instance.workspace then return 'workspace of ' .. reader_of(node) end
  local reader = instructions[instance.read_by]
  if not reader then return 'made here' end
  local last = graph.nodes[reader.run or reader.free]
  local kind = node.backward and 'gradient' or instance.replay and 'recomputed'
    or last.backward and 'kept' or 'passing'
  return ('%s: read by %s'):format(kind, reader_of(last))
end

local function largest_at_peak(plan, graph, instructions)
  local alive, at = {}, plan.peak_instruction
  for i, instance in ipairs(plan:instances()) do
    if instance.in_arena and instance.born <= at
      and at <= (instance.read_by or instance.born) then
      instance.i = i
      alive[#alive + 1] = instance
    end
  end
  table.sort(alive, function(a, b)
    if a.size_bytes ~= b.size_bytes then return a.size_bytes > b.size_bytes end
    return a.i < b.i
  end)
  local list = {}
  for k = 1, math.min(LARGEST, #alive) do
    local instance = alive[k]
    local node = graph.nodes[instance.node]
    list[k] = {
      name = name_of(node), bytes = instance.size_bytes,
      shape = instance.shape and text_of(instance.shape) or '-',
      dtype = instance.dtype or '-',
      reason = reason_of(graph, instructions, instance),
    }
  end
  return list
end

-- The layers where something of a segment runs again; how many nodes do, and
-- how often the one that does most; then how many light nodes do.
local function recomputed(graph, instructions)
  local seen, list, times, nodes, most, light = {}, {}, {}, 0, 0, 0
  for _, instruction in ipairs(instructions) do
    local node = instruction.run
    if node and instruction.light then
      if not times[node] then light = light + 1 end
      times[node] = (times[node] or 0) + 1
    elseif node and instruction.replay then
      local layer = graph.nodes[node].layer
      if layer and not seen[layer] then
        seen[layer], list[#list + 1] = true, layer
      end
      if not times[node] then nodes = nodes + 1 end
      times[node] = (times[node] or 0) + 1
      most = math.max(most, times[node])
    end
  end
  table.sort(list)
  return list, nodes, most, light
end

local function segments_of(plan, graph)
  local list = {}
  for i, segment in ipairs(plan:segments()) do
    list[i] = {
      first = segment.first, last = segment.last, parent = segment.parent,
      from = name_of(graph.nodes[segment.first]),
      to = name_of(graph.nodes[segment.last]),
    }
  end
  return list
end

--- The numbers of a plan's summary: no list of instructions is made.
---@param plan reprise.Plan
---@return reprise.PlanSummary without its texts and lists
function summary.numbers(plan)
  return {
    strategy = plan.strategy,
    peak_bytes = plan.peak_bytes,
    persistent_bytes = plan.persistent_bytes,
    arena_bytes = plan.arena_bytes,
    parameter_bytes = plan.role_bytes.parameter,
    optimizer_bytes = plan.role_bytes.optimizer,
    held_gradient_bytes = plan.role_bytes.gradient,
    gradient_bytes = plan.gradient_bytes,
    kept_bytes = plan.kept_bytes,
    recomputed_bytes = plan.recomputed_bytes,
    workspace_bytes = plan.workspace_bytes,
    passing_bytes = plan.other_bytes,
    buffer_bytes = plan.role_bytes.buffer,
    input_bytes = plan.role_bytes.input,
    result_bytes = plan.target_bytes,
    fragmentation_bytes = plan.arena_bytes - plan.live_bytes,
    seconds = plan.step_seconds,
    recompute_fraction = plan.recompute_fraction,
    step_fraction = plan.step_seconds > 0
      and plan.replay_seconds / plan.step_seconds or 0,
    n_segments = plan.n_segments,
    n_replays = plan.n_replays,
    n_instructions = plan.n_instructions,
    peak_instruction = plan.peak_instruction,
  }
end

--- The summary of a plan.
---@param plan reprise.Plan
---@return reprise.PlanSummary
function summary.of(plan)
  local graph, instructions = plan:graph(), plan:instructions()
  local all = summary.numbers(plan)
  all.layers = {}
  for i, layer in ipairs(graph.layers) do all.layers[i] = layer.name end
  all.peak_at = what_runs(graph, instructions[plan.peak_instruction])
  all.recomputed_layers, all.recomputed_nodes, all.most_replays, all.light_nodes =
    recomputed(graph, instructions)
  all.largest = largest_at_peak(plan, graph, instructions)
  all.segments = segments_of(plan, graph)
  all.usage = plan:usage()
  return all
end

-- What reports by picture and trace say of values and of what runs.
summary.name_of, summary.what_runs = name_of, what_runs
summary.reason_of, summary.reader_of = reason_of, reader_of

return summary
