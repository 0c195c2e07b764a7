--- Named, consecutive layers form a segment: blocks=fc1..act2,fc3..act3
-- @param blocks  'a..b,c..d' or a list of 'a..b', of names, or of lists of names
--                that must be consecutive

local support = require 'reprise.ckpt.support'

--- Position of the layer of that name: its whole name or the last parts.
local function find(layers, name)
  local found
  for i, layer in ipairs(layers) do
    if layer.name == name then return i end
    if layer.name:sub(-#name - 1) == '.' .. name then
      if found then
        error(("'%s' is both %s and %s: say which"):format(name,
          layers[found].name, layer.name), 0)
      end
      found = i
    end
  end
  if found then return found end
  local names = {}
  for i, layer in ipairs(layers) do names[i] = layer.name end
  return error(("no layer '%s'; there is %s"):format(name, support.some(names)), 0)
end

--- First and last position of one block and its text.
local function range(layers, block)
  if type(block) == 'string' then
    local from, to = block:match '^(.-)%.%.(.+)$'
    if not from then
      error(("'%s' is no stretch: write first..last (%s..%s for one layer)")
        :format(block, block, block), 0)
    end
    local first, last = find(layers, from), find(layers, to)
    if last < first then
      error(("'%s' runs backwards: %s comes before %s"):format(block, to, from), 0)
    end
    return first, last, block
  end
  if type(block) ~= 'table' or #block == 0 then
    error("a block is 'first..last' or a list of names", 0)
  end
  local first, last
  for at, name in ipairs(block) do
    local i = find(layers, name)
    if last and i ~= last + 1 then
      error(("'%s' does not follow '%s': %s"):format(name, block[at - 1],
        i > last and ('%s lies between'):format(layers[last + 1].name) or
        'it comes before'), 0)
    end
    first, last = first or i, i
  end
  return first, last, table.concat(block, ',')
end

return function(blocks)
  blocks = support.list(blocks, 'a block, as in blocks=fc1..act2,')
  return function(graph)
    local layers, segments, owner = support.layers(graph), {}, {}
    for _, block in ipairs(blocks) do
      local first, last, text = range(layers, block)
      for i = first, last do
        if owner[i] then
          error(("'%s' and '%s' overlap: both have %s"):format(owner[i], text,
            layers[i].name), 0)
        end
        owner[i] = text
      end
      segments[#segments + 1] = {first = layers[first].first, last = layers[last].last}
    end
    return segments
  end
end
