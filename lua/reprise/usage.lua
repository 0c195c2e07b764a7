--- A device's memory by its driver's own account: what is accounted, the pages
-- behind it, and what libraries and context take, which no plan counts.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local device = require 'reprise.device'
local memory = require 'reprise.memory'
local report = require 'reprise.report.usage'

local C, ctx = binding.C, binding.ctx
local read = ffi.new 'rp_device_usage'

local usage = {}

---@class reprise.DeviceUsage
---@field allocated_bytes integer      accounted: leaves, held values, the arena
---@field max_allocated_bytes integer  their high-water mark
---@field reserved_bytes integer       the pages behind them
---@field fixed_bytes integer          libraries and context, in no plan's peak
---@field fixed {name: string, bytes: integer}[]  its parts
---@field driver_bytes integer         all since the device was opened, by the driver

--- Of an open device; nil where no driver keeps an account (the CPU).
---@param name string
---@return reprise.DeviceUsage?
function usage.of(name)
  C.rp_device_usage_of(ctx, device.slot(name, 'memory'), read)
  if read.n_parts == 0 then return nil end
  local accounted = memory.memory(name)
  local all = {
    allocated_bytes = accounted.bytes, max_allocated_bytes = accounted.peak_bytes,
    reserved_bytes = tonumber(read.page_bytes),
    fixed_bytes = tonumber(read.fixed_bytes), fixed = {},
    driver_bytes = tonumber(read.driver_bytes),
  }
  for i = 1, read.n_parts do
    local part = read.parts[i - 1]
    all.fixed[i] = {name = ffi.string(part.name), bytes = tonumber(part.bytes)}
  end
  return all
end

-- ---- rp.cuda --------------------------------------------------------------------

local cuda = device.cuda

local function known(name, where)
  device.cuda_slot(name, where)
  return usage.of(name or 'cuda')
end

--- Bytes of leaves, held values and the arena: what plans promise.
---@param name string?  'cuda' when absent
---@return integer
function cuda.memory_allocated(name)
  return known(name, 'cuda.memory_allocated').allocated_bytes
end

--- Their high-water mark since rp.reset_peak_memory_stats().
---@param name string?
---@return integer
function cuda.max_memory_allocated(name)
  return known(name, 'cuda.max_memory_allocated').max_allocated_bytes
end

--- Bytes of the pages behind them.
---@param name string?
---@return integer
function cuda.memory_reserved(name)
  return known(name, 'cuda.memory_reserved').reserved_bytes
end

cuda.reset_peak_memory_stats = memory.reset_peak_memory_stats

--- All figures, in bytes.
---@param name string?
---@return reprise.DeviceUsage
function cuda.memory_stats(name)
  return known(name, 'cuda.memory_stats')
end

--- The same as a text.
---@param name string?
---@return string
function cuda.memory_summary(name)
  local of = known(name, 'cuda.memory_summary')
  return report.text(of, ('%s: %s'):format(name or 'cuda', cuda.device_name(name)),
    cuda.mem_get_info(name))
end

return usage
