--- Pictures as SVG, written by hand: shapes in the order they are drawn, text
-- in the reader's own sans-serif, colours that work on white.

local svg = {}

---@class reprise.Svg
---@field width number
---@field height number
---@field private parts string[]
local Svg = {}
Svg.__index = Svg

-- Numbers to a tenth of a pixel: smaller files, the same picture.
local function n(x)
  return (('%.1f'):format(x):gsub('%.0$', ''))
end

local function escape(text)
  return (text:gsub('[&<>"]', {['&'] = '&amp;', ['<'] = '&lt;', ['>'] = '&gt;',
    ['"'] = '&quot;'}))
end

local function attributes(given)
  local names, out = {}, {}
  for name in pairs(given or {}) do
    if name ~= 'title' then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local value = given[name]
    out[#out + 1] = (' %s="%s"'):format(name:gsub('_', '-'),
      type(value) == 'number' and n(value) or escape(value))
  end
  return table.concat(out)
end

--- A picture of that many pixels, white.
---@param width number
---@param height number
---@return reprise.Svg
function svg.new(width, height)
  local self = setmetatable({width = width, height = height, parts = {}}, Svg)
  self:rect(0, 0, width, height, {fill = '#ffffff'})
  return self
end

-- An element; a title is what a browser shows under the pointer.
function Svg:element(name, given, content)
  local title = given and given.title
  if title then content = ('<title>%s</title>'):format(escape(title)) end
  self.parts[#self.parts + 1] = content
    and ('<%s%s>%s</%s>'):format(name, attributes(given), content, name)
    or ('<%s%s/>'):format(name, attributes(given))
end

local function with(given, more)
  local all = {}
  for key, value in pairs(given or {}) do all[key] = value end
  for key, value in pairs(more) do all[key] = value end
  return all
end

---@param given? table attributes; `_` stands for `-`, `title` is a tooltip
function Svg:rect(x, y, width, height, given)
  self:element('rect', with(given, {x = x, y = y, width = width,
    height = height}))
end

---@param given? table
function Svg:line(x1, y1, x2, y2, given)
  self:element('line', with({stroke = '#888888'}, with(given,
    {x1 = x1, y1 = y1, x2 = x2, y2 = y2})))
end

---@param given? table
function Svg:circle(x, y, radius, given)
  self:element('circle', with(given, {cx = x, cy = y, r = radius}))
end

--- A polygon or, with fill 'none', a line through {x1, y1, x2, y2, ...}.
---@param points number[]
---@param given? table
function Svg:polyline(points, given)
  local out = {}
  for i = 1, #points, 2 do
    out[#out + 1] = n(points[i]) .. ',' .. n(points[i + 1])
  end
  self:element('polyline', with(given, {points = table.concat(out, ' ')}))
end

--- Text at its baseline; given.text_anchor is start, middle or end.
---@param given? table
function Svg:text(x, y, text, given)
  self:element('text', with({fill = '#333333'}, with(given, {x = x, y = y})),
    escape(text))
end

---@return string
function Svg:__tostring()
  return ('<svg xmlns="http://www.w3.org/2000/svg" width="%s" height="%s" '
    .. 'viewBox="0 0 %s %s" font-family="Helvetica, Arial, \'DejaVu Sans\', '
    .. 'sans-serif" font-size="12">\n%s\n</svg>\n'):format(n(self.width),
    n(self.height), n(self.width), n(self.height),
    table.concat(self.parts, '\n'))
end

--- Writes the picture; an error names the file.
---@param path string
function Svg:save(path)
  local file, problem = io.open(path, 'w')
  if not file then error(problem, 0) end
  file:write(tostring(self))
  file:close()
end

--- Round numbers that divide 0 .. most into about `count` parts, in steps of
-- 1, 2 or 5 times a power of `base`'s unit: {step, 2 * step, ...}.
---@param most number
---@param count number
---@return number[]
function svg.ticks(most, count)
  local list = {}
  if most <= 0 then return list end
  local raw = most / count
  local power = 10 ^ math.floor(math.log10(raw))
  local step = power * 10
  for _, k in ipairs {1, 2, 5} do
    if k * power >= raw then step = k * power break end
  end
  for i = 0, math.floor(most / step + 1e-9) do list[i + 1] = i * step end
  return list
end

return svg
