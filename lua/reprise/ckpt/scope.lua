--- Every scope that matches one of the globs is a segment, outermost match
-- first: scope=*.mlp,*.attention
-- @param globs  'a,b' or a list; * stands for any characters, dots too

local support = require 'reprise.ckpt.support'

return function(globs)
  globs = support.list(globs, 'a scope, as in scope=*.mlp,')
  local patterns = {}
  for i, glob in ipairs(globs) do patterns[i] = support.glob(glob) end

  return function(graph)
    local used = {}
    local function matches(scope)
      for i, pattern in ipairs(patterns) do
        if scope:find(pattern) then
          used[i] = true
          return true
        end
      end
    end
    local segments = support.runs(graph, function(node)
      return support.enclosing(node.scope, matches)
    end)
    -- A glob whose every match lies inside another's is used nevertheless.
    for _, scope in ipairs(support.scopes(graph)) do
      for i, pattern in ipairs(patterns) do
        if scope:find(pattern) then used[i] = true end
      end
    end
    for i, glob in ipairs(globs) do
      if not used[i] then
        local scopes = support.scopes(graph)
        error(("no scope matches '%s'; there is %s"):format(glob,
          #scopes > 0 and support.some(scopes) or 'none: the model is no nn.module'), 0)
      end
    end
    return segments
  end
end
