--- Where a step's time goes: seconds and shares by op, and of all products the
-- share of the machine's own rate, measured by one large product in the same
-- run. Medians over steps.
--
--     luajit bench/shares.lua [--model gpt|mlp|resnet] [--ckpt none]
--                             [--dropout 0.1] [--steps 5] [--threads 2]
--                             [--dtype bf16]

local measure = dofile(((arg[0]:match '^(.*/)') or './') .. 'measure.lua')
local rp = require 'reprise'
local nn = rp.nn

local o = measure.options {model = 'gpt', ckpt = 'none', dropout = 0.1, steps = 5,
                           dtype = 'f32', threads = 2, most = 16}
rp.set_num_threads(o.threads)
rp.manual_seed(1)
rp.autocast(o.dtype == 'bf16' and 'bf16')

--- Each gives the model's parameters and a function that records its loss.
local works = {}

function works.gpt()
  local GPT = require 'examples.models.gpt'
  local model = GPT {vocabulary = 65, seq = 256, layers = 6, heads = 6, width = 384,
                     dropout = o.dropout}
  local ids = rp.randint(0, 65, {8, 256}, {dtype = 'i32'})
  local labels = rp.randint(0, 65, {8, 256}, {dtype = 'i32'})
  rp.run(ids, labels)
  return model:parameters(), function() return model:loss(ids, labels) end
end

function works.mlp()
  local model = nn.Sequential {
    nn.Layers(16, function(i)
      return nn.Sequential {nn.Linear(i == 1 and 784 or 1024, 1024), nn.ReLU(),
                            nn.Dropout(o.dropout)}
    end),
    nn.Linear(1024, 10),
  }
  local x, labels = rp.randn(512, 784), rp.randint(0, 10, {512}, {dtype = 'i32'})
  rp.run(x, labels)
  return model:parameters(), function() return rp.cross_entropy(model(x), labels) end
end

function works.resnet()
  local ResNet = require 'examples.models.resnet'
  local model = ResNet {channels = 3, width = 64, layers = 8, classes = 10}
  local x = rp.randn(32, 3, 32, 32)
  local labels = rp.randint(0, 10, {32}, {dtype = 'i32'})
  rp.run(x, labels)
  return model:parameters(), function() return rp.cross_entropy(model(x), labels) end
end

--- FLOP/s of a product that is large enough to be at the machine's rate.
local function product_rate()
  local size, times = 2048, {}
  local a, b = rp.randn(size, size), rp.randn(size, size)
  rp.run(a, b)
  for i = 1, 5 do
    local y = a:matmul(b)
    times[i] = measure.seconds(function() y:run() end, measure.clock)
  end
  return 2 * size ^ 3 / measure.median(times)
end

local work = works[o.model]
if not work then error('--model is gpt, mlp or resnet, not ' .. tostring(o.model), 0) end
local parameters, loss = work()
local opt = rp.optim.AdamW(parameters, {lr = 1e-4})

local steps, by_op, names, outside = {}, {}, {}, {}
for step = 0, o.steps do
  local start = measure.clock()
  local trace = rp.trace(function()
    local l = loss()
    opt:minimize(l, {ckpt = o.ckpt})
    l:item()
  end)
  local seconds = measure.clock() - start
  if step > 0 then -- the first one plans
    steps[step] = seconds
    local sums, kernels = {}, 0
    for _, event in ipairs(trace:events()) do
      local name = event.op .. (event.kind == 'replay' and ' (again)' or '')
      sums[name] = (sums[name] or 0) + event.seconds
      kernels = kernels + event.seconds
    end
    outside[step] = seconds - kernels
    for name, sum in pairs(sums) do
      if not by_op[name] then
        by_op[name] = {}
        names[#names + 1] = name
      end
      table.insert(by_op[name], sum)
    end
  end
end

local whole = measure.median(steps)
local shares = {}
for _, name in ipairs(names) do
  shares[name] = measure.median(by_op[name]) / whole
end
table.sort(names, function(a, b) return shares[a] > shares[b] end)
local rows, rest = {}, 0
for i, name in ipairs(names) do
  if i <= o.most then
    rows[#rows + 1] = {name, ('%.1f'):format(shares[name] * whole * 1e3),
      ('%.1f %%'):format(100 * shares[name])}
  else
    rest = rest + shares[name]
  end
end
rows[#rows + 1] = {'other ops', ('%.1f'):format(rest * whole * 1e3), ('%.1f %%'):format(100 * rest)}
local around = measure.median(outside)
rows[#rows + 1] = {'outside kernels', ('%.1f'):format(around * 1e3),
  ('%.1f %%'):format(100 * around / whole)}
measure.print_table({o.model .. ', ' .. o.ckpt, 'ms a step', 'share'}, rows)
local plan = opt:plan(loss(), {ckpt = 'none'})
local rate = product_rate()
print(('step %.3f s; %.1f GFLOP, %.0f GFLOP/s: %.0f %% of a large product\'s %.0f'):format(
  whole, plan.step_flops / 1e9, plan.step_flops / whole / 1e9,
  100 * plan.step_flops / whole / rate, rate / 1e9))
