--- Bytes, seconds and counts as a person reads them.

local units = {}

--- Bytes with a binary unit: `512 B`, `1.5 KiB`, `318.4 MiB`, `1.44 GiB`.
---@param n number
---@return string
function units.bytes(n)
  if n < 0 then return '-' .. units.bytes(-n) end
  if n < 1024 then return ('%d B'):format(n) end
  -- The limits are where rounding would show 1024.0.
  if n < 1023.95 * 2 ^ 10 then return ('%.1f KiB'):format(n / 2 ^ 10) end
  if n < 1023.95 * 2 ^ 20 then return ('%.1f MiB'):format(n / 2 ^ 20) end
  return ('%.2f GiB'):format(n / 2 ^ 30)
end

local factors = {[''] = 1, b = 1, kb = 1e3, mb = 1e6, gb = 1e9, tb = 1e12,
  kib = 2 ^ 10, mib = 2 ^ 20, gib = 2 ^ 30, tib = 2 ^ 40}

--- Bytes from a number or a text: `300MiB`, `16GiB`, `1.5 GB`.
---@param text number|string
---@return number? bytes nil: the text is no amount above 0
function units.parse_bytes(text)
  local number, unit = tostring(text):match '^%s*([%d%.]+e?%+?%d*)%s*(%a*)%s*$'
  number = tonumber(text) or tonumber(number)
  local factor = tonumber(text) and 1 or factors[(unit or '?'):lower()]
  if not number or not factor then return nil end
  if number ~= number or number <= 0 or number == math.huge then return nil end
  return math.floor(number * factor)
end

--- A duration on a clock: `0:07`, `1:42`, `2:03:09`.
---@param seconds number
---@return string
function units.clock(seconds)
  local s = math.max(0, math.floor(seconds + 0.5))
  local m, h = math.floor(s / 60) % 60, math.floor(s / 3600)
  if h > 0 then return ('%d:%02d:%02d'):format(h, m, s % 60) end
  return ('%d:%02d'):format(m, s % 60)
end

--- A duration as a person says it: `840 us`, `12.5 ms`, `1.42 s`, `3:20`.
---@param seconds number
---@return string
function units.seconds(seconds)
  if seconds > 0 and seconds < 0.5e-6 then return '<1 us' end
  if seconds < 0.9995e-3 then return ('%.0f us'):format(seconds * 1e6) end
  if seconds < 0.99995 then return ('%.1f ms'):format(seconds * 1e3) end
  if seconds < 99.995 then return ('%.2f s'):format(seconds) end
  return units.clock(seconds)
end

--- A count to three digits: `950`, `10.8 M`, `1.56 G`.
---@param n number
---@return string
function units.count(n)
  local scale, name = 1, ''
  for _, step in ipairs {{1e3, ' k'}, {1e6, ' M'}, {1e9, ' G'}} do
    -- 999.5 k would be shown as 1000 k.
    if n >= step[1] * 0.9995 then scale, name = step[1], step[2] end
  end
  if name == '' then return ('%d'):format(n) end
  local value = n / scale
  local digits = value < 9.995 and 2 or value < 99.95 and 1 or 0
  return ('%.' .. digits .. 'f%s'):format(value, name)
end

--- A rate for a narrow column: `840`, `18.4k`, `1.2M`.
---@param n number
---@return string
function units.rate(n)
  if n < 999.5 then return ('%.0f'):format(n) end
  if n < 999950 then return ('%.1fk'):format(n / 1e3) end
  return ('%.1fM'):format(n / 1e6)
end

--- A share as whole percent: `31 %`; less than half of one is `<1 %`.
---@param share number
---@return string
function units.percent(share)
  if share > 0 and share < 0.005 then return '<1 %' end
  if share < 0 and share > -0.005 then share = 0 end -- no "-0 %"
  return ('%.0f %%'):format(share * 100)
end

return units
