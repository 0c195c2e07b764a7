--- Segments of n consecutive layers: one boundary in n is kept.
-- @param n  layers a segment; the last segment may have fewer

local support = require 'reprise.ckpt.support'

return function(n)
  n = support.count(n, 'N', 'uniform')
  return function(graph)
    local layers, segments = support.layers(graph), {}
    for i = 1, #layers, n do
      local last = layers[math.min(i + n - 1, #layers)]
      segments[#segments + 1] = {first = layers[i].first, last = last.last}
    end
    return segments
  end
end
