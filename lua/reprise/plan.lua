--- A plan, to look at: what a step will need before it has run.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'
local graph_of = require 'reprise.graph'
local report = require 'reprise.report.plan'
local summary = require 'reprise.report.summary'
local device = require 'reprise.device'
local tensor = require 'reprise.tensor'
local usage = require 'reprise.usage'

local C = binding.C

---@class reprise.Plan
---@field ptr any                    the C plan
---@field strategy string            the strategy's text
---@field peak_bytes integer         persistent + arena
---@field persistent_bytes integer   parameters, gradients, states, inputs
---@field arena_bytes integer
---@field live_bytes integer         the arena's lower bound
---@field target_bytes integer       delivered values
---@field role_bytes table           persistent bytes by role
---@field kept_bytes integer         at the fullest instruction, in the arena:
---@field recomputed_bytes integer
---@field gradient_bytes integer
---@field workspace_bytes integer
---@field other_bytes integer
---@field peak_instruction integer   1-based
---@field device string             where it runs
---@field n_instructions integer
---@field n_runs integer
---@field n_replays integer
---@field n_segments integer
---@field recompute_fraction number  replayed over forward seconds
---@field forward_flops number
---@field replay_flops number
---@field step_flops number
---@field forward_seconds number
---@field replay_seconds number
---@field step_seconds number
local Plan = {}
Plan.__index = Plan

local copied = {
  'peak_bytes', 'persistent_bytes', 'arena_bytes', 'live_bytes', 'target_bytes',
  'kept_bytes', 'recomputed_bytes', 'gradient_bytes', 'workspace_bytes',
  'other_bytes', 'n_instructions', 'n_runs', 'n_replays', 'n_segments',
  'forward_flops', 'replay_flops', 'step_flops', 'forward_seconds',
  'replay_seconds', 'step_seconds',
}

local roles = {'input', 'parameter', 'buffer', 'gradient', 'optimizer', 'number'}

local plan = {}

--- Whether programs planned from here on run chains of elementwise ops as one,
-- tile by tile: true at first. Values are the same to the last bit; without it
-- each op is a node of its own in plans and traces.
---@param on boolean
---@return boolean before  the setting so far
function plan.fusion(on)
  if type(on) ~= 'boolean' then
    failure.raise('[fusion] true or false is wanted, not %s', tostring(on))
  end
  return C.rp_fusion_enable(binding.ctx, on)
end

--- Whether programs planned from here on let updates of parameters wait for each
-- other, to be handed over together, where the device gains by it and no byte of the
-- peak is lost: true at first. Values are the same to the last bit.
---@param on boolean
---@return boolean before  the setting so far
function plan.gathering(on)
  if type(on) ~= 'boolean' then
    failure.raise('[gathering] true or false is wanted, not %s', tostring(on))
  end
  return C.rp_gathering_enable(binding.ctx, on)
end

--- The Lua plan of a counted C plan, which it holds.
---@return reprise.Plan
function plan.new(ptr, strategy)
  local info = ffi.new 'rp_plan_info'
  C.rp_plan_describe(ptr, info)
  local self = {ptr = ptr, strategy = strategy, role_bytes = {}}
  for _, name in ipairs(copied) do self[name] = tonumber(info[name]) end
  for i, role in ipairs(roles) do
    self.role_bytes[role] = tonumber(info.role_bytes[i - 1])
  end
  self.device = device.name(info.device)
  self.peak_instruction = info.peak_instruction + 1
  self.recompute_fraction = self.forward_seconds > 0 and
    self.replay_seconds / self.forward_seconds or 0
  return setmetatable(self, Plan)
end

--- The graph that the plan is of, as a strategy sees it.
---@return reprise.Graph
function Plan:graph()
  local graph = rawget(self, 'cached_graph') or graph_of(self.ptr)
  if not graph then failure.from_core() end
  self.cached_graph = graph
  return graph
end

--- The segments that marks and strategy made together, outer before inner:
-- {first, last, keep, parent}, parent a position in this list or nil.
---@return table[]
function Plan:segments()
  local list, out = {}, ffi.new 'rp_segment'
  for i = 0, self.n_segments - 1 do
    failure.check(C.rp_plan_segment(self.ptr, i, out))
    local keep = {}
    for k = 0, out.n_keep - 1 do keep[k + 1] = out.keep[k] + 1 end
    list[i + 1] = {
      first = out.first + 1, last = out.last + 1, keep = keep,
      parent = out.parent >= 0 and out.parent + 1 or nil,
    }
  end
  return list
end

--- The program: {run = node} or {free = node, output = k}, with replay, joins (an
-- update handed over together with the one before) and live_bytes (in the arena
-- once it has run).
---@return table[]
function Plan:instructions()
  local list, out = {}, ffi.new 'rp_instruction_info'
  for i = 0, self.n_instructions - 1 do
    failure.check(C.rp_plan_instruction(self.ptr, i, out))
    local entry = {
      replay = out.replay, light = out.light, joins = out.joins,
      live_bytes = tonumber(out.live_bytes),
    }
    if out.opcode == C.RP_OP_RUN then
      entry.run = out.node + 1
    else
      entry.free, entry.output, entry.instance = out.node + 1, out.output + 1,
        out.instance + 1
    end
    list[i + 1] = entry
  end
  return list
end

--- Value instances and workspaces in the arena: {node, output, shape, dtype, born,
-- dead, read_by, offset, size_bytes, replay, workspace, in_arena}; positions
-- from 1, no shape and dtype of a workspace.
---@return table[]
function Plan:instances()
  local list, out = {}, ffi.new 'rp_instance_info'
  for i = 0, C.rp_plan_instances(self.ptr) - 1 do
    failure.check(C.rp_plan_instance(self.ptr, i, out))
    local shape = {}
    for d = 1, out.type.rank do shape[d] = tonumber(out.type.dims[d - 1]) end
    list[i + 1] = {
      node = out.node + 1, output = out.output + 1,
      shape = not out.workspace and shape or nil,
      dtype = not out.workspace and tensor.dtype_names[out.type.dtype] or nil,
      born = out.born + 1, dead = out.dead + 1,
      read_by = out.read_by >= 0 and out.read_by + 1 or nil,
      offset = tonumber(out.offset), size_bytes = tonumber(out.size_bytes),
      replay = out.replay, workspace = out.workspace, in_arena = out.in_arena,
    }
  end
  return list
end

--- The time-memory front of the same step, least memory first: the least
-- budget is front()[1].peak_bytes.
---@return reprise.FrontPoint[]
function Plan:front()
  local ok, points = pcall(function() return graph_of(self.ptr).front() end)
  if not ok then failure.raise('[plan] %s', tostring(points)) end
  return points
end

--- The high-water mark that the last run measured; equals peak_bytes.
---@return integer
function Plan:measured_peak()
  return tonumber(C.rp_plan_measured_peak(self.ptr))
end

--- Seconds that the last run took where it ran; on a device, this waits for it.
---@return number
function Plan:measured_seconds()
  return C.rp_plan_measured_seconds(self.ptr)
end

--- Seconds until the last run had been handed over to its device; on the CPU,
-- what it took.
---@return number
function Plan:launch_seconds()
  return C.rp_plan_launch_seconds(self.ptr)
end

--- What is in use on its device by now; nil on the CPU.
---@return reprise.DeviceUsage?
function Plan:usage()
  return usage.of(self.device)
end

--- The report: the peak, what it is made of, what is recomputed.
function Plan.__tostring(self)
  local whole = summary.of(self)
  if C.rp_plan_has_front(self.ptr) then whole.left_out = self:front().left_out end
  return report.text(whole)
end

return plan
