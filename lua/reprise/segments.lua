--- What a strategy returned, checked and made flat for the core. Errors are
-- texts without a position; run says which strategy they are of.

local ffi = require 'ffi'

local segments = {}

local function described(x)
  if x == nil then return 'nothing' end
  if type(x) == 'number' or type(x) == 'string' then return ("a %s (%s)"):format(type(x), x) end
  return 'a ' .. type(x)
end

local function position(x, what, n)
  if type(x) ~= 'number' or x ~= math.floor(x) then
    error(('%s is %s, not a position in graph.nodes'):format(what, described(x)), 0)
  end
  if x < 1 or x > n then
    error(('%s is %d: the forward nodes are 1..%d'):format(what, x, n), 0)
  end
  return x
end

local function kept(list, first, last, what, n)
  if list == nil then return {} end
  if type(list) ~= 'table' then
    error(('%s: keep is %s, not a list of nodes'):format(what, described(list)), 0)
  end
  local keep = {}
  for i, entry in ipairs(list) do
    local node = position(type(entry) == 'table' and entry.first or entry,
      ('%s: keep[%d]'):format(what, i), n)
    if node < first or node > last then
      error(('%s: keep[%d] is %d, outside of %d..%d'):format(what, i, node, first, last), 0)
    end
    keep[i] = node
  end
  return keep
end

--- Siblings in order of position, each {first, last, keep, children}.
local function siblings(list, outer_first, outer_last, path, n)
  if type(list) ~= 'table' then
    error(('%s is %s, not a list of segments'):format(path, described(list)), 0)
  end
  for key in pairs(list) do
    if type(key) ~= 'number' or key < 1 or key > #list or key ~= math.floor(key) then
      error(('%s has an entry under %s; a list of segments is wanted')
        :format(path, described(key)), 0)
    end
  end
  local found = {}
  for i, entry in ipairs(list) do
    local what = ('%s[%d]'):format(path, i)
    if type(entry) ~= 'table' then
      error(('%s is %s, not a segment {first, last}, layer, block or node')
        :format(what, described(entry)), 0)
    end
    if #entry > 2 then
      error(('%s lists %d positions; a segment is a stretch of consecutive nodes, ' ..
        '{first, last}'):format(what, #entry), 0)
    end
    -- {3, 7} for {first = 3, last = 7}
    local first = position(entry.first or entry[1], what .. '.first', n)
    local last = position(entry.last or entry[2], what .. '.last', n)
    if last < first then
      error(('%s: last (%d) comes before first (%d)'):format(what, last, first), 0)
    end
    if first < outer_first or last > outer_last then
      error(('%s, %d..%d, is not inside its parent %d..%d'):format(what, first, last,
        outer_first, outer_last), 0)
    end
    found[i] = {
      first = first, last = last, what = what,
      keep = kept(entry.keep, first, last, what, n),
      children = entry.segments and
        siblings(entry.segments, first, last, what .. '.segments', n) or {},
    }
  end
  table.sort(found, function(a, b)
    if a.first ~= b.first then return a.first < b.first end
    return a.what < b.what
  end)
  for i = 2, #found do
    local a, b = found[i - 1], found[i]
    if b.first <= a.last then
      error(('%s, %d..%d, and %s, %d..%d, overlap'):format(a.what, a.first, a.last,
        b.what, b.first, b.last), 0)
    end
  end
  return found
end

--- The strategy's list as a C array, parents before children.
---@param list table
---@param n_forward integer
---@return {array: any, n: integer, keeps: any[]} flat  array is rp_segment[?],
-- and points into keeps
function segments.flatten(list, n_forward)
  local flat, parents, n = {}, {}, 0
  -- By a stack of its own: LuaJIT 2.1.0-beta3 compiles the recursion wrongly now
  -- and then, and a segment became its own parent.
  local level = siblings(list, 1, n_forward, 'segments', n_forward)
  local at, parent, stack = 1, 0, {}
  while level do
    local segment = level[at]
    if segment then
      n = n + 1
      flat[n], parents[n] = segment, parent
      stack[#stack + 1] = {level, at + 1, parent}
      level, at, parent = segment.children, 1, n
    else
      local up = table.remove(stack) or {}
      level, at, parent = up[1], up[2], up[3]
    end
  end
  local array = ffi.new('rp_segment[?]', math.max(n, 1))
  local keeps = {}
  for i, segment in ipairs(flat) do
    local keep = ffi.new('int32_t[?]', math.max(#segment.keep, 1))
    for k, node in ipairs(segment.keep) do keep[k - 1] = node - 1 end
    keeps[i] = keep
    local out = array[i - 1]
    out.first, out.last = segment.first - 1, segment.last - 1
    out.parent, out.keep, out.n_keep = parents[i] - 1, keep, #segment.keep
  end
  return {array = array, n = n, keeps = keeps}
end

--- An explicit program as a C array: i runs node i, -i frees its values.
---@return any array   int32_t[?]
---@return integer n
function segments.program(list, n_nodes)
  if type(list) ~= 'table' then
    error(('program is %s, not a list of steps'):format(described(list)), 0)
  end
  local array = ffi.new('int32_t[?]', math.max(#list, 1))
  for i, step in ipairs(list) do
    if type(step) ~= 'number' or step ~= math.floor(step) or step == 0 or
      math.abs(step) > n_nodes then
      error(('program[%d] is %s: i runs node i, -i frees its values, i in 1..%d')
        :format(i, described(step), n_nodes), 0)
    end
    array[i - 1] = step > 0 and step - 1 or step
  end
  return array, #list
end

--- Text about segments that save nothing, or nil. segments are a plan's own,
-- marks included, each {first, last, keep, parent}.
---@param graph reprise.Graph
---@param list table[]
---@param by_hand boolean?  look at those of rp.checkpoint alone
---@return string?
function segments.useless(graph, list, by_hand)
  local last_reader, is_parent = {}, {}
  for i = 1, graph.n_forward do
    for _, input in ipairs(graph.nodes[i].inputs) do
      if input > 0 then last_reader[input] = i end
    end
  end
  for _, segment in ipairs(list) do
    if segment.parent then is_parent[segment.parent] = true end
  end
  local count, first, reads = 0, nil, false
  for index, segment in ipairs(list) do
    local keep, saved, read = {}, false, false
    for _, node in ipairs(segment.keep) do keep[node] = true end
    for i = segment.first, segment.last do
      local node = graph.nodes[i]
      if node.read_by_backward then
        read = true
        saved = saved or not (node.kept or keep[i] or
          (last_reader[i] or 0) > segment.last)
      end
    end
    local asked_for = not by_hand or graph.nodes[segment.first].mark ~= 0
    if not saved and not is_parent[index] and asked_for then
      count = count + 1
      if not first then first, reads = segment, read end
    end
  end
  if not first then return nil end
  local size = first.last - first.first + 1
  local node = graph.nodes[first.first]
  local name = (node.scope ~= '' and node.scope .. ': ' or '') .. node.op ..
    (node.mark ~= 0 and ', in rp.checkpoint' or '')
  local reason
  if size == 1 then
    reason = 'a single op\'s result is kept for what follows; give the segment ' ..
      'several ops, or leave it out'
  elseif reads then
    reason = 'all that backward reads of it is kept for what follows; make it longer'
  else
    reason = 'backward reads none of its values: nothing in it is trained, or ' ..
      'it is recorded under rp.no_grad; leave it out'
  end
  return ('%d of %d segments can save nothing; the first is %d..%d (%s): %s')
    :format(count, #list, first.first, first.last, name, reason)
end

return segments
