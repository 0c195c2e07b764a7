--- Tables and pictures again from results.json, without measuring; with
-- --readme also the README's section between its markers.
--
--     luajit bench/report.lua [--readme README.md] [--out bench/results]

local folder = arg[0]:match '^(.*/)' or './'
local measure = dofile(folder .. 'measure.lua')
local report = require 'bench.compare.report'
local results = require 'bench.compare.results'

local BEGIN = '<!-- bench: begin, written by make bench-readme -->'
local END = '<!-- bench: end -->'

local o = measure.options {readme = '', out = measure.root .. 'bench/results'}

--- The text with what is between the markers replaced.
local function inserted(text, path, section)
  local _, from = text:find(BEGIN, 1, true)
  local to = from and text:find(END, from, true)
  if not to then
    error(('%s: no lines %s and %s'):format(path, BEGIN, END), 0)
  end
  return text:sub(1, from) .. '\n' .. section .. text:sub(to)
end

local all = results.load(o.out .. '/results.json')
report.write(o.out, all)
if o.readme ~= '' then
  local file = assert(io.open(o.readme))
  local text = file:read '*a'
  file:close()
  results.write(o.readme, inserted(text, o.readme, report.short(all)))
end
