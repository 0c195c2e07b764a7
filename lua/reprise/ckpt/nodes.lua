--- Keep one node in n, whatever the layers. Each stretch of n nodes is a
-- segment that keeps its last; what later stretches read stays too.
-- @param n  1 keeps every node, so it is none

local support = require 'reprise.ckpt.support'

return function(n)
  n = support.count(n, 'N', 'nodes')
  return function(graph)
    local segments = {}
    if n == 1 then return segments end
    for first = 1, graph.n_forward - 1, n do
      local last = math.min(first + n - 1, graph.n_forward)
      segments[#segments + 1] = {first = first, last = last, keep = {last}}
    end
    return segments
  end
end
