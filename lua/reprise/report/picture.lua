--- A plan as a picture: memory over the program, stacked by kind, and below it
-- where every value lies in the arena and for how long.

local axis = require 'reprise.report.axis'
local svg = require 'reprise.report.svg'
local timeline = require 'reprise.report.timeline'
local units = require 'reprise.report.units'

local WIDTH, HEIGHT = 1200, 880
local LEFT, RIGHT = 84, 24
local STACK_TOP, STACK_BOTTOM = 150, 490
local STRIP = 494
local BOXES_TOP, BOXES_BOTTOM = 584, 824
local LEGEND = 66

local colours = {
  parameters = '#8c8c8c', optimizer = '#b3b3b3', rest = '#d0d0d0',
  kept = '#4c78a8', recomputed = '#b279a2', passing = '#9ecae9',
  gradient = '#f58518', workspace = '#54a24b',
}
local run_colours = {forward = '#4c78a8', replay = '#b279a2',
  backward = '#f58518', update = '#54a24b'}
local legend = {
  {'parameters', 'parameters'}, {'optimizer', 'optimizer state'},
  {'rest', 'inputs, .grad, results'}, {'kept', 'kept for backward'},
  {'recomputed', 'recomputed'}, {'passing', 'passing'},
  {'gradient', 'gradients'}, {'workspace', 'workspaces'},
}

-- What lies below the arena's bytes at every moment.
local function persistent(plan)
  local rest = plan.persistent_bytes - plan.role_bytes.parameter
    - plan.role_bytes.optimizer
  return {{'parameters', plan.role_bytes.parameter},
    {'optimizer', plan.role_bytes.optimizer}, {'rest', rest}}
end

local function draw_legend(picture)
  local x = LEFT
  for _, entry in ipairs(legend) do
    picture:rect(x, LEGEND - 10, 12, 12, {fill = colours[entry[1]]})
    picture:text(x + 17, LEGEND, entry[2])
    x = x + 36 + 6.6 * #entry[2]
  end
end

local function draw_bytes_axis(picture, y, most, count)
  local list, unit = axis.bytes(0, most, count)
  for _, tick in ipairs(list) do
    picture:line(LEFT, y(tick.value), WIDTH - RIGHT, y(tick.value),
      {stroke = '#e6e6e6'})
    picture:text(LEFT - 8, y(tick.value) + 4, tick.label, {text_anchor = 'end'})
  end
  return unit
end

-- One area of the stack, from below[i] to below[i] + bytes[i]; below grows.
local function area(picture, x, y, below, bytes, colour)
  local points, n, any = {}, #below, false
  local function add(px, py)
    points[#points + 1], points[#points + 2] = px, py
  end
  for i = 1, n do
    any = any or bytes[i] > 0
    add(x(i - 1), y(below[i] + bytes[i]))
    add(x(i), y(below[i] + bytes[i]))
  end
  for i = n, 1, -1 do
    add(x(i), y(below[i]))
    add(x(i - 1), y(below[i]))
    below[i] = below[i] + bytes[i]
  end
  if any then picture:polyline(points, {fill = colour, stroke = 'none'}) end
end

local function draw_stack(picture, plan, line, x, y)
  local n, below = #line.runs, {}
  for i = 1, n do below[i] = 0 end
  for _, part in ipairs(persistent(plan)) do
    local flat = {}
    for i = 1, n do flat[i] = part[2] end
    area(picture, x, y, below, flat, colours[part[1]])
  end
  for _, kind in ipairs(timeline.kinds) do
    area(picture, x, y, below, line.live[kind], colours[kind])
  end
end

-- Stretches of equal `key` over the runs: {first, last, value}.
local function stretches(runs, key)
  local list = {}
  for i, run in ipairs(runs) do
    local last = list[#list]
    if last and last.value == run[key] then
      last.last = i
    else
      list[#list + 1] = {first = i, last = i, value = run[key]}
    end
  end
  return list
end

-- Layers under the stack, then what kind of instruction runs.
local function draw_strip(picture, line, x)
  local shade = 0
  for _, stretch in ipairs(stretches(line.runs, 'layer')) do
    local layer = stretch.value and line.layers[stretch.value]
    if layer then
      shade = 1 - shade
      local from, width = x(stretch.first - 1), x(stretch.last) - x(stretch.first - 1)
      local name = layer.name:match '[^.]*$'
      picture:rect(from, STRIP, width, 16, {title = layer.name,
        fill = shade == 1 and '#e4e4e4' or '#d2d2d2'})
      if width > 7 * #name + 2 then
        picture:text(from + width / 2, STRIP + 12, name,
          {text_anchor = 'middle', font_size = 11})
      end
    end
  end
  picture:text(LEFT - 8, STRIP + 12, 'layer', {text_anchor = 'end', font_size = 11})
  for _, stretch in ipairs(stretches(line.runs, 'kind')) do
    picture:rect(x(stretch.first - 1), STRIP + 19,
      x(stretch.last) - x(stretch.first - 1), 12,
      {fill = run_colours[stretch.value], title = stretch.value})
  end
  picture:text(LEFT - 8, STRIP + 29, 'runs', {text_anchor = 'end', font_size = 11})
  local at = LEFT
  for _, kind in ipairs {'forward', 'replay', 'backward', 'update'} do
    picture:rect(at, STRIP + 37, 10, 10, {fill = run_colours[kind]})
    picture:text(at + 14, STRIP + 46, kind, {font_size = 11})
    at = at + 30 + 7 * #kind
  end
end

local function draw_phases(picture, line, x)
  local turn = 0
  for i, run in ipairs(line.runs) do
    if run.kind == 'forward' then turn = i end
  end
  picture:line(x(turn), STACK_TOP - 56, x(turn), BOXES_BOTTOM,
    {stroke = '#555555', stroke_dasharray = '2 3'})
  picture:text(x(turn) - 6, STACK_TOP - 46, 'forward →', {text_anchor = 'end'})
  if turn < #line.runs then
    picture:text(x(turn) + 6, STACK_TOP - 46, 'backward →')
  end
end

local function fragmentation(plan)
  local bytes = plan.arena_bytes - plan.live_bytes
  return bytes > 0 and ', fragmentation ' .. units.bytes(bytes) or ''
end

-- The peak: a line across, a dot, and what caused it, on the side with room.
local function draw_peak(picture, plan, line, x, y)
  local run, largest = line.runs[line.peak], nil
  for _, kind in ipairs(timeline.kinds) do
    local bytes = line.live[kind][line.peak]
    if not largest or bytes > largest[2] then largest = {kind, bytes} end
  end
  local words = {kept = 'kept for backward', recomputed = 'recomputed',
    passing = 'passing', gradient = 'gradients', workspace = 'workspaces'}
  local doing = run.kind == 'backward' and 'backward of '
    .. (run.name:match '^(.*)%.[^.]*$' or run.name)
    or run.name .. (run.kind == 'replay' and ', again' or '')
  local px, py = x(line.peak - 0.5), y(plan.peak_bytes)
  picture:line(LEFT, py, WIDTH - RIGHT, py,
    {stroke = '#d62728', stroke_dasharray = '5 4'})
  picture:line(px, py, px, STACK_BOTTOM, {stroke = '#d62728', stroke_width = 0.8})
  picture:circle(px, py, 4, {fill = '#d62728', stroke = '#ffffff'})
  local right = px < (LEFT + WIDTH - RIGHT) / 2
  local given = {fill = '#b01c1d', font_weight = 'bold',
    text_anchor = right and 'start' or 'end'}
  local at = right and px + 9 or px - 9
  picture:text(at, py - 23, ('peak %s at %s'):format(
    units.bytes(plan.peak_bytes), doing), given)
  given = {fill = given.fill, text_anchor = given.text_anchor}
  picture:text(at, py - 8, ('persistent %s, %s %s%s'):format(
    units.bytes(plan.persistent_bytes), words[largest[1]],
    units.bytes(largest[2]), fragmentation(plan)), given)
end

local function draw_boxes(picture, plan, line, x)
  local most = math.max(plan.arena_bytes, 1)
  local y = axis.scale(0, most, BOXES_BOTTOM, BOXES_TOP)
  local unit = draw_bytes_axis(picture, y, most, 5)
  picture:text(LEFT, BOXES_TOP - 10, ('address in the arena, %s: every box is a '
    .. 'value from the run that makes it to its last reader'):format(unit))
  for _, box in ipairs(line.boxes) do
    local height = y(box.offset) - y(box.offset + box.size_bytes)
    local width = x(box.last) - x(box.first - 1)
    -- A white edge tells boxes apart; on a thin one nothing else would be left.
    local edge = height > 3 and width > 3 and 0.6
      or height > 0.8 and width > 1.5 and 0.15 or 0
    -- Thinner than this many together are not seen either.
    if height >= 0.02 then
      picture:rect(x(box.first - 1), y(box.offset + box.size_bytes),
        width, height, {fill = colours[box.kind],
          stroke = '#ffffff', stroke_width = ('%g'):format(edge),
          title = ('%s, %s\n%s'):format(box.name, units.bytes(box.size_bytes),
            box.reason)})
    end
  end
  picture:line(LEFT, BOXES_BOTTOM, WIDTH - RIGHT, BOXES_BOTTOM)
end

--- The picture of a plan.
---@param plan reprise.Plan
---@param title string
---@return reprise.Svg
return function(plan, title)
  local line = timeline.of(plan)
  local picture = svg.new(WIDTH, HEIGHT)
  local x = axis.scale(0, math.max(#line.runs, 1), LEFT, WIDTH - RIGHT)
  local y = axis.scale(0, plan.peak_bytes, STACK_BOTTOM, STACK_TOP)
  picture:text(LEFT, 30, title, {font_size = 16, font_weight = 'bold'})
  draw_legend(picture)
  local unit = draw_bytes_axis(picture, y, plan.peak_bytes, 6)
  picture:text(LEFT, STACK_TOP - 10, 'memory, ' .. unit)
  if #line.runs > 0 then
    draw_stack(picture, plan, line, x, y)
    draw_strip(picture, line, x)
    draw_boxes(picture, plan, line, x)
    draw_phases(picture, line, x)
    draw_peak(picture, plan, line, x, y)
  end
  picture:text((LEFT + WIDTH - RIGHT) / 2, BOXES_BOTTOM + 24,
    ('%d RUN instructions, in order'):format(#line.runs),
    {text_anchor = 'middle'})
  return picture
end
