--- The header of a safetensors file: everything is checked before anything is
-- allocated for the tensors.
--
-- Layout: 8 bytes n (little endian), n bytes of JSON
-- {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...,
-- "__metadata__": {"key": "text"}}, then the data, without holes.
-- Errors are texts without a position.

local header = {}

local MOST_HEADER_BYTES = 100 * 1000 * 1000  -- the format's own limit
local MOST = 2^53

header.codes = {
  F32 = {'f32', 4}, F64 = {'f64', 8}, BF16 = {'bf16', 2}, I32 = {'i32', 4},
  I64 = {'i64', 8}, BOOL = {'bool', 1},
}
header.names = {}
for code, row in pairs(header.codes) do header.names[row[1]] = code end

local function cjson()
  local ok, json = pcall(require, 'cjson.safe')
  if not ok then error('lua-cjson is missing (Debian: lua-cjson)', 0) end
  return json
end

local function fail(text, ...)
  error(text:format(...), 0)
end

--- Byte after the string that starts at `at` (a quote).
local function string_end(text, at)
  local i = at + 1
  while true do
    local c = text:byte(i)
    if not c then fail('the header ends inside a string') end
    if c == 0x22 then return i + 1 end
    i = i + (c == 0x5c and 2 or 1)
  end
end

--- Fails on a key that an object has twice: decoders keep one and are silent.
local function check_duplicates(text, json)
  -- seen[depth]: the keys of the object open at that depth, nil in a list.
  local seen, depth, expecting, i = {}, 0, false, 1
  while true do
    i = text:find('["{}%[%],]', i)
    if not i then return end
    local c = text:sub(i, i)
    if c == '"' then
      local stop = string_end(text, i)
      local keys = seen[depth]
      if keys and expecting then
        local decoded = json.decode('[' .. text:sub(i, stop - 1) .. ']')
        local key = decoded and decoded[1] or ''
        if keys[key] then fail("the name '%s' appears twice", key) end
        keys[key] = true
        expecting = false
      end
      i = stop
    else
      if c == '{' or c == '[' then
        depth = depth + 1
        seen[depth] = c == '{' and {} or nil
        expecting = c == '{'
      elseif c == ',' then
        expecting = seen[depth] ~= nil
      else
        depth = depth - 1
      end
      i = i + 1
    end
  end
end

local function whole(x)
  return type(x) == 'number' and x == math.floor(x) and x >= 0 and x <= MOST
end

--- Checks one tensor's entry; returns {name, dtype, shape, first, last}.
local function entry_of(name, entry, data_bytes)
  if type(entry) ~= 'table' then fail("tensor '%s': its entry is no object", name) end
  for key in pairs(entry) do
    if key ~= 'dtype' and key ~= 'shape' and key ~= 'data_offsets' then
      fail("tensor '%s': unknown field '%s'", name, tostring(key))
    end
  end
  local code = type(entry.dtype) == 'string' and header.codes[entry.dtype]
  if not code then
    fail("tensor '%s': dtype %s is not read here (F32, F64, BF16, I32, I64, BOOL are)",
      name, tostring(entry.dtype))
  end
  local shape, offsets = entry.shape, entry.data_offsets
  if type(shape) ~= 'table' or type(offsets) ~= 'table' then
    fail("tensor '%s': shape and data_offsets are lists", name)
  end
  for key in pairs(shape) do
    if type(key) ~= 'number' then fail("tensor '%s': shape is no list", name) end
  end
  if #shape > 8 then fail("tensor '%s': %d dims, 8 is the most", name, #shape) end
  local bytes = code[2]
  for i = 1, #shape do
    if not whole(shape[i]) then
      fail("tensor '%s': size %d is %s, not a whole number", name, i, tostring(shape[i]))
    end
    bytes = bytes * shape[i]
    if bytes > MOST then fail("tensor '%s': its size overflows", name) end
  end
  local first, last = offsets[1], offsets[2]
  if #offsets ~= 2 or not whole(first) or not whole(last) then
    fail("tensor '%s': data_offsets are two whole numbers", name)
  end
  if first > last or last > data_bytes then
    fail("tensor '%s': bytes %.0f..%.0f lie outside of the data, which has %.0f", name,
      first, last, data_bytes)
  end
  if last - first ~= bytes then
    fail("tensor '%s': %s of shape (%s) has %.0f bytes, data_offsets span %.0f", name,
      entry.dtype, table.concat(shape, ','), bytes, last - first)
  end
  return {name = name, dtype = code[1], shape = shape, first = first, last = last}
end

--- The length in the first 8 bytes.
---@param bytes string
---@param file_bytes integer
---@return integer
function header.length(bytes, file_bytes)
  if #bytes < 8 then fail('%d bytes are too few for a safetensors file', #bytes) end
  local n = 0
  for i = 8, 1, -1 do n = n * 256 + bytes:byte(i) end
  if n > MOST_HEADER_BYTES then
    fail('this is no safetensors file: a header of %.0f bytes is too long', n)
  end
  if n + 8 > file_bytes then
    fail('the header says it has %.0f bytes, the file has %.0f', n, file_bytes)
  end
  if n < 2 then fail('the header is empty') end
  return n
end

--- Reads a header's JSON.
---@param text string
---@param data_bytes integer  bytes behind the header
---@return table[] entries  {name, dtype, shape, first, last} by position
---@return table<string, string> metadata
function header.parse(text, data_bytes)
  local json = cjson()
  if text:byte(1) ~= 0x7b then fail('the header is no JSON object') end
  local object, reason = json.decode(text)
  if type(object) ~= 'table' then fail('the header is no JSON: %s', tostring(reason)) end
  check_duplicates(text, json)
  local entries, metadata = {}, {}
  for name, entry in pairs(object) do
    if type(name) ~= 'string' then fail('the header is no JSON object') end
    if name == '__metadata__' then
      if type(entry) ~= 'table' then fail('__metadata__ is no object') end
      for key, value in pairs(entry) do
        if type(key) ~= 'string' or type(value) ~= 'string' then
          fail('__metadata__ maps texts to texts')
        end
        metadata[key] = value
      end
    else
      entries[#entries + 1] = entry_of(name, entry, data_bytes)
    end
  end
  table.sort(entries, function(a, b)
    if a.first ~= b.first then return a.first < b.first end
    if a.last ~= b.last then return a.last < b.last end
    return a.name < b.name
  end)
  local at = 0
  for _, entry in ipairs(entries) do
    if entry.first ~= at then
      fail("tensor '%s': its bytes start at %.0f, %s of the one before at %.0f",
        entry.name, entry.first, entry.first < at and 'before the end' or 'behind the end', at)
    end
    at = entry.last
  end
  if at ~= data_bytes then
    fail('the tensors have %.0f bytes, the file has %.0f for them', at, data_bytes)
  end
  return entries, metadata
end

local function quoted(json, text)
  return json.encode{text}:sub(2, -2)
end

--- The header's bytes, its length in front, padded so that the data is aligned
-- to 8.
---@param entries table[]  {name, dtype, shape, first, last}
---@param metadata table<string, string>?
---@return string
function header.write(entries, metadata)
  local json, parts = cjson(), {}
  if metadata and next(metadata) ~= nil then
    local keys, pairs_of = {}, {}
    for key in pairs(metadata) do keys[#keys + 1] = key end
    table.sort(keys)
    for i, key in ipairs(keys) do
      pairs_of[i] = quoted(json, key) .. ':' .. quoted(json, metadata[key])
    end
    parts[1] = '"__metadata__":{' .. table.concat(pairs_of, ',') .. '}'
  end
  for _, entry in ipairs(entries) do
    local sizes = {}
    for i, size in ipairs(entry.shape) do sizes[i] = ('%.0f'):format(size) end
    parts[#parts + 1] = ('%s:{"dtype":"%s","shape":[%s],"data_offsets":[%.0f,%.0f]}')
      :format(quoted(json, entry.name), header.names[entry.dtype],
        table.concat(sizes, ','), entry.first, entry.last)
  end
  local text = '{' .. table.concat(parts, ',') .. '}'
  text = text .. (' '):rep(-#text % 8)
  local length, n = {}, #text
  for i = 1, 8 do
    length[i] = string.char(n % 256)
    n = math.floor(n / 256)
  end
  return table.concat(length) .. text
end

return header
