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
local rungs = require 'reprise.rungs'

--- A rung that fits below one that does not, by bisection; 0 where the top
-- fits, nil where it meets none: a lower limit need not give a lower peak.
local function bisect(ladder, budget)
  if ladder.point(0).peak_bytes <= budget then return 0 end
  local high, low, found = 0, rungs.count + 1, nil
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

--- Between a limit whose plan fits and a higher one whose plan does not: the
-- fastest that fits.
local function refine(graph, m, fits, above, budget)
  local best, low, high = fits, fits.limit, above.limit
  for _ = 1, rungs.halvings do
    local limit = math.floor((low + high) / 2)
    local point = limit > low and limit < high and rungs.try(graph, m, limit)
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
    local ladder = rungs.ladder(graph, m)
    if amount.least then return least_of(rungs.points(graph, m, ladder)).answer end
    local persistent = graph.persistent_bytes
    local budget = amounts.bytes(amount, persistent, (graph.evaluate {}))
    local k = bisect(ladder, budget)
    if k then
      local above = k > 0 and ladder.point(k - 1)
      local point = ladder.point(k)
      return (above and refine(graph, m, point, above, budget) or point).answer
    end
    local list = rungs.points(graph, m, ladder)
    local best = fastest_within(list, budget)
    if best then return best.answer end
    return amounts.refuse(budget, least_of(list).peak_bytes, persistent, 'greedy')
  end
end
