--- What `--preset` and the defaults of train.lua stand for.
--
-- The shapes of gpt2-* are GPT-2's (Radford et al., 2019, table 2); gpt-10m is
-- the size that nanoGPT trains on characters; demo is what two CPU cores
-- train to a readable sample in about a minute.

local presets = {}

local function gpt(layers, heads, width, rest)
  local preset = {layers = layers, heads = heads, width = width}
  for key, value in pairs(rest) do preset[key] = value end
  return preset
end

-- GPT-2 keeps its vocabulary whatever the text, so that its size is its own.
local gpt2 = {vocabulary = 50257, seq = 1024, batch = 4, dropout = 0.1,
  steps = 1000, lr = 3e-4}

presets.gpt = {
  demo = gpt(4, 4, 128, {seq = 64, batch = 8, dropout = 0, steps = 1800,
                         lr = 3e-3}),
  ['gpt-10m'] = gpt(6, 6, 384, {seq = 256, batch = 8, dropout = 0.1,
                                steps = 2000, lr = 1e-3}),
  ['gpt2-124m'] = gpt(12, 12, 768, gpt2),
  ['gpt2-355m'] = gpt(24, 16, 1024, gpt2),
  ['gpt2-774m'] = gpt(36, 20, 1280, gpt2),
  ['gpt2-1558m'] = gpt(48, 25, 1600, gpt2),
}

--- In the order help lists them.
presets.gpt_names = {'demo', 'gpt-10m', 'gpt2-124m', 'gpt2-355m', 'gpt2-774m',
                     'gpt2-1558m'}

presets.mlp = {layers = 4, width = 512, batch = 128, dropout = 0.1,
               steps = 1000, lr = 1e-3}

-- ResNet-18.
presets.resnet = {layers = 8, width = 64, batch = 32, steps = 300, lr = 1e-3}

return presets
