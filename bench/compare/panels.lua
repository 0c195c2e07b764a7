--- Panels of a picture: a grid, titles, axes, and what stands in them.

local axis = require 'reprise.report.axis'
local labels = require 'reprise.report.labels'
local svg = require 'reprise.report.svg'

local panels = {}

panels.OURS, panels.THEIRS = '#1f77b4', '#e8862e'
local GOOD, BAD, GREY, FAINT = '#2a7f3f', '#c0392b', '#777777', '#e9e9e9'

local TOP = 54

--- A picture of `count` panels in `columns`, with a title and a legend.
-- Returns it and a function (i) -> left, top of the i-th panel.
function panels.new(title, count, columns, width, height)
  columns = math.min(columns, count)
  local picture = svg.new(math.max(columns * width, 620),
    TOP + math.ceil(count / columns) * height)
  picture:text(18, 30, title, {font_size = 17, font_weight = 'bold'})
  local x = picture.width - 160
  for _, side in ipairs {{'Reprise', panels.OURS}, {'PyTorch', panels.THEIRS}} do
    picture:rect(x, 18, 13, 13, {fill = side[2]})
    picture:text(x + 18, 29, side[1], {font_size = 13})
    x = x + 78
  end
  return picture, function(i)
    return (i - 1) % columns * width, TOP + math.floor((i - 1) / columns) * height
  end
end

--- What is measured, and under it how.
function panels.title(picture, left, top, text)
  local what, how = text:match '^(.-), (.*)$'
  picture:text(left + 18, top + 16, what or text,
    {font_size = 13, font_weight = 'bold'})
  if how then
    picture:text(left + 18, top + 31, how, {font_size = 11, fill = GREY})
  end
end

--- Pairs of bars, {name, ours, theirs} each, with their numbers and under them
-- the ratio.
function panels.bars(picture, left, top, width, height, pairs_list, format)
  local most = 0
  for _, pair in ipairs(pairs_list) do
    most = math.max(most, pair.ours or 0, pair.theirs or 0)
  end
  local bottom, room = top + height - 40, (width - 36) / #pairs_list
  local bar = math.min(34, room * 0.4)
  local y = axis.scale(0, most, bottom, top + 56)
  for i, pair in ipairs(pairs_list) do
    local middle = left + 18 + (i - 0.5) * room
    for k, value in ipairs {pair.ours or false, pair.theirs or false} do
      if value then
        local x = k == 1 and middle - bar - 1 or middle + 1
        picture:rect(x, y(value), bar, bottom - y(value),
          {fill = k == 1 and panels.OURS or panels.THEIRS})
        picture:text(x + bar / 2, y(value) - 4, format(value),
          {text_anchor = 'middle', font_size = 10.5})
      end
    end
    picture:text(middle, bottom + 15, pair.name, {text_anchor = 'middle'})
    if pair.ours and pair.theirs then
      local ratio = pair.ours / pair.theirs
      picture:text(middle, bottom + 30, ('× %.2f'):format(ratio),
        {text_anchor = 'middle', font_weight = 'bold',
          fill = ratio <= 1 and GOOD or BAD})
    end
  end
  picture:line(left + 18, bottom, left + width - 18, bottom)
end

-- ---- axes --------------------------------------------------------------------------

--- Both axes from 0: memory to the right, time upward. Returns the scales.
function panels.plane(picture, left, top, width, height, most_bytes, most_seconds)
  local from, to = left + 52, left + width - 20
  local bottom, ceiling = top + height - 46, top + 48
  local x = axis.scale(0, most_bytes, from, to)
  local y = axis.scale(0, most_seconds, bottom, ceiling)
  local ticks, unit = axis.bytes(0, most_bytes, 5)
  for _, tick in ipairs(ticks) do
    picture:line(x(tick.value), ceiling, x(tick.value), bottom, {stroke = FAINT})
    picture:text(x(tick.value), bottom + 16, tick.label, {text_anchor = 'middle'})
  end
  picture:text((from + to) / 2, bottom + 33,
    ('live bytes at the peak, %s'):format(unit),
    {text_anchor = 'middle', fill = GREY})
  ticks, unit = axis.seconds(0, most_seconds, 5)
  for _, tick in ipairs(ticks) do
    picture:line(from, y(tick.value), to, y(tick.value), {stroke = FAINT})
    picture:text(from - 6, y(tick.value) + 4, tick.label, {text_anchor = 'end'})
  end
  picture:text(from - 6, ceiling - 2, unit, {text_anchor = 'end', fill = GREY})
  picture:line(from, bottom, to, bottom)
  picture:line(from, ceiling, from, bottom)
  return x, y
end

local function log_scale(least, most, from, to)
  local scale = axis.scale(math.log(least), math.log(most), from, to)
  return function(value) return scale(math.log(value)) end
end

--- Logarithmic axes: sequence length to the right, `unit` upward.
function panels.logarithmic(picture, left, top, width, height, lengths, least,
    most, unit)
  local from, to = left + 56, left + width - 64
  local bottom, ceiling = top + height - 46, top + 48
  local x = log_scale(lengths[1], math.max(lengths[#lengths], 2 * lengths[1]),
    from, to)
  least, most = least / 1.3, most * 1.3
  local y = log_scale(least, most, bottom, ceiling)
  for _, length in ipairs(lengths) do
    picture:line(x(length), ceiling, x(length), bottom, {stroke = FAINT})
    picture:text(x(length), bottom + 16, ('%d'):format(length),
      {text_anchor = 'middle'})
  end
  picture:text((from + to) / 2, bottom + 33, 'sequence length',
    {text_anchor = 'middle', fill = GREY})
  for power = -4, 6 do
    for _, k in ipairs {1, 2, 5} do
      local value = k * 10 ^ power
      if value >= least and value <= most then
        picture:line(from, y(value), to, y(value), {stroke = FAINT})
        picture:text(from - 6, y(value) + 4, ('%g'):format(value),
          {text_anchor = 'end'})
      end
    end
  end
  picture:text(from - 6, ceiling - 2, unit, {text_anchor = 'end', fill = GREY})
  picture:line(from, bottom, to, bottom)
  picture:line(from, ceiling, from, bottom)
  return x, y
end

--- A line through {x1, y1, ...} with a dot at each point.
function panels.line(picture, points, colour)
  if #points > 2 then
    picture:polyline(points, {fill = 'none', stroke = colour, stroke_width = 2.2})
  end
  for i = 1, #points, 2 do
    picture:circle(points[i], points[i + 1], 3.5, {fill = colour})
  end
end

--- Labels beside points, {x, y, text, colour, hollow}, from the top; one that
-- would lie on another moves down.
function panels.labelled(picture, right, points)
  table.sort(points, function(a, b)
    if a.y ~= b.y then return a.y < b.y end
    return a.x < b.x
  end)
  local place = labels.below_each_other()
  for _, point in ipairs(points) do
    local width = 6.6 * #point.text
    local ends = point.x + 10 + width > right
    local from, at = ends and point.x - 8 - width or point.x + 8, point.y + 4
    at = place(from, width, at)
    picture:circle(point.x, point.y, 4.5, {
      fill = point.hollow and '#ffffff' or point.colour, stroke = point.colour,
      stroke_width = 1.8})
    picture:text(ends and point.x - 8 or point.x + 8, at, point.text,
      {fill = point.colour, text_anchor = ends and 'end' or 'start',
        stroke = '#ffffff', stroke_width = 3, paint_order = 'stroke'})
  end
end

return panels
