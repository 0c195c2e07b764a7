--- The fastest plan whose exact peak (persistent bytes and arena) fits.
-- @param amount  bytes: a number, '300MiB', '2GiB', '1.5GB'; '40%' of what
--                `none` needs above the persistent bytes; 'min', the least
--                there is

local amounts = require 'reprise.amount'

return function(amount)
  amount = amounts.parse(amount, 'budget')
  return function(graph)
    local front = graph.front()
    local least = front[1]
    if amount.least then return least.answer end
    local budget = amounts.bytes(amount, graph.persistent_bytes, front.none_bytes)
    if budget < least.peak_bytes then
      amounts.refuse(budget, least.peak_bytes, graph.persistent_bytes, 'this model')
    end
    local best
    for _, point in ipairs(front) do
      if point.peak_bytes <= budget then best = point end
    end
    return best.answer
  end
end
