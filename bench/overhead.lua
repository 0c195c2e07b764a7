--- What recording costs: nanoseconds a node from Lua, and the share of a
-- gpt-10m step that is not spent in kernels.
--
--     luajit bench/overhead.lua [--nodes 100000] [--steps 5]

local measure = dofile(((arg[0]:match '^(.*/)') or './') .. 'measure.lua')
local rp = require 'reprise'

local o = measure.options {nodes = 100000, steps = 5, rounds = 5, threads = 2,
                           gpt = 'yes'}
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
local rows = {}
local function add(name, nanoseconds)
  rows[#rows + 1] = {name, ('%.0f'):format(nanoseconds)}
end
add('x + y', chain(function(x) return x + y end))
add('x * 0.5', chain(function(x) return x * 0.5 end))
add('x:tanh()', chain(function(x) return x:tanh() end))
add('x + row (broadcast)', chain(function() return y + row end))
add('x:matmul(w)', chain(function() return row:matmul(square) end))
add('x:t() (a view)', chain(function() return square:t() end))
add('x:sum(-1)', chain(function() return square:sum(-1) end))
measure.print_table(head, rows)

if o.gpt == 'no' then return end
local GPT = require 'examples.models.gpt'
rp.manual_seed(1)
local model = GPT {vocabulary = 65, seq = 256, layers = 6, heads = 6, width = 384,
                   dropout = 0.1}
local opt = rp.optim.AdamW(model:parameters(), {lr = 1e-3})
local ids = rp.randint(0, 65, {8, 256}, {dtype = 'i32'})
local labels = rp.randint(0, 65, {8, 256}, {dtype = 'i32'})
rp.run(ids, labels)

local recording, whole, outside, misses = {}, {}, {}, 0
for step = 0, o.steps do
  local before = rp.memory().plan_misses
  local start, worked = measure.clock(), measure.processor()
  local loss = model:loss(ids, labels)
  local recorded = measure.processor() - worked
  opt:minimize(loss)
  local value = loss:item()
  local finish = measure.clock()
  if step == 0 then
    print(('\nfirst step: %.3f s, of which planning is a part; loss %.4f')
      :format(finish - start, value))
  else
    recording[step], whole[step] = recorded, finish - start
    outside[step] = whole[step] - rp.last_plan():measured_seconds()
    misses = misses + rp.memory().plan_misses - before
  end
end
local a, b, c = measure.median(recording), measure.median(whole),
  measure.median(outside)
print(('gpt-10m step: %.3f s; recording the forward pass %.3f ms, %.2f %%; ' ..
  'all outside the program (recording, gradients, finding the plan) %.3f ms, ' ..
  '%.2f %%; plans made after the first step: %d')
  :format(b, a * 1e3, 100 * a / b, c * 1e3, 100 * c / b, misses))
