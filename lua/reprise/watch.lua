--- Runs that are watched: values that are not finite, and replays that differ
-- from the first run. While either is on, leaves are written last, so that a
-- run that fails has changed nothing; gradients live until then, and plans
-- show what that costs.

local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'

local C, ctx = binding.C, binding.ctx

local watch = {}

local levels = {
  [false] = C.RP_ANOMALY_NONE, ['nan'] = C.RP_ANOMALY_NAN, [true] = C.RP_ANOMALY_ANY,
}

--- Whether a run fails at the first value that is not finite. The error names
-- the op, its scope and shape, the element, and whether it was a first run or
-- a replay. One pass over every value that is made.
---@param what boolean|'nan'  true: NaNs and infinities; 'nan': NaNs alone, for
-- models that mask with -inf
---@return boolean|'nan' before  the setting so far
function watch.detect_anomaly(what)
  local level = levels[what]
  if level == nil then
    failure.raise("[detect_anomaly] true, false or 'nan' is wanted, not %s", tostring(what))
  end
  local before = C.rp_detect_anomaly(ctx, level)
  for setting, code in pairs(levels) do
    if code == before then return setting end
  end
end

--- Whether every recomputed value is fingerprinted at its first run and
-- compared at each replay. A difference is an error that names the op, its
-- scope, and the leaf that was changed in between, if one was. One pass over
-- what is recomputed at each run of it, and over the leaves that it reads.
---@param on boolean
---@return boolean before  the setting so far
function watch.verify_replay(on)
  if type(on) ~= 'boolean' then
    failure.raise('[verify_replay] true or false is wanted, not %s', tostring(on))
  end
  return C.rp_verify_replay(ctx, on)
end

return watch
