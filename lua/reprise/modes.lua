--- What holds while a function runs, and for no other: the place where nodes
-- are recorded, the module whose forward runs, whether gradients are recorded,
-- mixed precision.
--
-- A function that a coroutine runs may yield in the middle. What held for it
-- is then put aside and what holds outside is put back, until the coroutine
-- goes on. So that this happens wherever it yields, such a function is run in
-- a coroutine of modes' own, which passes on what it yields.

local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'

local C, ctx = binding.C, binding.ctx

local modes = {
  module = nil,      -- the innermost one whose forward is running
  recording = true,  -- whether new nodes record gradients
  autocast = false,  -- whether products take bf16
}

-- The coroutine of ours that runs now, nil: none does.
local present

--- The running coroutine, nil in the main one.
local function running()
  local thread, is_main = coroutine.running()
  if not is_main then return thread end
end

function modes.set_recording(on)
  modes.recording = on
  C.rp_grad_enable(ctx, on)
end

function modes.set_autocast(on)
  modes.autocast = on
  C.rp_autocast(ctx, on)
end

local function get()
  return {
    place = C.rp_place_get(ctx), module = modes.module, present = present,
    recording = modes.recording, autocast = modes.autocast,
  }
end

local function put(all)
  C.rp_place_set(ctx, all.place)
  modes.module, present = all.module, all.present
  modes.set_recording(all.recording)
  modes.set_autocast(all.autocast)
end

--- Whether a function that changes a mode must be run by modes.apart: the
-- coroutine is the user's.
---@return boolean
function modes.may_yield()
  return running() ~= present
end

local advance

local function advanced(thread, outside, ok, ...)
  if coroutine.status(thread) ~= 'suspended' then
    put(outside)
    if ok then return ... end
    return failure.again((...))
  end
  local inside = get()
  put(outside)
  return advance(thread, inside, coroutine.yield(...))
end

function advance(thread, inside, ...)
  local outside = get()
  put(inside)
  return advanced(thread, outside, coroutine.resume(thread, ...))
end

--- fn(...) in a coroutine of its own. Whatever it changes of the modes holds
-- inside alone.
---@param fn function
function modes.apart(fn, ...)
  local thread = coroutine.create(fn)
  failure.callers[thread] = running()
  local inside = get()
  inside.present = thread
  return advance(thread, inside, ...)
end

return modes
