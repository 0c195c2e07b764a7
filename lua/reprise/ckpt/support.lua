--- What strategies share: arguments, the layers, runs of nodes by scope.
-- Errors here are texts without a position; ckpt says which spec they are of.

local support = {}

--- A whole number of at least 1 from an argument ('2' or 2).
---@return integer
function support.count(argument, letter, name)
  local n = tonumber(argument)
  if argument == nil or argument == true or argument == '' then
    error(('%s is missing: %s=%s, a whole number of at least 1'):format(letter,
      name, letter), 0)
  end
  if not n or n ~= math.floor(n) or n < 1 then
    error(('%s is a whole number of at least 1, not %s'):format(letter,
      tostring(argument)), 0)
  end
  return n
end

--- A list from 'a,b' or {'a', 'b'}; an error when it is empty.
---@return string[]
function support.list(argument, what)
  local list = {}
  if type(argument) == 'table' then
    for i, entry in ipairs(argument) do list[i] = entry end
  elseif type(argument) == 'string' then
    for entry in argument:gmatch '[^,]+' do
      list[#list + 1] = entry:match '^%s*(.-)%s*$'
    end
  end
  if #list == 0 then error(what .. ' is missing', 0) end
  return list
end

--- The graph's layers; an error when it has none.
function support.layers(graph)
  if #graph.layers == 0 then
    error('the model has no layers: put them in nn.Layers or nn.Sequential, ' ..
      'or wrap a stretch of it in rp.layer(name, fn)', 0)
  end
  return graph.layers
end

--- The first names of a list as text: 'a, b, c and 9 more'.
function support.some(names, most)
  most = most or 20
  if #names <= most then return table.concat(names, ', ') end
  return table.concat(names, ', ', 1, most) .. (' and %d more'):format(#names - most)
end

--- Runs of consecutive forward nodes to which key_of gives the same key
-- (nil: in no run), each {first, last, name}.
function support.runs(graph, key_of)
  local runs, open = {}, nil
  for i = 1, graph.n_forward do
    local key = key_of(graph.nodes[i])
    if open and open.name ~= key then open = nil end
    if open then
      open.last = i
    elseif key then
      open = {first = i, last = i, name = key}
      runs[#runs + 1] = open
    end
  end
  return runs
end

--- The distinct scopes of the forward nodes and what encloses them, sorted.
function support.scopes(graph)
  local seen, names = {}, {}
  for i = 1, graph.n_forward do
    local scope = graph.nodes[i].scope
    while scope and scope ~= '' and not seen[scope] do
      seen[scope] = true
      names[#names + 1] = scope
      scope = scope:match '^(.*)%.[^.]*$'
    end
  end
  table.sort(names)
  return names
end

--- The shortest enclosing scope (or the scope itself) that test holds for.
function support.enclosing(scope, test)
  local at = 0
  while true do
    at = scope:find('.', at + 1, true)
    local prefix = at and scope:sub(1, at - 1) or scope
    if prefix ~= '' and test(prefix) then return prefix end
    if not at then return nil end
  end
end

--- A glob (* any characters, dots too; ? one) as a Lua pattern.
function support.glob(glob)
  local pattern = glob:gsub('[%^%$%(%)%%%.%[%]%+%-]', '%%%0')
    :gsub('%*', '.*'):gsub('%?', '.')
  return '^' .. pattern .. '$'
end

--- Layers and the stretches between them, as consecutive {first, last} that
-- cover all forward nodes.
function support.stretches(graph)
  local list, at = {}, 1
  for _, layer in ipairs(graph.layers) do
    if layer.first > at then list[#list + 1] = {first = at, last = layer.first - 1} end
    list[#list + 1] = {first = layer.first, last = layer.last}
    at = layer.last + 1
  end
  if at <= graph.n_forward then list[#list + 1] = {first = at, last = graph.n_forward} end
  return list
end

return support
