--- Small models for the specs that hold for every strategy. Each entry makes
-- a fresh model: {module, parameters (trained ones), loss = function() ->
-- a newly recorded loss, specs = the strategies that make sense for it}.

local rp = require 'reprise'
local raw = require 'spec.support.raw'
local GPT = require 'examples.models.gpt'
local ResNet = require 'examples.models.resnet'
local UNet = require 'examples.models.unet'
local nn = rp.nn

local models = {}

--- A tensor with numbers from the seed; dtype is the default one.
local function values(seed, shape, lo, hi)
  return rp.tensor(raw.fill(seed, shape, lo, hi)):reshape(shape)
end

local function labels(seed, count, classes)
  local data = raw.fill(seed, {count}, 0, classes)
  for i = 1, count do data[i] = math.floor(data[i]) end
  return rp.tensor(data, {dtype = 'i32'})
end

local function trained(module)
  local list = {}
  for _, p in ipairs(module:parameters()) do
    if p.requires_grad then list[#list + 1] = p end
  end
  return list
end

-- What every model is run under. Counts that exceed a small model's layers
-- are part of what must work.
local common = {
  'every=1', 'every=2', 'every=3', 'uniform=2', 'uniform=3', 'segments=1',
  'segments=2', 'segments=3', 'nodes=1', 'nodes=2', 'nodes=5', 'sqrt', 'ops',
  'ops=linear', 'scope=*', 'budget=min',
}

local function specs(...)
  local list = {}
  for _, s in ipairs(common) do list[#list + 1] = s end
  for _, s in ipairs {...} do list[#list + 1] = s end
  return list
end

--- Five linear layers with ReLU and dropout, their names in a Sequential.
function models.mlp()
  local widths = {12, 16, 14, 16, 10, 5}
  local list = {}
  for i = 1, 5 do
    list[#list + 1] = nn.Linear(widths[i], widths[i + 1]):named('fc' .. i)
    if i < 5 then
      list[#list + 1] = nn.ReLU():named('act' .. i)
      list[#list + 1] = nn.Dropout(0.25):named('drop' .. i)
    end
  end
  local model = nn.Sequential(list)
  local x, y = values(101, {8, 12}, -2, 2), labels(102, 8, 5)
  return {
    module = model, parameters = trained(model),
    loss = function() return rp.cross_entropy(model(x), y) end,
    specs = specs('blocks=fc1..act2,fc3..act3', 'blocks=fc2..fc5',
      'scope=*.fc*,*.drop*'),
  }
end

--- The main job's GPT, three blocks.
function models.gpt()
  local model = GPT {vocabulary = 11, seq = 6, layers = 3, heads = 2,
                     width = 8, dropout = 0.125}
  local ids = labels(103, 12, 11):reshape(2, 6)
  local y = labels(104, 12, 11):reshape(2, 6)
  return {
    module = model, parameters = trained(model),
    loss = function() return model:loss(ids, y) end,
    specs = specs('attention', 'scope=*.mlp', 'scope=*.mlp,*.attention'),
  }
end

local Branches = nn.module('Branches', function(self, width)
  self.stem = nn.Linear(width, width)
  self.layers = nn.Layers(4, function()
    return nn.Sequential {nn.Linear(width, width), nn.Tanh(), nn.Dropout(0.2)}
  end)
  self.gate, self.head = nn.Linear(width, width), nn.Linear(2 * width, 3)
end)

--- Skips that leave one layer for the next, for two further on, and for the
-- very end; a value read by two branches that meet again.
function Branches:forward(x)
  local early = rp.sigmoid(self.stem(x))
  local h = early
  local skips = {}
  for i, layer in ipairs(self.layers) do
    local y = layer(h)
    h = h + y
    if skips[i - 2] then h = h * skips[i - 2] end
    skips[i] = y
  end
  local gate = rp.sigmoid(self.gate(h))
  local mixed = gate * h + (1 - gate) * skips[1]
  return self.head(rp.cat({mixed, early}, -1))
end

function models.branches()
  local model = Branches(6)
  local x, y = values(105, {5, 6}, -2, 2), labels(106, 5, 3)
  return {
    module = model, parameters = trained(model),
    loss = function() return rp.cross_entropy(model(x), y) end,
    specs = specs('scope=*.layers.*'),
  }
end

local Nested = nn.module('Nested', function(self, width)
  self.a, self.b = nn.Linear(width, width), nn.Linear(width, width)
  self.c, self.head = nn.Linear(width, width), nn.Linear(width, 3)
  self.drop = nn.Dropout(0.3)
end)

--- Checkpoints by hand, one inside the other, twice, with dropout and a
-- second output; a kept value inside.
function Nested:forward(x)
  local function inner(h, scale)
    local y = rp.tanh(self.b(h)) * scale
    return self.drop(y), h * 2
  end
  local function outer(h)
    local y = self.drop(rp.tanh(self.a(h)))
    local z, doubled = rp.checkpoint(inner, y, 0.5)
    return rp.tanh(self.c(z)):keep() + doubled
  end
  x = rp.checkpoint(outer, x)
  x = x + rp.checkpoint(outer, x)
  return self.head(x)
end

function models.nested()
  local model = Nested(6)
  local x, y = values(107, {5, 6}, -2, 2), labels(108, 5, 3)
  return {
    module = model, parameters = trained(model),
    loss = function() return rp.cross_entropy(model(x), y) end,
    specs = {'nodes=1', 'nodes=2', 'nodes=5', 'ops', 'ops=linear', 'sqrt',
             'budget=min'},
  }
end

--- The MLP's first half frozen: no gradient, no update, and nothing of it
-- needs to be kept.
function models.frozen()
  local made = models.mlp()
  for name, p in made.module:named_parameters() do
    if name:match '^fc[12]' then p.requires_grad = false end
  end
  made.parameters = trained(made.module)
  return made
end

--- The main job's ResNet, a block a stage, on images of odd sizes.
function models.resnet()
  local model = ResNet {channels = 2, width = 3, layers = 4, classes = 5}
  local x, y = values(109, {3, 2, 9, 10}, -2, 2), labels(110, 3, 5)
  return {
    module = model, parameters = trained(model),
    loss = function() return rp.cross_entropy(model(x), y) end,
    specs = specs('scope=*.blocks.*', 'ops=conv2d'),
  }
end

--- A U-Net without layers: no value is all that the rest reads.
function models.unet()
  local model = UNet {channels = 2, classes = 3, width = 3, levels = 2}
  local x = values(111, {2, 2, 8, 12}, -2, 2)
  local y = labels(112, 2 * 8 * 12, 3)
  return {
    module = model, parameters = trained(model),
    loss = function()
      local logits = model(x):permute(1, 3, 4, 2):reshape(2 * 8 * 12, 3)
      return rp.cross_entropy(logits, y)
    end,
    specs = {'nodes=1', 'nodes=2', 'nodes=5', 'ops', 'ops=conv2d', 'sqrt',
             'scope=*.up.*,*.down.*'},
  }
end

--- Names in a fixed order.
models.names = {'mlp', 'gpt', 'branches', 'nested', 'frozen', 'resnet',
                'unet'}

return models
