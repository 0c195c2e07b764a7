--- The machine's rates, for the planner's analytic costs: how many FLOPs a
-- second in costly ops, how many bytes a second in all others. Built-in ones,
-- unless `make calibrate` (rp.calibrate) has stored this machine's; those are
-- read when reprise is loaded, so a process never acts on what it measured.
--
-- The file: REPRISE_RATES, else reprise/rates.json in XDG_CACHE_HOME or
-- ~/.cache. REPRISE_RATES=off: the built-in ones, whatever is stored.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'
local record = require 'reprise.io.record'

local C, ctx = binding.C, binding.ctx

local FORMAT = 1

local rates = {}

--- Where rates are stored, or nil: nowhere.
---@return string?
function rates.path()
  local given = os.getenv 'REPRISE_RATES'
  if given == 'off' then return nil end
  if given and given ~= '' then return given end
  local cache, home = os.getenv 'XDG_CACHE_HOME', os.getenv 'HOME'
  -- A relative one is to be ignored, says its specification.
  if not cache or cache:sub(1, 1) ~= '/' then
    if not home or home == '' then return nil end
    cache = home .. '/.cache'
  end
  return cache .. '/reprise/rates.json'
end

--- Takes the stored rates, if there are any. What is stored and cannot be used
-- is told, and the built-in ones stand.
function rates.load()
  local path = rates.path()
  if not path or not record.exists(path) then return end
  local ok, object = pcall(record.read, path)
  local problem
  if not ok then
    problem = object
  elseif object.reprise_rates ~= FORMAT or type(object.flops_per_second) ~= 'number'
    or type(object.bytes_per_second) ~= 'number' then
    problem = path .. ' is damaged: it lacks a rate'
  else
    local set = ffi.new('rp_rates', object.flops_per_second, object.bytes_per_second)
    if C.rp_rates_set(ctx, set) ~= C.RP_OK then
      problem = path .. ' is damaged: ' .. ffi.string(C.rp_message(ctx))
    end
  end
  if problem then
    failure.sink(('%s; plans are made with the built-in rates; "make calibrate" writes it ' ..
      'anew'):format(problem))
  end
end

local function make_folder_of(path)
  local folder = path:match '^(.*)/[^/]*$'
  if folder and folder ~= '' then
    os.execute(("mkdir -p '%s'"):format((folder:gsub("'", "'\\''"))))
  end
end

--- Stores rates for the next process; a text without position on failure.
---@param flops_per_second number
---@param bytes_per_second number
---@return string path
function rates.store(flops_per_second, bytes_per_second)
  local path = rates.path()
  if not path then
    error('there is no place to store rates: REPRISE_RATES=FILE names one', 0)
  end
  make_folder_of(path)
  record.write(path, ('{"reprise_rates":%d,"flops_per_second":%.6g,"bytes_per_second":%.6g,' ..
    '"threads":%d}\n'):format(FORMAT, flops_per_second, bytes_per_second,
    C.rp_num_threads(ctx)))
  return path
end

return rates
