--- Predicted against measured step time, without a profile and with one:
--
--     luajit bench/predict.lua [--steps 5] [--threads 2] [--ckpt none,every=2]
--
-- One process measures the profile, others plan with it; each strategy runs in
-- a process of its own. Measured is the least of the steps; with --threads 1 it
-- is processor time, to which other work on the machine does not add.

local measure = dofile(((arg[0]:match '^(.*/)') or './') .. 'measure.lua')
local rp = require 'reprise'
local ckpt = require 'reprise.ckpt'
local failure = require 'reprise.failure'
local isolate = require 'reprise.isolate'
local GPT = require 'examples.models.gpt'

local o = measure.options {
  steps = 5, threads = 2, layers = 6, heads = 6, width = 384, seq = 256, batch = 8,
  vocabulary = 65, dropout = 0.1, ckpt = 'none,every=2,every=1,budget=40%,greedy=40%',
}
rp.set_num_threads(o.threads)
failure.sink = function() end

local specs = ckpt.split(o.ckpt)

local function step_of()
  local gpt = GPT(o)
  local opt = rp.optim.AdamW(gpt:parameters(), {lr = 1e-3})
  local tokens = rp.randint(0, o.vocabulary, {o.batch, o.seq + 1}):run()
  local x, y = tokens:narrow(2, 1, o.seq), tokens:narrow(2, 2, o.seq)
  return function() return rp.cross_entropy(gpt(x), y) end, opt
end

local function compared()
  return rp.compare(step_of, specs, {steps = o.steps}).rows
end

-- Written by a process that ends with it.
local path = os.tmpname()
os.remove(path)
local ok, problem = isolate.run(function()
  local record, opt = step_of()
  local profile = rp.profile(path)
  while profile.measuring do opt:minimize(record(), {ckpt = 'none'}) end
  return {}
end)
if not ok then error(problem, 0) end

local analytic = compared()
local profile = rp.profile(path)
local profiled = compared()
profile:stop()
os.remove(path)

local rows = {}
for i, spec in ipairs(specs) do
  local row = {spec}
  for _, made in ipairs {analytic[i], profiled[i]} do
    local took = o.threads == 1 and made.processor_seconds or made.seconds
    for _, cell in ipairs(made.error and {'-', '-', '-'} or {
      ('%.3f'):format(made.predicted_seconds), ('%.3f'):format(took),
      ('%.2f'):format(made.predicted_seconds / took),
    }) do
      row[#row + 1] = cell
    end
  end
  rows[i] = row
end
measure.print_table({'ckpt', 'by rates s', 'measured s', 'ratio', 'by profile s',
  'measured s', 'ratio'}, rows)
