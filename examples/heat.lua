--- Time steps instead of layers: the 2-D heat equation, 500 explicit steps, and
-- the gradient of a functional of the last state with respect to the first
-- state and the diffusion coefficient. revolve=S holds S states instead of 500.
-- The gradient is checked by a Taylor test: what is left of
--     J(m + e d) - J(m) - e <gradient, d>
-- falls with e^2.
dofile((arg[0]:match '^(.*/)[^/]*$' or './') .. 'setup.lua')

local rp = require 'reprise'

local SIZE, STEPS, STATES = 48, 500, 10

rp.set_default_dtype 'f64'
rp.manual_seed(1)

--- One step of du/dt = c (u_xx + u_yy), zero at the border; c holds the time
-- step over the mesh width squared, and stays below 1/4.
local function step(c)
  return function(u)
    local p = rp.pad(u, {1, 1, 1, 1})
    local around = p:narrow(1, 1, SIZE):narrow(2, 2, SIZE) +
      p:narrow(1, 3, SIZE):narrow(2, 2, SIZE) +
      p:narrow(1, 2, SIZE):narrow(2, 1, SIZE) +
      p:narrow(1, 2, SIZE):narrow(2, 3, SIZE)
    return u + c * (around - 4 * u)
  end
end

local wanted = rp.rand(SIZE, SIZE)

local function functional(u, c)
  return ((rp.scan(step(c), u, STEPS) - wanted) ^ 2):sum() / 2
end

local u = rp.rand(SIZE, SIZE, {requires_grad = true})
local c = rp.tensor(0.2, {requires_grad = true})
rp.run(u, c, wanted)

local J = functional(u, c)
local spec = 'revolve=' .. STATES
local all, few = J:plan {ckpt = 'none'}, J:plan {ckpt = spec}
print(('none        peak %6.2f MiB'):format(all.peak_bytes / 2 ^ 20))
print(('%s  peak %6.2f MiB, %.2f forward passes more'):format(spec,
  few.peak_bytes / 2 ^ 20, few.recompute_fraction))
assert(few.peak_bytes < all.peak_bytes / 10)

J:backward {ckpt = spec}
local du, dc = rp.randn(SIZE, SIZE), rp.tensor(0.05)
local slope = ((u.grad * du):sum() + c.grad * dc):item()
local here = J:item()

print '       e   remainder   order'
local before
for k = 0, 5 do
  local e = 0.1 / 2 ^ k
  local there = functional(u:detach() + e * du, c:detach() + e * dc):item()
  local remainder = math.abs(there - here - e * slope)
  local order = before and math.log(before / remainder) / math.log(2)
  print(('%.6f   %9.3e   %s'):format(e, remainder,
    order and ('%5.3f'):format(order) or ''))
  assert(not order or math.abs(order - 2) < 0.1)
  before = remainder
end
