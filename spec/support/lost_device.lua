--- Loses the emulated device in a step and says what each reading of it gives,
-- a line each: a process of its own, as what follows cannot use the device.
--     RP_CUDA_LIBRARY=... luajit spec/support/lost_device.lua DEVICE_LIBRARY

package.path = './lua/?.lua;./lua/?/init.lua;' .. package.path

local ffi = require 'ffi'
ffi.cdef 'void rp_emulated_fail_launch(long long);'

local emulated = ffi.load(arg[1])
local rp = require 'reprise'

local function say(...)
  print((tostring(select(2, pcall(...))):gsub('\n.*', '')))
end

local w = rp.nn.Parameter(rp.tensor({1, 2}, {device = 'cuda'}))
local opt = rp.optim.SGD({w}, {lr = 1})
local here = rp.tensor {3, 4}

opt:minimize(w:exp():sum())
rp.cuda.synchronize()
emulated.rp_emulated_fail_launch(1)
say(function()
  local loss = w:exp():sum()
  opt:minimize(loss)
  return loss:item()
end)
say(function() return w:totable()[1] end)
say(rp.cuda.synchronize)
say(function() return (here * 2):totable()[2] end)
