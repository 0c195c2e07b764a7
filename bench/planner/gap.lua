--- How far from Checkmate's optimum the planner is: for every graph of
-- graphs.lua and five budgets each, its seconds over the proven bound.
--
--     luajit bench/planner/gap.lua [SET]            the table, from SET/
--     luajit bench/planner/gap.lua [SET] --dump DIR writes each graph's node
--                                          table, which checkmate.py solves
--
-- SET is golden, on which the search's settings were chosen, or fresh.

local folder = debug.getinfo(1, 'S').source:match '^@(.*/)' or './'
local root = folder .. '../../'
package.path = root .. 'lua/?.lua;' .. root .. 'lua/?/init.lua;' .. root ..
  '?.lua;' .. package.path

local cjson = require 'cjson'
local json = require 'reprise.report.json'
local rp = require 'reprise'
local graphs = require 'bench.planner.graphs'
local failure = require 'reprise.failure'

--- The nodes in the order in which `none` runs them, as checkmate.py reads
-- them: bytes in the arena, seconds, inputs by position, and which inputs'
-- bytes the result may take over.
local function node_table(plan, graph)
  local order, at = {}, {}
  for _, step in ipairs(plan:instructions()) do
    if step.run then
      order[#order + 1] = step.run
      at[step.run] = #order
    end
  end
  local in_arena = {}
  for _, instance in ipairs(plan:instances()) do
    if not instance.workspace then in_arena[instance.node] = instance.in_arena end
  end
  local nodes = {}
  for i, index in ipairs(order) do
    local node, inputs, over, seen = graph.nodes[index], {}, {}, {}
    for _, input in ipairs(node.inputs) do
      if input > 0 and not seen[input] then
        seen[input] = true
        inputs[#inputs + 1] = at[input] - 1
        -- A superset of what the ops allow, so that the optimum stays a bound.
        if not node.costly and graph.nodes[input].bytes == node.bytes then
          over[#over + 1] = at[input] - 1
        end
      end
    end
    nodes[i] = {
      op = node.op, seconds = node.seconds, inputs = inputs, over = over,
      bytes = in_arena[index] and node.bytes or 0, once = node.effect,
    }
  end
  return nodes
end

--- A strategy that keeps all: nothing runs twice.
local function keep_all(graph)
  local keep = {}
  for i = 1, graph.n_forward do keep[i] = i end
  return {{first = 1, last = graph.n_forward, keep = keep}}
end

--- {name, nodes, arena_bytes with all kept, front = {{arena_bytes, seconds}, ...}}
-- Each op is a node, as checkmate.py was given them: nothing is fused.
local function describe(entry)
  local fused, sink = rp.fusion(false), failure.sink
  failure.sink = function() end -- that keeping all saves nothing
  local loss, found = entry.loss(), nil
  local none = loss:plan {ckpt = keep_all}
  loss:plan {ckpt = function(graph)
    found = {front = graph.front(), nodes = node_table(none, graph),
             persistent_bytes = graph.persistent_bytes}
    return {}
  end}
  rp.fusion(fused)
  failure.sink = sink
  local front = {}
  for i, point in ipairs(found.front) do
    front[i] = {point.peak_bytes - found.persistent_bytes, point.seconds}
  end
  return {name = entry.name, nodes = found.nodes, front = front,
          arena_bytes = none.arena_bytes}
end

local function dump(path, d)
  local nodes = {}
  for i, node in ipairs(d.nodes) do
    nodes[i] = {object = {
      {'op', node.op}, {'bytes', node.bytes}, {'seconds', node.seconds},
      {'inputs', node.inputs}, {'over', node.over}, {'once', node.once},
    }}
  end
  local file = assert(io.open(path, 'w'))
  file:write(json.object {{'name', d.name}, {'arena_bytes', d.arena_bytes},
                          {'nodes', nodes}}, '\n')
  file:close()
end

--- Checkmate's results for a graph, or nil where checkmate.py has not been run.
local function known_results(set, name)
  local file = io.open(('%s%s/%s.json'):format(folder, set, name))
  if not file then return nil end
  local text = file:read '*a'
  file:close()
  return cjson.decode(text)
end

--- The planner's least seconds within the budget; nil when it has no plan.
local function seconds_within(front, budget_bytes)
  local best
  for _, point in ipairs(front) do
    if point[1] <= budget_bytes then best = point[2] end
  end
  return best
end

local gap = {}

--- One row a graph: {name, least = arena bytes over the proven bound of the
-- least, gaps = seconds over the proven bound, less 1, by budget, or false
-- where the planner has no plan; proven = whether the bound is the optimum}.
function gap.rows(set)
  local rows = {}
  for _, entry in ipairs(graphs[set]) do
    local known = known_results(set, entry.name)
    if known and #known.results > 0 then
      local front = describe(entry).front
      local row = {name = entry.name, gaps = {}, proven = {},
                   least = front[1][1] / known.least[2]}
      for i, result in ipairs(known.results) do
        local found = seconds_within(front, result[1])
        row.gaps[i] = found and found / result[3] - 1 or false
        row.proven[i] = result[4] == 'optimal'
      end
      rows[#rows + 1] = row
    end
  end
  return rows
end

--- Of all gaps, or only of those whose bound is the optimum: median, worst,
-- how many there are, and how many budgets the planner cannot meet.
function gap.summary(rows, proven_only)
  local all, unmet = {}, 0
  for _, row in ipairs(rows) do
    for i, value in ipairs(row.gaps) do
      if row.proven[i] or not proven_only then
        if value then all[#all + 1] = value else unmet = unmet + 1 end
      end
    end
  end
  table.sort(all)
  return {median = all[math.ceil(#all / 2)], worst = all[#all], count = #all,
          unmet = unmet}
end

local function print_summary(name, all)
  print(('%-18s %3d budgets: median %.2f %%, worst %.2f %%; %d more not met'):format(
    name, all.count, 100 * all.median, 100 * all.worst, all.unmet))
end

local function print_table(set)
  local rows = gap.rows(set)
  print 'graph          least / bound   gap to the bound, % (* not proven to be the optimum)'
  for _, row in ipairs(rows) do
    local cells = {}
    for i, value in ipairs(row.gaps) do
      cells[i] = (value and ('%7.2f'):format(100 * value) or '   none') ..
        (row.proven[i] and ' ' or '*')
    end
    print(('%-12s  %14.3f   %s'):format(row.name, row.least, table.concat(cells, ' ')))
  end
  print_summary('all bounds', gap.summary(rows))
  print_summary('proven optima', gap.summary(rows, true))
end

if arg and arg[0] and arg[0]:find 'gap%.lua$' then
  local set = graphs[arg[1]] and table.remove(arg, 1) or 'golden'
  if arg[1] == '--dump' then
    for _, entry in ipairs(graphs[set]) do
      dump(('%s/%s.json'):format(arg[2], entry.name), describe(entry))
    end
  else
    print_table(set)
  end
end

return gap
