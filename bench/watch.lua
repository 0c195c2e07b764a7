--- What detect_anomaly and verify_replay cost: seconds of a training step of
-- a small GPT with neither, in turn with either. On one thread, by its own
-- time on the processor; the median of the rounds.
--
--     luajit bench/watch.lua [--rounds 7] [--ckpt every=1,attention]

local measure = dofile(((arg[0]:match '^(.*/)') or './') .. 'measure.lua')
local rp = require 'reprise'
local GPT = require 'examples.models.gpt'

local o = measure.options {
  rounds = 7, layers = 6, heads = 6, width = 384, seq = 128,
  batch = 4, vocabulary = 65, dropout = 0.1, ckpt = 'every=1,attention',
}

rp.set_num_threads(1)
rp.manual_seed(1)
local model = GPT {vocabulary = o.vocabulary, seq = o.seq, layers = o.layers,
  heads = o.heads, width = o.width, dropout = o.dropout}
local opt = rp.optim.AdamW(model:parameters(), {lr = 1e-3})
local ids = rp.randint(0, o.vocabulary, {o.batch, o.seq}, {dtype = 'i32'}):run():detach()

local function step(spec)
  local loss = model:loss(ids, ids)
  local seconds = measure.seconds(function()
    opt:minimize(loss, {ckpt = spec})
  end, measure.processor)
  return seconds, rp.last_plan().peak_bytes
end

local ways = {
  {'neither', function() end},
  {'verify_replay', rp.verify_replay},
  {'detect_anomaly', rp.detect_anomaly},
}

for spec in o.ckpt:gmatch '[^,]+' do
  local times, peak = {{}, {}, {}}, {}
  for round = 0, o.rounds do
    for i, way in ipairs(ways) do
      way[2](true)
      local seconds, bytes = step(spec)
      way[2](false)
      -- Round 0 plans.
      if round > 0 then times[i][round] = seconds end
      peak[i] = bytes
    end
  end
  local neither = measure.median(times[1])
  for i, way in ipairs(ways) do
    local seconds = measure.median(times[i])
    print(('%-10s  %-14s  %.3f s  %+5.1f %%  peak %.1f MiB'):format(spec, way[1],
      seconds, 100 * (seconds / neither - 1), peak[i] / 2 ^ 20))
  end
end
