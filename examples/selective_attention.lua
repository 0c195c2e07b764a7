--- Selective recomputation: one kind of module alone is replayed. Attention's
-- weights (heads x T x T) are never stored, whatever the strategy; what such a
-- segment drops is queries, keys and values, and what attention makes of them.
dofile((arg[0]:match '^(.*/)[^/]*$' or './') .. 'setup.lua')

local rp = require 'reprise'
local GPT = require 'examples.models.gpt'

rp.manual_seed(1)
local seq = 512
local model = GPT {vocabulary = 64, seq = seq, layers = 4, heads = 16,
  width = 512, dropout = 0}
local opt = rp.optim.AdamW(model:parameters(), {lr = 1e-3})
local tokens = rp.randint(0, 64, {1, seq + 1})
rp.run(tokens)
local loss = model:loss(tokens:narrow(2, 1, seq), tokens:narrow(2, 2, seq))

local none = opt:plan(loss, {ckpt = 'none'})
print 'strategy    saved (MiB)   recomputed   saved per percent'
for _, spec in ipairs {'attention', 'every=1'} do
  local plan = opt:plan(loss, {ckpt = spec})
  local saved = (none.peak_bytes - plan.peak_bytes) / 2 ^ 20
  local percent = 100 * plan.replay_seconds / plan.forward_seconds
  print(('%-9s   %11.1f   %9.0f %%   %17.2f'):format(spec, saved, percent,
    saved / percent))
end
