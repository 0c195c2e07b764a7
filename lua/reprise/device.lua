--- Devices: where tensors lie. A device is named 'cpu', 'cuda' or 'cuda:1' and
-- is taken into use when it is named first.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'

local C, ctx = binding.C, binding.ctx

local device = {}

local slots = {}

--- The slot of a device's name.
---@param name string
---@param where string  the function's name, for messages
---@return integer
function device.slot(name, where)
  local slot = slots[name]
  if slot then return slot end
  if type(name) ~= 'string' then
    failure.raise("[%s] a device is named 'cpu', 'cuda' or 'cuda:1', not %s", where,
      tostring(name))
  end
  slot = C.rp_device_open(ctx, name)
  if slot < 0 then failure.from_core() end
  slots[name] = slot
  return slot
end

--- Whether another device than the CPU was taken into use.
---@return boolean
function device.is_any_open()
  for name in pairs(slots) do
    if name ~= 'cpu' then return true end
  end
  return false
end

--- Waits until everything has run, wherever.
function device.wait()
  for _, slot in pairs(slots) do failure.check(C.rp_synchronize(ctx, slot)) end
end

--- Whether the text has the form of a device's name.
function device.is_name(text)
  return type(text) == 'string' and (text:match '^cpu$' or text:match '^cuda') and true or
    false
end

--- The name of the device in a slot; nil: the default one.
---@return string
function device.name(slot)
  return ffi.string(C.rp_device_name(ctx, slot or -1))
end

local function restored(before, ok, ...)
  C.rp_device_default(ctx, before)
  if not ok then failure.again((...)) end
  return ...
end

--- fn(...), where new leaves and recipes without inputs lie where x does.
---@param x reprise.Tensor
function device.beside(x, fn, ...)
  return restored(C.rp_device_default(ctx, C.rp_tensor_device(x.ptr)), pcall(fn, ...))
end

--- fn whose last argument may be options with a `device`: what it makes lies
-- there.
function device.aware(where, fn)
  return function(...)
    local n = select('#', ...)
    local options = n > 0 and select(n, ...)
    local name = type(options) == 'table' and rawget(options, 'device')
    if not name then return fn(...) end
    local before = C.rp_device_default(ctx, device.slot(name, where))
    return restored(before, pcall(fn, ...))
  end
end

--- New leaves, and random and other recipes without inputs, lie there.
---@param name string
function device.set_default_device(name)
  C.rp_device_default(ctx, device.slot(name, 'set_default_device'))
end

---@return string
function device.get_default_device()
  return device.name()
end

-- ---- rp.cuda ------------------------------------------------------------------

local cuda = {}
device.cuda = cuda

local function count()
  local n = C.rp_device_count(ctx, 'cuda')
  if n < 0 then return 0, ffi.string(C.rp_message(ctx)) end
  -- What is missing is said when one is asked for.
  if n == 0 and C.rp_device_open(ctx, 'cuda') < 0 then
    return 0, ffi.string(C.rp_message(ctx))
  end
  return n
end

--- Whether a program can run on a GPU; if not, what is missing.
---@return boolean
---@return string? reason
function cuda.is_available()
  local n, reason = count()
  return n > 0, reason
end

---@return integer
function cuda.device_count()
  return (count())
end

--- The slot of a CUDA device; the first when nothing is named.
---@param name string?
---@param where string
---@return integer
function device.cuda_slot(name, where)
  local slot = device.slot(name or 'cuda', where)
  if slot == 0 then failure.raise("[%s] '%s' is no CUDA device", where, name) end
  return slot
end

local info = ffi.new 'rp_device_info'

local function describe(name, where)
  failure.check(C.rp_device_describe(ctx, device.cuda_slot(name, where), info))
  return info
end

--- What the device is, in words.
---@param name string?  'cuda' when absent
function cuda.device_name(name)
  return ffi.string(describe(name, 'cuda.device_name').text)
end

--- Bytes free and in all, by the device's own account.
---@param name string?
---@return integer free
---@return integer total
function cuda.mem_get_info(name)
  local made = describe(name, 'cuda.mem_get_info')
  return tonumber(made.free_bytes), tonumber(made.total_bytes)
end

--- Whether programs are recorded as CUDA graphs when they run a second time
-- (on at first); returns the previous setting.
---@param on boolean
---@param name string?
function cuda.graphs(on, name)
  return C.rp_device_record(ctx, device.cuda_slot(name, 'cuda.graphs'), on and true or false)
end

--- Waits until everything has run; raises what went wrong on the device since.
---@param name string?
function cuda.synchronize(name)
  failure.check(C.rp_synchronize(ctx, device.cuda_slot(name, 'cuda.synchronize')))
end

return device
