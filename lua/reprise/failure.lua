--- Errors that point at the user's line, and notices.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'

local C, ctx = binding.C, binding.ctx
local inside = '@' .. binding.root

local failure = {}

--- The stack level, counted from its caller, of the first Lua function that
-- is not this module's.
local function user_level()
  local level = 2
  while true do
    local info = debug.getinfo(level, 'S')
    -- None: a tail call was the first thing in a coroutine.
    if not info then return 0 end
    if info.what ~= 'C' and info.source:sub(1, #inside) ~= inside then
      return level - 1
    end
    level = level + 1
  end
end

--- Raises `text` as an error at the caller's line, the caller being the
-- nearest function outside this module.
---@param text string
---@return never
function failure.raise(text, ...)
  if select('#', ...) > 0 then text = text:format(...) end
  error(text, user_level())
end

--- Raises the last failed C call's message at the caller's line.
---@return never
function failure.from_core()
  error(ffi.string(C.rp_message(ctx)), user_level())
end

--- Checks a C call's status.
function failure.check(status)
  if status ~= C.RP_OK then failure.from_core() end
end

--- Raises again what pcall caught, unchanged.
---@return never
function failure.again(reason)
  error(reason, 0)
end

--- Where notices go; a test or a program with a log of its own replaces it.
---@param text string
function failure.sink(text)
  io.stderr:write('reprise: ', text, '\n')
end

local told = {}

--- Tells the user something that needs no answer, each text once.
---@param text string
function failure.notice_once(text)
  if told[text] then return end
  told[text] = true
  failure.sink(text)
end

--- Passes on the notices that the core has left.
function failure.drain()
  while true do
    local text = C.rp_notice_take(ctx)
    if text == nil then return end
    failure.sink(ffi.string(text))
  end
end

return failure
