--- The largest batch of a training step that fits into so many bytes: ours by
-- planning alone, PyTorch's by steps under a limit of its allocator, a process
-- each.

local rows = require 'bench.gpu.rows'
local run = require 'bench.gpu.turns'
local turns = require 'bench.compare.turns'

local fits = {}

-- PyTorch's, which is found by trying, is not looked for beyond it.
local MOST = 1024

local function ours(context, row, label, ckpt, limit)
  local fit = {model = row.model, side = 'ours', label = label,
    limit_bytes = limit}
  local process = turns.ours(context)
  local ok, answer = pcall(process.ask, process, 'fit',
    {row = turns.request(row, {ckpt = ckpt}), limit = limit})
  process:close()
  if ok then
    fit.batch, fit.peak_bytes, fit.tried = answer.n, answer.peak_bytes,
      answer.tried
  else
    fit.error = tostring(answer)
  end
  return fit
end

-- Whether a batch of n fits.
local function try(context, row, setting, n, limit)
  local process = run.theirs(context)
  local asked = run.request(row, setting)
  asked.batch = n
  local ok, answer = pcall(process.ask, process, 'fits',
    {row = asked, limit_bytes = limit})
  pcall(process.close, process)
  if not ok then error(answer, 0) end
  return answer.fits
end

--- The largest n below `most` that fits, from where `guess` is: doubled or
-- halved until it is between two known ones, then by halves. Returns it (0:
-- none) and how many were tried.
function fits.search(does, guess, most)
  local low, high, n, tried = 0, most, guess, 0
  while high - low > 1 do
    n = math.min(math.max(n, low + 1), high - 1)
    tried = tried + 1
    if does(n) then low = n else high = n end
    if high == most then
      n = 2 * low
    elseif low == 0 then
      n = math.floor(high / 2)
    else
      n = math.floor((low + high) / 2)
    end
  end
  return low, tried
end

local function theirs(context, row, setting, guess, limit)
  local fit = {model = row.model, side = 'PyTorch', label = setting.id,
    limit_bytes = limit}
  local ok, n, tried = pcall(fits.search, function(n)
    return try(context, row, setting, n, limit)
  end, guess, context.smoke and 8 or MOST)
  if ok then fit.batch, fit.tried = n, tried else fit.error = tostring(n) end
  return fit
end

--- Of one model: our strategies, our best plan of any kind, PyTorch's settings.
-- Calls each(fit) as they are known.
function fits.of(context, row, limit, each)
  for _, spec in ipairs(rows.ours) do
    each(ours(context, row, spec, spec, limit))
  end
  each(ours(context, row, 'budget', nil, limit))
  if not context.python then return end
  local guess = context.smoke and 2 or 16
  for _, setting in ipairs(rows.theirs) do
    local fit = theirs(context, row, setting, guess, limit)
    if fit.batch and fit.batch > 0 then guess = fit.batch end
    each(fit)
  end
end

return fits
