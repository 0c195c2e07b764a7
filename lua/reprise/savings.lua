--- What checkpointing saves and costs on a transformer of given sizes,
-- measured.

local arguments = require 'reprise.ops.arguments'
local compare = require('reprise.compare').of
local create = require 'reprise.ops.create'
local failure = require 'reprise.failure'
local nn = require 'reprise.nn'
local optim = require 'reprise.optim'

local MIB = 2 ^ 20

local Block = nn.module('Block', function(self, width, heads)
  self.norm1 = nn.LayerNorm(width)
  self.attention = nn.MultiHeadAttention(width, heads, {causal = true})
  self.norm2 = nn.LayerNorm(width)
  self.fc, self.gelu = nn.Linear(width, 4 * width), nn.GELU {approximate = 'tanh'}
  self.out = nn.Linear(4 * width, width)
end)

function Block:forward(x)
  x = x + self.attention(self.norm1(x))
  return x + self.out(self.gelu(self.fc(self.norm2(x))))
end

-- Heads 64 wide, as GPT-2's, where the width allows.
local function heads_of(width)
  return width % 64 == 0 and width / 64 or 1
end

local function step_of(o)
  local layers = nn.Layers(o.num_layers, function()
    return Block(o.d_model, o.num_heads or heads_of(o.d_model))
  end)
  local opt = optim.AdamW(layers:parameters(), {lr = 1e-4})
  local x = create.randn(o.batch_size, o.seq_len, o.d_model)
  x:run()
  return function()
    local y = layers(x)
    return (y * y):mean()
  end, opt
end

local known = {seq_len = true, d_model = true, num_layers = true,
  num_heads = true, batch_size = true, ckpt = true, steps = true, seed = true}

---@class reprise.Savings
---@field standard_memory_mb number       MiB, the accounted high-water mark
---@field checkpointed_memory_mb number
---@field memory_saved_pct number
---@field compute_overhead_pct number     of a step's time
---@field standard_seconds number         of a step, the least measured
---@field checkpointed_seconds number
---@field same_bits boolean               losses and gradients

--- Trains a stack of transformer blocks with and without checkpointing, each in
--- a process of its own, and says what that saved and cost. Options: seq_len,
--- d_model, num_layers; batch_size (1), num_heads (d_model / 64), ckpt
--- ('every=1'), steps (3 measured ones), seed.
---@param options table
---@return reprise.Savings
return function(options)
  local where = 'measure_memory_savings'
  local o = {batch_size = 1, ckpt = 'every=1'}
  for key, value in pairs(arguments.options(options, known, where)) do
    o[key] = value
  end
  for _, name in ipairs {'seq_len', 'd_model', 'num_layers', 'batch_size'} do
    arguments.count(o[name], 1, where, name)
  end
  local made = compare(function() return step_of(o) end, {'none', o.ckpt},
    {steps = o.steps, seed = o.seed})
  for _, row in ipairs(made.rows) do
    if row.error then failure.raise('[%s] %s: %s', where, row.strategy, row.error) end
  end
  local standard, checkpointed = made.rows[1], made.rows[2]
  return {
    standard_memory_mb = standard.measured_bytes / MIB,
    checkpointed_memory_mb = checkpointed.measured_bytes / MIB,
    memory_saved_pct = 100 * (1 - checkpointed.measured_bytes
      / standard.measured_bytes),
    compute_overhead_pct = 100 * (checkpointed.seconds / standard.seconds - 1),
    standard_seconds = standard.seconds,
    checkpointed_seconds = checkpointed.seconds,
    same_bits = made.same_bits,
  }
end
