--- A mixed strategy: a word for most of the model, a mark by hand where you
-- know better. Marks stand, the strategy decides the rest.
dofile((arg[0]:match '^(.*/)[^/]*$' or './') .. 'setup.lua')

local rp = require 'reprise'
local nn = rp.nn

local Stage = nn.module('Stage', function(self, width)
  self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
  self.keep_hidden = false
end)

function Stage:forward(x)
  local hidden = rp.gelu(self.fc1(x))
  -- The costly value of this stage: not recomputed, even inside a segment.
  if self.keep_hidden then hidden:keep() end
  return x + self.fc2(hidden)
end

rp.manual_seed(1)
local model = nn.Layers(6, function() return Stage(128) end)
local opt = rp.optim.SGD(model:parameters(), {lr = 1e-2})
local x = rp.randn(1024, 128)

local function show(name, spec)
  local plan = opt:plan(model(x):mean(), {ckpt = spec})
  print(('%-38s peak %5.1f MiB, recomputes %2.0f %%'):format(name,
    plan.peak_bytes / 2 ^ 20,
    100 * plan.replay_seconds / plan.forward_seconds))
end

show('none', 'none')
show('every=1', 'every=1')
for i = 1, 3 do model[i].keep_hidden = true end
show('every=1, hidden of stages 1-3 kept', 'every=1')
