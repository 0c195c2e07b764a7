--- The results as JSON, and back.

local cjson = require 'cjson'
local json = require 'reprise.report.json'

local results = {}

local KEYS = {
  head = {'date', 'reprise', 'torch', 'threads', 'machine', 'products',
    'smoke', 'steps', 'rounds'},
  machine = {'cpu', 'cores', 'flags', 'memory_bytes'},
  -- Of a device's results alone.
  device = {'name', 'total_bytes', 'context_bytes', 'libraries_bytes', 'error'},
  overhead = {'runs', 'recording', 'minimizing', 'launching', 'step',
    'recording_without', 'minimizing_without', 'launching_without',
    'step_without', 'error'},
  fit = {'model', 'side', 'label', 'limit_bytes', 'batch', 'peak_bytes',
    'tried', 'error'},
  product = {'side', 'dtype', 'size', 'flops_per_second', 'least', 'most', 'error'},
  row = {'name', 'title', 'part', 'dtype', 'seq', 'model', 'batch',
    'seconds_taken', 'error'},
  side = {'label', 'id', 'ckpt', 'variant', 'at', 'spec', 'same_as', 'error',
    'live_bytes', 'peak_bytes', 'measured_bytes', 'resident_bytes',
    'resting_bytes', 'reserved_bytes', 'driver_bytes', 'fixed_bytes', 'flops',
    'recompute_fraction', 'apart'},
  seconds = {'median', 'least', 'most', 'count'},
}

local function pairs_of(value, keys)
  local list = {}
  for _, key in ipairs(keys) do
    if value[key] ~= nil and type(value[key]) ~= 'table' then
      list[#list + 1] = {key, value[key]}
    end
  end
  return list
end

local function side(entry)
  local list = pairs_of(entry, KEYS.side)
  if entry.seconds then
    list[#list + 1] = {'seconds', {object = pairs_of(entry.seconds,
      KEYS.seconds)}}
  end
  return json.object(list)
end

local function row_text(row)
  local parts = {json.object(pairs_of(row, KEYS.row)):sub(1, -2)}
  for _, name in ipairs {'ours', 'theirs'} do
    local lines = {}
    for i, entry in ipairs(row[name] or {}) do lines[i] = side(entry) end
    parts[#parts + 1] = ('"%s": [\n    %s]'):format(name,
      table.concat(lines, ',\n    '))
  end
  return table.concat(parts, ',\n   ') .. '}'
end

local function text_of(all)
  local head = pairs_of(all, KEYS.head)
  local about = pairs_of(all.machine, KEYS.machine)
  about[#about + 1] = {'flags', all.machine.flags}
  head[#head + 1] = {'machine', {object = about}}
  local products = {}
  for i, product in ipairs(all.products) do
    products[i] = {object = pairs_of(product, KEYS.product)}
  end
  head[#head + 1] = {'products', products}
  for _, name in ipairs {'device', 'overhead'} do
    if all[name] then
      head[#head + 1] = {name, {object = pairs_of(all[name], KEYS[name])}}
    end
  end
  if all.fits then
    local fits = {}
    for i, fit in ipairs(all.fits) do
      fits[i] = {object = pairs_of(fit, KEYS.fit)}
    end
    head[#head + 1] = {'fits', fits}
  end
  local rows = {}
  for i, row in ipairs(all.rows) do rows[i] = row_text(row) end
  return ('%s,\n "rows": [\n  %s]}\n'):format(json.object(head):sub(1, -2),
    table.concat(rows, ',\n  '))
end

--- Writes a text by way of a temporary name, so that a reader never sees half.
function results.write(path, text)
  local temporary = path .. '.new'
  local file = assert(io.open(temporary, 'w'))
  assert(file:write(text))
  assert(file:close())
  assert(os.rename(temporary, path))
end

function results.save(path, all) results.write(path, text_of(all)) end

function results.load(path)
  local file = assert(io.open(path))
  local text = file:read '*a'
  file:close()
  return cjson.decode(text)
end

return results
