--- What is allocated, in bytes.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local device = require 'reprise.device'

local C, ctx = binding.C, binding.ctx
local stats = ffi.new 'rp_memory'

local memory = {}

---@class reprise.Memory
---@field bytes integer              leaves, held values and arena, now
---@field peak_bytes integer         their high-water mark since the last reset
---@field arena_bytes integer        of bytes, the arena
---@field recipe_bytes integer       nodes, plans, tables
---@field recipe_peak_bytes integer
---@field requests integer           allocations so far
---@field nodes integer              live nodes
---@field plans integer              plans in the cache
---@field plan_misses integer        plans made so far

local function read(name, where)
  C.rp_memory_stats(ctx, name == nil and -1 or device.slot(name, where), stats)
end

--- What the library has allocated on a device, the default one when none is
-- named.
---@param name string?  'cpu', 'cuda', ...
---@return reprise.Memory
function memory.memory(name)
  read(name, 'memory')
  return {
    bytes = tonumber(stats.storage_bytes),
    peak_bytes = tonumber(stats.storage_peak_bytes),
    arena_bytes = tonumber(stats.arena_bytes),
    recipe_bytes = tonumber(stats.recipe_bytes),
    recipe_peak_bytes = tonumber(stats.recipe_peak_bytes),
    requests = tonumber(stats.requests),
    nodes = tonumber(stats.nodes),
    plans = tonumber(stats.plans),
    plan_misses = tonumber(stats.plan_misses),
  }
end

--- The high-water mark of leaves, held values and arena, in bytes.
---@param name string?  'cpu', 'cuda', ...
---@return integer
function memory.max_memory_allocated(name)
  read(name, 'max_memory_allocated')
  return tonumber(stats.storage_peak_bytes)
end

--- Begins a new high-water mark at what is allocated now.
function memory.reset_peak_memory_stats()
  C.rp_memory_reset_peak(ctx)
end

return memory
