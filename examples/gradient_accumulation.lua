--- Gradient accumulation: four small batches make the gradient of a large one,
-- with the activations of a small one. minimize adds what .grad holds.
dofile((arg[0]:match '^(.*/)[^/]*$' or './') .. 'setup.lua')

local rp = require 'reprise'
local nn = rp.nn

local PARTS = 4

local function setting()
  rp.manual_seed(1)
  local model = nn.Sequential {nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 1)}
  return model, rp.optim.SGD(model:parameters(), {lr = 0.1})
end

local x = rp.randn(2048, 64)
local target = x:sum(-1, true)
rp.run(x, target)

local function loss_of(model, first, count)
  return rp.mse_loss(model(x:narrow(1, first, count)),
    target:narrow(1, first, count))
end

-- What the last program really needed.
local function peak()
  return rp.last_plan():measured_peak()
end

local model, opt = setting()
opt:minimize(loss_of(model, 1, 2048))
local large_peak = peak()
local large_loss = loss_of(model, 1, 2048):item()

model, opt = setting()
local size, small_peak = 2048 / PARTS, 0
for part = 1, PARTS do
  local loss = loss_of(model, (part - 1) * size + 1, size) / PARTS
  if part < PARTS then loss:backward() else opt:minimize(loss) end
  small_peak = math.max(small_peak, peak())
end
local small_loss = loss_of(model, 1, 2048):item()

print(('one batch of 2048:    peak %5.2f MiB, loss after the step %.6f')
  :format(large_peak / 2 ^ 20, large_loss))
print(('four batches of 512:  peak %5.2f MiB, loss after the step %.6f')
  :format(small_peak / 2 ^ 20, small_loss))
assert(small_peak < large_peak)
-- Sums in another order: the same to rounding.
assert(math.abs(small_loss - large_loss) < 1e-4 * math.abs(large_loss))
