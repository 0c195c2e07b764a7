--- The tables of a comparison, in Markdown.

local lookup = require 'bench.compare.lookup'
local pictures = require 'bench.compare.pictures'
local results = require 'bench.compare.results'

local report = {}

local MIB = 2 ^ 20

local function mib(bytes)
  return bytes and ('%.0f'):format(bytes / MIB) or ''
end

local function seconds(s)
  if not s then return '' end
  return (s.median < 0.1 and '%.4f' or '%.3f'):format(s.median)
end

-- The median, and in what range the steps were.
local function spread(s)
  if not s then return '' end
  if s.count < 2 then return seconds(s) end
  local format = s.median < 0.1 and '%s (%.4f..%.4f)' or '%s (%.2f..%.2f)'
  return format:format(seconds(s), s.least, s.most)
end

local function ratio(a, b) return a and b and a / b end

local function shown(x) return x and ('%.2f'):format(x) or '' end

-- PyTorch's time, and which of its settings took it.
local function best_spread(best)
  if not best then return '' end
  return spread(best.seconds)
    .. (best.variant ~= '' and ', ' .. best.variant or '')
end

-- Where we lose, the table says so; and where what we compare with may not be
-- PyTorch's best, as a setting did not run.
local function verdict(pair, row, ckpt)
  local words = {}
  if pair.time and pair.time > 1 then words[#words + 1] = '**slower**' end
  if pair.memory and pair.memory > 1 then
    words[#words + 1] = '**more memory**'
  end
  for _, entry in ipairs(row.theirs) do
    if entry.error and entry.ckpt == ckpt and entry.variant ~= '' then
      words[#words + 1] = ('PyTorch\'s %s failed'):format(entry.variant)
    end
  end
  return table.concat(words, ', ')
end

--- A table, or nil where it has no rows.
function report.markdown(head, rows)
  if #rows == 0 then return nil end
  local lines = {'| ' .. table.concat(head, ' | ') .. ' |',
    '|' .. ('---|'):rep(#head)}
  for _, row in ipairs(rows) do
    lines[#lines + 1] = '| ' .. table.concat(row, ' | ') .. ' |'
  end
  return table.concat(lines, '\n')
end

-- ---- tables ------------------------------------------------------------------------

-- Why a row, or one setting of it, has no numbers.
local function missing(row)
  local reasons, seen = {}, {}
  local function add(reason)
    if reason and not seen[reason] then
      seen[reason], reasons[#reasons + 1] = true, reason
    end
  end
  add(row.error)
  for _, entry in ipairs(row.ours) do
    -- A share of memory that is too small for a model is no news.
    if not entry.budget and not entry.spec:find '^budget' then
      add(entry.error and 'Reprise: ' .. entry.error)
    end
  end
  for _, entry in ipairs(row.theirs) do
    add(entry.error and ('PyTorch%s: %s'):format(entry.variant ~= ''
      and ' `' .. entry.ckpt .. '` ' .. entry.variant or '', entry.error))
  end
  return #reasons > 0 and table.concat(reasons, '; ') or nil
end

local function steps_table(all)
  local rows = {}
  for _, row in ipairs(lookup.of_part(all, 'steps')) do
    for i, ckpt in ipairs(lookup.strategies(row)) do
      local pair = lookup.pair(row, ckpt)
      local mine, best = pair.mine, pair.best
      if mine or best then
        rows[#rows + 1] = {
          i == 1 and row.title or '', '`' .. ckpt .. '`',
          spread(mine and mine.seconds), best_spread(best),
          shown(pair.time), mib(mine and mine.live_bytes),
          mib(best and best.live_bytes), shown(pair.memory),
          verdict(pair, row, ckpt),
        }
      end
    end
  end
  return report.markdown({'a training step', 'strategy', 'ours, s', 'PyTorch, s',
    'ratio', 'ours, MiB', 'PyTorch, MiB', 'ratio', ''}, rows)
end

-- Our time where we are given what PyTorch's strategy needs.
local function memory_table(all)
  local rows = {}
  for _, row in ipairs(lookup.of_part(all, 'steps')) do
    local none, first = lookup.pair(row, 'none'), true
    for _, entry in ipairs(row.ours) do
      local best = entry.at and lookup.best(row, entry.at:match '^[^+]+')
      if best and best.id == entry.at then
        local mine = lookup.mine(row, entry.label)
        local s = mine.seconds
        rows[#rows + 1] = {
          first and row.title or '', '`' .. best.ckpt .. '`',
          mib(best.live_bytes), s and mib(mine.live_bytes) or entry.error or '',
          seconds(s), seconds(best.seconds),
          shown(s and ratio(s.median, best.seconds.median)),
          shown(s and none.mine
            and ratio(s.median, none.mine.seconds.median)),
          shown(none.best
            and ratio(best.seconds.median, none.best.seconds.median)),
          s and s.median > best.seconds.median and '**slower**' or '',
        }
        first = false
      end
    end
  end
  return report.markdown({'at the memory of', "PyTorch's", 'MiB', 'ours takes, MiB',
    'ours, s', 'PyTorch, s', 'ratio', 'ours over our `none`',
    'PyTorch over its `none`', ''}, rows)
end

-- Our curve: what less memory costs.
local function budgets_table(all)
  local rows = {}
  for _, row in ipairs(lookup.of_part(all, 'steps')) do
    local none, first = lookup.pair(row, 'none').mine, true
    for _, entry in ipairs(row.ours) do
      local mine = not entry.at and entry.spec:find '^budget'
        and lookup.mine(row, entry.label)
      if mine and mine.seconds then
        rows[#rows + 1] = {first and row.title or '',
          '`' .. entry.label .. '`', mib(mine.live_bytes),
          spread(mine.seconds), shown(none and ratio(mine.seconds.median,
          none.seconds.median))}
        first = false
      end
    end
  end
  return report.markdown({'a training step', 'budget', 'MiB', 's', 'over `none`'},
    rows)
end

local function peaks_table(all)
  local rows = {}
  for _, row in ipairs(lookup.of_part(all, 'steps')) do
    for i, ckpt in ipairs(lookup.strategies(row)) do
      local pair = lookup.pair(row, ckpt)
      local mine, best = pair.mine, pair.best
      local whole = best and best.live_bytes + best.resting_bytes
      if mine then
        rows[#rows + 1] = {
          i == 1 and row.title or '', '`' .. ckpt .. '`',
          mib(mine.peak_bytes), mib(mine.measured_bytes)
            .. (mine.measured_bytes == mine.peak_bytes and '' or ' **differs**'),
          mib(mine.resident_bytes), mib(whole),
          shown(whole and ratio(mine.peak_bytes, whole)),
          mib(best and best.resident_bytes),
          shown(best and ratio(mine.resident_bytes, best.resident_bytes)),
        }
      end
    end
  end
  return report.markdown({'all bytes of a step', 'strategy', 'ours, promised MiB',
    'accounted', 'the process grew by', 'PyTorch, MiB', 'ratio',
    'its process grew by', 'ratio'}, rows)
end

local function sequence_table(all)
  local rows = {}
  for _, row in ipairs(lookup.of_part(all, 'sequence')) do
    local pair = lookup.pair(row, 'none')
    local mine, best = pair.mine, pair.best
    rows[#rows + 1] = {
      ('%d'):format(row.seq), spread(mine and mine.seconds),
      best_spread(best), shown(pair.time),
      mib(mine and mine.live_bytes), mib(best and best.live_bytes),
      shown(pair.memory), verdict(pair, row, 'none'),
    }
  end
  return report.markdown({'T', 'ours, s', 'PyTorch, s', 'ratio', 'ours, MiB',
    'PyTorch, MiB', 'ratio', ''}, rows)
end

local function product_of(all, dtype)
  for _, product in ipairs(all.products) do
    if product.dtype == dtype and product.flops_per_second then
      return product.flops_per_second
    end
  end
end

-- Useful work over time, as a share of what a large product reaches.
local function product_table(all)
  local rows = {}
  for _, row in ipairs(all.rows) do
    local pair = lookup.pair(row, 'none')
    local mine, best = pair.mine, pair.best
    local rate = product_of(all, row.dtype)
    if mine and rate then
      local function share(s)
        return s and ('%.0f %%'):format(100 * mine.flops / s.median / rate)
          or ''
      end
      rows[#rows + 1] = {row.title, ('%.1f'):format(mine.flops / 1e9),
        ('%.0f'):format(mine.flops / mine.seconds.median / 1e9),
        share(mine.seconds), share(best and best.seconds)}
    end
  end
  return report.markdown({'a step under `none`', 'useful GFLOP', 'GFLOP/s',
    "ours, of the product's rate", 'PyTorch'}, rows)
end

-- PyTorch's other settings of the same work, and what did not run.
local function other_lines(all)
  local lines = {}
  for _, row in ipairs(all.rows) do
    local text = missing(row)
    if text then lines[#lines + 1] = ('- %s: %s.'):format(row.title, text) end
    local parts = {}
    for _, entry in ipairs(row.theirs) do
      if entry.seconds and lookup.best(row, entry.ckpt) ~= entry then
        parts[#parts + 1] = ('`%s`%s %s s, %s MiB'):format(entry.ckpt,
          entry.variant ~= '' and ' ' .. entry.variant or '',
          seconds(entry.seconds), mib(entry.live_bytes))
      end
    end
    if #parts > 0 then
      lines[#lines + 1] = ("- %s: PyTorch's other settings: %s."):format(
        row.title, table.concat(parts, '; '))
    end
  end
  return #lines > 0 and table.concat(lines, '\n') or nil
end

-- ---- texts -------------------------------------------------------------------------

local function machine_line(all)
  local m, parts = all.machine, {}
  parts[#parts + 1] = ('%s, %d cores (%s), %.0f GiB'):format(m.cpu, m.cores,
    #m.flags > 0 and table.concat(m.flags, ', ') or 'none of its extensions',
    m.memory_bytes / 2 ^ 30)
  parts[#parts + 1] = ('%d thread%s'):format(all.threads,
    all.threads == 1 and '' or 's')
  for _, product in ipairs(all.products) do
    if product.flops_per_second then
      parts[#parts + 1] = ('a %s product of %d x %d at %.0f GFLOP/s '
        .. '(%.0f..%.0f)'):format(product.dtype, product.size, product.size,
        product.flops_per_second / 1e9, product.least / 1e9,
        product.most / 1e9)
    end
  end
  return table.concat(parts, '; ')
end

local function head(all)
  return ('%s, %s%s. %s.'):format(all.date,
    all.torch and 'beside PyTorch ' .. all.torch
      or 'without a PyTorch to compare with',
    all.reprise and ', at ' .. all.reprise or '', machine_line(all))
end

local LEGEND = 'Seconds are medians of steps taken in turn (least..most); MiB '
  .. "are live bytes at the peak, above parameters, optimizer state and "
  .. "inputs. Ratios are ours over PyTorch's: below 1 is better."

--- Paragraphs; an empty one is false or nil.
local function join(...)
  local list = {}
  for i = 1, select('#', ...) do
    local part = select(i, ...)
    if part then list[#list + 1] = part end
  end
  return table.concat(list, '\n\n') .. '\n'
end

local function section(title, text, body)
  return body and join('## ' .. title, text, body):sub(1, -2)
end

report.join, report.section, report.spread = join, section, spread

local function picture_line(all, folder)
  local lines = {}
  for _, picture in ipairs(pictures.of(all)) do
    lines[#lines + 1] = ('![%s](%s%s)'):format(picture.title, folder,
      picture.file)
  end
  return #lines > 0 and table.concat(lines, '\n\n') or nil
end

--- The whole: every table.
function report.text(all)
  return join(
    '# Ours and PyTorch, side by side',
    'Made by `make bench`. ' .. head(all),
    LEGEND,
    steps_table(all),
    picture_line(all, ''),
    section("At the memory of PyTorch's strategies", 'Reprise under a budget: '
      .. 'the bytes that its own parameters, states and inputs take, and '
      .. "PyTorch's live bytes above that.", memory_table(all)),
    section('Under budgets', 'Shares are of what `none` needs above the '
      .. 'persistent bytes; `min` is the least there is.', budgets_table(all)),
    section('All bytes', 'Parameters, optimizer state and inputs included: '
      .. 'what the plan promised before the first step, what was accounted '
      .. "while it ran, and by how much the process' resident memory grew.",
      peaks_table(all)),
    section('Long sequences', 'GPT 6x384, B 1, dropout 0, `none`.',
      sequence_table(all)),
    section("Share of the machine's product rate", 'Useful floating-point '
      .. 'operations of a step under `none`, per second, over those of one '
      .. "large square product of the row's dtype in the same run.",
      product_table(all)),
    section('Notes', nil, other_lines(all)))
end

--- What the README shows.
function report.short(all)
  return join(head(all) .. ' ' .. LEGEND, steps_table(all),
    picture_line(all, 'bench/results/'),
    'Budgets, all bytes, long sequences, the share of the product rate: '
      .. '[bench/results](bench/results/README.md).')
end

--- A line a strategy, for who watches the run.
function report.row_text(row)
  local lines = {row.title}
  for _, ckpt in ipairs(lookup.strategies(row)) do
    local pair = lookup.pair(row, ckpt)
    local mine, best = pair.mine, pair.best
    lines[#lines + 1] = ('  %-8s  ours %9s s %6s MiB   PyTorch %9s s %6s MiB'
      .. '   ratios %s %s'):format(ckpt, seconds(mine and mine.seconds),
      mib(mine and mine.live_bytes), seconds(best and best.seconds),
      mib(best and best.live_bytes), shown(pair.time), shown(pair.memory))
  end
  lines[#lines + 1] = missing(row) and '  ' .. missing(row)
  return table.concat(lines, '\n')
end

--- Writes tables and pictures beside results.json.
function report.write(folder, all)
  results.write(folder .. '/README.md', report.text(all))
  for _, picture in ipairs(pictures.of(all)) do
    results.write(folder .. '/' .. picture.file, tostring(picture.make()))
  end
end

return report
