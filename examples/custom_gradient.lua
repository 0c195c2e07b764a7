--- A gradient of your own. log(1 + exp(x)) overflows where x is large; its
-- gradient, written by hand, is stable and reads one value instead of three.
dofile((arg[0]:match '^(.*/)[^/]*$' or './') .. 'setup.lua')

local rp = require 'reprise'

local function plain(x)
  return rp.log(1 + rp.exp(x))
end

-- backward gets the gradient of each output, the outputs, the inputs.
local softplus = rp.custom_vjp(
  function(x) return rp.maximum(x, rp.zeros_like(x)) + plain(-rp.abs(x)) end,
  function(d_y, _, x) return d_y * rp.sigmoid(x) end)

local function gradient(f)
  local x = rp.tensor({-2, 0, 3, 200}, {requires_grad = true})
  f(x):sum():backward()
  return x.grad
end

print('log(1 + exp(x)):', gradient(plain))
print('softplus:       ', gradient(softplus))
assert(gradient(softplus):totable()[4] == 1)
