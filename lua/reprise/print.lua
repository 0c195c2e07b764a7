--- How a tensor prints: the layout and the number formats of PyTorch's
-- torch/_tensor_str.py (4 digits, 80 columns, summaries above 1000 values
-- with 3 at each edge).

local tensor = require 'reprise.tensor'
local values = require 'reprise.values'

local PRECISION, THRESHOLD, EDGE, WIDTH = 4, 1000, 3, 80

--- Positions of a dim that are shown; false marks the dots.
local function shown(size, summarize)
  local list = {}
  if summarize and size > 2 * EDGE then
    for i = 1, EDGE do list[i] = i - 1 end
    list[EDGE + 1] = false
    for i = 1, EDGE do list[EDGE + 1 + i] = size - EDGE + i - 1 end
  else
    for i = 1, size do list[i] = i - 1 end
  end
  return list
end

--- Calls visit(offset) for every value that is shown.
local function each_shown(sizes, summarize, visit)
  local function walk(dim, offset)
    if dim > #sizes then return visit(offset) end
    for _, i in ipairs(shown(sizes[dim], summarize)) do
      if i then walk(dim + 1, offset * sizes[dim] + i) end
    end
  end
  walk(1, 0)
end

local function is_finite(x)
  return x == x and x ~= math.huge and x ~= -math.huge
end

local function special(x)
  if x ~= x then return 'nan' end
  return x > 0 and 'inf' or '-inf'
end

--- The formatter of floating values: one format for all that are shown.
local function floating(list)
  local least, most, whole = math.huge, 0, true
  for _, x in ipairs(list) do
    if is_finite(x) and x ~= 0 then
      local size = math.abs(x)
      least, most = math.min(least, size), math.max(most, size)
    end
    if is_finite(x) and x ~= math.ceil(x) then whole = false end
  end
  local scientific
  if whole then
    scientific = most ~= 0 and (most / least > 1000 or most > 1e8)
  else
    scientific = most / least > 1000 or most > 1e8 or least < 1e-4
  end
  if most == 0 then scientific = false end
  local format = scientific and '%.' .. PRECISION .. 'e' or
    whole and '%.0f.' or '%.' .. PRECISION .. 'f'
  return function(x)
    if not is_finite(x) then return special(x) end
    return format:format(x)
  end
end

local function plain(x)
  if type(x) == 'boolean' then return tostring(x) end
  return ('%.0f'):format(x)
end

local function padded(text, width)
  return (' '):rep(width - #text) .. text
end

--- The nested rows, as PyTorch lays them out.
local function layout(sizes, summarize, indent, word, width)
  local per_line = math.max(1, math.floor((WIDTH - indent - #sizes + 1) / (width + 2)))

  local function row(offset, depth)
    local words = {}
    for _, i in ipairs(shown(sizes[#sizes], summarize)) do
      words[#words + 1] = i and word(offset + i) or ' ...'
    end
    local lines = {}
    for i = 1, #words, per_line do
      lines[#lines + 1] = table.concat(words, ', ', i, math.min(#words, i + per_line - 1))
    end
    return '[' .. table.concat(lines, ',\n' .. (' '):rep(indent + depth)) .. ']'
  end

  local function block(dim, offset)
    if dim == #sizes then return row(offset * sizes[dim], dim) end
    local parts = {}
    for _, i in ipairs(shown(sizes[dim], summarize)) do
      parts[#parts + 1] = i and block(dim + 1, offset * sizes[dim] + i) or '...'
    end
    local between = ',' .. ('\n'):rep(#sizes - dim) .. (' '):rep(indent + dim)
    return '[' .. table.concat(parts, between) .. ']'
  end

  return block(1, 0)
end

local function suffix(t, is_empty)
  local parts = {''}
  if is_empty then
    parts[#parts + 1] = 'size=' .. tostring(t.shape)
  end
  if t.dtype ~= 'f32' and t.dtype ~= 'bool' then
    parts[#parts + 1] = 'dtype=' .. t.dtype
  end
  if t.requires_grad then parts[#parts + 1] = 'requires_grad=true' end
  return table.concat(parts, ', ')
end

--- The text of a tensor; runs it when it is not held.
function tensor.class.__tostring(t)
  local array, n, dtype = values.read(t)
  local sizes = t.shape
  if n == 0 then return 'tensor([]' .. suffix(t, #sizes ~= 1) .. ')' end
  local summarize = n > THRESHOLD
  local list = {}
  each_shown(sizes, summarize, function(offset)
    list[#list + 1] = values.element(array, offset, dtype)
  end)
  local is_float = dtype == 'f32' or dtype == 'f64'
  local format = is_float and floating(list) or plain
  local width = 0
  for _, x in ipairs(list) do width = math.max(width, #format(x)) end
  local function word(offset)
    return padded(format(values.element(array, offset, dtype)), width)
  end
  local body
  if #sizes == 0 then
    body = format(list[1])
  else
    body = layout(sizes, summarize, #'tensor(', word, width)
  end
  return 'tensor(' .. body .. suffix(t) .. ')'
end
