--- Only attention is replayed: every scope with a part that is called
-- attention or attn (self_attention, attn1, ...) is a segment.

local support = require 'reprise.ckpt.support'

local function is_attention(scope)
  local part = scope:match '[^.]*$':lower()
  return part:find('attention', 1, true) or part:find('attn', 1, true)
end

return function()
  return function(graph)
    local segments = support.runs(graph, function(node)
      return support.enclosing(node.scope, is_attention)
    end)
    if #segments == 0 then
      error('no scope has a part named attention or attn; there is ' ..
        support.some(support.scopes(graph)), 0)
    end
    return segments
  end
end
