--- The fastest plan whose exact peak (persistent bytes and arena) fits.
-- @param amount  bytes: a number, '300MiB', '2GiB', '1.5GB'; '40%' of what
--                `none` needs above the persistent bytes; 'min', the least
--                there is

local units = require 'reprise.report.units'

local usage = "bytes, as in budget=2GiB or budget=300MiB, a share of what " ..
  '`none` needs, as in budget=40%, or budget=min'

--- 'min', a share in (0, 1], or bytes.
local function parse(amount)
  if amount == nil or amount == true or amount == '' then
    error('the amount is missing: ' .. usage, 0)
  end
  local text = tostring(amount)
  if text == 'min' then return 'min' end
  local share = text:match '^%s*([%d%.]+)%s*%%%s*$'
  if share then
    share = tonumber(share)
    if not share or share <= 0 or share > 100 then
      error(('%s: a share is above 0 %% and at most 100 %%'):format(text), 0)
    end
    return 'share', share / 100
  end
  local bytes = units.parse_bytes(amount)
  if not bytes then
    error(('%s is no amount: %s'):format(text, usage), 0)
  end
  return 'bytes', bytes
end

local function human(bytes)
  if bytes >= 2^30 then return ('%.2f GiB'):format(bytes / 2^30) end
  return ('%.1f MiB'):format(bytes / 2^20)
end

return function(amount)
  local kind, size = parse(amount)
  return function(graph)
    local front = graph.front()
    local least = front[1]
    if kind == 'min' then return least.answer end
    local persistent = graph.persistent_bytes
    local budget = size
    if kind == 'share' then
      budget = persistent + size * (front.none_bytes - persistent)
    end
    if budget < least.peak_bytes then
      error(('budget %s (%.0f bytes) cannot be met: the least for this model is %s ' ..
        '(%.0f bytes), of which %s are parameters, optimizer state and the like'):format(
        human(budget), budget, human(least.peak_bytes), least.peak_bytes, human(persistent)), 0)
    end
    local best
    for _, point in ipairs(front) do
      if point.peak_bytes <= budget then best = point end
    end
    return best.answer
  end
end
