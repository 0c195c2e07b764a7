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
      'sqrt', 'budget=70%'})
    assert.is_true(made.same_bits, tostring(made))
    assert.is_true(made:as_promised(), tostring(made))
    assert.equal('every=2', made.rows[3].strategy)
    for i, row in ipairs(made.rows) do
      assert.equal(made.rows[1].loss, row.loss)
      assert.equal(i > 1, row.recompute_fraction > 0)
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

describe('the specs of --compare', function()
  it('are separated by commas, which arguments may hold too', function()
    assert.same({'none', 'every=2', 'scope=*.mlp,*.attention',
      'blocks=a..b,c..d', 'budget=40%', './mine.lua'},
      ckpt.split('none, every=2,scope=*.mlp,*.attention,blocks=a..b,c..d,'
        .. 'budget=40%,./mine.lua'))
  end)
end)
