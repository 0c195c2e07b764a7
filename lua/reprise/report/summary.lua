--- What reports say about a plan, as plain Lua values, read once from the
-- core. Indices are 1-based, as in the graph that a strategy sees.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'

local C = binding.C

local LARGEST = 8

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
---@field recompute_fraction number replays over the forward pass, in seconds
---@field step_fraction number replays over the step, in seconds
---@field n_segments integer
---@field n_replays integer
---@field n_instructions integer
---@field peak_instruction integer 0-based
---@field peak_at string what runs there
---@field layers string[]
---@field recomputed_layers integer[]
---@field largest {name: string, shape: string, bytes: integer, reason: string}[]
---@field segments {first: integer, last: integer, from: string, to: string, parent: integer?}[]

local summary = {}

local function name_of(node)
  local scope, op = ffi.string(node.scope), ffi.string(node.op)
  return scope == '' and op or scope .. '.' .. op
end

local function shape_of(type)
  local dims = {}
  for i = 0, type.rank - 1 do dims[i + 1] = tostring(tonumber(type.dims[i])) end
  return #dims == 0 and 'scalar' or table.concat(dims, 'x')
end

local function running(plan, view, i)
  local instruction = ffi.new 'rp_instruction_info'
  if C.rp_plan_instruction(plan, i, instruction) ~= C.RP_OK then return end
  return view.nodes[instruction.node], instruction
end

local function what_runs(plan, view, i)
  local node, instruction = running(plan, view, i)
  if not node then return 'nothing' end
  if instruction.replay then return name_of(node) .. ', again' end
  if node.backward then return name_of(node) .. ' of the backward pass' end
  return name_of(node)
end

local function reason_of(plan, view, instance)
  if instance.workspace then return 'scratch of the kernel that runs' end
  if instance.read_by < 0 then return 'the result of what runs' end
  local reader = running(plan, view, instance.read_by)
  if not reader then return 'read later' end
  local prefix = instance.replay and 'recomputed; ' or ''
  return ('%s%s reads it%s'):format(prefix, ffi.string(reader.op),
    reader.backward and '' or ' in the forward pass')
end

local function largest_at_peak(plan, view, info)
  local alive, at = {}, info.peak_instruction
  local instance = ffi.new 'rp_instance_info'
  for i = 0, C.rp_plan_instances(plan) - 1 do
    if C.rp_plan_instance(plan, i, instance) == C.RP_OK and instance.in_arena
      and instance.born <= at and at <= instance.dead
    then
      alive[#alive + 1] = {i = i, bytes = tonumber(instance.size_bytes)}
    end
  end
  table.sort(alive, function(a, b)
    if a.bytes ~= b.bytes then return a.bytes > b.bytes end
    return a.i < b.i
  end)
  local list = {}
  for k = 1, math.min(LARGEST, #alive) do
    C.rp_plan_instance(plan, alive[k].i, instance)
    local node = view.nodes[instance.node]
    list[k] = {
      name = name_of(node), bytes = alive[k].bytes,
      shape = (instance.workspace or instance.output > 0) and '-'
        or shape_of(node.type),
      reason = reason_of(plan, view, instance),
    }
  end
  return list
end

local function recomputed_layers(plan, view, info)
  local seen, list = {}, {}
  local instruction = ffi.new 'rp_instruction_info'
  for i = 0, info.n_instructions - 1 do
    C.rp_plan_instruction(plan, i, instruction)
    if instruction.opcode == C.RP_OP_RUN and instruction.replay then
      local layer = view.nodes[instruction.node].layer
      if layer >= 0 and not seen[layer] then
        seen[layer], list[#list + 1] = true, layer + 1
      end
    end
  end
  table.sort(list)
  return list
end

local function segments_of(plan, view, info)
  local list, segment = {}, ffi.new 'rp_segment'
  for i = 0, info.n_segments - 1 do
    C.rp_plan_segment(plan, i, segment)
    list[i + 1] = {
      first = segment.first + 1, last = segment.last + 1,
      from = name_of(view.nodes[segment.first]),
      to = name_of(view.nodes[segment.last]),
      parent = segment.parent >= 0 and segment.parent + 1 or nil,
    }
  end
  return list
end

--- The summary of a finished plan.
---@param plan ffi.cdata* rp_plan *, borrowed
---@param strategy string
---@return reprise.PlanSummary
function summary.of(plan, strategy)
  local info = ffi.new 'rp_plan_info'
  C.rp_plan_describe(plan, info)
  local view = C.rp_plan_view(plan)
  local function bytes(field) return tonumber(info[field]) end
  local function role(r) return tonumber(info.role_bytes[tonumber(r)]) end
  local layers = {}
  for i = 0, view.n_layers - 1 do
    layers[i + 1] = ffi.string(view.layers[i].name)
  end
  local function share(of)
    return of > 0 and info.replay_seconds / of or 0
  end
  return {
    strategy = strategy,
    peak_bytes = bytes 'peak_bytes',
    persistent_bytes = bytes 'persistent_bytes',
    arena_bytes = bytes 'arena_bytes',
    parameter_bytes = role(C.RP_PARAMETER),
    optimizer_bytes = role(C.RP_OPTIMIZER),
    held_gradient_bytes = role(C.RP_GRADIENT),
    gradient_bytes = bytes 'gradient_bytes',
    kept_bytes = bytes 'kept_bytes',
    recomputed_bytes = bytes 'recomputed_bytes',
    workspace_bytes = bytes 'workspace_bytes',
    recompute_fraction = share(info.forward_seconds),
    step_fraction = share(info.step_seconds),
    n_segments = info.n_segments,
    n_replays = info.n_replays,
    n_instructions = info.n_instructions,
    peak_instruction = info.peak_instruction,
    peak_at = what_runs(plan, view, info.peak_instruction),
    layers = layers,
    recomputed_layers = recomputed_layers(plan, view, info),
    largest = largest_at_peak(plan, view, info),
    segments = segments_of(plan, view, info),
  }
end

return summary
