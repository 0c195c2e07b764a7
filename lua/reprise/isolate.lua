--- Runs a function in a child process of its own: what it allocates and how
-- far its memory grew is its alone, and what ends it ends nothing else. Where a
-- GPU is in use it runs in this one: no child could use the GPU.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local device = require 'reprise.device'

local C, ctx = binding.C, binding.ctx

ffi.cdef [[
  int fork(void);
  int pipe(int ends[2]);
  int close(int fd);
  long read(int fd, void *buffer, size_t count);
  long write(int fd, const void *buffer, size_t count);
  int waitpid(int pid, int *status, int options);
  void _exit(int status);
  int malloc_trim(size_t pad);
  int omp_pause_resource_all(int kind);
]]

local PAUSE_HARD = 2

local isolate = {}

--- Bytes of a field of /proc/self/status (VmRSS, VmHWM), nil elsewhere than
--- on Linux.
---@param field string
---@return integer?
function isolate.status(field)
  local file = io.open '/proc/self/status'
  if not file then return nil end
  local text = file:read '*a'
  file:close()
  local kib = text:match(field .. ':%s+(%d+) kB')
  return kib and tonumber(kib) * 1024
end

-- A flat table of numbers, strings and booleans as Lua source.
local function written(result)
  local parts = {}
  for key, value in pairs(result) do
    local text = type(value) == 'number' and ('%.17g'):format(value)
      or type(value) == 'boolean' and tostring(value)
      or ('%q'):format(tostring(value))
    parts[#parts + 1] = ('[%q] = %s'):format(key, text)
  end
  return 'return {' .. table.concat(parts, ', ') .. '}'
end

-- A new process' account: no arena, no freed heap that would hide growth.
local function clear_accounts()
  C.rp_arena_release(ctx)
  collectgarbage()
  collectgarbage()
  C.rp_memory_reset_peak(ctx)
end

local function child(fn, out)
  clear_accounts()
  pcall(function() ffi.C.malloc_trim(0) end)
  local ok, result = pcall(fn)
  local text = written(ok and result or {child_error = tostring(result)})
  local sent = 0
  while sent < #text do
    local n = tonumber(ffi.C.write(out, ffi.cast('const char *', text) + sent,
      #text - sent))
    if n <= 0 then break end
    sent = sent + n
  end
  io.stdout:flush()
  ffi.C._exit(0)
end

local function read_all(from)
  local parts, buffer = {}, ffi.new 'char[4096]'
  while true do
    local n = tonumber(ffi.C.read(from, buffer, 4096))
    if n <= 0 then break end
    parts[#parts + 1] = ffi.string(buffer, n)
  end
  return table.concat(parts)
end

--- Whether fn would run in a process of its own: CUDA does not survive a fork.
---@return boolean
function isolate.is_possible()
  return not device.is_any_open()
end

local function here(fn)
  clear_accounts()
  local ok, result = pcall(fn)
  clear_accounts()
  if ok then return result end
  return nil, tostring(result)
end

--- What fn returns in a child process: a flat table of numbers, strings and
-- booleans. Anything else that fn does is lost with the child, if there is one.
---@param fn fun(): table
---@return table? result nil: fn raised, or the child was ended
---@return string? reason
function isolate.run(fn)
  if not isolate.is_possible() then return here(fn) end
  local ends = ffi.new 'int[2]'
  if ffi.C.pipe(ends) ~= 0 then return nil, 'no pipe to a child process' end
  -- What is buffered would be written twice.
  io.stdout:flush()
  io.stderr:flush()
  -- Threads do not survive a fork; without any, the child makes its own.
  pcall(function() C.omp_pause_resource_all(PAUSE_HARD) end)
  local pid = ffi.C.fork()
  if pid == 0 then
    ffi.C.close(ends[0])
    child(fn, ends[1])
  end
  ffi.C.close(ends[1])
  if pid < 0 then
    ffi.C.close(ends[0])
    return nil, 'no child process'
  end
  local text, status = read_all(ends[0]), ffi.new 'int[1]'
  ffi.C.close(ends[0])
  ffi.C.waitpid(pid, status, 0)
  if text == '' then
    local signal = status[0] % 128
    return nil, signal == 9 and 'ended by the system, for want of memory'
      or ('its process ended with signal %d'):format(signal)
  end
  local result = setfenv(assert(loadstring(text)), {})()
  if result.child_error then return nil, result.child_error end
  return result
end

return isolate
