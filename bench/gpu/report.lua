--- Tables of a GPU's results, in Markdown. Shapes of entries are those of
-- bench/compare.

local compare = require 'bench.compare.report'
local lookup = require 'bench.compare.lookup'
local pictures = require 'bench.compare.pictures'
local results = require 'bench.compare.results'
local units = require 'reprise.report.units'

local report = {}

local MIB, GIB = 2 ^ 20, 2 ^ 30

local function mib(bytes)
  if not bytes then return '' end
  return (math.abs(bytes) < 10 * MIB and '%.2f' or '%.0f'):format(bytes / MIB)
end

local function shown(x) return x and ('%.2f'):format(x) or '' end

local function microseconds(s) return ('%.0f us'):format(1e6 * s) end

local function tokens_per_second(row, entry)
  return entry and entry.seconds
    and row.batch * row.seq / entry.seconds.median
end

local function tokens(row, entry)
  local rate = tokens_per_second(row, entry)
  if not rate then return '' end
  local s = entry.seconds
  return ('%.0f (%.0f..%.0f)'):format(rate, row.batch * row.seq / s.most,
    row.batch * row.seq / s.least)
end

local function by_id(row, id)
  for _, entry in ipairs(row.theirs) do
    if entry.id == id then return entry end
  end
end

-- ---- tables ------------------------------------------------------------------------

local function note(entry)
  local words = {}
  if entry.error then words[#words + 1] = entry.error end
  if entry.apart then words[#words + 1] = 'not side by side' end
  return table.concat(words, ', ')
end

-- Every setting of either side; the ratio is to the fastest of PyTorch's
-- under `none`, in tokens a second.
local function steps_table(all)
  local list = {}
  for _, row in ipairs(lookup.of_part(all, 'steps')) do
    local best = tokens_per_second(row, lookup.best(row, 'none'))
    local function add(side, name, entry)
      local rate = tokens_per_second(row, entry)
      list[#list + 1] = {#list > 0 and list[#list].title == row.title and ''
        or row.title, side, '`' .. name .. '`', tokens(row, entry),
        shown(rate and best and rate / best), mib(entry.peak_bytes),
        mib(entry.reserved_bytes), note(entry), title = row.title}
    end
    for _, entry in ipairs(row.theirs) do add('PyTorch', entry.id, entry) end
    for _, entry in ipairs(row.ours) do
      if not entry.at and not entry.spec:find '^budget' then
        add('ours', entry.label, entry)
      end
    end
  end
  return compare.markdown({'a training step', 'side', 'setting', 'tokens/s',
    "of PyTorch's fastest `none`", 'peak, MiB', 'reserved, MiB', ''}, list)
end

local function memory_table(all)
  local list = {}
  for _, row in ipairs(lookup.of_part(all, 'steps')) do
    local first = true
    for _, mine in ipairs(row.ours) do
      local other = mine.at and by_id(row, mine.at)
      if other and other.peak_bytes then
        local a, b = tokens_per_second(row, mine), tokens_per_second(row, other)
        list[#list + 1] = {first and row.title or '', '`' .. other.id .. '`',
          mib(other.peak_bytes), mib(mine.peak_bytes), tokens(row, mine),
          tokens(row, other), shown(a and b and a / b),
          a and b and a < b and '**slower**' or note(mine)}
        first = false
      end
    end
  end
  return compare.markdown({'at the peak of', "PyTorch's", 'MiB',
    'ours takes, MiB', 'ours, tokens/s', 'PyTorch, tokens/s', 'ratio', ''},
    list)
end

local function curve_table(all)
  local list = {}
  for _, row in ipairs(lookup.of_part(all, 'steps')) do
    local none, first = tokens_per_second(row, lookup.mine(row, 'none')), true
    for _, entry in ipairs(row.ours) do
      if not entry.at and entry.spec:find '^budget' then
        local rate = tokens_per_second(row, entry)
        list[#list + 1] = {first and row.title or '', '`' .. entry.label .. '`',
          mib(entry.peak_bytes), tokens(row, entry),
          shown(rate and none and rate / none), note(entry)}
        first = false
      end
    end
  end
  return compare.markdown({'a training step', 'budget', 'peak, MiB',
    'tokens/s', 'of our `none`', ''}, list)
end

local function fits_table(all)
  local list, limit = {}, nil
  for _, fit in ipairs(all.fits or {}) do
    limit = fit.limit_bytes
    list[#list + 1] = {fit.model, fit.side, '`' .. fit.label .. '`',
      fit.batch and ('%d'):format(fit.batch) or '', mib(fit.peak_bytes),
      fit.error or ''}
  end
  return compare.markdown({'largest batch', 'side', 'setting', 'batch',
    'peak, MiB', ''}, list), limit
end

local function driver_table(all)
  local list = {}
  for _, row in ipairs(lookup.of_part(all, 'steps')) do
    local first = true
    for _, entry in ipairs(row.ours) do
      if entry.driver_bytes and entry.measured_bytes
        and not (entry.at or entry.spec:find '^budget') then
        local above = entry.driver_bytes - entry.measured_bytes
        list[#list + 1] = {first and row.title or '', '`' .. entry.label .. '`',
          mib(entry.peak_bytes), mib(entry.measured_bytes)
            .. (entry.measured_bytes == entry.peak_bytes and ''
              or ' **differs**'),
          mib(entry.driver_bytes), mib(above),
          ('%.2f %%'):format(100 * above / entry.measured_bytes),
          entry.fixed_bytes and mib(entry.fixed_bytes) or ''}
        first = false
      end
    end
  end
  return compare.markdown({'all bytes of a step', 'strategy', 'promised, MiB',
    'accounted', "the driver's figure", 'above the accounted', '',
    'libraries and context'}, list)
end

local function rate_of(all)
  local best
  for _, product in ipairs(all.products) do
    if product.dtype == 'bf16' and product.flops_per_second
      and (not best or product.flops_per_second > best.flops_per_second) then
      best = product
    end
  end
  return best and best.flops_per_second
end

local function share_table(all)
  local list, rate = {}, rate_of(all)
  for _, row in ipairs(lookup.of_part(all, 'steps')) do
    local mine, best = lookup.mine(row, 'none'), lookup.best(row, 'none')
    if rate and mine and mine.flops then
      local function share(entry)
        return entry and entry.seconds
          and ('%.1f %%'):format(100 * mine.flops / entry.seconds.median / rate)
          or ''
      end
      list[#list + 1] = {row.title, ('%.2f'):format(mine.flops / 1e12),
        share(mine), share(best)}
    end
  end
  return compare.markdown({'a step under `none`', 'useful TFLOP',
    "ours, of the product's rate", "PyTorch's fastest"}, list)
end

local function overhead_table(all)
  local o = all.overhead
  if not o then return nil end
  if o.error then return o.error end
  local function pair(name, key)
    return {name, microseconds(o[key]), microseconds(o[key .. '_without'])}
  end
  return compare.markdown({'of one step', 'recorded as a CUDA graph',
    'launched one by one'}, {
    pair('recording the loss in Lua', 'recording'),
    pair('`opt:minimize`: gradients, plan found again, launch', 'minimizing'),
    pair(('of that the launch, %d kernels'):format(o.runs), 'launching'),
    pair('all, until it has run', 'step'),
  })
end

-- ---- the whole ---------------------------------------------------------------------

local function device_line(all)
  local d = all.device
  if d.error then return d.error .. '.' end
  local parts = {('%s, %.0f GiB'):format(d.name, d.total_bytes / GIB)}
  for _, product in ipairs(all.products) do
    if product.flops_per_second then
      parts[#parts + 1] = ('a %s product of %d x %d by %s at %.1f TFLOP/s')
        :format(product.dtype, product.size, product.size,
          product.side == 'ours' and 'us' or 'PyTorch',
          product.flops_per_second / 1e12)
    end
  end
  parts[#parts + 1] = ('in use by the driver, the context and other processes '
    .. 'once the device is open: %.0f MiB, behind the first product %.0f MiB')
    :format(d.context_bytes / MIB, d.libraries_bytes / MIB)
  return table.concat(parts, '; ') .. '.'
end

local function head(all)
  return ('%s, %s%s. %s'):format(all.date,
    all.torch and 'beside PyTorch ' .. all.torch
      or 'without a PyTorch to compare with',
    all.reprise and ', at ' .. all.reprise or '', device_line(all))
end

local SMOKE = '**Not a measurement**: tiny sizes on stand-ins for a GPU, to see '
  .. 'that every part of the benchmark runs.'

local function picture_lines(all)
  local lines = {}
  for _, picture in ipairs(pictures.of(all)) do
    lines[#lines + 1] = ('![%s](cuda-%s)'):format(picture.title, picture.file)
  end
  return #lines > 0 and table.concat(lines, '\n\n') or nil
end

local function errors(all)
  local lines = {}
  for _, row in ipairs(all.rows) do
    if row.error then
      lines[#lines + 1] = ('- %s: %s'):format(row.title, row.error)
    end
  end
  return #lines > 0 and table.concat(lines, '\n') or nil
end

function report.text(all)
  local fits, limit = fits_table(all)
  return compare.join('# On a GPU: ours and PyTorch',
    'Made by `make bench-cuda`. ' .. head(all), all.smoke and SMOKE,
    ('Tokens a second are from medians of %d turns of %d steps each '
      .. '(slowest..fastest); the loss is read once a turn. Peaks are all bytes: '
      .. "ours as promised, PyTorch's as its allocator counts them. "
      .. '`memory=0.5` is torch.compile under activation_memory_budget 0.5.')
      :format(all.rounds, all.steps),
    steps_table(all), picture_lines(all),
    compare.section("At PyTorch's peaks", 'Reprise under `budget=` the peak of '
      .. "each of PyTorch's settings, side by side with it.",
      memory_table(all)),
    compare.section('Under budgets', 'Shares are of what `none` needs above '
      .. 'the persistent bytes; `min` is the least there is.',
      curve_table(all)),
    compare.section('Largest batch', limit and ('What fits into %s: '
      .. 'ours by the plan, without running (`budget`: any plan); PyTorch by '
      .. 'trying, with its allocator limited to that.'):format(
      units.bytes(limit)),
      fits),
    compare.section("The driver's figure", 'What the driver has handed out after '
      .. 'three steps, but for context, libraries and code, which are measured '
      .. 'where they are loaded. Above the accounted bytes are whole pages of '
      .. '2 MiB.',
      driver_table(all)),
    compare.section('Share of the product rate', 'Useful floating-point '
      .. 'operations of a step under `none`, per second, over those of the '
      .. 'faster of the two bf16 products above.', share_table(all)),
    compare.section('Launches', 'Host time of a step of a 12-layer GPT whose '
      .. 'kernels have next to nothing to do, each behind an idle device.',
      overhead_table(all)),
    compare.section('Notes', nil, errors(all)))
end

--- A row in a few lines, for who watches the run.
function report.row_text(row)
  local lines = {row.title}
  for _, side in ipairs {row.theirs, row.ours} do
    for _, entry in ipairs(side) do
      lines[#lines + 1] = ('  %-8s %-30s %s tokens/s  %s MiB  %s'):format(
        side == row.ours and 'ours' or 'PyTorch', entry.label or entry.id,
        tokens(row, entry), mib(entry.peak_bytes), note(entry))
    end
  end
  if row.error then lines[#lines + 1] = '  ' .. row.error end
  return table.concat(lines, '\n')
end

--- Writes the tables and pictures, as cuda-*, beside cuda-results.json.
function report.write(folder, all)
  results.write(folder .. '/cuda-report.md', report.text(all))
  for _, picture in ipairs(pictures.of(all)) do
    results.write(folder .. '/cuda-' .. picture.file, tostring(picture.make()))
  end
end

return report
