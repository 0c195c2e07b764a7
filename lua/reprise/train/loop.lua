--- The training loop: batches in, one program a step, held-out losses, a log.

local rp = require 'reprise'
local clock = require 'reprise.report.clock'

local loop = {}

-- The share of the last step in the shown rate.
local RATE_MEMORY = 0.1

local function held_out_loss(task)
  task.model:eval()
  local loss
  rp.no_grad(function() loss = task:held_out_loss() end)
  task.model:train()
  return loss
end

-- One optimizer step; the mean loss of its batches, the high-water mark of its
-- programs and what their plans promised, the seconds that its programs took
-- and were predicted to take.
local function step(task, opt, accumulate)
  local total, peak, promised, took, predicted = 0, 0, 0, 0, 0
  local is_on_host = rp.get_default_device() == 'cpu'
  local function note()
    local plan = rp.last_plan()
    peak = math.max(peak, plan:measured_peak())
    promised = math.max(promised, plan.peak_bytes)
    -- A device's own figure would be waited for.
    if is_on_host then took = took + plan:measured_seconds() end
    predicted = predicted + plan.step_seconds
  end
  for _ = 2, accumulate do
    task:next_batch()
    local loss = task:loss() / accumulate
    loss:backward()
    note()
    total = total + loss:item()
  end
  task:next_batch()
  local loss = task:loss()
  if accumulate > 1 then loss = loss / accumulate end
  opt:minimize(loss)
  note()
  return total + loss:item(), peak, promised, took, predicted
end

---@class reprise.TrainHooks
---@field set_lr fun(step: integer)
---@field interrupted fun(): boolean asked once a step
---@field show fun(s: reprise.Step)
---@field promised_bytes integer what the first report said

---@class reprise.TrainResult
---@field steps integer steps done
---@field interrupted boolean
---@field seconds number
---@field loss number of the last step
---@field val_loss number
---@field peak_bytes integer the high-water mark of all steps
---@field promised_bytes integer the most that a plan promised
---@field step_seconds number median over the steps of what their programs took
---@field predicted_seconds number of the last step's programs

--- Trains until options.steps steps are done or `interrupted` says so.
---@param task table
---@param opt table
---@param options reprise.TrainOptions
---@param hooks reprise.TrainHooks
---@return reprise.TrainResult
function loop.run(task, opt, options, hooks)
  local items = task.items * options.accumulate
  local started, rate = clock(), nil
  local times = {}
  local result = {steps = 0, interrupted = false, peak_bytes = 0,
    promised_bytes = 0}
  -- Handles on the recipes of the parameters' first values would hold these
  -- values beside the parameters.
  collectgarbage()
  collectgarbage()
  for n = 1, options.steps do
    hooks.set_lr(n)
    local before = clock()
    local loss, peak, promised, took, predicted =
      step(task, opt, options.accumulate)
    -- Without accumulation the report before the first step is the promise.
    if options.accumulate == 1 then promised = hooks.promised_bytes end
    local seconds = clock() - before
    result.loss, result.steps = loss, n
    -- A device still runs what its programs have been handed over: a step
    -- takes as long as until its loss is there, which waits for the one before.
    if rp.get_default_device() ~= 'cpu' then took = seconds end
    times[n], result.predicted_seconds = took, predicted
    result.peak_bytes = math.max(result.peak_bytes, peak)
    -- The first step plans; its rate would mislead.
    rate = (not rate or n == 2) and items / seconds
      or rate + RATE_MEMORY * (items / seconds - rate)
    result.interrupted = hooks.interrupted()
    local last = n == options.steps or result.interrupted
    local val_loss
    if last or n % options.eval_every == 0 then
      val_loss = held_out_loss(task)
      result.val_loss = val_loss
    end
    result.seconds = clock() - started
    hooks.show {step = n, loss = loss, val_loss = val_loss,
      seconds = result.seconds, rate = rate, step_rate = items / seconds,
      unit = task.unit, peak_bytes = peak,
      max_bytes = rp.max_memory_allocated(),
      promised_bytes = promised}
    result.promised_bytes = math.max(result.promised_bytes, promised)
    if result.interrupted then break end
  end
  -- The first step finds memory untouched.
  if #times > 1 then table.remove(times, 1) end
  table.sort(times)
  result.step_seconds = times[math.ceil(#times / 2)]
  return result
end

return loop
