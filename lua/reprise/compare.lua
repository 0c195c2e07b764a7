--- Strategies side by side, predicted and measured: each in a process of its
-- own, all from the same seed.

local bit = require 'bit'
local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local ckpt = require 'reprise.ckpt'
local clock = require 'reprise.report.clock'
local device = require 'reprise.device'
local failure = require 'reprise.failure'
local isolate = require 'reprise.isolate'
local run = require 'reprise.run'
local units = require 'reprise.report.units'
local values = require 'reprise.values'

local C, ctx = binding.C, binding.ctx

---@class reprise.ComparedRow
---@field strategy string
---@field error? string             why there are no numbers
---@field peak_bytes integer        predicted
---@field measured_bytes integer    accounted high-water mark; equals peak_bytes
---@field resident_bytes? integer   what the process grew by (Linux)
---@field predicted_seconds number
---@field seconds number            of a step, the least of those measured
---@field processor_seconds number of a step, of all threads: other work on
--- the machine does not add to it
---@field recompute_fraction number
---@field loss number               of the last step
---@field fingerprint string        of the losses and the last gradients' bits

---@class reprise.Comparison
---@field rows reprise.ComparedRow[]
---@field same_bits boolean  one fingerprint for all
local Comparison = {}
Comparison.__index = Comparison

-- FNV-1a over 32-bit words: any one bit changes it.
local function hash_of(hash, t)
  local size = t:numel() * values.element_bytes[t.dtype]
  local buffer = ffi.new('uint32_t[?]', math.ceil(size / 4))
  failure.check(C.rp_tensor_read(t.ptr, buffer, size))
  for i = 0, math.ceil(size / 4) - 1 do
    hash = bit.bxor(hash, 0ULL + buffer[i]) * 0x100000001b3ULL
  end
  return hash
end

local function parameters_of(trained)
  if trained == nil then return {} end
  if trained.parameters then return trained:parameters() end
  return trained
end

-- In the child: the steps, then one backward pass whose gradients are read.
local function measure(fn, spec, options)
  C.rp_manual_seed(ctx, options.seed)
  local record, trained = fn(spec)
  local opt = trained and trained.minimize and trained or nil
  local parameters = parameters_of(trained)
  local function clear()
    for _, p in ipairs(parameters) do p.grad = nil end
  end
  local before = isolate.is_possible() and isolate.status 'VmRSS'
  local hash, peak = 0xcbf29ce484222325ULL, 0
  local least, processor = math.huge, math.huge
  local plan, loss
  for n = 0, options.steps do
    -- What the step before recorded is let go outside the time of this one.
    collectgarbage()
    clear()
    device.wait()
    local start, start_processor = clock(), os.clock()
    loss = record()
    if opt then
      opt:minimize(loss, {ckpt = spec})
    else
      loss:backward {ckpt = spec}
    end
    device.wait()
    -- The first step plans. Of the others the least: what else the machine
    -- does only adds to a step's time.
    if n > 0 then
      least = math.min(least, clock() - start)
      processor = math.min(processor, os.clock() - start_processor)
    end
    plan = run.last_plan()
    peak = math.max(peak, plan:measured_peak())
    hash = hash_of(hash, loss)
  end
  local grown = before and isolate.status 'VmHWM' - before or nil
  clear()
  -- Another program than the step, which is what a profile is of.
  local profile = run.profile
  run.profile = nil
  local again = record()
  again:backward {ckpt = spec}
  hash = hash_of(hash, again)
  for _, p in ipairs(parameters) do
    if p.grad then hash = hash_of(hash, p.grad) end
  end
  run.profile = profile
  return {
    strategy = plan.strategy, peak_bytes = plan.peak_bytes,
    measured_bytes = peak, resident_bytes = grown,
    predicted_seconds = plan.step_seconds, seconds = least,
    processor_seconds = processor,
    recompute_fraction = plan.recompute_fraction, loss = loss:item(),
    fingerprint = bit.tohex(hash),
  }
end

--- Measures a training step under each spec.
--
-- fn is called once in each process, with the spec, and builds everything; it
-- returns a function that records a fresh loss, and the optimizer that
-- minimizes it (or, where there is none, the list of parameters). Options:
-- steps (measured ones, 3), seed (1).
---@param fn fun(spec: any): (fun(): reprise.Tensor), table?
---@param specs any[]
---@param options? {steps?: integer, seed?: integer}
---@return reprise.Comparison
function Comparison.of(fn, specs, options)
  if type(fn) ~= 'function' then
    failure.raise('[compare] a function that builds the step is wanted, not %s',
      type(fn))
  end
  if type(specs) ~= 'table' or #specs == 0 then
    failure.raise '[compare] a list of strategies is wanted, as {"none", "every=2"}'
  end
  options = {steps = options and options.steps or 3,
    seed = options and options.seed or 1}
  local self = setmetatable({rows = {}, same_bits = true}, Comparison)
  for i, spec in ipairs(specs) do
    local strategy = ckpt.resolve(spec)
    local row, reason = isolate.run(function()
      return measure(fn, spec, options)
    end)
    self.rows[i] = row or {strategy = strategy.text, error = reason}
    local first = self.rows[1].fingerprint
    if not row or row.fingerprint ~= first then self.same_bits = false end
  end
  return self
end

local COLUMNS = '  %-14s %11s %11s %11s %9s %9s %10s  %s'

local function line(row)
  if row.error then
    return ('  %-14s %s'):format(row.strategy, row.error)
  end
  return COLUMNS:format(row.strategy, units.bytes(row.peak_bytes),
    units.bytes(row.measured_bytes),
    row.resident_bytes and units.bytes(row.resident_bytes) or '-',
    units.seconds(row.predicted_seconds), units.seconds(row.seconds),
    units.percent(row.recompute_fraction), row.fingerprint)
end

--- Whether every process kept to the byte what its plan had promised.
---@return boolean
function Comparison:as_promised()
  for _, row in ipairs(self.rows) do
    if row.peak_bytes ~= row.measured_bytes then return false end
  end
  return true
end

--- The table.
function Comparison:__tostring()
  local lines = {
    COLUMNS:format('', 'peak', 'accounted', 'process', 'step', 'step', '', ''),
    COLUMNS:format('strategy', 'predicted', 'high water', 'grew by',
      'predicted', 'measured', 'recomputed', 'loss and gradients'),
  }
  for i, text in ipairs(lines) do lines[i] = text:gsub('%s+$', '') end
  local failed = 0
  for _, row in ipairs(self.rows) do
    lines[#lines + 1] = line(row)
    if row.error then failed = failed + 1 end
  end
  lines[#lines + 1] = ''
  if failed > 0 then
    lines[#lines + 1] = ('  %d of %d did not run'):format(failed, #self.rows)
  else
    lines[#lines + 1] = '  peaks: ' .. (self:as_promised()
      and 'to the byte as predicted' or 'NOT as predicted')
    lines[#lines + 1] = '  losses and gradients: ' .. (self.same_bits
      and 'the same bits under every strategy' or 'DIFFERENT bits')
  end
  return table.concat(lines, '\n')
end

return {of = Comparison.of}
