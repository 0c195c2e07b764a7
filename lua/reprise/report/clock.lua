--- Seconds on the monotonic clock; os.clock counts processor time, which two
-- threads spend twice as fast.

local ffi = require 'ffi'

ffi.cdef [[
  struct reprise_timespec { long seconds, nanoseconds; };
  int clock_gettime(int clock, struct reprise_timespec *out);
]]

local MONOTONIC = ffi.os == 'OSX' and 6 or 1
local now = ffi.new 'struct reprise_timespec'

--- Seconds since some fixed moment.
---@return number
return function()
  ffi.C.clock_gettime(MONOTONIC, now)
  return tonumber(now.seconds) + tonumber(now.nanoseconds) * 1e-9
end
