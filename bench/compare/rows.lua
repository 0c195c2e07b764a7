--- What is compared: one entry a row of the table.
--
-- kind, and what the models of that kind take, are handed to both sides
-- (work.lua; ../peer_models.py). Beyond that:
--   ckpt      strategies that both sides run; none alone by default
--   budgets   our own budgets, for the curve of time against memory
--   variants  PyTorch's settings for the same work, the best counts: {},
--             {channels_last = true}, {compile = true}
--   compiled  the strategies under which those with `compile` are tried: half
--             a minute of compiling each, where nothing of it is cached
--   apart     one strategy after another, not all in turn: for what would
--             not fit into memory side by side
--   part      'steps' (the table), 'sequence' (a line of the long sequences)

local rows = {}

local function with(base, more)
  local row = {}
  for key, value in pairs(base) do row[key] = value end
  for key, value in pairs(more) do row[key] = value end
  return row
end

local strategies = {'none', 'every=2', 'every=1'}
local variants = {{}, {compile = true}}
local compiled = {'none'}
local budgets = {'70%', '50%', '35%', '25%', 'min'}

local gpt = {
  part = 'steps', kind = 'gpt', ckpt = strategies, vocabulary = 65, seq = 256,
  layers = 6, heads = 6, width = 384, batch = 8, dropout = 0.1, dtype = 'f32',
  variants = variants, compiled = compiled,
}

-- GPT-2's smallest, with its own vocabulary.
local gpt2 = with(gpt, {vocabulary = 50257, layers = 12, heads = 12,
  width = 768, batch = 1, apart = true})

rows[1] = with(gpt, {name = 'gpt', budgets = budgets,
  title = 'GPT 6x384, B 8, T 256, dropout 0.1'})
rows[2] = with(gpt, {name = 'gpt-dropout-0', dropout = 0,
  title = 'GPT 6x384, B 8, T 256, dropout 0'})
rows[3] = with(gpt, {name = 'gpt-bf16', dtype = 'bf16',
  title = 'GPT 6x384, B 8, T 256, dropout 0.1, bf16'})
rows[4] = with(gpt2, {name = 'gpt2-124m',
  title = 'GPT-2 124M, B 1, T 256, dropout 0.1'})
rows[5] = {
  name = 'mlp', title = 'MLP 784-1024x16-10, B 512, dropout 0.1',
  part = 'steps', kind = 'mlp', ckpt = strategies, budgets = budgets,
  inputs = 784, width = 1024, layers = 15, classes = 10, batch = 512,
  dropout = 0.1, dtype = 'f32', variants = variants, compiled = compiled,
}
rows[6] = {
  name = 'resnet', title = 'ResNet-18, 32x32, B 32', part = 'steps',
  kind = 'resnet', ckpt = strategies, budgets = budgets,
  variants = {{}, {channels_last = true}, {compile = true},
    {channels_last = true, compile = true}}, compiled = compiled,
  channels = 3, size = 32, width = 64, layers = 8, classes = 10, batch = 32,
  dtype = 'f32',
}
-- The CPU setting of llm.c (github.com/karpathy/llm.c), which has no dropout.
rows[7] = with(gpt2, {name = 'llm.c', ckpt = {'none'}, batch = 4, seq = 64,
  dropout = 0, title = "GPT-2 124M, B 4, T 64, dropout 0 (llm.c's CPU setting)"})

-- Without dropout, as PyTorch's attention in tiles knows none on a CPU.
for power = 8, 13 do
  local seq = 2 ^ power
  rows[#rows + 1] = with(gpt, {name = 'sequence-' .. seq, part = 'sequence',
    ckpt = {'none'}, compiled = {}, batch = 1, seq = seq, dropout = 0,
    title = ('GPT 6x384, B 1, T %d, dropout 0'):format(seq)})
end

return rows
