--- Keep all layers but one in n, reprise the others' insides.
-- @param n  layers 1, 1 + n, 1 + 2n, ... are each a segment

local support = require 'reprise.ckpt.support'

return function(n)
  n = support.count(n, 'N', 'every')
  return function(graph)
    local layers, segments = support.layers(graph), {}
    for i = 1, #layers, n do segments[#segments + 1] = layers[i] end
    return segments
  end
end
