--- Least time against budget: the time-memory front of a step, and the named
-- strategies as points on the same axes, as a table and as a picture.

local axis = require 'reprise.report.axis'
local labels = require 'reprise.report.labels'
local plan_report = require 'reprise.report.plan'
local svg = require 'reprise.report.svg'
local units = require 'reprise.report.units'

local curve = {}

--- Strategies that are shown where they match.
curve.named = {'none', 'every=1', 'every=2', 'every=3', 'uniform=2',
  'attention', 'ops', 'sqrt', 'greedy=50%'}

---@class reprise.Curve
---@field front reprise.FrontPoint[] least memory first
---@field points {strategy: string, peak_bytes: integer, seconds: number}[]
---@field persistent_bytes integer

--- The curve of a step. `plan_of` gives the plan under a spec; a named
--- strategy that refuses (no attention in the model, ...) is left out.
---@param plan_of fun(spec: string): reprise.Plan
---@param specs? string[] named strategies, else curve.named
---@return reprise.Curve
function curve.of(plan_of, specs)
  local none = plan_of 'none'
  local made = {front = none:front(), points = {},
    persistent_bytes = none.persistent_bytes}
  for _, spec in ipairs(specs or curve.named) do
    local ok, plan = pcall(plan_of, spec)
    if ok then
      made.points[#made.points + 1] = {strategy = spec,
        peak_bytes = plan.peak_bytes, seconds = plan.step_seconds}
    end
  end
  return made
end

-- The fastest of the front within a budget.
local function fastest(front, budget)
  local best
  for _, point in ipairs(front) do
    if point.peak_bytes <= budget then best = point end
  end
  return best
end

-- About `count` of the front's points, spread over the memory they need.
local function spread(front, count)
  local least, most = front[1].peak_bytes, front[#front].peak_bytes
  local list, next_bytes = {}, least
  for i, point in ipairs(front) do
    if point.peak_bytes >= next_bytes or i == #front then
      list[#list + 1] = point
      next_bytes = point.peak_bytes + (most - least) / count
    end
  end
  return list
end

--- The table: budgets with the least time, then each named strategy with the
--- least time that its peak would buy.
---@param made reprise.Curve
---@param title? string
---@return string
function curve.text(made, title)
  local fast
  for _, point in ipairs(made.points) do
    if point.strategy == "none" then fast = point.seconds end
  end
  fast = fast or made.front[#made.front].seconds
  local lines = {}
  if title then lines = {title, ''} end
  lines[#lines + 1] = ('  %-12s %12s %12s %10s'):format('front', 'budget',
    'least time', 'over none')
  for _, point in ipairs(spread(made.front, 14)) do
    lines[#lines + 1] = ('  %-12s %12s %12s %10s'):format('',
      units.bytes(point.peak_bytes), units.seconds(point.seconds),
      units.percent(point.seconds / fast - 1))
  end
  local coarsened = plan_report.coarsened(made.front.chain)
  if coarsened then lines[#lines + 1] = '  ' .. coarsened end
  for _, line in ipairs(plan_report.left_out(made.front.left_out)) do
    lines[#lines + 1] = line
  end
  lines[#lines + 1] = ''
  lines[#lines + 1] = ('  %-12s %12s %12s %10s   %s'):format('strategy', 'peak',
    'time', 'over none', 'least time at that peak')
  for _, point in ipairs(made.points) do
    local best = fastest(made.front, point.peak_bytes)
    lines[#lines + 1] = ('  %-12s %12s %12s %10s   %s'):format(point.strategy,
      units.bytes(point.peak_bytes), units.seconds(point.seconds),
      units.percent(point.seconds / fast - 1),
      best and units.seconds(best.seconds) or '-')
  end
  return table.concat(lines, '\n')
end

local WIDTH, HEIGHT = 900, 560
local LEFT, RIGHT, TOP, BOTTOM = 76, 30, 64, 62
local FRONT, POINT = '#1f77b4', '#d62728'

-- The slowest plan that is drawn, over the fastest: beyond it a few bytes cost
-- so much time that the rest of the curve would be flat.
local SLOWEST = 2

local function bounds(made)
  local b = {least = made.persistent_bytes, most = 0, fast = math.huge, slow = 0}
  for _, list in ipairs {made.front, made.points} do
    for _, point in ipairs(list) do
      b.most = math.max(b.most, point.peak_bytes)
      b.fast = math.min(b.fast, point.seconds)
    end
  end
  for _, list in ipairs {made.front, made.points} do
    for _, point in ipairs(list) do
      if list == made.points or point.seconds <= SLOWEST * b.fast then
        b.slow = math.max(b.slow, point.seconds)
      end
    end
  end
  return b
end

local function draw_axes(picture, b, x, y)
  local bottom = HEIGHT - BOTTOM
  local list, unit = axis.bytes(b.least, b.most, 8)
  for _, tick in ipairs(list) do
    picture:line(x(tick.value), TOP, x(tick.value), bottom, {stroke = '#e6e6e6'})
    picture:text(x(tick.value), bottom + 18, tick.label, {text_anchor = 'middle'})
  end
  picture:text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14,
    ('memory at the peak, %s'):format(unit), {text_anchor = 'middle'})
  list, unit = axis.seconds(b.low, b.slow, 7)
  for _, tick in ipairs(list) do
    picture:line(LEFT, y(tick.value), WIDTH - RIGHT, y(tick.value),
      {stroke = '#e6e6e6'})
    picture:text(LEFT - 8, y(tick.value) + 4, tick.label, {text_anchor = 'end'})
  end
  picture:text(LEFT, TOP - 10, ('predicted time of a step, %s'):format(unit))
  picture:line(LEFT, bottom, WIDTH - RIGHT, bottom)
  picture:line(LEFT, TOP, LEFT, bottom)
end

-- Labels beside their points, from the top; one that would lie on another
-- moves down.
local function draw_points(picture, made, x, y)
  local place, points = labels.below_each_other(), {}
  for i, point in ipairs(made.points) do points[i] = point end
  table.sort(points, function(a, b)
    if a.seconds ~= b.seconds then return a.seconds > b.seconds end
    return a.strategy < b.strategy
  end)
  for _, point in ipairs(points) do
    local px, py = x(point.peak_bytes), y(point.seconds)
    local ends = px > WIDTH - RIGHT - 90
    local width, at = 7 * #point.strategy, py - 7
    local from = ends and px - 8 - width or px + 8
    at = place(from, width, at)
    picture:circle(px, py, 4.5, {fill = POINT, stroke = '#ffffff',
      title = ('%s: %s, %s'):format(point.strategy,
        units.bytes(point.peak_bytes), units.seconds(point.seconds))})
    picture:text(ends and px - 8 or px + 8, at + 4, point.strategy,
      {fill = POINT, text_anchor = ends and 'end' or 'start'})
  end
end

--- The picture.
---@param made reprise.Curve
---@param title string
---@return reprise.Svg
function curve.picture(made, title)
  local picture, b = svg.new(WIDTH, HEIGHT), bounds(made)
  b.low = math.max(0, b.fast - 0.15 * (b.slow - b.fast))
  b.slow = b.slow + 0.06 * (b.slow - b.low)
  b.most = b.most + 0.03 * (b.most - b.least)
  local x = axis.scale(b.least, b.most, LEFT, WIDTH - RIGHT)
  local y = axis.scale(b.low, b.slow, HEIGHT - BOTTOM, TOP)
  picture:text(LEFT, 26, title, {font_size = 15, font_weight = 'bold'})
  draw_axes(picture, b, x, y)
  local least = made.front[1]
  picture:rect(LEFT, TOP, x(least.peak_bytes) - LEFT, HEIGHT - BOTTOM - TOP,
    {fill = '#f0f0f0', title = 'no plan fits here'})
  local middle = (LEFT + x(least.peak_bytes)) / 2
  picture:text(middle, (TOP + HEIGHT) / 2, 'no plan fits',
    {text_anchor = 'middle', fill = '#888888', transform =
      ('rotate(-90 %.1f %.1f)'):format(middle, (TOP + HEIGHT) / 2)})
  picture:text(LEFT, HEIGHT - 14, 'the axis begins at the persistent '
    .. units.bytes(made.persistent_bytes),
    {font_size = 10, fill = '#888888'})
  -- A budget buys the fastest point at or below it: a staircase.
  local steps, last = {}, nil
  for _, point in ipairs(made.front) do
    local px, py = x(point.peak_bytes), math.max(y(point.seconds), TOP)
    steps[#steps + 1], steps[#steps + 2] = px, last or TOP
    steps[#steps + 1], steps[#steps + 2] = px, py
    last = py
  end
  steps[#steps + 1], steps[#steps + 2] = WIDTH - RIGHT, last
  picture:polyline(steps, {fill = 'none', stroke = FRONT, stroke_width = 2.2})
  if y(least.seconds) < TOP then
    picture:text(x(least.peak_bytes) + 18, TOP + 14, ('↑ %s at %s'):format(
      units.seconds(least.seconds), units.bytes(least.peak_bytes)),
      {fill = FRONT})
  end
  picture:text(WIDTH - RIGHT, 26, 'least time a budget buys',
    {fill = FRONT, text_anchor = 'end'})
  picture:text(WIDTH - RIGHT, 44, 'named strategies',
    {fill = POINT, text_anchor = 'end'})
  draw_points(picture, made, x, y)
  return picture
end

return curve
