--- Trains the small models and says what came out, bit by bit.

local rp = require 'reprise'
local raw = require 'spec.support.raw'
local models = require 'spec.support.models'

local failure = require 'reprise.failure'

local run = {}

local sink, threads

--- For busted's setup and teardown: no notices on the terminal, and one
-- thread, for small products on two wait for each other more than they work.
function run.quiet()
  sink, failure.sink = failure.sink, function() end
  threads = rp.get_num_threads()
  rp.set_num_threads(1)
end

function run.loud()
  failure.sink = sink
  rp.set_num_threads(threads)
end

--- A fresh model of that name with parameters drawn from seed 1; bf16 is mixed
-- precision.
function run.model(name, dtype)
  rp.set_default_dtype(dtype == 'f64' and 'f64' or 'f32')
  rp.manual_seed(1)
  local made = models[name]()
  rp.set_default_dtype 'f32'
  if dtype == 'bf16' then
    local loss = made.loss
    made.loss = function() return rp.autocast('bf16', loss) end
  end
  return made
end

--- Numbers of every gradient, nil where there is none.
function run.gradients(parameters)
  local out = {}
  for i, p in ipairs(parameters) do
    local grad = p.grad
    out[i] = grad and raw.read(grad.ptr) or {}
  end
  return out
end

function run.numbers(tensors)
  local out = {}
  for i, t in ipairs(tensors) do out[i] = raw.read(t.ptr) end
  return out
end

--- Trains `steps` steps with AdamW. how is 'backward' (then step and
-- zero_grad) or 'minimize'. Returns losses; for 'backward' the gradients of
-- every step; the parameters and buffers at the end.
function run.train(name, o)
  local made = run.model(name, o.dtype)
  local opt = rp.optim.AdamW(made.parameters, {lr = 1e-2, weight_decay = 0.1})
  if o.clip then opt:clip_grad_norm(o.clip) end
  local losses, gradients = {}, {}
  rp.manual_seed(2)
  for step = 1, o.steps or 20 do
    local loss = made.loss()
    if o.how == 'minimize' then
      opt:minimize(loss, {ckpt = o.ckpt})
    else
      loss:backward {ckpt = o.ckpt}
      gradients[step] = run.gradients(made.parameters)
      opt:step()
      opt:zero_grad()
    end
    losses[step] = loss:item()
  end
  return {losses = losses, gradients = gradients,
          parameters = run.numbers(made.parameters),
          buffers = run.numbers(made.module:buffers())}
end

--- Raises unless both runs agree to the last bit in all that both have.
function run.same_bits(want, got, what)
  local problem = raw.bit_difference(got.losses, want.losses)
  if problem then error(('%s: losses: %s'):format(what, problem), 2) end
  for step, list in ipairs(want.gradients) do
    for i, grad in ipairs(got.gradients[step] and list or {}) do
      problem = raw.bit_difference(got.gradients[step][i], grad)
      if problem then
        error(('%s: step %d, gradient %d: %s'):format(what, step, i, problem), 2)
      end
    end
  end
  for i, parameter in ipairs(want.parameters) do
    problem = raw.bit_difference(got.parameters[i], parameter)
    if problem then
      error(('%s: parameter %d at the end: %s'):format(what, i, problem), 2)
    end
  end
  for i, buffer in ipairs(got.buffers and want.buffers or {}) do
    problem = raw.bit_difference(got.buffers[i], buffer)
    if problem then
      error(('%s: buffer %d at the end: %s'):format(what, i, problem), 2)
    end
  end
end

--- fn() with and without fusion.
function run.fused_and_apart(fn)
  local fused = fn()
  local before = rp.fusion(false)
  local ok, apart = pcall(fn)
  rp.fusion(before)
  if not ok then error(apart, 0) end
  return fused, apart
end

return run
