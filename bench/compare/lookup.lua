--- What a row's result has: our settings and PyTorch's, found by strategy.

local lookup = {}

--- Our setting of that label; where its plan is another's, that one.
function lookup.mine(row, label)
  for _, entry in ipairs(row.ours) do
    if entry.label == label then
      return entry.same_as and lookup.mine(row, entry.same_as) or entry
    end
  end
end

--- PyTorch's fastest setting under that strategy.
function lookup.best(row, ckpt)
  local best
  for _, entry in ipairs(row.theirs) do
    if entry.ckpt == ckpt and entry.seconds
      and (not best or entry.seconds.median < best.seconds.median) then
      best = entry
    end
  end
  return best
end

--- {mine, best, time, memory}: ratios are ours over PyTorch's, nil without
-- both.
function lookup.pair(row, ckpt)
  local mine, best = lookup.mine(row, ckpt), lookup.best(row, ckpt)
  mine = mine and mine.seconds and mine or nil
  return {mine = mine, best = best,
    time = mine and best and mine.seconds.median / best.seconds.median,
    memory = mine and best and mine.live_bytes / best.live_bytes}
end

--- The strategies that a row has, budgets left out.
function lookup.strategies(row)
  local list, seen = {}, {}
  for _, side in ipairs {row.ours, row.theirs} do
    for _, entry in ipairs(side) do
      local name = side == row.theirs and entry.ckpt
        or not entry.spec:find '^budget' and entry.label
      if name and not seen[name] then
        seen[name], list[#list + 1] = true, name
      end
    end
  end
  return list
end

--- The rows of one part.
function lookup.of_part(all, part)
  local list = {}
  for _, row in ipairs(all.rows) do
    if row.part == part then list[#list + 1] = row end
  end
  return list
end

return lookup
