--- Axes of pictures: a scale from values to pixels, round ticks in units that
-- a person reads.

local svg = require 'reprise.report.svg'

local axis = {}

local memory_units = {{'B', 1}, {'KiB', 2 ^ 10}, {'MiB', 2 ^ 20}, {'GiB', 2 ^ 30}}
local time_units = {{'us', 1e-6}, {'ms', 1e-3}, {'s', 1}}

local function unit_of(units, most)
  local chosen = units[1]
  for _, unit in ipairs(units) do
    if most >= unit[2] then chosen = unit end
  end
  return chosen
end

-- Ticks between least and most, which lie in the unit's round numbers.
local function ticks(units, least, most, count)
  local unit = unit_of(units, most)
  local step = svg.ticks((most - least) / unit[2], count)[2]
  local list = {}
  if not step then return list, unit[1] end
  for i = math.ceil(least / unit[2] / step), math.floor(most / unit[2] / step) do
    list[#list + 1] = {value = i * step * unit[2],
      label = ('%.10g'):format(i * step)}
  end
  return list, unit[1]
end

--- Ticks {value, label} of bytes from least to most, and the unit's name.
---@return {value: number, label: string}[], string
function axis.bytes(least, most, count)
  return ticks(memory_units, least, most, count)
end

--- The same of seconds.
---@return {value: number, label: string}[], string
function axis.seconds(least, most, count)
  return ticks(time_units, least, most, count)
end

--- Maps [least, most] to [from, to].
---@return fun(value: number): number
function axis.scale(least, most, from, to)
  local slope = most > least and (to - from) / (most - least) or 0
  return function(value) return from + (value - least) * slope end
end

return axis
