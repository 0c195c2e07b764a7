--- The pictures of a comparison: bars of time and of memory, our curve of time
-- against memory with PyTorch's strategies as points, long sequences.

local lookup = require 'bench.compare.lookup'
local panels = require 'bench.compare.panels'

local pictures = {}

local MIB = 2 ^ 20

local function seconds_text(s)
  return (s < 0.095 and '%.3f' or '%.2f'):format(s)
end

local function mib_text(x) return ('%.0f'):format(x) end

-- ---- bars --------------------------------------------------------------------------

local function bar_pairs(row, value)
  local list = {}
  for _, ckpt in ipairs(lookup.strategies(row)) do
    local pair = lookup.pair(row, ckpt)
    if pair.mine or pair.best then
      list[#list + 1] = {name = ckpt, ours = pair.mine and value(pair.mine),
        theirs = pair.best and value(pair.best)}
    end
  end
  return list
end

local function bars(all, title, value, format)
  local shown = {}
  for _, row in ipairs(lookup.of_part(all, 'steps')) do
    local list = bar_pairs(row, value)
    if #list > 0 then shown[#shown + 1] = {title = row.title, pairs = list} end
  end
  if #shown == 0 then return nil end
  return function()
    local most = 0
    for _, row in ipairs(shown) do most = math.max(most, #row.pairs) end
    local width, height = most <= 4 and 280 or 36 + 72 * most, 250
    local picture, place = panels.new(title, #shown,
      math.floor(1120 / width), width, height)
    for i, row in ipairs(shown) do
      local left, top = place(i)
      panels.title(picture, left, top, row.title)
      panels.bars(picture, left, top, width, height, row.pairs, format)
    end
    return picture
  end
end

-- ---- time against memory -----------------------------------------------------------

-- Our plans under `none` and under budgets, from least memory to most.
local function front_of(row)
  local points = {}
  for _, entry in ipairs(row.ours) do
    if entry.seconds and (entry.label == 'none'
        or entry.spec:find '^budget') then
      points[#points + 1] = entry
    end
  end
  table.sort(points, function(a, b) return a.live_bytes < b.live_bytes end)
  return points
end

-- What is drawn: PyTorch's and our strategies whole, of our budgets what is
-- not far slower; the slowest would flatten all the rest.
local function bounds(row)
  local bytes, seconds = 0, 0
  for _, side in ipairs {row.ours, row.theirs} do
    for _, entry in ipairs(side) do
      if entry.seconds then
        bytes = math.max(bytes, entry.live_bytes)
        if not (entry.spec and entry.spec:find '^budget') then
          seconds = math.max(seconds, entry.seconds.median)
        end
      end
    end
  end
  return bytes * 1.06, seconds * 1.15
end

-- From least time to most, as long as they lie below `ceiling`; the first
-- beyond it ends the line there.
local function draw_line(picture, points, x, y, ceiling)
  local line = {}
  for i = #points, 1, -1 do
    local bytes, seconds = points[i].live_bytes, points[i].seconds.median
    if seconds > ceiling then
      local last = points[i + 1]
      if last then
        local share = (ceiling - last.seconds.median)
          / (seconds - last.seconds.median)
        local at = x(last.live_bytes + share * (bytes - last.live_bytes))
        picture:line(line[#line - 1], line[#line], at, y(ceiling),
          {stroke = panels.OURS, stroke_width = 2.2})
        picture:text(at + 6, y(ceiling) + 10, ('↑ %s s at %s MiB'):format(
          seconds_text(seconds), mib_text(bytes / MIB)),
          {fill = panels.OURS, font_size = 11})
      end
      break
    end
    line[#line + 1], line[#line + 2] = x(bytes), y(seconds)
  end
  panels.line(picture, line, panels.OURS)
end

local function draw_front(picture, left, top, width, height, row, points)
  local bytes, ceiling = bounds(row)
  panels.title(picture, left, top, row.title)
  local x, y = panels.plane(picture, left, top, width, height, bytes, ceiling)
  draw_line(picture, points, x, y, ceiling)
  local marks = {}
  local function mark(entry, text, colour, hollow)
    if entry and entry.seconds then
      marks[#marks + 1] = {x = x(entry.live_bytes), y = y(entry.seconds.median),
        text = text, colour = colour, hollow = hollow}
    end
  end
  for _, ckpt in ipairs(lookup.strategies(row)) do
    mark(lookup.mine(row, ckpt), ckpt, panels.OURS, ckpt ~= 'none')
    mark(lookup.best(row, ckpt), ckpt, panels.THEIRS)
  end
  panels.labelled(picture, left + width - 16, marks)
end

local LEAST_POINTS = 5

local function fronts(all)
  local shown = {}
  for _, row in ipairs(lookup.of_part(all, 'steps')) do
    local points = front_of(row)
    if #points >= LEAST_POINTS then shown[#shown + 1] = {row, points} end
  end
  if #shown == 0 then return nil end
  return function()
    local width, height = 380, 340
    local picture, place = panels.new('Seconds of a step against memory',
      #shown, 3, width, height)
    for i, entry in ipairs(shown) do
      local left, top = place(i)
      draw_front(picture, left, top, width, height, entry[1], entry[2])
    end
    return picture
  end
end

-- ---- sequences ---------------------------------------------------------------------

local function lines_of(rows, value)
  local ours, theirs, lengths = {}, {}, {}
  local least, most = math.huge, 0
  for i, row in ipairs(rows) do
    lengths[i] = row.seq
    local pair = lookup.pair(row, 'none')
    for _, side in ipairs {{ours, pair.mine}, {theirs, pair.best}} do
      if side[2] then
        local amount = value(side[2])
        table.insert(side[1], {row.seq, amount})
        least, most = math.min(least, amount), math.max(most, amount)
      end
    end
  end
  return ours, theirs, lengths, least, most
end

local function draw_lines(picture, left, top, width, height, rows, title, unit,
    value, format)
  local ours, theirs, lengths, least, most = lines_of(rows, value)
  panels.title(picture, left, top, title)
  local x, y = panels.logarithmic(picture, left, top, width, height, lengths,
    least, most, unit)
  local ends = {}
  for _, side in ipairs {{theirs, panels.THEIRS}, {ours, panels.OURS}} do
    local points = {}
    for _, point in ipairs(side[1]) do
      points[#points + 1] = x(point[1])
      points[#points + 1] = y(point[2])
    end
    panels.line(picture, points, side[2])
    if #points > 0 then
      ends[#ends + 1] = {x = points[#points - 1], y = points[#points],
        text = format(side[1][#side[1]][2]), colour = side[2]}
    end
  end
  panels.labelled(picture, left + width, ends)
end

local function sequences(all)
  local rows = {}
  for _, row in ipairs(lookup.of_part(all, 'sequence')) do
    local pair = lookup.pair(row, 'none')
    if pair.mine or pair.best then rows[#rows + 1] = row end
  end
  if #rows < 2 then return nil end
  return function()
    local width, height = 480, 330
    local picture, place = panels.new('Long sequences: GPT 6x384, batch 1, '
      .. 'dropout 0, none', 2, 2, width, height)
    local left, top = place(1)
    draw_lines(picture, left, top, width, height, rows, 'time of a step', 's',
      function(entry) return entry.seconds.median end, seconds_text)
    left, top = place(2)
    draw_lines(picture, left, top, width, height, rows, 'live bytes at the peak',
      'MiB', function(entry) return entry.live_bytes / MIB end, mib_text)
    return picture
  end
end

--- The pictures that the results have enough for: {title, file, make}.
function pictures.of(all)
  local list = {}
  local function add(title, file, make)
    if make then list[#list + 1] = {title = title, file = file, make = make} end
  end
  add('Seconds of a training step, ours and PyTorch', 'time.svg',
    bars(all, 'Seconds of a training step',
      function(entry) return entry.seconds.median end, seconds_text))
  add('Live MiB of a training step, ours and PyTorch', 'memory.svg',
    bars(all, 'Live MiB of a training step, above parameters and states',
      function(entry) return entry.live_bytes / MIB end, mib_text))
  add('Time against memory: our budgets, and PyTorch\'s strategies',
    'front.svg', fronts(all))
  add('Time and memory against sequence length', 'sequence.svg', sequences(all))
  return list
end

return pictures
