--- Ours and PyTorch's, side by side in one run: every row of
-- compare/rows.lua, long sequences, the share of the machine's product rate.
-- Writes a table, its numbers as JSON and pictures.
--
--     PYTHON=python3 luajit bench/compare.lua [--seconds 30] [--only gpt,mlp]
--         [--rounds 7] [--out bench/results] [--threads 2]
--
-- --seconds is how long the rounds of a row may take: more of them, more
-- repeats (9 at most); --rounds, or BENCH_STEPS, sets their number.

local folder = arg[0]:match '^(.*/)' or './'
local measure = dofile(folder .. 'measure.lua')
package.loaded['bench.measure'] = measure

local machine = require 'bench.compare.machine'
local report = require 'bench.compare.report'
local results = require 'bench.compare.results'
local rows = require 'bench.compare.rows'
local turns = require 'bench.compare.turns'

-- A length whose step takes longer is a side's last.
local LONGEST_STEP_SECONDS = 20
local PRODUCT_SIZE = 2048

local o = measure.options {
  seconds = 30, rounds = tonumber(os.getenv 'BENCH_STEPS') or 0, only = '',
  out = measure.root .. 'bench/results', threads = 0,
}

local function chosen(name)
  if o.only == '' then return true end
  for pattern in o.only:gmatch '[^,]+' do
    if name:sub(1, #pattern) == pattern then return true end
  end
  return false
end

local function say(...)
  io.stdout:write(string.format(...), '\n')
  io.stdout:flush()
end

-- ---- products ----------------------------------------------------------------------

-- Floating-point operations a second of one large square product.
local function product(context, dtype)
  local process = turns.ours(context)
  local ok, answer = pcall(process.ask, process, 'product', {dtype = dtype,
    size = PRODUCT_SIZE, repeats = context.rounds > 0 and context.rounds or 9})
  process:close()
  if not ok then return {dtype = dtype, error = tostring(answer)} end
  local least, most = math.huge, 0
  for _, s in ipairs(answer.seconds) do
    least, most = math.min(least, s), math.max(most, s)
  end
  return {dtype = dtype, size = PRODUCT_SIZE,
    flops_per_second = answer.flops / measure.median(answer.seconds),
    least = answer.flops / most, most = answer.flops / least}
end

-- ---- the rows ----------------------------------------------------------------------

local function described(row)
  local result = {ours = {}, theirs = {}}
  for _, key in ipairs {'name', 'title', 'part', 'dtype', 'seq'} do
    result[key] = row[key]
  end
  return result
end

local function run(row, context)
  local result = described(row)
  local start = measure.clock()
  local ok, made = pcall(turns.run, row, context)
  result.seconds_taken = measure.clock() - start
  if not ok then
    result.error = tostring(made)
    return result
  end
  result.ours, result.theirs = made.ours, made.theirs
  return result
end

local function too_long(list)
  local entry = list[1]
  return not entry or not entry.seconds
    or entry.seconds.median > LONGEST_STEP_SECONDS
end

-- Row after row; `each` is called with the results so far.
local function run_all(all, context, each)
  local sides = {}
  for _, row in ipairs(rows) do
    if chosen(row.name) then
      if row.part == 'sequence' then
        row.ours, row.theirs = sides.ours, sides.theirs
      end
      if row.ours ~= false or row.theirs ~= false then
        local result = run(row, context)
        all.rows[#all.rows + 1] = result
        say('%s', report.row_text(result))
        each()
        if row.part == 'sequence' then
          if too_long(result.ours) then sides.ours = false end
          if too_long(result.theirs) then sides.theirs = false end
        end
      end
    end
  end
end

local function main()
  local python, reason = measure.python()
  if not python then say('%s', reason) end
  local log = os.tmpname()
  local context = {threads = o.threads, python = python, log = log,
    rounds = o.rounds, seconds = o.seconds}
  if context.threads == 0 then
    context.threads = require('reprise').get_num_threads()
  end
  local all = {
    date = os.date '!%Y-%m-%d', reprise = machine.commit(measure.root),
    threads = context.threads, machine = machine.describe(), rows = {},
  }
  if python then
    local peer = measure.peer(context.threads)
    all.torch = peer.hello.torch
    peer:close()
  end
  all.products = {product(context, 'f32'), product(context, 'bf16')}
  os.execute(('mkdir -p "%s"'):format(o.out))
  local unfinished = o.out .. '/unfinished.json'
  local start = measure.clock()
  run_all(all, context, function() results.save(unfinished, all) end)
  -- What PyTorch had to say: warnings, or why it ended.
  os.execute(('tail -n 5 "%s"'):format(log))
  os.remove(log)
  results.save(unfinished, all)
  assert(os.rename(unfinished, o.out .. '/results.json'))
  report.write(o.out, all)
  say('\n%.0f s; written to %s', measure.clock() - start, o.out)
end

main()
