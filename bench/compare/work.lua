--- Our side of a row: the model, its optimizer, a batch, and the loss.

local rp = require 'reprise'

local work = {}

-- An input: on a device of its own a leaf, whose indices the host knows.
local function held(t)
  local name = t.device
  if name == 'cpu' then return t:run():detach() end
  return t:to 'cpu':to(name)
end

local function labels(row, shape)
  return held(rp.randint(0, row.vocabulary or row.classes, shape,
    {dtype = 'i32'}))
end

local function gpt(row)
  local model = require 'examples.models.gpt'(row)
  local shape = {row.batch, row.seq}
  local tokens, targets = labels(row, shape), labels(row, shape)
  return model, function() return model:loss(tokens, targets) end
end

local function classifier(row, name, ...)
  local model = require('examples.models.' .. name)(row)
  local x, y = held(rp.randn(row.batch, ...)), labels(row, {row.batch})
  return model, function() return rp.cross_entropy(model(x), y) end
end

local kinds = {
  gpt = gpt,
  mlp = function(row) return classifier(row, 'mlp', row.inputs) end,
  resnet = function(row)
    return classifier(row, 'resnet', row.channels, row.size, row.size)
  end,
}

--- A function that records a fresh loss, and the optimizer that minimizes it.
function work.open(row)
  rp.autocast(row.dtype == 'bf16' and 'bf16')
  rp.manual_seed(1)
  local model, record = kinds[row.kind](row)
  local matrices, vectors = {}, {}
  for _, p in ipairs(model:parameters()) do
    table.insert(#p.shape >= 2 and matrices or vectors, p)
  end
  local opt = rp.optim.AdamW({
    {params = matrices, weight_decay = 0.1},
    {params = vectors, weight_decay = 0},
  }, {lr = 1e-3, betas = {0.9, 0.95}})
  return record, opt
end

return work
