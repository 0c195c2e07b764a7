--- K segments of equal size; sizes in layers differ by at most one.
-- @param k  number of segments; where there are fewer layers, each is one

local support = require 'reprise.ckpt.support'

return function(k)
  k = support.count(k, 'K', 'segments')
  return function(graph)
    local layers, segments = support.layers(graph), {}
    local count = math.min(k, #layers)
    local size, extra = math.floor(#layers / count), #layers % count
    local at = 1
    for i = 1, count do
      local last = at + size - 1 + (i <= extra and 1 or 0)
      segments[i] = {first = layers[at].first, last = layers[last].last}
      at = last + 1
    end
    return segments
  end
end
