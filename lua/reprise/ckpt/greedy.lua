--- Evict when the next node does not fit: dynamic tensor rematerialization
-- (reprise.eviction), simulated before anything runs.
-- @param amount  as budget takes it: bytes, '40%' or 'min'; it bounds the whole
--                peak
--
-- The simulation counts live bytes; workspaces beside each other, fragmentation
-- and FREEs right behind the last read come with the layout. So the simulated
-- limit that makes a peak fit is searched for: on a ladder of limits, the same
-- one whatever the budget, then between two of its rungs.

local amounts = require 'reprise.amount'
local eviction = require 'reprise.eviction'

-- Rungs from what all values need down to the largest node; each is a fixed
-- factor below the one before.
local RUNGS = 24
-- Halvings of the interval between two rungs.
local HALVINGS = 6

--- A point of the search: the plan that a simulated limit gives, nil where
-- there is none.
local function try(graph, m, limit)
  local steps, most = eviction.simulate(m, limit)
  if not steps then return nil end
  local answer = {program = steps}
  local peak_bytes, seconds = graph.evaluate(answer)
  return {limit = limit, live_bytes = most, answer = answer,
    peak_bytes = peak_bytes, seconds = seconds}
end

--- The ladder: limit(k) of rung k, 0 the top, and point(k), false where that
-- limit cannot be met.
local function ladder_of(graph, m)
  local top = try(graph, m, math.huge)
  top.limit = top.live_bytes
  local factor = math.min(1, m.least_bytes / top.limit) ^ (1 / RUNGS)
  local tried = {[0] = top}
  local function limit(k) return math.floor(top.limit * factor ^ k) end
  local function point(k)
    if tried[k] == nil then tried[k] = try(graph, m, limit(k)) or false end
    return tried[k]
  end
  return {limit = limit, point = point}
end

--- A rung that fits below one that does not, by bisection; 0 where the top
-- fits, nil where it meets none: a lower limit need not give a lower peak.
local function bisect(ladder, budget)
  if ladder.point(0).peak_bytes <= budget then return 0 end
  local high, low, found = 0, RUNGS + 1, nil
  while low - high > 1 do
    local k = math.floor((low + high) / 2)
    local point = ladder.point(k)
    if point and point.peak_bytes > budget then
      high = k
    else
      low = k
      if point then found = k end
    end
  end
  return found
end

--- All rungs, and points between the lowest that can be met and the next.
local function all_points(graph, m, ladder)
  local list, lowest = {}, 0
  for k = 0, RUNGS do
    local point = ladder.point(k)
    if point then list[#list + 1], lowest = point, k end
  end
  if lowest == RUNGS then return list end
  local high, low = ladder.limit(lowest), ladder.limit(lowest + 1)
  for _ = 1, HALVINGS do
    local limit = math.floor((low + high) / 2)
    local point = try(graph, m, limit)
    if point then
      list[#list + 1], high = point, limit
    else
      low = limit
    end
  end
  return list
end

--- Between a limit whose plan fits and a higher one whose plan does not: the
-- fastest that fits.
local function refine(graph, m, fits, above, budget)
  local best, low, high = fits, fits.limit, above.limit
  for _ = 1, HALVINGS do
    local limit = math.floor((low + high) / 2)
    local point = limit > low and limit < high and try(graph, m, limit)
    if point and point.peak_bytes <= budget then
      low = limit
      if point.seconds < best.seconds then best = point end
    else
      high = limit
    end
  end
  return best
end

local function least_of(list)
  local least = list[1]
  for _, point in ipairs(list) do
    if point.peak_bytes < least.peak_bytes then least = point end
  end
  return least
end

local function fastest_within(list, budget)
  local best
  for _, point in ipairs(list) do
    if point.peak_bytes <= budget and (not best or point.seconds < best.seconds) then
      best = point
    end
  end
  return best
end

return function(argument)
  local amount = amounts.parse(argument, 'greedy')
  return function(graph)
    local m = eviction.model(graph)
    local ladder = ladder_of(graph, m)
    if amount.least then return least_of(all_points(graph, m, ladder)).answer end
    local persistent = graph.persistent_bytes
    local budget = amounts.bytes(amount, persistent, (graph.evaluate {}))
    local k = bisect(ladder, budget)
    if k then
      local above = k > 0 and ladder.point(k - 1)
      local point = ladder.point(k)
      return (above and refine(graph, m, point, above, budget) or point).answer
    end
    local list = all_points(graph, m, ladder)
    local best = fastest_within(list, budget)
    if best then return best.answer end
    return amounts.refuse(budget, least_of(list).peak_bytes, persistent, 'greedy')
  end
end
