--- Plans that the simulated eviction (reprise.eviction) makes at a ladder of
-- limits, the same one whatever the budget: what greedy searches, and points
-- that are offered to a graph's front.

local eviction = require 'reprise.eviction'

local rungs = {}

-- Rungs from what all values need down to the largest node; each is a fixed
-- factor below the one before.
rungs.count = 24
-- Halvings of the interval between two rungs.
rungs.halvings = 6
-- Equal steps that lead from a rung to the next.
rungs.steps = 4

--- A point of the search: the plan that a simulated limit gives, nil where
-- there is none.
function rungs.try(graph, m, limit)
  local steps, most = eviction.simulate(m, limit)
  if not steps then return nil end
  local answer = {program = steps}
  local peak_bytes, seconds = graph.evaluate(answer)
  return {limit = limit, live_bytes = most, answer = answer,
    peak_bytes = peak_bytes, seconds = seconds}
end

--- The ladder: limit(k) of rung k, 0 the top, and point(k), false where that
-- limit cannot be met.
function rungs.ladder(graph, m)
  local top = rungs.try(graph, m, math.huge)
  top.limit = top.live_bytes
  local factor = math.min(1, m.least_bytes / top.limit) ^ (1 / rungs.count)
  local tried = {[0] = top}
  local function limit(k) return math.floor(top.limit * factor ^ k) end
  local function point(k)
    if tried[k] == nil then tried[k] = rungs.try(graph, m, limit(k)) or false end
    return tried[k]
  end
  return {limit = limit, point = point}
end

--- Points between the rungs: which values are evicted jumps from limit to limit,
-- and so do peak and time.
function rungs.between(graph, m, ladder)
  local list = {}
  for k = 1, rungs.count do
    local high, low = ladder.limit(k - 1), ladder.limit(k)
    for i = 1, rungs.steps - 1 do
      if not ladder.point(k) then break end
      local limit = math.floor(high * (low / high) ^ (i / rungs.steps))
      local point = limit < high and limit > low and rungs.try(graph, m, limit)
      if point then list[#list + 1] = point end
    end
  end
  return list
end

--- All rungs, and points between the lowest that can be met and the next.
function rungs.points(graph, m, ladder)
  local list, lowest = {}, 0
  for k = 0, rungs.count do
    local point = ladder.point(k)
    if point then list[#list + 1], lowest = point, k end
  end
  if lowest == rungs.count then return list end
  local high, low = ladder.limit(lowest), ladder.limit(lowest + 1)
  for _ = 1, rungs.halvings do
    local limit = math.floor((low + high) / 2)
    local point = rungs.try(graph, m, limit)
    if point then
      list[#list + 1], high = point, limit
    else
      low = limit
    end
  end
  return list
end

return rungs
