--- What recording costs: nanoseconds a node from Lua, and the shares of a step
-- that recording and all else outside its program take. The first step plans.
--
--     luajit bench/overhead.lua [--nodes 100000] [--steps 5] [--models gpt,mlp]

local measure = dofile(((arg[0]:match '^(.*/)') or './') .. 'measure.lua')
local rp = require 'reprise'

local work = require 'bench.compare.work'

local rows = {}
for _, row in ipairs(require 'bench.compare.rows') do rows[row.name] = row end

local o = measure.options {nodes = 100000, steps = 5, rounds = 5, threads = 2,
                           models = 'gpt,mlp'}
rp.set_num_threads(o.threads)

local function chain(step)
  local times = {}
  for round = 1, o.rounds do
    local x = rp.zeros(4)
    collectgarbage() collectgarbage()
    times[round] = measure.seconds(function()
      for _ = 1, o.nodes do x = step(x) end
    end, measure.processor)
  end
  return measure.median(times) / o.nodes * 1e9
end

local y = rp.ones(4)
local row = rp.ones(1, 4)
local square = rp.ones(4, 4)
local head = {'recorded', 'ns a node'}
local nodes = {}
local function add(name, nanoseconds)
  nodes[#nodes + 1] = {name, ('%.0f'):format(nanoseconds)}
end
add('x + y', chain(function(x) return x + y end))
add('x * 0.5', chain(function(x) return x * 0.5 end))
add('x:tanh()', chain(function(x) return x:tanh() end))
add('x + row (broadcast)', chain(function() return y + row end))
add('x:matmul(w)', chain(function() return row:matmul(square) end))
add('x:t() (a view)', chain(function() return square:t() end))
add('x:sum(-1)', chain(function() return square:sum(-1) end))
measure.print_table(head, nodes)

if o.steps == 0 then return end

-- What a step spends outside its program: recording the forward pass, emitting
-- gradients, finding the plan again.
local function shares(name)
  local record, opt = work.open(rows[name])
  local recording, whole, outside, misses, first = {}, {}, {}, 0, 0
  for step = 0, o.steps do
    local before = rp.memory().plan_misses
    local start, worked = measure.clock(), measure.processor()
    local loss = record()
    local recorded = measure.processor() - worked
    opt:minimize(loss)
    loss:item()
    local finish = measure.clock()
    if step == 0 then
      first = finish - start
    else
      recording[step], whole[step] = recorded, finish - start
      outside[step] = whole[step] - rp.last_plan():measured_seconds()
      misses = misses + rp.memory().plan_misses - before
    end
  end
  local step = measure.median(whole)
  local function part(list)
    local seconds = measure.median(list)
    return ('%.3f'):format(seconds * 1e3),
      ('%.2f %%'):format(100 * seconds / step)
  end
  local a, a_share = part(recording)
  local b, b_share = part(outside)
  return {rows[name].title, ('%.3f'):format(first), ('%.3f'):format(step),
    a, a_share, b, b_share, misses}
end

-- Each model in its turn: what the one before held is let go.
local lines = {}
for name in o.models:gmatch '[^,]+' do
  if not rows[name] then
    error(('no model %s in compare/rows.lua'):format(name), 0)
  end
  collectgarbage() collectgarbage()
  lines[#lines + 1] = shares(name)
end
print()
measure.print_table({'a step of', 'first, s', 's', 'recording, ms', 'share',
  'all outside the program, ms', 'share', 'plans after the first'}, lines)
