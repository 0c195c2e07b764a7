--- The memory report at the start and at the end of training: one column for
-- the chosen strategy, one for `none`.

local units = require 'reprise.report.units'

local memory = {}

--- What the peak is made of, in the order reports list it. The parts add up
--- to peak_bytes.
---@param plan reprise.PlanSummary
---@return {[1]: string, [2]: integer}[]
function memory.parts(plan)
  local activations = plan.kept_bytes + plan.recomputed_bytes
  local rest = plan.peak_bytes - plan.parameter_bytes - plan.optimizer_bytes
    - plan.held_gradient_bytes - plan.gradient_bytes - activations
    - plan.workspace_bytes
  return {
    {'parameters', plan.parameter_bytes},
    {'gradients', plan.held_gradient_bytes + plan.gradient_bytes},
    {'optimizer state', plan.optimizer_bytes},
    {'activations', activations},
    {'workspaces', plan.workspace_bytes},
    {'inputs and rest', rest},
  }
end

--- Which share of `none`'s peak is saved, negative where it is exceeded.
local function saved(plan, none)
  return 1 - plan.peak_bytes / none.peak_bytes
end

--- The line that says whether, and how well, checkpointing works.
---@param plan reprise.PlanSummary
---@param none reprise.PlanSummary
---@return string
function memory.verdict(plan, none)
  if plan.strategy == 'none' and plan.n_segments == 0 then
    return 'Activation checkpointing: DISABLED (use --ckpt every=2, --ckpt '
      .. 'sqrt, ... to save memory)'
  end
  local share = saved(plan, none)
  return ('Activation checkpointing: ENABLED (%s: peak %s, %s %s none, '
    .. 'recomputes %s of the forward)'):format(plan.strategy,
    units.bytes(plan.peak_bytes), units.percent(math.abs(share)),
    share >= 0 and 'below' or 'above',
    units.percent(plan.recompute_fraction))
end

--- The table and the verdict.
---@param plan reprise.PlanSummary
---@param none reprise.PlanSummary
---@return string
function memory.text(plan, none)
  local same = plan.strategy == 'none'
  local chosen, other = memory.parts(plan), memory.parts(none)
  local width = math.max(12, #plan.strategy)
  local line = '  %-20s%' .. width .. 's' .. (same and '' or '%14s')
  local lines = {line:format('memory at the peak', plan.strategy, 'none')}
  local function row(name, bytes, none_bytes)
    lines[#lines + 1] = line:format(name, units.bytes(bytes),
      units.bytes(none_bytes)):gsub('%s+$', '')
  end
  for i, part in ipairs(chosen) do row(part[1], part[2], other[i][2]) end
  row('peak', plan.peak_bytes, none.peak_bytes)
  lines[1] = lines[1]:gsub('%s+$', '')
  return table.concat(lines, '\n') .. '\n\n' .. memory.verdict(plan, none)
end

return memory
