--- The benchmark's report says what its numbers say: ratios, and where we lose.

local lookup = require 'bench.compare.lookup'
local pictures = require 'bench.compare.pictures'
local report = require 'bench.compare.report'
local results = require 'bench.compare.results'
local line_with = require('spec.support.files').line_with

local MIB = 2 ^ 20

local function seconds(median)
  return {median = median, least = median - 0.5, most = median + 1, count = 3}
end

local function mine(label, time, live)
  return {label = label, spec = label, seconds = seconds(time),
    live_bytes = live * MIB, resting_bytes = 100 * MIB,
    peak_bytes = (100 + live) * MIB, measured_bytes = (100 + live) * MIB,
    resident_bytes = 260 * MIB, flops = 30e9}
end

local function theirs(ckpt, variant, time, live)
  return {id = ckpt .. (variant ~= '' and '+' .. variant or ''), ckpt = ckpt,
    variant = variant, seconds = seconds(time), live_bytes = live * MIB,
    resting_bytes = 90 * MIB}
end

-- none: slower than the faster of two PyTorch settings, in half its memory;
-- every=2: faster, in more memory. The budget of the slower setting is no one's.
local function example()
  local at = mine("PyTorch's none+wide", 4, 50)
  at.at, at.spec = 'none+wide', 'budget=1'
  return {
    date = '2020-01-02', threads = 2, torch = '2.0',
    machine = {cpu = 'A processor', cores = 2, flags = {'avx2'},
      memory_bytes = 2 ^ 34},
    products = {{dtype = 'f32', size = 2048, flops_per_second = 30e9,
      least = 29e9, most = 31e9}},
    rows = {{name = 'a', title = 'A model, B 8', part = 'steps', dtype = 'f32',
      ours = {mine('none', 4, 50), mine('every=2', 5, 60),
        {label = "PyTorch's none", at = 'none', spec = 'budget=2',
          same_as = 'none'}, at},
      theirs = {theirs('none', 'wide', 8, 90), theirs('none', '', 2, 100),
        theirs('every=2', '', 10, 40)}}},
  }
end

describe('the benchmark report', function()
  it('compares with the faster of the other side and says where we lose', function()
    local text = report.text(example())
    assert.is_truthy(line_with(text, '| A model, B 8 | `none` |',
      '| 4.000 (3.50..5.00) | 2.000 (1.50..3.00) | 2.00 | 50 | 100 | 0.50 |',
      '| **slower** |'))
    assert.is_truthy(line_with(text, '`every=2`', '| 0.50 | 60 | 40 | 1.50 |',
      '| **more memory** |'))
    assert.is_truthy(line_with(text, "PyTorch's other settings", '`none` wide'))
  end)

  it('gives a budget that is the plan of another that one\'s numbers', function()
    local text = report.text(example())
    assert.is_truthy(line_with(text,
      '| `none` | 100 | 50 | 4.000 | 2.000 | 2.00 | 1.00 | 1.00 | **slower** |'))
    assert.is_nil(line_with(text, '`none` | 90 |'))
  end)

  it('gives shares of the rate and all bytes', function()
    local text = report.text(example())
    -- 30 GFLOP in 4 s and in 2 s, of 30 GFLOP/s.
    assert.is_truthy(line_with(text, 'A model', '| 30.0 | 8 | 25 % | 50 % |'))
    assert.is_truthy(line_with(text, '`none`', '| 150 | 150 | 260 | 190 | 0.79 |'))
  end)

  it('stands alone without the other side', function()
    local all = example()
    all.torch, all.rows[1].theirs = nil, {}
    local text = report.text(all)
    assert.is_truthy(line_with(text, 'without a PyTorch'))
    assert.is_truthy(line_with(text, '`none`', '| 4.000 (3.50..5.00) |  |'))
    assert.is_nil(text:find('**slower**', 1, true))
    for _, picture in ipairs(pictures.of(all)) do
      assert.is_truthy(tostring(picture.make()):find '</svg>')
    end
  end)

  it('says why a row has no numbers', function()
    local all = example()
    all.rows[1].ours = {{label = 'none', spec = 'none', error = 'needs 9 GiB'}}
    assert.is_truthy(line_with(report.text(all), 'A model', 'Reprise: needs 9 GiB'))
  end)

  it('names the other side\'s best setting, and one that did not run', function()
    local all = example()
    all.rows[1].theirs[2].variant = 'compile'
    table.insert(all.rows[1].theirs, {id = 'none+both', ckpt = 'none',
      variant = 'both', error = 'no compiler'})
    local text = report.text(all)
    assert.is_truthy(line_with(text, '| 2.000 (1.50..3.00), compile |',
      "PyTorch's both failed"))
    assert.is_truthy(line_with(text, 'PyTorch `none` both: no compiler'))
    assert.is_nil(line_with(text, '`every=2`', 'failed'))
  end)

  it('says by how much both processes grew', function()
    local all = example()
    all.rows[1].theirs[2].resident_bytes = 520 * MIB
    assert.is_truthy(line_with(report.text(all), '`none`',
      '| 150 | 150 | 260 | 190 | 0.79 | 520 | 0.50 |'))
  end)

  it('reads back from JSON as it was', function()
    local all, path = example(), os.tmpname()
    results.save(path, all)
    local again = results.load(path)
    os.remove(path)
    assert.equal(report.text(all), report.text(again))
    assert.same(lookup.pair(all.rows[1], 'none'),
      lookup.pair(again.rows[1], 'none'))
  end)
end)
