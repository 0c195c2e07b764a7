--- every=N: one layer in N is recomputed, the others are kept. N chooses a
-- point between memory and time.
dofile((arg[0]:match '^(.*/)[^/]*$' or './') .. 'setup.lua')

local rp = require 'reprise'
local GPT = require 'examples.models.gpt'

rp.manual_seed(1)
local model = GPT {vocabulary = 64, seq = 64, layers = 8, heads = 4,
  width = 128, dropout = 0.1}
local opt = rp.optim.AdamW(model:parameters(), {lr = 1e-3})
local tokens = rp.randint(0, 64, {8, 65})
rp.run(tokens)
local x, y = tokens:narrow(2, 1, 64), tokens:narrow(2, 2, 64)
local loss = model:loss(x, y)

print 'strategy   peak (MiB)   recomputed'
for _, spec in ipairs {'none', 'every=4', 'every=2', 'every=1'} do
  local plan = opt:plan(loss, {ckpt = spec})
  print(('%-8s   %10.1f   %9.0f %%'):format(spec, plan.peak_bytes / 2 ^ 20,
    100 * plan.replay_seconds / plan.forward_seconds))
end
