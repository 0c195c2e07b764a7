--- The training log: one JSON object a step, one a line, written at once, so
-- that a run that ends early has lost nothing.

local json = require 'reprise.report.json'

local GIB = 2 ^ 30

local Log = {}
Log.__index = Log

local log = {}

--- Opens the log for writing; path nil gives a log that writes nothing.
---@param path? string
---@return table log
function log.open(path)
  if not path then return setmetatable({}, Log) end
  local file, problem = io.open(path, 'w')
  if not file then
    error(('--log %s: %s'):format(path, (problem:gsub('^.*: ', ''))), 0)
  end
  return setmetatable({file = file}, Log)
end

--- Writes one step.
---@param s reprise.Step
function Log:write(s)
  if not self.file then return end
  self.file:write(json.object {
    {'step', s.step}, {'loss', s.loss}, {'val_loss', s.val_loss},
    {'seconds', s.seconds}, {'tokens_per_second', s.step_rate},
    {'peak_bytes', s.peak_bytes},
    {'memory/max_allocated_gb', s.max_bytes / GIB},
  }, '\n')
  self.file:flush()
end

function Log:close()
  if self.file then self.file:close() end
  self.file = nil
end

return log
