--- Runs one row on a GPU: each setting of either side is a process of its own.
-- Those that are compared stand beside each other and take turns, some steps
-- each; where they do not fit into the device's memory together they come one
-- after the other, and the entry says `apart`.

local measure = require 'bench.measure'
local rows = require 'bench.gpu.rows'
local turns = require 'bench.compare.turns'

local run = {}

-- Beside what a plan promises: a context and its libraries, generously.
local CONTEXT_BYTES = 2 ^ 30

--- PyTorch's process on its device.
function run.theirs(context)
  return assert(turns.start('PyTorch', ('%s %sbench/peer_gpu.py %s 2>>%s'):format(
    context.python, measure.root, context.their_device, context.log)),
    'PyTorch did not start')
end

--- What PyTorch is asked for in a setting.
function run.request(row, setting)
  return turns.request(row, {ckpt = setting.written or setting.ckpt,
    compile = setting.compile, memory_budget = setting.memory_budget})
end

-- ---- one setting -------------------------------------------------------------------

local function open_theirs(context, row, entry)
  local process = run.theirs(context)
  entry.process = process
  process:ask('open', run.request(row, entry.setting))
  process:ask('steps', {n = context.warm_up})
  local memory = process:ask 'memory'
  entry.peak_bytes = memory.peak_bytes
  entry.reserved_bytes = memory.reserved_bytes
  entry.resting_bytes = memory.persistent_bytes
  entry.live_bytes = memory.peak_bytes - memory.persistent_bytes
end

local function open_ours(context, row, entry)
  local process = turns.ours(context)
  entry.process = process
  local plan = process:ask('open', turns.request(row, {ckpt = entry.spec}))
  for key, value in pairs(plan) do entry[key] = value end
  local device = process:ask 'device'
  if entry.peak_bytes + CONTEXT_BYTES > device.free_bytes
    and not context.smoke then
    return false
  end
  process:ask('steps', {n = context.warm_up})
  -- The driver's figure is of the whole device: nobody else has run since.
  local memory = process:ask 'memory'
  entry.driver_bytes, entry.fixed_bytes = memory.driver_bytes, memory.fixed_bytes
  return true
end

local function close(entry)
  if entry.process then pcall(entry.process.close, entry.process) end
  entry.process = nil
end

-- Opens an entry; false: there is no room for it beside the others.
local function open(context, row, entry)
  entry.samples = {}
  if entry.beside then
    if not entry.beside.peak_bytes then
      entry.error = 'there is no such peak: ' .. tostring(entry.beside.error)
      return true
    end
    entry.spec = ('budget=%d'):format(entry.beside.peak_bytes)
  end
  local ok, result = pcall(entry.setting and open_theirs or open_ours, context,
    row, entry)
  if ok and result ~= false then return true end
  close(entry)
  if ok then return false end
  entry.error = tostring(result)
  return true
end

-- ---- turns -------------------------------------------------------------------------

local function one_turn(context, entry)
  if entry.error or not entry.process then return end
  local ok, answer = pcall(entry.process.ask, entry.process, 'steps',
    {n = context.steps})
  if ok then
    table.insert(entry.samples, answer.seconds / context.steps)
  else
    entry.error = tostring(answer)
  end
end

local function all_turns(context, opened)
  for _ = 1, context.rounds do
    for _, entry in ipairs(opened) do one_turn(context, entry) end
  end
  for _, entry in ipairs(opened) do
    if entry.process and not entry.error and not entry.setting then
      entry.measured_bytes = entry.process:ask('memory').measured_bytes
    end
    close(entry)
  end
end

-- The entries of a list in turn, as many of them side by side as there is room
-- for.
local function group(context, row, list)
  local opened = {}
  for _, entry in ipairs(list) do
    if not open(context, row, entry) then
      local alone = #opened == 0
      all_turns(context, opened)
      opened = {}
      entry.apart = true
      if alone or not open(context, row, entry) then
        entry.error = ('needs %.1f GiB, more than is free'):format(
          entry.peak_bytes / 2 ^ 30)
      end
    end
    opened[#opened + 1] = entry
  end
  all_turns(context, opened)
end

-- ---- a row -------------------------------------------------------------------------

-- Ours of the same strategy stands beside PyTorch's last setting of it.
local function groups_of(context, row, mine, others)
  local list, rest = {}, {}
  local left = {}
  for _, spec in ipairs(rows.ours) do left[spec] = true end
  if context.python then
    for i, setting in ipairs(rows.theirs) do
      local theirs = {id = setting.id, ckpt = setting.ckpt,
        variant = setting.variant, setting = setting}
      local ours = {label = "PyTorch's " .. setting.id, at = setting.id,
        spec = 'budget=', beside = theirs}
      others[#others + 1], mine[#mine + 1] = theirs, ours
      local entries = {theirs, ours}
      local follows = rows.theirs[i + 1]
      if left[setting.ckpt] and not (follows
          and follows.ckpt == setting.ckpt) then
        left[setting.ckpt] = nil
        entries[3] = {label = setting.ckpt, spec = setting.ckpt}
        mine[#mine + 1] = entries[3]
      end
      list[#list + 1] = entries
    end
  end
  local function add(label)
    rest[#rest + 1] = {label = label, spec = label}
    mine[#mine + 1] = rest[#rest]
  end
  for _, spec in ipairs(rows.ours) do
    if left[spec] then add(spec) end
  end
  for _, share in ipairs(row.budgets or {}) do add('budget=' .. share) end
  list[#list + 1] = rest
  return list
end

-- In the order of the tables: strategies first.
local function sorted(mine)
  local order, list = {}, {}
  for i, spec in ipairs(rows.ours) do order[spec] = i end
  for i, entry in ipairs(mine) do
    list[i] = {entry = entry, at = order[entry.label] or #rows.ours + i}
  end
  table.sort(list, function(a, b) return a.at < b.at end)
  for i, pair in ipairs(list) do mine[i] = pair.entry end
end

local function finish(list)
  for _, entry in ipairs(list) do
    if #(entry.samples or {}) > 0 then
      entry.seconds = turns.statistics(entry.samples)
    end
    entry.samples, entry.setting, entry.beside = nil, nil, nil
  end
end

--- The row's result: {ours = {...}, theirs = {...}}; what did not run has an
-- `error` in place of `seconds`.
function run.row(context, row)
  local mine, others = {}, {}
  for _, list in ipairs(groups_of(context, row, mine, others)) do
    group(context, row, list)
  end
  sorted(mine)
  finish(mine)
  finish(others)
  return {ours = mine, theirs = others}
end

return run
