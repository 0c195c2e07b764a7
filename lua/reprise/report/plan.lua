--- A plan as text for a person and as JSON for a program.

local json = require 'reprise.report.json'
local memory = require 'reprise.report.memory'
local units = require 'reprise.report.units'
local usage_report = require 'reprise.report.usage'

local report = {}

local BAR_CELLS = 28
-- Widths of columns.
local NAME, SHAPE = 36, 14
local EIGHTHS = {'▏', '▎', '▍', '▌', '▋', '▊', '▉'}

-- A bar of share * BAR_CELLS cells, to an eighth of one; at least the
-- thinnest for what is not nothing.
local function bar(share)
  local eighths = math.floor(share * BAR_CELLS * 8 + 0.5)
  if eighths == 0 and share > 0 then eighths = 1 end
  local rest = eighths % 8
  return ('█'):rep(math.floor(eighths / 8)) .. (EIGHTHS[rest] or '')
end

local function listed(numbers)
  if #numbers > 12 then
    return table.concat(numbers, ', ', 1, 12) .. ', ...'
  end
  return table.concat(numbers, ', ')
end

-- All that the peak is made of; the parts add up to it.
local function parts(plan)
  return {
    {'parameters', plan.parameter_bytes},
    {'buffers', plan.buffer_bytes},
    {'gradients', plan.held_gradient_bytes + plan.gradient_bytes},
    {'optimizer state', plan.optimizer_bytes},
    {'inputs', plan.input_bytes},
    {'results', plan.result_bytes},
    {'kept for backward', plan.kept_bytes},
    {'recomputed', plan.recomputed_bytes},
    {'passing values', plan.passing_bytes},
    {'workspaces', plan.workspace_bytes},
    {'fragmentation', plan.fragmentation_bytes},
  }
end
report.parts = parts

local function breakdown(plan, lines)
  local list, largest = parts(plan), 1
  for _, part in ipairs(list) do largest = math.max(largest, part[2]) end
  for _, part in ipairs(list) do
    if part[2] > 0 then
      lines[#lines + 1] = ('    %-17s %11s  %s'):format(part[1],
        units.bytes(part[2]), bar(part[2] / largest))
    end
  end
end

--- What merging a chain's blocks lost, in words; nil where none were merged.
---@param chain? reprise.FrontChain
---@return string?
function report.coarsened(chain)
  if not chain or chain.n_solved == chain.n_blocks then return nil end
  return ('%d blocks were solved as %d; on the first of them that changes the ' ..
    'time by %+.1f %% (mean over budgets), the least memory by %+.1f %%'):format(
    chain.n_blocks, chain.n_solved, 100 * chain.lost_time, 100 * chain.lost_memory)
end

--- Lines on candidates of a budget that were no plans.
---@param left_out? string[]
---@return string[]
function report.left_out(left_out)
  local lines = {}
  for i, text in ipairs(left_out or {}) do
    lines[i] = '  no candidate of a budget: ' .. text
  end
  return lines
end

-- What runs again and where: of segments, and of light values elsewhere.
local function what_again(plan)
  local light = plan.light_nodes > 0
    and ('%d cheap node%s'):format(plan.light_nodes, plan.light_nodes == 1 and '' or 's')
  if plan.recomputed_nodes == 0 then return light end
  local where = ('%d node%s%s'):format(plan.recomputed_nodes,
    plan.recomputed_nodes == 1 and '' or 's',
    plan.most_replays == 1 and ' once' or (' up to %d times, %d in all,'):format(
      plan.most_replays, plan.n_replays - plan.light_nodes))
  if #plan.layers > 0 and #plan.recomputed_layers > 0 then
    where = ('%s in %d of %d layers (%s)'):format(where,
      #plan.recomputed_layers, #plan.layers, listed(plan.recomputed_layers))
  end
  return light and ('%s, %s elsewhere'):format(where, light) or where
end

local function costs(plan, none, lines)
  lines[#lines + 1] = '  predicted: ' .. units.seconds(plan.seconds)
    .. ' a step' .. (none and plan.strategy ~= 'none'
      and (', %s under none'):format(units.seconds(none.seconds)) or '')
  local least = plan.min_budget_bytes
    and ('the least budget is ' .. units.bytes(plan.min_budget_bytes))
  if none and plan.strategy ~= 'none' then
    local more = none.peak_bytes / plan.peak_bytes - 1
    lines[#lines + 1] = ('  none would need %s (%s%s)%s'):format(
      units.bytes(none.peak_bytes), more >= 0 and '+' or '-',
      units.percent(math.abs(more)), least and '; ' .. least or '')
  elseif least then
    lines[#lines + 1] = '  ' .. least
  end
  local coarsened = report.coarsened(plan.chain)
  if coarsened then lines[#lines + 1] = '  ' .. coarsened end
  for _, line in ipairs(report.left_out(plan.left_out)) do lines[#lines + 1] = line end
  if plan.n_replays == 0 then
    lines[#lines + 1] = '  recomputed: nothing'
    return
  end
  lines[#lines + 1] = ('  recomputed: %s, %s of the forward, about %s of the '
    .. 'step'):format(what_again(plan), units.percent(plan.recompute_fraction),
    units.percent(plan.step_fraction))
end

-- `text` in `width` columns; of a longer one the middle is left out, for a
-- name begins with its layer and ends with its op.
local function fit(text, width)
  if #text <= width then return text .. (' '):rep(width - #text) end
  local head = math.floor((width - 2) / 2)
  return text:sub(1, head) .. '..' .. text:sub(#text - (width - 2 - head) + 1)
end

local function largest_values(plan, lines)
  if #plan.largest == 0 then return end
  lines[#lines + 1] = ''
  -- The column tells something only where dtypes differ.
  local mixed = false
  for _, value in ipairs(plan.largest) do
    mixed = mixed or value.dtype == 'bf16'
  end
  local function dtype(text)
    return mixed and (' %-4s'):format(text) or ''
  end
  lines[#lines + 1] = ('  %s %s%s %9s  alive because'):format(
    fit('largest at the peak', NAME), fit('shape', SHAPE), dtype '', 'size')
  for _, value in ipairs(plan.largest) do
    lines[#lines + 1] = ('  %s %s%s %9s  %s'):format(fit(value.name, NAME),
      fit(value.shape, SHAPE), dtype(value.dtype), units.bytes(value.bytes),
      value.reason)
  end
end

--- The report `--plan` prints, and printing a plan; then there is nothing to
--- compare with.
---@param plan reprise.PlanSummary
---@param none? reprise.PlanSummary the same step under `none`
---@param title? string what is trained, in one line
---@return string
function report.text(plan, none, title)
  local lines = {title or plan.strategy, ''}
  lines[#lines + 1] = ('  peak %s, while running %s (instruction %d of %d)')
    :format(units.bytes(plan.peak_bytes), plan.peak_at,
            plan.peak_instruction, plan.n_instructions)
  if plan.usage then
    lines[#lines + 1] = '  ' .. usage_report.fixed_line(plan.usage)
  end
  lines[#lines + 1] = ''
  breakdown(plan, lines)
  lines[#lines + 1] = ''
  costs(plan, none, lines)
  largest_values(plan, lines)
  if none then
    lines[#lines + 1] = ''
    lines[#lines + 1] = '  ' .. memory.verdict(plan, none)
  end
  return table.concat(lines, '\n')
end

--- The report `--plan --json` prints: one object on one line.
---@param plan reprise.PlanSummary
---@param none reprise.PlanSummary
---@return string
function report.json(plan, none)
  local segments = {}
  for i, segment in ipairs(plan.segments) do
    segments[i] = {object = {
      {'first', segment.first}, {'last', segment.last},
      {'from', segment.from}, {'to', segment.to},
      {'parent', segment.parent or json.null},
    }}
  end
  return json.object {
    {'strategy', plan.strategy},
    {'peak_bytes', plan.peak_bytes},
    {'persistent_bytes', plan.persistent_bytes},
    {'arena_bytes', plan.arena_bytes},
    {'none_peak_bytes', none.peak_bytes},
    {'recompute_fraction', plan.recompute_fraction},
    {'parameter_bytes', plan.parameter_bytes},
    {'optimizer_bytes', plan.optimizer_bytes},
    {'gradient_bytes', plan.held_gradient_bytes + plan.gradient_bytes},
    {'kept_bytes', plan.kept_bytes},
    {'recomputed_bytes', plan.recomputed_bytes},
    {'passing_bytes', plan.passing_bytes},
    {'workspace_bytes', plan.workspace_bytes},
    {'fragmentation_bytes', plan.fragmentation_bytes},
    {'input_bytes', plan.input_bytes},
    {'buffer_bytes', plan.buffer_bytes},
    {'result_bytes', plan.result_bytes},
    {'fixed_bytes', plan.usage and plan.usage.fixed_bytes},
    {'predicted_seconds', plan.seconds},
    {'min_budget_bytes', plan.min_budget_bytes},
    {'peak_instruction', plan.peak_instruction},
    {'instructions', plan.n_instructions},
    {'replays', plan.n_replays},
    {'segments', segments},
  }
end

return report
