-- Strategies side by side, each in a process of its own.

local rp = require 'reprise'
local ckpt = require 'reprise.ckpt'
local isolate = require 'reprise.isolate'
local run = require 'spec.support.run'

describe('a child process', function()
  it('returns a flat table, whatever numbers and text are in it', function()
    local given = {x = 0.1, big = 2 ^ 53, text = 'a "b"\n\\', yes = true}
    assert.same(given, isolate.run(function() return given end))
  end)

  it('leaves nothing behind', function()
    local changed = false
    isolate.run(function()
      changed = true
      return {}
    end)
    assert.is_false(changed)
  end)

  it('runs with threads, however many ran before', function()
    local threads = rp.get_num_threads()
    rp.set_num_threads(2)
    local function product()
      local a = rp.ones(200, 300)
      return a:matmul(a:t()):sum():item()
    end
    assert.equal(200 * 200 * 300, product())
    local result = isolate.run(function() return {sum = product()} end)
    assert.equal(200 * 200 * 300, result.sum)
    assert.equal(200 * 200 * 300, product())
    rp.set_num_threads(threads)
  end)

  it('says why there is no result', function()
    local result, reason = isolate.run(function() error('no', 0) end)
    assert.is_nil(result)
    assert.equal('no', reason)
    result, reason = isolate.run(function()
      require 'ffi'.C._exit(1)
    end)
    assert.is_nil(result)
    assert.is_truthy(reason:find 'its process ended')
  end)
end)

describe('rp.compare', function()
  setup(run.quiet)
  teardown(run.loud)

  local function gpt()
    local made = run.model 'gpt'
    return made.loss, rp.optim.AdamW(made.parameters, {lr = 1e-2})
  end

  it('measures what it predicted, and the same bits everywhere', function()
    local made = rp.compare(gpt, {'none', 'every=1', {every = 2}, 'attention',
      'sqrt', 'budget=90%', 'greedy=90%'})
    assert.is_true(made.same_bits, tostring(made))
    assert.is_true(made:as_promised(), tostring(made))
    assert.equal('every=2', made.rows[3].strategy)
    for _, row in ipairs(made.rows) do
      assert.equal(made.rows[1].loss, row.loss)
      assert.is_true(row.recompute_fraction > 0) -- of none: light values
      assert.is_true(row.peak_bytes <= made.rows[1].peak_bytes)
      assert.is_true(row.seconds > 0 and row.predicted_seconds > 0)
      assert.is_truthy(row.fingerprint:find '^%x+$')
    end
    local text = tostring(made)
    assert.is_truthy(text:find 'the same bits under every strategy')
    assert.is_truthy(text:find 'to the byte as predicted')
  end)

  it('notices one changed bit', function()
    local made = rp.compare(function(spec)
      local record, opt = gpt()
      if spec ~= 'none' then
        opt:set_lr(1e-2 * (1 + 2 ^ -20))
      end
      return record, opt
    end, {'none', 'every=1'}, {steps = 1})
    assert.is_false(made.same_bits)
    assert.is_truthy(tostring(made):find 'DIFFERENT bits')
  end)

  it('works without an optimizer, from a list of parameters', function()
    local made = rp.compare(function()
      local model = run.model 'mlp'
      return model.loss, model.parameters
    end, {'none', 'nodes=2'}, {steps = 1})
    assert.is_true(made.same_bits)
    assert.is_true(made:as_promised(), tostring(made))
  end)

  it('says which strategy did not run, and why', function()
    local made = rp.compare(function()
      local model = run.model 'branches'
      return model.loss, model.parameters
    end, {'none', 'attention'}, {steps = 1})
    assert.is_truthy(made.rows[2].error:find 'attention')
    assert.is_truthy(tostring(made):find '1 of 2 did not run')
  end)

  it('refuses what is no comparison', function()
    assert.has_error(function() rp.compare(nil, {'none'}) end,
      '[compare] a function that builds the step is wanted, not nil')
    assert.has_error(function() rp.compare(gpt, {}) end,
      '[compare] a list of strategies is wanted, as {"none", "every=2"}')
    assert.is_false(pcall(rp.compare, gpt, {'evry=2'}))
  end)
end)

describe('measure_memory_savings', function()
  setup(run.quiet)
  teardown(run.loud)

  it('says what checkpointing saved and cost', function()
    local s = rp.measure_memory_savings {seq_len = 32, d_model = 32,
      num_layers = 4, steps = 1}
    assert.is_true(s.same_bits)
    assert.is_true(s.checkpointed_memory_mb < s.standard_memory_mb)
    local saved = 100 * (1 - s.checkpointed_memory_mb / s.standard_memory_mb)
    assert.is_true(math.abs(saved - s.memory_saved_pct) < 1e-9)
    local overhead = 100 * (s.checkpointed_seconds / s.standard_seconds - 1)
    assert.is_true(math.abs(overhead - s.compute_overhead_pct) < 1e-9)
    -- The same step, planned here.
    assert.is_true(s.standard_memory_mb > 4 * 12 * 32 * 32 * 4 * 3 / 2 ^ 20)
  end)

  it('refuses sizes that are none', function()
    assert.is_false(pcall(rp.measure_memory_savings, {seq_len = 8}))
    assert.is_false(pcall(rp.measure_memory_savings,
      {seq_len = 8, d_model = 8, num_layers = 0}))
    assert.is_false(pcall(rp.measure_memory_savings,
      {seq_len = 8, d_model = 8, num_layers = 2, layers = 2}))
  end)
end)

describe('examples/verify_checkpointing.lua', function()
  local TINY = '--layers 3 --heads 2 --width 16 --seq 16 --batch 4 --steps 2 '

  local function verify(arguments)
    local out = os.tmpname()
    local code = os.execute(('OMP_NUM_THREADS=1 luajit '
      .. 'examples/verify_checkpointing.lua %s > %s 2>&1'):format(TINY
      .. arguments, out))
    local file = io.open(out)
    local text = file:read '*a'
    file:close()
    os.remove(out)
    return code == 0 or code == true, text
  end

  it('passes in the range, fails outside, and says both peaks', function()
    local ok, text = verify '--expect 1..90'
    assert.is_true(ok, text)
    assert.is_truthy(text:find 'none      peak +%d+%.%d MiB')
    assert.is_truthy(text:find 'every=1   peak +%d+%.%d MiB')
    assert.is_truthy(text:find 'the same bits in all of 2 steps\nPASS\n$')
    ok, text = verify '--expect=90..99 --ckpt attention'
    assert.is_false(ok)
    assert.is_truthy(text:find 'FAIL\n$')
  end)

  it('fails where losses differ', function()
    -- A strategy file that changes the seed changes every loss.
    local path = os.tmpname() .. '.lua'
    local file = io.open(path, 'w')
    file:write "local rp = require 'reprise' rp.manual_seed(7)\n"
    file:write 'return function(graph) return {graph.layers[1]} end'
    file:close()
    local ok, text = verify('--dropout 0.2 --expect 0..99 --ckpt ' .. path)
    os.remove(path)
    assert.is_false(ok)
    assert.is_truthy(text:find 'losses differ, first at step 1', 1, true)
  end)

  it('refuses a range that is none', function()
    local ok, text = verify '--expect much'
    assert.is_false(ok)
    assert.is_truthy(text:find('--expect LO..HI wants percent', 1, true))
  end)
end)

describe('the specs of --compare', function()
  it('are separated by commas, which arguments may hold too', function()
    assert.same({'none', 'every=2', 'scope=*.mlp,*.attention',
      'blocks=a..b,c..d', 'budget=40%', 'greedy=2GiB', './mine.lua'},
      ckpt.split('none, every=2,scope=*.mlp,*.attention,blocks=a..b,c..d,'
        .. 'budget=40%,greedy=2GiB,./mine.lua'))
    assert.same({'none', 'evry=2', 'every=2', 'sqr'}, ckpt.split 'none,evry=2,every=2,sqr')
  end)
end)
