--- Runs one row: our settings, each a process of its own, and PyTorch's, all
-- of them in one other process, a step each in turn.

local machine = require 'bench.compare.machine'
local measure = require 'bench.measure'

local turns = {}

-- No row needs a quarter of this; what hangs must not hold up the rest.
local LIMIT_SECONDS = 900
local MOST_ROUNDS = 9
-- Of the memory that is free, what the steps may need at most.
local SHARE_OF_MEMORY = 0.8

--- {median, least, most, count} of seconds.
function turns.statistics(samples)
  local least, most = math.huge, 0
  for _, s in ipairs(samples) do
    least, most = math.min(least, s), math.max(most, s)
  end
  return {median = measure.median(samples), least = least, most = most,
    count = #samples}
end

--- A process that answers requests, ended where it hangs; nil where it does not
-- start.
function turns.start(name, command)
  return measure.process(name, ('timeout --foreground -k 5 %d %s')
    :format(LIMIT_SECONDS, command))
end

--- Starts our side's process, for context.device where that is not the CPU.
function turns.ours(context)
  return assert(turns.start('our process', ('luajit %sbench/compare/ours.lua %d %s')
    :format(measure.root, context.threads, context.device or 'cpu')),
    'our process did not start')
end

local function theirs(context)
  if not context.python then return nil end
  return turns.start('the peer', ('%s %sbench/peer.py %d 2>>%s')
    :format(context.python, measure.root, context.threads, context.log))
end

local function variant_name(variant)
  local names = {}
  for name in pairs(variant) do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, ', ')
end

-- ---- settings ----------------------------------------------------------------------

--- What a side is asked for: the row's shapes and one strategy.
function turns.request(row, more)
  local all = {}
  for _, part in ipairs {row, more} do
    for key, value in pairs(part) do
      if type(value) ~= 'table' then all[key] = value end
    end
  end
  return all
end

-- The row's variants that are tried under a strategy.
local function variants_of(row, ckpt)
  local list, compiled = {}, false
  for _, name in ipairs(row.compiled or {}) do
    compiled = compiled or name == ckpt
  end
  for _, variant in ipairs(row.variants or {{}}) do
    if compiled or not variant.compile then list[#list + 1] = variant end
  end
  return list
end

--- PyTorch's settings of the given strategies, opened, their memory known.
local function open_theirs(peer, row, specs)
  local list = {}
  for _, ckpt in ipairs(specs) do
    for _, variant in ipairs(variants_of(row, ckpt)) do
      local name = variant_name(variant)
      local id = ckpt .. (name ~= '' and '+' .. name or '')
      local asked = turns.request(row, variant)
      asked.ckpt, asked.name = ckpt, id
      local entry = {id = id, ckpt = ckpt, variant = name, samples = {}}
      local ok, reason = pcall(function()
        peer:ask('open', asked)
        local memory = peer:ask('memory', id)
        entry.live_bytes = memory.live_bytes
        entry.resting_bytes = memory.persistent_bytes
        entry.resident_bytes = memory.resident_bytes
      end)
      if not ok then entry.error = tostring(reason) end
      list[#list + 1] = entry
    end
  end
  return list
end

-- A plan that an earlier setting has too is not measured twice.
local function twin(known, entry)
  for _, other in ipairs(known) do
    if not other.error and not other.same_as
      and other.peak_bytes == entry.peak_bytes
      and other.recompute_fraction == entry.recompute_fraction then
      return other.label
    end
  end
end

-- What is open has not yet allocated what it will.
local function check_memory(entry, known)
  local free, needed = machine.memory 'MemAvailable', entry.peak_bytes
  for _, other in ipairs(known) do
    if other.process then needed = needed + other.peak_bytes end
  end
  if free > 0 and needed > SHARE_OF_MEMORY * free then
    error(('needs %.1f GiB, beside others %.1f GiB, of %.1f GiB free'):format(
      entry.peak_bytes / 2 ^ 30, needed / 2 ^ 30, free / 2 ^ 30), 0)
  end
end

-- Opens one of our settings and adds it to `known`.
local function open_ours(context, row, entry, known)
  entry.samples = {}
  local process
  local ok, reason = pcall(function()
    process = turns.ours(context)
    local plan = process:ask('open', turns.request(row, {ckpt = entry.spec}))
    for key, value in pairs(plan) do entry[key] = value end
    if entry.budget then entry.same_as = twin(known, entry) end
    if not entry.same_as then check_memory(entry, known) end
  end)
  if not ok then entry.error = tostring(reason) end
  known[#known + 1] = entry
  if ok and not entry.same_as then
    entry.process = process
  elseif process then
    process:close()
  end
end

-- Our settings beside PyTorch's of the given strategies.
local function open_group(context, row, specs, others, known)
  local first = #known + 1
  for _, spec in ipairs(specs) do
    open_ours(context, row, {label = spec, spec = spec}, known)
  end
  if row.part == 'sequence' then others = {} end
  -- The bytes between steps are ours; those above them PyTorch's.
  local resting
  for _, entry in ipairs(known) do resting = resting or entry.resting_bytes end
  for _, other in ipairs(resting and others or {}) do
    if other.live_bytes then
      open_ours(context, row, {
        label = "PyTorch's " .. other.id, at = other.id, budget = true,
        spec = ('budget=%d'):format(resting + other.live_bytes),
      }, known)
    end
  end
  for _, share in ipairs(resting and row.budgets or {}) do
    open_ours(context, row, {label = 'budget=' .. share, budget = true,
      spec = 'budget=' .. share}, known)
  end
  local opened = {}
  for i = first, #known do
    if known[i].process then opened[#opened + 1] = known[i] end
  end
  return opened
end

-- ---- rounds ------------------------------------------------------------------------

-- One step; a setting that ends says why and takes no further part.
local function step(entry, process, id)
  if entry.error then return end
  local ok, answer = pcall(process.ask, process, 'step', id)
  if ok then return answer.seconds end
  entry.error = tostring(answer)
end

-- Ours and PyTorch's of one strategy stand beside each other.
local function order(mine, others)
  local list, taken = {}, {}
  for _, entry in ipairs(mine) do
    list[#list + 1] = entry
    for _, other in ipairs(others) do
      if other.ckpt == entry.label and not taken[other] then
        taken[other] = true
        list[#list + 1] = other
      end
    end
  end
  for _, other in ipairs(others) do
    if not taken[other] then list[#list + 1] = other end
  end
  return list
end

local function all_step(list, peer, keep)
  local total = 0
  for _, entry in ipairs(list) do
    local seconds = step(entry, entry.process or peer,
      not entry.process and entry.id or nil)
    if seconds and keep then
      entry.samples[#entry.samples + 1] = seconds
    end
    total = total + (seconds or 0)
  end
  return total
end

local function rounds_for(context, round_seconds, seconds)
  if context.rounds > 0 then return context.rounds end
  local fit = seconds / round_seconds
  return math.min(MOST_ROUNDS,
    math.max(math.floor(fit), math.floor(math.min(3, 2 * fit)), 1))
end

local function group(context, row, specs, peer, known, seconds)
  local others = peer and open_theirs(peer, row, specs) or {}
  local mine = {}
  if row.ours ~= false then
    mine = open_group(context, row, specs, others, known)
  end
  local list = order(mine, others)
  all_step(list, peer, false)
  local rounds = rounds_for(context, all_step(list, peer, true), seconds)
  for _ = 2, rounds do all_step(list, peer, true) end
  for _, entry in ipairs(mine) do
    if not entry.error then
      local memory = entry.process:ask('memory')
      entry.measured_bytes = memory.measured_bytes
      entry.resident_bytes = memory.resident_bytes
    end
    entry.process:close()
    entry.process = nil
  end
  for _, other in ipairs(others) do
    if not other.error then peer:ask('drop', other.id) end
  end
  return others
end

local function finish(list)
  for _, entry in ipairs(list) do
    local samples = entry.samples
    entry.samples = nil
    if #samples > 0 then entry.seconds = turns.statistics(samples) end
  end
end

--- The row's result: {ours = {...}, theirs = {...}}; what did not run has an
-- `error` in place of `seconds`. row.ours and row.theirs = false leave a side
-- out.
function turns.run(row, context)
  local peer = row.theirs ~= false and theirs(context) or nil
  local mine, others = {}, {}
  local groups = {row.ckpt}
  if row.apart then
    groups = {}
    for i, spec in ipairs(row.ckpt) do groups[i] = {spec} end
  end
  local seconds = context.seconds * (row.part == 'sequence' and 0.6 or 1)
  for _, specs in ipairs(groups) do
    local list = group(context, row, specs, peer, mine, seconds / #groups)
    for _, other in ipairs(list) do others[#others + 1] = other end
  end
  if peer then pcall(peer.close, peer) end
  finish(mine)
  finish(others)
  return {ours = mine, theirs = others}
end

return turns
