--- Chen et al. (2016): cut where the saved bytes since the last cut pass a
-- bound; sweep the bound and take the cuts for which the kept boundaries plus
-- the largest segment are least. About sqrt(n) segments, weighted by bytes.
--
-- The last segment is no segment: backward begins with it, so dropping it
-- would replay it at once and lower nothing.

--- Where several blocks exist they are the finest place to cut; otherwise
-- the layers are.
local function units_of(graph)
  local units = #graph.blocks >= #graph.layers and graph.blocks or graph.layers
  if #units < 2 then
    error('the model has no two blocks or layers to cut between: every stretch ' ..
      'has several values crossing its ends', 0)
  end
  return units
end

--- Positions of the first unit of each segment under the bound, and the cost:
-- bytes crossing the cuts plus the bytes of the largest segment.
local function cut(units, bound)
  local starts, kept, largest, sum = {1}, 0, 0, 0
  for i = 1, #units do
    if sum > 0 and sum + units[i].saved_bytes > bound then
      starts[#starts + 1] = i
      kept = kept + units[i].input_bytes
      sum = 0
    end
    sum = sum + units[i].saved_bytes
    largest = math.max(largest, sum)
  end
  return starts, kept + largest
end

return function()
  return function(graph)
    local units = units_of(graph)
    local total = 0
    for _, unit in ipairs(units) do total = total + unit.saved_bytes end
    local best, least = {1}, math.huge
    for pieces = 1, #units do
      local starts, cost = cut(units, total / pieces)
      if cost < least then best, least = starts, cost end
    end
    local segments = {}
    for k = 1, #best - 1 do
      segments[k] = {
        first = units[best[k]].first, last = units[best[k + 1] - 1].last,
      }
    end
    return segments
  end
end
