--- The GPU benchmark runs in all its parts, but for the hardware; what it says
-- of its numbers is so.

local emulated = require 'spec.support.emulated'
local line_with = require('spec.support.files').line_with

package.loaded['bench.measure'] = package.loaded['bench.measure']
  or dofile 'bench/measure.lua'
local fits = require 'bench.gpu.fits'
local report = require 'bench.gpu.report'
local results = require 'bench.compare.results'

local MIB = 2 ^ 20

local function run(arguments)
  local pipe = assert(io.popen(arguments .. ' 2>&1; echo "status $?"'))
  local text = pipe:read '*a'
  pipe:close()
  return text, tonumber(text:match 'status (%d+)%s*$')
end

local function seconds(median)
  return {median = median, least = median / 2, most = 2 * median, count = 3}
end

local function example()
  return {
    date = '2020-01-02', threads = 2, torch = '2.0', steps = 10, rounds = 3,
    machine = {cpu = 'A processor', cores = 2, flags = {}, memory_bytes = 1},
    device = {name = 'A GPU', total_bytes = 80 * 2 ^ 30,
      context_bytes = 500 * MIB, libraries_bytes = 600 * MIB},
    products = {
      {side = 'ours', dtype = 'bf16', size = 64, flops_per_second = 5e14},
      {side = 'PyTorch', dtype = 'bf16', size = 64, flops_per_second = 8e14}},
    overhead = {runs = 600, recording = 1e-3, minimizing = 2e-3,
      launching = 4e-5, step = 5e-3, recording_without = 1e-3,
      minimizing_without = 3e-3, launching_without = 1e-3,
      step_without = 6e-3},
    fits = {
      {model = 'a', side = 'ours', label = 'none', limit_bytes = 2 ^ 34,
        batch = 21, peak_bytes = 16000 * MIB, tried = 4},
      {model = 'a', side = 'PyTorch', label = 'none', limit_bytes = 2 ^ 34,
        batch = 9, tried = 6}},
    rows = {{name = 'a-8', title = 'A model, B 8', part = 'steps', model = 'a',
      batch = 8, seq = 100, dtype = 'bf16',
      ours = {
        {label = 'none', spec = 'none', seconds = seconds(2), flops = 4e14,
          live_bytes = 100 * MIB, peak_bytes = 400 * MIB,
          measured_bytes = 400 * MIB, driver_bytes = 404 * MIB,
          resting_bytes = 300 * MIB},
        {label = "PyTorch's none", at = 'none', spec = 'budget=1',
          seconds = seconds(5), live_bytes = 90 * MIB, flops = 4e14,
          peak_bytes = 390 * MIB, resting_bytes = 300 * MIB, apart = true}},
      theirs = {
        {id = 'none', ckpt = 'none', variant = '', seconds = seconds(2.5),
          live_bytes = 200 * MIB, peak_bytes = 500 * MIB,
          reserved_bytes = 600 * MIB},
        {id = 'none+compile', ckpt = 'none', variant = 'compile',
          error = 'no compiler'}}}},
  }
end

describe('the GPU benchmark', function()
  it('finds the largest size that fits, from any guess', function()
    for largest = 0, 40 do
      for _, guess in ipairs {1, 2, 7, 16, 40} do
        local seen = {}
        local n = fits.search(function(n)
          assert.is_nil(seen[n], 'tried twice')
          seen[n] = true
          return n <= largest
        end, guess, 64)
        assert.equal(largest, n)
      end
    end
    assert.equal(63, (fits.search(function() return true end, 16, 64)))
  end)

  it('gives tokens a second, ratios, shares and differences', function()
    local text = report.text(example())
    -- 8 x 100 tokens in 2 s, in 1 s at best and 4 s at worst; in 2.5 s.
    assert.truthy(line_with(text, '| ours | `none` | 400 (200..800) | 1.25 | 400 |'))
    assert.truthy(line_with(text, '| PyTorch | `none` | 320 (160..640) | 1.00 | 500 | 600 |'))
    assert.truthy(line_with(text, '`none+compile`', 'no compiler'))
    assert.truthy(line_with(text,
      '| `none` | 500 | 390 | 160 (80..320) | 320 (160..640) | 0.50 | **slower** |'))
    -- 4e14 in 2 s, of the faster product's 8e14 a second.
    assert.truthy(line_with(text, '| 400.00 | 25.0 % | 20.0 % |'))
    assert.truthy(line_with(text, '| 400 | 400 | 404 | 4.00 | 1.00 % |'))
    assert.truthy(line_with(text, 'the launch, 600 kernels', '40 us', '1000 us'))
    assert.truthy(line_with(text, '| a | ours | `none` | 21 | 16000 |'))
    assert.truthy(text:find('What fits into 16.00 GiB', 1, true))
    assert.falsy(text:find('Not a measurement', 1, true))
  end)

  it('reads back from JSON as it was', function()
    local all, path = example(), os.tmpname()
    results.save(path, all)
    local again = results.load(path)
    os.remove(path)
    assert.equal(report.text(all), report.text(again))
  end)

  it('says in one line where there is no GPU, and ends well', function()
    local text, status = run('RP_CUDA_LIBRARY=/nonexistent/library.so '
      .. 'luajit bench/cuda.lua')
    assert.equal(0, status)
    assert.truthy(text:find('^no GPU to measure on[^\n]*library.so[^\n]*\n'
      .. 'status'), text)
  end)

  it('runs every part of ours on the emulated device', function()
    local there, reason = emulated.there()
    if not there then return pending(reason) end
    local out = os.tmpname()
    os.remove(out)
    local text, status = run(('luajit bench/cuda.lua --smoke --alone --out %s')
      :format(out))
    assert.equal(0, status, text)
    local all = results.load(out .. '/cuda-results.json')
    local file = assert(io.open(out .. '/cuda-report.md'))
    local written = file:read '*a'
    file:close()
    os.execute(('rm -r "%s"'):format(out))
    assert.truthy(written:find('Not a measurement', 1, true))
    assert.equal(report.text(all), written)
    assert.is_nil(all.device.error or all.overhead.error)
    for _, fit in ipairs(all.fits) do
      assert.truthy(fit.batch > 0 and fit.peak_bytes <= fit.limit_bytes)
    end
    for _, entry in ipairs(all.rows[1].ours) do
      assert.is_nil(entry.error)
      assert.equal(entry.peak_bytes, entry.measured_bytes)
      assert.truthy(entry.driver_bytes >= entry.peak_bytes)
    end
  end)
end)
