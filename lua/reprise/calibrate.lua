--- Measures the machine's rates and stores them for the processes to come: what
-- `make calibrate` runs.
--
-- A training step of a small transformer is timed node by node; the rates are
-- those with which the analytic model gives the step's costly ops together, and
-- its other ops together, the time that they took.

local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'
local functional = require 'reprise.ops.functional'
local loss = require 'reprise.ops.loss'
local nn = require 'reprise.nn'
local ops = require 'reprise.ops'
local optim = require 'reprise.optim'
local rates = require 'reprise.rates'
local stopwatch = require 'reprise.stopwatch'

local C, ctx = binding.C, binding.ctx

-- gpt-10m's, two blocks of it.
local BATCH, LENGTH, WIDTH, HEADS, VOCABULARY = 8, 256, 384, 6, 256
local STEPS = 5

local Block = nn.module('Block', function(self)
  self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
  self.attention = nn.MultiHeadAttention(WIDTH, HEADS, {causal = true, dropout = 0.1})
  self.fc, self.out = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
  self.gelu = nn.GELU {approximate = 'tanh'}
end)

function Block:forward(x)
  x = x + self.attention(self.norm1(x))
  return x + functional.dropout(self.out(self.gelu(self.fc(self.norm2(x)))), 0.1)
end

local function timed_step()
  local model = nn.Sequential {
    nn.Embedding(VOCABULARY, WIDTH), Block(), Block(), nn.LayerNorm(WIDTH),
    nn.Linear(WIDTH, VOCABULARY),
  }
  local opt = optim.AdamW(model:parameters(), {lr = 1e-4})
  local tokens = ops.randint(0, VOCABULARY, {BATCH, LENGTH}, {dtype = 'i32'}):run()
  local watch = stopwatch.start(STEPS)
  while watch.steps < STEPS do
    opt:minimize(loss.cross_entropy(model(tokens), tokens), {ckpt = 'none'})
  end
  return watch
end

--- Measures, stores, and tells. Nothing in this process is planned with it.
---@return {flops_per_second: number, bytes_per_second: number, path: string}
return function()
  if not rates.path() then
    failure.raise '[calibrate] there is no place to store rates: REPRISE_RATES=FILE names one'
  end
  local watch = timed_step()
  local seconds, now = watch:seconds(), C.rp_rates_get(ctx)
  local flops, costly, bytes, others = 0, 0, 0, 0
  for i, node in ipairs(watch.graph.nodes) do
    -- Costly ops that their bytes bound say nothing about FLOPs.
    if node.costly and node.flops / now.flops_per_second >= node.seconds * (1 - 1e-9) then
      flops, costly = flops + node.flops, costly + seconds[i]
    elseif not node.costly then
      bytes, others = bytes + node.seconds * now.bytes_per_second, others + seconds[i]
    end
  end
  local made = {flops_per_second = flops / costly, bytes_per_second = bytes / others}
  local ok, result = pcall(rates.store, made.flops_per_second, made.bytes_per_second)
  if not ok then failure.raise('[calibrate] %s', result) end
  made.path = result
  return made
end
