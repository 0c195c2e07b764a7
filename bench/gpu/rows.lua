--- What bench/cuda.lua measures: models, batches, and the settings of both sides.

local presets = require 'reprise.presets'

local rows = {}

--- PyTorch's settings: `ckpt` is the strategy that is written into the model;
-- what is compiled may recompute by itself: `memory` is the share of what it
-- would keep (activation_memory_budget).
rows.theirs = {
  {id = 'none', ckpt = 'none', variant = ''},
  {id = 'none+compile', ckpt = 'none', variant = 'compile', compile = true},
  {id = 'every=1', ckpt = 'every=1', variant = ''},
  {id = 'every=1+compile', ckpt = 'every=1', variant = 'compile',
    compile = true},
}
for _, share in ipairs {0.75, 0.5, 0.25} do
  local label = ('memory=%g'):format(share)
  table.insert(rows.theirs, {id = label, ckpt = label, written = 'none',
    variant = 'compile', compile = true, memory_budget = share})
end

rows.ours = {'none', 'every=2', 'every=1', 'attention'}

--- Of the curve of time against memory: shares of what `none` keeps.
rows.budgets = {'80%', '60%', '45%', '30%', '20%', 'min'}

local function gpt(model, shape, batch, dropout)
  return {name = ('%s-%d'):format(model, batch), model = model, part = 'steps',
    kind = 'gpt', batch = batch, seq = shape.seq, dropout = dropout,
    layers = shape.layers, heads = shape.heads, width = shape.width,
    vocabulary = shape.vocabulary, dtype = 'bf16',
    title = ('%s, B %d, T %d, dropout %g, bf16'):format(
      shape.title or model:gsub('gpt2%-(%d+)m', 'GPT-2 %1M'), batch, shape.seq,
      dropout)}
end

local SMOKE = {title = 'a tiny GPT', layers = 2, heads = 2, width = 16, seq = 8,
  vocabulary = 17}

--- {models = {name: rows by batch}, list = all rows}. The curve is drawn for
-- each model's first batch.
function rows.of(o)
  local list = {}
  if o.smoke then rows.ours = {'none', 'every=1'} end
  local models = o.smoke and 'tiny' or o.models
  for model in models:gmatch '[^,]+' do
    local shape = o.smoke and SMOKE or presets.gpt[model]
    if not shape then error('no preset ' .. model, 0) end
    local first = true
    for batch in (o.smoke and '2' or o.batches):gmatch '[^,]+' do
      local row = gpt(model, shape, tonumber(batch), o.dropout)
      row.budgets = first and rows.budgets or nil
      if o.smoke then row.budgets = {'min'} end
      list[#list + 1], first = row, false
    end
  end
  return list
end

--- One row of each model, for the largest batch.
function rows.models(list)
  local seen, out = {}, {}
  for _, row in ipairs(list) do
    if not seen[row.model] then
      seen[row.model], out[#out + 1] = true, row
    end
  end
  return out
end

--- The 12-layer GPT whose step is all launches: its kernels have next to
-- nothing to do.
function rows.launches(o)
  return gpt('launches', o.smoke and SMOKE or {title = 'GPT 12x48', layers = 12,
    heads = 12, width = 48, seq = 16, vocabulary = 65}, 1, 0)
end

return rows
