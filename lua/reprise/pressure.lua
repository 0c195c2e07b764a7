--- Lua's collector sees handles of a few bytes, not what they hold. Before a
-- program runs, handles that nobody has any more are collected where what
-- they may hold has grown: nodes are recipes, storage is held values.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'

local C, ctx = binding.C, binding.ctx

local NODES = 20000         -- about 10 MiB of recipes
local BYTES = 64 * 2^20

local stats = ffi.new 'rp_memory'
local nodes, bytes = 0, 0   -- after the last collection

--- Collects when at least as much again has come as a collection left.
return function()
  C.rp_memory_stats(ctx, -1, stats)
  local held = tonumber(stats.storage_bytes - stats.arena_bytes)
  if tonumber(stats.nodes) < 2 * nodes + NODES and held < 1.5 * bytes + BYTES then
    return
  end
  collectgarbage()
  C.rp_memory_stats(ctx, -1, stats)
  nodes, bytes = tonumber(stats.nodes), tonumber(stats.storage_bytes - stats.arena_bytes)
end
