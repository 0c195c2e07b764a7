--- The largest size whose step fits, found by planning alone: nothing is
-- allocated and nothing runs.
--
-- Method: the peak of a step is nearly affine in its batch, so the next guess
-- is where the line through two known sizes meets the limit; every third guess
-- halves what is left, for curves that are no lines. Sizes below the answer are
-- taken to fit: a peak rises with the size.

local failure = require 'reprise.failure'
local tensor = require 'reprise.tensor'
local units = require 'reprise.report.units'

local MOST = 2 ^ 24

---@class reprise.Fit
---@field n integer              the largest size that fits, 0: not even the least
---@field limit_bytes integer
---@field peak_bytes integer     the least peak there is at n (or at the least size)
---@field next_bytes? integer    the same at n + 1: above the limit
---@field reason? string         where n + 1 is refused: why
---@field tried integer          sizes planned

-- The least peak of a step: of any plan, or of the strategy's where one is
-- given.
local function peak_of(build, n, ckpt)
  local loss, opt = build(n)
  if not tensor.is(loss) then
    failure.raise('[fit] the function returns a loss and its optimizer, not %s',
      type(loss))
  end
  local options = {ckpt = ckpt or 'none'}
  local plan
  if opt then plan = opt:plan(loss, options) else plan = loss:plan(options) end
  return ckpt and plan.peak_bytes or plan:front()[1].peak_bytes
end

-- Where the line through sizes a and b meets the limit; nil where no peak is
-- known or the line does not rise.
local function meeting(peaks, a, b, limit)
  local at_a, at_b = peaks[a], peaks[b]
  if not at_a or not at_b or a == b or at_b <= at_a then return nil end
  return math.floor(a + (limit - at_a) * (b - a) / (at_b - at_a))
end

local function clamp(n, least, most)
  return math.min(math.max(n, least), most)
end

-- The largest n in least .. most that fits; least does.
local function search(fits, peaks, limit, least, most)
  local low, high, before, tried = least, most + 1, nil, 0
  -- Nothing too large is known yet: as far as the line says, or twice as far.
  while high > most and low < most do
    local n = before and meeting(peaks, before, low, limit) or 2 * low
    n = clamp(n, low + 1, math.min(16 * low, most))
    if fits(n) then before, low = low, n else high = n end
  end
  while high - low > 1 do
    tried = tried + 1
    local n = tried % 3 ~= 0 and meeting(peaks, low, high, limit)
      or math.floor((low + high) / 2)
    n = clamp(n, low + 1, high - 1)
    if fits(n) then low = n else high = n end
  end
  return low
end

--- The largest whole number n for which the step that build(n) returns (a loss
--- and, where there is one, its optimizer) fits into limit: bytes, or a text as
--- '16GiB'. Without options.ckpt any plan will do, as with budget=LIMIT; with
--- it, the plan of that strategy. options.least (1) and options.most bound n;
--- a size that build refuses with an error does not fit.
---@param build fun(n: integer): reprise.Tensor, reprise.Optimizer?
---@param limit integer|string
---@param options? {ckpt?: any, least?: integer, most?: integer}
---@return reprise.Fit
return function(build, limit, options)
  options = options or {}
  local bytes = units.parse_bytes(limit)
  if not bytes then
    failure.raise('[fit] a limit is bytes, as 16GiB or 300MiB, not %s',
      tostring(limit))
  end
  local least, peaks, reasons, tried = options.least or 1, {}, {}, 0
  local function fits(n)
    tried = tried + 1
    -- The size before lets go of its recipes.
    collectgarbage()
    local ok, result = pcall(peak_of, build, n, options.ckpt)
    if ok then peaks[n] = result else reasons[n] = tostring(result) end
    return ok and result <= bytes
  end
  if not fits(least) then
    if reasons[least] then error(reasons[least], 0) end
    return {n = 0, limit_bytes = bytes, peak_bytes = peaks[least],
      tried = tried}
  end
  local n = search(fits, peaks, bytes, least, options.most or MOST)
  return {n = n, limit_bytes = bytes, peak_bytes = peaks[n],
    next_bytes = peaks[n + 1], reason = reasons[n + 1], tried = tried}
end
