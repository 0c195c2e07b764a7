--- The line that says how training goes: rewritten in place on a terminal,
-- now and then a line of its own elsewhere.

local ffi = require 'ffi'
local units = require 'reprise.report.units'

ffi.cdef [[
  int isatty(int fd);
  struct reprise_winsize { unsigned short rows, columns, x, y; };
  int ioctl(int fd, unsigned long request, ...);
]]

local STANDARD_OUTPUT = 1
local TIOCGWINSZ = ffi.os == 'OSX' and 0x40087468 or 0x5413
-- Elsewhere than on a terminal: seconds between two lines.
local QUIET_SECONDS = 10

---@class reprise.Progress
---@field private steps integer
---@field private out file*
---@field private terminal boolean
local Progress = {}
Progress.__index = Progress

local progress = {}

--- Whether standard output is a terminal.
---@return boolean
function progress.on_terminal()
  return ffi.C.isatty(STANDARD_OUTPUT) == 1
end

local function columns()
  local size = ffi.new 'struct reprise_winsize'
  if ffi.C.ioctl(STANDARD_OUTPUT, TIOCGWINSZ, size) == 0 and size.columns > 0
  then
    return size.columns
  end
  return 80
end

--- A progress line for a run of `steps` steps.
---@param steps integer
---@param options? {out?: file*, terminal?: boolean, width?: integer}
---@return reprise.Progress
function progress.new(steps, options)
  options = options or {}
  local terminal = options.terminal
  if terminal == nil then terminal = progress.on_terminal() end
  return setmetatable({steps = steps, out = options.out or io.stdout,
    terminal = terminal, width = options.width, last_line = -math.huge},
    Progress)
end

---@class reprise.Step
---@field step integer
---@field loss number
---@field val_loss? number
---@field seconds number since training began
---@field rate number tokens (or images) a second, smoothed
---@field unit string 'tokens' or 'images'
---@field step_rate number the same of this step alone
---@field peak_bytes integer measured high-water mark of the step's programs
---@field max_bytes integer high-water mark of all tensors since the start
---@field promised_bytes integer predicted

local function peak_of(s)
  local peak = 'peak ' .. units.bytes(s.peak_bytes)
  if s.peak_bytes == s.promised_bytes then return peak, ' as promised' end
  return ('%s (promised %s)'):format(peak, units.bytes(s.promised_bytes)), ''
end

--- The line's text, of at most `width` characters where one is given.
---@param steps integer
---@param s reprise.Step
---@param width? integer
---@return string
function progress.text(steps, s, width)
  local parts = {('step %' .. #tostring(steps) .. 'd/%d'):format(s.step, steps),
    ('loss %.4f'):format(s.loss)}
  if s.val_loss then parts[#parts + 1] = ('val %.4f'):format(s.val_loss) end
  parts[#parts + 1] = ('%s %s/s'):format(units.rate(s.rate), s.unit)
  if s.step < steps then
    local left = s.seconds / s.step * (steps - s.step)
    parts[#parts + 1] = units.clock(left) .. ' left'
  end
  local peak, comment = peak_of(s)
  parts[#parts + 1] = peak
  local line = table.concat(parts, '  ')
  -- What a narrow terminal has no room for.
  if not width or #line + #comment <= width then return line .. comment end
  return line:sub(1, width)
end

--- Shows a step. The latest val_loss stays in the line until the next one.
---@param s reprise.Step
function Progress:show(s)
  local fresh = s.val_loss ~= nil
  self.val_loss = s.val_loss or self.val_loss
  local width
  -- A line that wraps cannot be rewritten.
  if self.terminal then width = (self.width or columns()) - 1 end
  local line = progress.text(self.steps, setmetatable(
    {val_loss = self.val_loss}, {__index = s}), width)
  if self.terminal then
    self.out:write('\r', line, '\27[K', fresh and '\n' or '')
    self.open = not fresh
    self.out:flush()
  elseif fresh or s.step == 1 or s.step == self.steps
    or s.seconds - self.last_line >= QUIET_SECONDS then
    self.last_line = s.seconds
    self.out:write(line, '\n')
    self.out:flush()
  end
end

--- Ends the line, so that what is printed next begins on its own.
function Progress:finish()
  if self.open then self.out:write '\n' end
  self.open = false
end

return progress
