--- busted runs this first: what specs predict must not depend on the rates that
-- somebody stored for this machine, here or in the processes that specs start.

local ffi = require 'ffi'

ffi.cdef 'int setenv(const char *, const char *, int);'
ffi.C.setenv('REPRISE_RATES', 'off', 1)

-- RP_TEST_DEVICE=cuda runs the specs that are about values there: on the
-- emulated device, unless RP_CUDA_LIBRARY names a real one's library.
local device = os.getenv 'RP_TEST_DEVICE'
if device then
  ffi.C.setenv('RP_CUDA_LIBRARY', 'build/libreprise_cuda_emulated.so', 0)
  package.path = './lua/?.lua;./lua/?/init.lua;' .. package.path
  require('reprise').set_default_device(device)
end
