--- A device's memory in words: what plans promise, what its driver says, and
-- what libraries and context take, which is no plan's.

local units = require 'reprise.report.units'

local usage = {}

--- What libraries and context take, in one line.
---@param of reprise.DeviceUsage
---@return string
function usage.fixed_line(of)
  local parts = {}
  for _, part in ipairs(of.fixed) do
    if part.bytes ~= 0 then
      parts[#parts + 1] = ('%s %s'):format(part.name, units.bytes(part.bytes))
    end
  end
  return ('libraries and context: %s, fixed, not in the peak (%s)'):format(
    units.bytes(of.fixed_bytes), table.concat(parts, ', '))
end

--- The driver's figure beside what is accounted, libraries and context apart.
---@param of reprise.DeviceUsage
---@return string
function usage.driver_line(of)
  local own = of.driver_bytes - of.fixed_bytes
  local more = own - of.allocated_bytes
  local share = math.abs(more) / math.max(of.allocated_bytes, 1)
  return ('%s accounted now, %s by the driver (%s%s %s, in whole pages)'):format(
    units.bytes(of.allocated_bytes), units.bytes(own), units.bytes(math.abs(more)),
    share < 1 and ' or ' .. units.percent(share) or '', more < 0 and 'less' or 'more')
end

--- All figures, a line each.
---@param of reprise.DeviceUsage
---@param title string
---@param free integer
---@param total integer
---@return string
function usage.text(of, title, free, total)
  local lines = {title}
  local function row(what, bytes, text)
    lines[#lines + 1] = (('  %-22s %10s  %s'):format(what, units.bytes(bytes), text or '')
      :gsub('%s+$', ''))
  end
  row('accounted', of.allocated_bytes, ('at most %s so far'):format(
    units.bytes(of.max_allocated_bytes)))
  row('pages behind it', of.reserved_bytes)
  row('libraries and context', of.fixed_bytes, "in no plan's peak")
  for _, part in ipairs(of.fixed) do row('  ' .. part.name, part.bytes) end
  row('all, by the driver', of.driver_bytes, 'since the device was opened')
  row('free', free, 'of ' .. units.bytes(total))
  return table.concat(lines, '\n')
end

return usage
