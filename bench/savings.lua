--- What checkpointing saves and costs, as a table for the documentation:
--
--     luajit bench/savings.lua [--measure-mib 4000] > docs/savings.md
--     luajit bench/savings.lua --only 124m
--
-- A model is planned, and measured (a process for each strategy) where its plan
-- under `none` needs at most that many MiB.

local measure = dofile(((arg[0]:match '^(.*/)') or './') .. 'measure.lua')
local rp = require 'reprise'
local failure = require 'reprise.failure'
local presets = require('reprise.presets').gpt
local units = require 'reprise.report.units'
local GPT = require 'examples.models.gpt'

local o = measure.options {measure_mib = 4000, steps = 2, threads = 1, only = ''}
rp.set_num_threads(o.threads)
failure.sink = function() end

local SPECS = {'none', 'every=2', 'every=1', 'budget=60%'}

-- name, shape: the layers of the 10M shape, then the presets.
local models = {}
for _, layers in ipairs {2, 4, 6, 12} do
  models[#models + 1] = {name = layers .. ' layers', layers = layers, heads = 6,
    width = 384, seq = 256, batch = 8, dropout = 0.1, vocabulary = 65}
end
local function add(preset, batch)
  local model = {name = preset, batch = batch, vocabulary = 65}
  for key, value in pairs(presets[preset]) do
    if key ~= 'batch' then model[key] = value end
  end
  models[#models + 1] = model
end
add('gpt-10m', 8)
add('gpt2-124m', 1)
add('gpt2-124m', 4)
add('gpt2-355m', 1)
add('gpt2-355m', 4)

local function step_of(model)
  local gpt = GPT(model)
  local opt = rp.optim.AdamW(gpt:parameters(), {lr = 1e-3})
  local tokens = rp.randint(0, model.vocabulary, {model.batch, model.seq + 1})
  tokens:run()
  local x = tokens:narrow(2, 1, model.seq)
  local y = tokens:narrow(2, 2, model.seq)
  return function() return gpt:loss(x, y) end, opt
end

-- A row for each strategy; measured seconds and bits where there is room.
local function rows_of(model)
  local record, opt = step_of(model)
  local loss, rows = record(), {}
  for i, spec in ipairs(SPECS) do
    local plan = opt:plan(loss, {ckpt = spec})
    rows[i] = {spec = spec, peak = plan.peak_bytes, seconds = plan.step_seconds}
  end
  if rows[1].peak <= o.measure_mib * 2 ^ 20 then
    local made = rp.compare(function() return step_of(model) end, SPECS,
      {steps = o.steps})
    assert(made.same_bits and made:as_promised(), tostring(made))
    for i, row in ipairs(made.rows) do rows[i].measured = row.processor_seconds end
  end
  return rows
end

local function over(row, first, key)
  if not row[key] then return 'not run' end
  if row == first then return units.seconds(row[key]) end
  return ('%+.0f %%'):format(100 * (row[key] / first[key] - 1))
end

print '# What checkpointing saves and costs\n'
print('Made by `luajit bench/savings.lua`: GPTs under AdamW, f32, dropout 0.1; '
  .. 'the first\nfour have the width of gpt-10m. Peaks are predicted; where a '
  .. 'step was run, each\nstrategy in a process of its own, its accounted '
  .. 'high-water mark was that peak to the\nbyte, and losses and gradients had '
  .. 'the same bits. Time is that of `none`, then what is\nadded: predicted by '
  .. 'the cost model for two cores, and measured as processor time of\none '
  .. 'thread, the least of ' .. o.steps .. ' steps.\n')
print '| model | batch | strategy | peak | reduction | time, predicted | time, measured |'
print '|---|---|---|---|---|---|---|'
for _, model in ipairs(models) do
  local rows = model.name:find(o.only, 1, true) and rows_of(model) or {}
  for i, row in ipairs(rows) do
    print(('| %s | %s | `%s` | %s | %s | %s | %s |'):format(
      i == 1 and model.name or '', i == 1 and model.batch or '', row.spec,
      units.bytes(row.peak), i == 1 and '' or
      ('%.0f %%'):format(100 * (1 - row.peak / rows[1].peak)),
      over(row, rows[1], 'seconds'), over(row, rows[1], 'measured')))
  end
  io.stdout:flush()
end

if o.only == '' then
  local sizes = {seq_len = 2048, d_model = 512, num_layers = 12}
  rp.set_num_threads(2)
  local r = rp.measure_memory_savings(sizes)
  print(('\n`rp.measure_memory_savings{seq_len = %d, d_model = %d, num_layers = %d}`, two '
    .. 'threads:\n%.1f MiB without, %.1f with checkpointing of every layer, %.1f %% '
    .. 'saved for %.1f %% more\ntime, %s.'):format(sizes.seq_len, sizes.d_model,
    sizes.num_layers, r.standard_memory_mb, r.checkpointed_memory_mb,
    r.memory_saved_pct, r.compute_overhead_pct,
    r.same_bits and 'the same bits' or 'OTHER BITS'))
end
