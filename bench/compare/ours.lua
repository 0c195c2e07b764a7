--- Our side as a process: one setting of one row. Reads one request a line on
-- standard input, answers one line of JSON each:
--
--     open {row, with ckpt}   what its plan promises; nothing is allocated
--     step                    {seconds, loss}
--     memory                  both peaks, of all steps so far
--     product {size, dtype, repeats}   seconds of square products

local folder = arg[0]:match '^(.*/)' or './'
local measure = dofile(folder .. '../measure.lua')
local json = require 'cjson'
local rp = require 'reprise'
local isolate = require 'reprise.isolate'
local failure = require 'reprise.failure'
local work = require 'bench.compare.work'

failure.sink = function() end
rp.set_num_threads(tonumber(arg[1]))

local before = isolate.status 'VmRSS'
local record, opt, ckpt
local measured = 0

-- What PyTorch's live bytes leave out: all that is there between steps.
local function resting(plan)
  local roles = plan.role_bytes
  return roles.parameter + roles.optimizer + roles.input + roles.buffer
    + roles.number
end

local verbs = {}

function verbs.open(row)
  record, opt = work.open(row)
  ckpt = row.ckpt
  local plan = opt:plan(record(), {ckpt = ckpt})
  return {
    peak_bytes = plan.peak_bytes, resting_bytes = resting(plan),
    live_bytes = plan.peak_bytes - resting(plan), flops = plan.step_flops,
    recompute_fraction = plan.recompute_fraction,
  }
end

function verbs.step()
  local value
  local seconds = measure.seconds(function()
    local loss = record()
    opt:minimize(loss, {ckpt = ckpt})
    value = loss:item()
  end)
  measured = math.max(measured, rp.last_plan():measured_peak())
  return {seconds = seconds, loss = value}
end

function verbs.memory()
  local most = isolate.status 'VmHWM'
  return {measured_bytes = measured,
    resident_bytes = before and most and most - before}
end

function verbs.product(o)
  local a, b = rp.randn(o.size, o.size):run(), rp.randn(o.size, o.size):run()
  if o.dtype == 'bf16' then a, b = a:to 'bf16':run(), b:to 'bf16':run() end
  local seconds = {}
  for i = 0, o.repeats do
    local product = a:matmul(b)
    local taken = measure.seconds(function() product:run() end)
    if i > 0 then seconds[i] = taken end
  end
  return {seconds = seconds, flops = 2 * o.size ^ 3}
end

local function answer(result)
  io.stdout:write(json.encode(result), '\n')
  io.stdout:flush()
end

answer {threads = rp.get_num_threads()}
for line in io.stdin:lines() do
  local verb, what = line:match '^(%w+) ?(.*)$'
  local ok, result = pcall(verbs[verb], what ~= '' and json.decode(what) or nil)
  answer(ok and result or {error = tostring(result)})
end
