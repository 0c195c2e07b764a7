--- How long planning under a budget takes, and how much memory it needs: the
-- 1558M preset (batch 8, sequence 1024), and a chain of 1000 steps of 8 kinds,
-- each of three blocks.
-- Nothing is run and no parameter is allocated.
--
--     luajit bench/planner/speed.lua [gpt2-1558m | chain]

local folder = debug.getinfo(1, 'S').source:match '^@(.*/)' or './'
local root = folder .. '../../'
package.path = root .. 'lua/?.lua;' .. root .. 'lua/?/init.lua;' .. root ..
  '?.lua;' .. package.path

local rp = require 'reprise'
local presets = require 'reprise.presets'
local GPT = require 'examples.models.gpt'

local cases = {}

cases['gpt2-1558m'] = function()
  local p = presets.gpt['gpt2-1558m']
  local model = GPT {vocabulary = p.vocabulary, seq = 1024, layers = p.layers,
                     heads = p.heads, width = p.width, dropout = p.dropout}
  local ids = rp.randint(0, 10, {8, 1024}, {dtype = 'i32'})
  return model:loss(ids, ids)
end

function cases.chain()
  local kinds = {'exp', 'sin', 'gelu', 'tanh', 'sigmoid', 'square', 'silu', 'cos'}
  local x = rp.ones(64, 64, {requires_grad = true})
  local w = rp.ones(64, 64)
  return rp.scan(function(h, i)
    return rp[kinds[(i * 7 + math.floor(i / 8)) % 8 + 1]](h:matmul(w))
  end, x, 1000):sum()
end

for _, name in ipairs {'gpt2-1558m', 'chain'} do
  if arg[1] == nil or arg[1] == name then
    local loss = cases[name]()
    local none = loss:plan {ckpt = 'none'}
    rp.memory()
    local before = os.clock()
    local plan = loss:plan {ckpt = 'budget=50%'}
    print(('%-12s %.2f s, peak of recipes %.0f MiB; plan: %.3f of none\'s arena, %.3f of its time')
      :format(name, os.clock() - before, (rp.memory().recipe_peak_bytes or 0) / 2 ^ 20,
        plan.arena_bytes / none.arena_bytes, plan.step_seconds / none.step_seconds))
  end
end
