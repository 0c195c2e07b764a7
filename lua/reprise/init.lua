--- Reprise: tensors, automatic differentiation and planned activation
-- checkpointing. Operations record; rp.run, printing, item, totable, backward
-- and minimize run.

local binding = require 'reprise.ffi'
local arguments = require 'reprise.ops.arguments'
local autocast = require 'reprise.autocast'
local ckpt = require 'reprise.ckpt'
local compare = require 'reprise.compare'
local device = require 'reprise.device'
local failure = require 'reprise.failure'
local fit = require 'reprise.fit'
local grad = require 'reprise.grad'
local memory = require 'reprise.memory'
local ops = require 'reprise.ops'
local plan = require 'reprise.plan'
local profile = require 'reprise.profile'
local record = require 'reprise.ops.record'
local run = require 'reprise.run'
local safetensors = require 'reprise.io.safetensors'
local scope = require 'reprise.scope'
local tensor = require 'reprise.tensor'
local trace = require 'reprise.trace'
local values = require 'reprise.values'
require 'reprise.usage'
local watch = require 'reprise.watch'
require 'reprise.print'
require 'reprise.inspect'

local C, ctx = binding.C, binding.ctx

local rp = {}

for name, fn in pairs(ops) do rp[name] = fn end

rp.tensor = values.tensor
rp.is_tensor = tensor.is
rp.record = record.by_name
rp.set_default_dtype = arguments.set_default_dtype
rp.get_default_dtype = arguments.get_default_dtype
rp.set_default_device = device.set_default_device
rp.get_default_device = device.get_default_device
rp.cuda = device.cuda

rp.run = run.run
rp.last_plan = run.last_plan
rp.trace = trace
rp.profile = profile
rp.ckpt = ckpt
rp.compare = compare.of
rp.fit = fit

rp.grad = grad.grad
rp.value_and_grad = grad.value_and_grad
rp.custom_vjp = grad.custom_vjp
rp.no_grad = scope.no_grad
rp.autocast = autocast

rp.layer = scope.layer
rp.scan = scope.scan
rp.checkpoint = scope.checkpoint
rp.checkpoint_sequential = scope.checkpoint_sequential
rp.tapped = scope.tapped

rp.memory = memory.memory
rp.max_memory_allocated = memory.max_memory_allocated
rp.reset_peak_memory_stats = memory.reset_peak_memory_stats

rp.detect_anomaly = watch.detect_anomaly
rp.verify_replay = watch.verify_replay

rp.fusion = plan.fusion
rp.gathering = plan.gathering

rp.save = safetensors.save
rp.load = safetensors.load

--- Keeps t's value for the backward pass: t:keep().
rp.keep = tensor.methods.keep
--- Makes t's value readable after the step: rp.tap(t, name).
rp.tap = tensor.methods.tap

--- Seeds all random numbers that are recorded from here on.
---@param seed integer  0..2^53
function rp.manual_seed(seed)
  if type(seed) ~= 'number' or seed ~= math.floor(seed) or seed < 0 or seed > 2^53 then
    failure.raise('[manual_seed] a whole number in 0..2^53 is wanted, not %s', tostring(seed))
  end
  C.rp_manual_seed(ctx, seed)
end

--- How many threads kernels use.
---@param n integer
function rp.set_num_threads(n)
  C.rp_set_num_threads(ctx, arguments.count(n, 1, 'set_num_threads', 'the number'))
end

---@return integer
function rp.get_num_threads()
  return C.rp_num_threads(ctx)
end

rp.nn = require 'reprise.nn'
rp.optim = require 'reprise.optim'
rp.data = require 'reprise.data'
rp.measure_memory_savings = require 'reprise.savings'
rp.calibrate = require 'reprise.calibrate'

require('reprise.rates').load()

return rp
