--- Keep the outputs of costly ops, replay the cheap ones from them.
-- @param list  the ops to keep ('matmul,conv2d'; those that the model lacks
--              count for nothing, unless it lacks all); those that the core
--              counts as costly when absent

local support = require 'reprise.ckpt.support'

-- A product is one op with its bias and another without.
local families = {matmul = {'linear'}}

local function kept_by_name(graph, list)
  local wanted, present, names = {}, {}, {}
  for _, name in ipairs(list) do
    wanted[name] = true
    for _, member in ipairs(families[name] or {}) do wanted[member] = true end
  end
  local found = false
  for i = 1, graph.n_forward do
    for op in graph.nodes[i].op:gmatch '[^+]+' do -- a fused node's are 'relu+add'
      if not present[op] then
        present[op] = true
        names[#names + 1] = op
        found = found or wanted[op]
      end
    end
  end
  if not found then
    table.sort(names)
    error(('the model has no op %s; it has %s'):format(table.concat(list, ' or '),
      support.some(names)), 0)
  end
  return function(node)
    for part in node.op:gmatch '[^+]+' do
      if wanted[part] then return true end
    end
    return false
  end
end

return function(list)
  if list ~= nil and list ~= true then list = support.list(list, 'an op') else list = nil end
  return function(graph)
    local is_kept = list and kept_by_name(graph, list) or
      function(node) return node.costly end
    local segments = {}
    -- One segment a layer, so that what a restore brings back stays local.
    for _, stretch in ipairs(support.stretches(graph)) do
      local keep = {}
      for i = stretch.first, stretch.last do
        if is_kept(graph.nodes[i]) then keep[#keep + 1] = i end
      end
      if stretch.last > stretch.first and #keep <= stretch.last - stretch.first then
        stretch.keep = keep
        segments[#segments + 1] = stretch
      end
    end
    return segments
  end
end
