--- Errors that point at the user's line, and notices.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'

local C, ctx = binding.C, binding.ctx
local inside = '@' .. binding.root

local failure = {}

--- The coroutine whose stack goes on below that of one that we made.
---@type table<thread, thread>
failure.callers = setmetatable({}, {__mode = 'k'})

--- 'file:line: ' of the first Lua function that is not this module's.
local function position()
  local level, thread = 2, nil
  while true do
    local info
    if thread then info = debug.getinfo(thread, level, 'Sl')
    else info = debug.getinfo(level, 'Sl') end
    if not info then
      thread, level = failure.callers[thread or coroutine.running()], -1
      -- None: a tail call was the first thing in a coroutine.
      if not thread then return '' end
    elseif info.what ~= 'C' and info.source:sub(1, #inside) ~= inside then
      return ('%s:%d: '):format(info.short_src, info.currentline)
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
  error(position() .. text, 0)
end

--- Raises the last failed C call's message at the caller's line.
---@return never
function failure.from_core()
  error(position() .. ffi.string(C.rp_message(ctx)), 0)
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
