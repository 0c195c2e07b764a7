--- Our side as a process: one setting of one row. Reads one request a line on
-- standard input, answers one line of JSON each:
--
--     open {row, with ckpt}   what its plan promises; nothing is allocated
--     step                    {seconds, loss}
--     memory                  both peaks, of all steps so far
--     product {size, dtype, repeats}   seconds of square products
--
-- For a device that runs behind the host, and the second argument names one:
--
--     steps {n}               {seconds, loss}: n steps, the last loss read
--     device                  what it is, and its free and whole bytes
--     fit {row, limit}        the largest batch of the row's ckpt; of any plan
--                             where it has none
--     overhead {n}            host seconds of n steps, each behind an idle
--                             device, from a recording and `without`: recording
--                             the loss, minimizing it, of that the launch; and
--                             a step until it has run

local folder = arg[0]:match '^(.*/)' or './'
local measure = dofile(folder .. '../measure.lua')
local json = require 'cjson'
local rp = require 'reprise'
local isolate = require 'reprise.isolate'
local failure = require 'reprise.failure'
local work = require 'bench.compare.work'

failure.sink = function() end
rp.set_num_threads(tonumber(arg[1]))

local device = arg[2] or 'cpu'
rp.set_default_device(device)
-- By the driver, before anything is allocated.
local free = device ~= 'cpu' and rp.cuda.mem_get_info(device)
local function wait()
  if device ~= 'cpu' then rp.cuda.synchronize(device) end
end

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
  local used = free and rp.cuda.memory_stats(device)
  return {measured_bytes = measured,
    driver_bytes = used and used.driver_bytes - used.fixed_bytes,
    fixed_bytes = used and used.fixed_bytes,
    resident_bytes = before and most and most - before}
end

function verbs.product(o)
  local a, b = rp.randn(o.size, o.size):run(), rp.randn(o.size, o.size):run()
  if o.dtype == 'bf16' then a, b = a:to 'bf16':run(), b:to 'bf16':run() end
  local seconds = {}
  for i = 0, o.repeats do
    local product = a:matmul(b)
    local taken = measure.seconds(function()
      product:run()
      wait()
    end)
    if i > 0 then seconds[i] = taken end
  end
  return {seconds = seconds, flops = 2 * o.size ^ 3}
end

function verbs.steps(o)
  local loss
  wait()
  local seconds = measure.seconds(function()
    for _ = 1, o.n do
      loss = record()
      opt:minimize(loss, {ckpt = ckpt})
    end
    wait()
  end)
  measured = math.max(measured, rp.last_plan():measured_peak())
  return {seconds = seconds, loss = loss:item()}
end

function verbs.device()
  local now, total = rp.cuda.mem_get_info(device)
  return {name = rp.cuda.device_name(device), free_bytes = free,
    now_bytes = now, total_bytes = total}
end

function verbs.fit(o)
  local fit = rp.fit(function(n)
    o.row.batch = n
    local made, optimizer = work.open(o.row)
    return made(), optimizer
  end, o.limit, {ckpt = o.row.ckpt})
  return {n = fit.n, peak_bytes = fit.peak_bytes, tried = fit.tried}
end

-- Medians of n: of recording the loss, of minimizing it, of what of that is
-- the launch, of all and the wait.
local function host_seconds(n)
  local recording, minimizing, launching, whole = {}, {}, {}, {}
  for i = 1, n do
    wait()
    local start, loss = measure.clock()
    recording[i] = measure.seconds(function() loss = record() end)
    minimizing[i] = measure.seconds(function()
      opt:minimize(loss, {ckpt = ckpt})
    end)
    launching[i] = rp.last_plan():launch_seconds()
    wait()
    whole[i] = measure.clock() - start
  end
  return {recording = measure.median(recording),
    minimizing = measure.median(minimizing),
    launching = measure.median(launching), step = measure.median(whole)}
end

function verbs.overhead(o)
  verbs.steps {n = 3}
  local all = host_seconds(o.n)
  local recorded = rp.cuda.graphs(false, device)
  for key, value in pairs(host_seconds(o.n)) do all[key .. '_without'] = value end
  rp.cuda.graphs(recorded, device)
  all.runs = rp.last_plan().n_runs
  return all
end

local function answer(result)
  io.stdout:write(json.encode(result), '\n')
  io.stdout:flush()
end

answer {threads = rp.get_num_threads()}
for line in io.stdin:lines() do
  local verb, what = line:match '^(%w+) ?(.*)$'
  local ok, result = pcall(verbs[verb], what ~= '' and json.decode(what) or nil)
  answer(ok and result
    or {error = (tostring(result):gsub('^[^\n:]+%.lua:%d+: ', ''))})
end
