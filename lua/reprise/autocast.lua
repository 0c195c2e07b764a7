--- Mixed precision: what is recorded multiplies in bf16, accumulates in f32,
-- and keeps weights, statistics and losses in f32. The casts are recipes like
-- any other; gradients of f32 weights are f32 and were never bf16.

local failure = require 'reprise.failure'
local modes = require 'reprise.modes'

local function restore(before, ok, ...)
  modes.set_autocast(before)
  if ok then return ... end
  return failure.again((...))
end

local function under(on, fn, ...)
  modes.set_autocast(on)
  return fn(...)
end

local names = {[false] = false, bf16 = true}

--- rp.autocast('bf16', fn, ...): records fn(...) in mixed precision and
-- returns what fn returns. Without fn: all that is recorded from here on,
-- until rp.autocast(false); returns the setting so far.
---@param dtype 'bf16'|false  false: none
---@param fn function?
return function(dtype, fn, ...)
  local on = names[dtype]
  if on == nil then
    failure.raise("[autocast] products are taken in 'bf16', or in what they " ..
      'are given with false; not %s', type(dtype) == 'string' and
      ("in '%s'"):format(dtype) or tostring(dtype))
  end
  if fn ~= nil and type(fn) ~= 'function' then
    failure.raise('[autocast] a function that records is wanted, not %s', type(fn))
  end
  local before = modes.autocast
  if fn == nil then
    modes.set_autocast(on)
    return before and 'bf16' or false
  end
  if modes.may_yield() then return modes.apart(under, on, fn, ...) end
  return restore(before, pcall(under, on, fn, ...))
end
