--- How much memory a strategy may take: '300MiB', '40%' or 'min'. Errors are
-- texts without a position; ckpt says which spec they are of.

local units = require 'reprise.report.units'

local amount = {}

local function usage(name)
  return (('bytes, as in NAME=2GiB or NAME=300MiB, a share of what `none` ' ..
    'needs, as in NAME=40%, or NAME=min'):gsub('NAME', name))
end

---@class reprise.Amount
---@field least boolean?  'min'
---@field share number?   in (0, 1], of what `none` needs above the persistent
---@field bytes integer?

--- An amount from a spec's argument.
---@param argument string|number?
---@param name string  the strategy's, for messages
---@return reprise.Amount
function amount.parse(argument, name)
  if argument == nil or argument == true or argument == '' then
    error('the amount is missing: ' .. usage(name), 0)
  end
  local text = tostring(argument)
  if text == 'min' then return {least = true} end
  local share = text:match '^%s*([%d%.]+)%s*%%%s*$'
  if share then
    share = tonumber(share)
    if not share or share <= 0 or share > 100 then
      error(('%s: a share is above 0 %% and at most 100 %%'):format(text), 0)
    end
    return {share = share / 100}
  end
  local bytes = units.parse_bytes(argument)
  if not bytes then
    error(('%s is no amount: %s'):format(text, usage(name)), 0)
  end
  return {bytes = bytes}
end

--- The whole peak that the amount allows.
---@param a reprise.Amount  not the least
---@param persistent_bytes integer
---@param most_bytes integer  the peak under `none`
---@return number
function amount.bytes(a, persistent_bytes, most_bytes)
  if not a.share then return a.bytes end
  return persistent_bytes + a.share * (most_bytes - persistent_bytes)
end

--- Raises that `least` is the least there is `for_what`.
---@return never
function amount.refuse(budget, least, persistent_bytes, for_what)
  error(('budget %s (%.0f bytes) cannot be met: the least for %s is %s ' ..
    '(%.0f bytes), of which %s are parameters, optimizer state and the like'):format(
    units.bytes(budget), budget, for_what, units.bytes(least), least,
    units.bytes(persistent_bytes)), 0)
end

return amount
