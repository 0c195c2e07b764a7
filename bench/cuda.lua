--- On a GPU: GPT-2 in bf16, ours and PyTorch's in one run. Tokens a second and
-- peaks of each setting, ours at each of PyTorch's peaks and under budgets; the
-- largest batch in 16 GiB; launches; the share of the bf16 matrix rate; the
-- driver's figure against the accounted bytes.
--
--     PYTHON=python3 luajit bench/cuda.lua [--models gpt2-124m,gpt2-355m]
--         [--batches 8,16,32,64] [--parts device,overhead,fits,steps]
--         [--rounds 5] [--steps 10] [--dropout 0] [--limit 16GiB]
--         [--out bench/results] [--resume] [--smoke] [--alone]
--
-- --resume keeps what the results of that folder have already; --alone leaves
-- PyTorch out. --smoke tries the script itself: tiny sizes on the emulated
-- device, PyTorch on the CPU. Without a GPU it says so and ends with 0.

local folder = arg[0]:match '^(.*/)' or './'
local measure = dofile(folder .. 'measure.lua')
package.loaded['bench.measure'] = measure

local ffi = require 'ffi'

local o = measure.options {
  models = 'gpt2-124m,gpt2-355m', batches = '8,16,32,64', dropout = 0,
  parts = 'device,overhead,fits,steps', rounds = 5, steps = 10,
  limit = '16GiB', out = measure.root .. 'bench/results', resume = false,
  smoke = false, alone = false,
}

-- Before the library is asked for, here and in the processes started below.
if o.smoke then
  ffi.cdef 'int setenv(const char *, const char *, int);'
  ffi.C.setenv('RP_CUDA_LIBRARY',
    measure.root .. 'build/libreprise_cuda_emulated.so', 0)
end

local rp = require 'reprise'
local units = require 'reprise.report.units'
local fits = require 'bench.gpu.fits'
local machine = require 'bench.compare.machine'
local report = require 'bench.gpu.report'
local results = require 'bench.compare.results'
local rows = require 'bench.gpu.rows'
local run = require 'bench.gpu.turns'
local turns = require 'bench.compare.turns'

local PRODUCT_SIZE, PRODUCT_REPEATS = 8192, 20
local LAUNCHES, WARM_UP = 50, 3

local function say(...)
  io.stdout:write(string.format(...), '\n')
  io.stdout:flush()
end

local function wanted(part)
  return (',' .. o.parts .. ','):find(',' .. part .. ',', 1, true) ~= nil
end

-- What fn(process) returns; {error = text} where it fails.
local function ask_one(start, context, fn)
  local ok, result = pcall(function()
    local process = start(context)
    local done, answer = pcall(fn, process)
    pcall(process.close, process)
    if not done then error(answer, 0) end
    return answer
  end)
  return ok and result or {error = tostring(result)}
end

-- ---- the device --------------------------------------------------------------------

local function product(side, start, context)
  local size = o.smoke and 32 or PRODUCT_SIZE
  local made = ask_one(start, context, function(process)
    local answer = process:ask('product', {dtype = 'bf16', size = size,
      repeats = o.smoke and 2 or PRODUCT_REPEATS})
    local s = turns.statistics(answer.seconds)
    return {flops_per_second = answer.flops / s.median,
      least = answer.flops / s.most, most = answer.flops / s.least}
  end)
  made.side, made.dtype, made.size = side, 'bf16', size
  return made
end

-- What is in use once nothing but the device is open, and behind a product.
local function device(context)
  return ask_one(turns.ours, context, function(process)
    local first = process:ask 'device'
    process:ask('product', {dtype = 'bf16', size = o.smoke and 32 or 512,
      repeats = 1})
    local then_ = process:ask 'device'
    return {name = first.name, total_bytes = first.total_bytes,
      context_bytes = first.total_bytes - first.free_bytes,
      libraries_bytes = then_.total_bytes - then_.now_bytes}
  end)
end

local function overhead(context)
  return ask_one(turns.ours, context, function(process)
    process:ask('open', turns.request(rows.launches(o), {ckpt = 'none'}))
    return process:ask('overhead', {n = o.smoke and 1 or LAUNCHES})
  end)
end

-- ---- PyTorch -----------------------------------------------------------------------

-- context.python where there is a PyTorch that has the device.
local function find_peer(context, all)
  if o.alone then return end
  local python, reason = measure.python()
  if not python then return say('%s', reason) end
  context.python = python
  local process = run.theirs(context)
  local hello = process.hello
  process:close()
  if not hello.there then
    context.python = nil
    return say("PyTorch %s under %s has no CUDA: ours alone", hello.torch,
      python)
  end
  all.torch = hello.torch
  say('PyTorch %s on %s', hello.torch, hello.device or 'the CPU')
end

-- ---- all ---------------------------------------------------------------------------

local function earlier(path)
  local file = o.resume and io.open(path)
  if not file then return nil end
  file:close()
  return results.load(path)
end

local function has(list, key, value)
  for _, entry in ipairs(list) do
    if entry[key] == value then return true end
  end
  return false
end

local function measure_device(context, all)
  if all.device.name then return end
  all.device = device(context)
  all.products = {product('ours', turns.ours, context)}
  if context.python then
    all.products[2] = product('PyTorch', run.theirs, context)
  end
end

local function measure_fits(context, all, list, save)
  local limit = units.parse_bytes(o.smoke and '256KiB' or o.limit)
  for _, row in ipairs(rows.models(list)) do
    if not has(all.fits, 'model', row.model) then
      local made = {}
      fits.of(context, row, limit, function(fit)
        made[#made + 1] = fit
        say('%s in %s, %s %s: %s', fit.model, units.bytes(limit), fit.side, fit.label,
          fit.error or ('batch %d'):format(fit.batch))
      end)
      for _, fit in ipairs(made) do all.fits[#all.fits + 1] = fit end
      save()
    end
  end
end

local function measure_row(context, row)
  local result = {ours = {}, theirs = {}}
  for _, key in ipairs {'name', 'title', 'part', 'dtype', 'seq', 'model',
                        'batch'} do
    result[key] = row[key]
  end
  local start = measure.clock()
  local ok, made = pcall(run.row, context, row)
  if ok then result.ours, result.theirs = made.ours, made.theirs end
  result.error = not ok and tostring(made) or nil
  result.seconds_taken = measure.clock() - start
  return result
end

local function measure_rows(context, all, list, save)
  for _, row in ipairs(list) do
    if not has(all.rows, 'name', row.name) then
      local result = measure_row(context, row)
      all.rows[#all.rows + 1] = result
      say('%s', report.row_text(result))
      save()
    end
  end
end

local function main()
  local there, reason = rp.cuda.is_available()
  if not there then
    say('no GPU to measure on, so nothing is: %s', reason)
    return
  end
  local context = {threads = rp.get_num_threads(), device = 'cuda',
    their_device = o.smoke and 'cpu' or 'cuda', log = os.tmpname(),
    rounds = o.smoke and 2 or o.rounds, steps = o.smoke and 1 or o.steps,
    warm_up = o.smoke and 2 or WARM_UP, smoke = o.smoke}
  local list = rows.of(o)
  os.execute(('mkdir -p "%s"'):format(o.out))
  local path = o.out .. '/cuda-results.json'
  local all = earlier(path) or {
    date = os.date '!%Y-%m-%d', reprise = machine.commit(measure.root),
    threads = context.threads, machine = machine.describe(),
    rounds = context.rounds, steps = context.steps, smoke = o.smoke or nil,
    device = {error = 'the device was not asked'}, products = {}, rows = {},
  }
  all.fits = all.fits or {}
  find_peer(context, all)
  local function save() results.save(path, all) end
  local start = measure.clock()
  if wanted 'device' then measure_device(context, all) end
  if wanted 'overhead' and not all.overhead then
    all.overhead = overhead(context)
  end
  save()
  if wanted 'fits' then measure_fits(context, all, list, save) end
  if wanted 'steps' then measure_rows(context, all, list, save) end
  os.execute(('tail -n 5 "%s"'):format(context.log))
  os.remove(context.log)
  save()
  report.write(o.out, all)
  say('%.0f s; written to %s/cuda-*', measure.clock() - start, o.out)
end

main()
