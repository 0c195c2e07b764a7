--- JSON with keys in the order they are given and doubles that read back as
-- the same bits: what lua-cjson's encoder does not promise.

local json = {}

local escapes = {['"'] = '\\"', ['\\'] = '\\\\', ['\n'] = '\\n',
  ['\r'] = '\\r', ['\t'] = '\\t'}

local function text(s)
  return '"' .. s:gsub('[%c"\\\127]', function(c)
    return escapes[c] or ('\\u%04x'):format(c:byte())
  end) .. '"'
end

local function number(x)
  -- JSON has no infinities and no NaN.
  if x ~= x or x == math.huge or x == -math.huge then return 'null' end
  if x == math.floor(x) and math.abs(x) < 2 ^ 53 then
    return ('%.0f'):format(x)
  end
  return ('%.17g'):format(x)
end

local encode

local function list(values)
  local parts = {}
  for i = 1, #values do parts[i] = encode(values[i]) end
  return '[' .. table.concat(parts, ',') .. ']'
end

function encode(value)
  local kind = type(value)
  if kind == 'table' then
    if value.object then return json.object(value.object) end
    return list(value)
  end
  if kind == 'string' then return text(value) end
  if kind == 'number' then return number(value) end
  return tostring(value)
end

--- One object on one line. `pairs_list` is {{'key', value}, ...}; a value is a
--- string, a number, a boolean, a list, or {object = {{key, value}, ...}}; a
--- pair whose value is nil is left out, `json.null` is written as null.
---@param pairs_list table
---@return string
function json.object(pairs_list)
  local parts = {}
  for _, pair in ipairs(pairs_list) do
    local value = pair[2]
    if value == json.null then
      parts[#parts + 1] = text(pair[1]) .. ':null'
    elseif value ~= nil then
      parts[#parts + 1] = text(pair[1]) .. ':' .. encode(value)
    end
  end
  return '{' .. table.concat(parts, ',') .. '}'
end

json.null = setmetatable({}, {__tostring = function() return 'null' end})

return json
