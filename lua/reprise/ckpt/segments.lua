--- K segments of equal size; sizes in layers differ by at most one.
-- @param k  number of segments

local support = require 'reprise.ckpt.support'

return function(k)
  k = support.count(k, 'K')
  return function(graph)
    local layers, segments = support.layers(graph), {}
    if k > #layers then
      error(('the model has %d layers, not enough for %d segments'):format(#layers, k), 0)
    end
    local size, extra = math.floor(#layers / k), #layers % k
    local at = 1
    for i = 1, k do
      local last = at + size - 1 + (i <= extra and 1 or 0)
      segments[i] = {first = layers[at].first, last = layers[last].last}
      at = last + 1
    end
    return segments
  end
end
