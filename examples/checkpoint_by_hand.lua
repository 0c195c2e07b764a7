--- Checkpoint by hand: one stretch of a model is dropped after the forward
-- pass and replayed in the backward pass. Same gradient, less memory.
dofile((arg[0]:match '^(.*/)[^/]*$' or './') .. 'setup.lua')

local rp = require 'reprise'

rp.manual_seed(1)
local w = (rp.randn(512, 512) * 512 ^ -0.5):run()

-- Eight values as large as its input, all of which backward reads. (What a few
-- elementwise ops make is made again in any case.)
local function wiggle(x)
  for _ = 1, 8 do x = rp.tanh(x:matmul(w)) end
  return x
end

local function plan_and_gradient(apply)
  rp.manual_seed(1)
  local x = rp.randn(512, 512, {requires_grad = true})
  local loss = apply(apply(apply(x))):sum()
  local peak = loss:plan().peak_bytes
  loss:backward()
  return peak, x.grad:bytes()
end

local plain, g1 = plan_and_gradient(wiggle)
local saving, g2 = plan_and_gradient(function(x)
  return rp.checkpoint(wiggle, x)
end)

print(('kept:         peak %5.1f MiB'):format(plain / 2 ^ 20))
print(('checkpointed: peak %5.1f MiB'):format(saving / 2 ^ 20))
print('same gradient to the last bit:', g1 == g2)
assert(saving < plain and g1 == g2)
