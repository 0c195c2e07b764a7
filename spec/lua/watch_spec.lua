-- Runs that are watched: where a NaN was made, and whether replays make the
-- same again. That a lying op is caught is spec/core/watch_test.c's.

local rp = require 'reprise'
local fails = require 'spec.support.fails'
local run = require 'spec.support.run'
local models = require 'spec.support.models'
local nn = rp.nn

local function off()
  rp.detect_anomaly(false)
  rp.verify_replay(false)
end

describe('detect_anomaly', function()
  setup(run.quiet)
  teardown(run.loud)
  after_each(off)

  it('names op, scope, shape, element and the caller', function()
    rp.detect_anomaly(true)
    local w = nn.Parameter(rp.tensor {{1, 2, 3}, {4, 5, 6}})
    local net = nn.Layers(2, function()
      return nn.Sequential {nn.Tanh():named 'squash'}
    end)
    local loss = (net(w) - net(w)):log():sum()
    fails(function() loss:backward() end, 'watch_spec.lua:', '[detect_anomaly]',
      'log made an infinity', 'f32 (2,3), element 1', 'first run', 'forward')
    assert.is_nil(w.grad)
    fails(function() return rp.log(rp.tensor {1, -1}):totable() end,
      'log made a NaN', 'f32 (2), element 2')
  end)

  it('names the scope', function()
    rp.detect_anomaly(true)
    local stage = rp.layer('stage', function(x) return x:sqrt() end)
    fails(function() return stage(rp.tensor {1, -4}):totable() end,
      'sqrt in stage made a NaN', 'element 2')
  end)

  it('finds what only backward makes', function()
    rp.detect_anomaly(true)
    local w = nn.Parameter(rp.tensor {1, 0, 4})
    -- d sqrt(x) / dx at 0 is infinite, sqrt(0) is not.
    fails(function() w:sqrt():sum():backward() end, 'made an infinity',
      'element 2', 'of the backward pass')
    assert.is_nil(w.grad)
  end)

  it('leaves parameters, states and the step count, under each strategy', function()
    local made = run.model 'mlp'
    local opt = rp.optim.AdamW(made.parameters, {lr = 1e-2})
    opt:minimize(made.loss())
    rp.detect_anomaly(true)
    local first = made.parameters[1]
    local saved = first:totable()
    local before = run.numbers(made.parameters)
    for _, spec in ipairs {'none', 'every=1', 'sqrt', 'ops', 'budget=min'} do
      -- The gradient of w at 0 is infinite: found behind other updates.
      local w = nn.Parameter(rp.zeros(1))
      local both = rp.optim.AdamW({made.parameters[1], made.parameters[2], w}, {lr = 1e-2})
      fails(function()
        both:minimize(made.loss() + w:sqrt():sum(), {ckpt = spec})
      end, 'made an infinity')
      assert.equal(0, both:step_count())
      for key, t in pairs(both:state_dict()) do
        if key:match '^state' then
          assert.equal(0, t:abs():sum():item())
        end
      end
      run.same_bits({losses = {}, gradients = {}, parameters = before},
        {losses = {}, gradients = {}, parameters = run.numbers(made.parameters)}, spec)
    end
    assert.same(saved, first:totable())
    opt:minimize(made.loss())
    assert.equal(2, opt:step_count())
  end)

  it('blames a leaf that holds the fault', function()
    rp.detect_anomaly(true)
    local layer = nn.Linear(2, 2):named 'head'
    local weight = layer.weight
    weight:copy_(rp.tensor {{1, 0 / 0}, {2, 3}})
    fails(function() return layer(rp.ones(1, 2)):totable() end,
      'made a NaN', 'which holds one already', 'weight')
  end)

  it("looks for NaNs alone when told 'nan'", function()
    assert.is_false(rp.detect_anomaly 'nan')
    local scores = rp.tensor {{1, 2}, {3, 4}}
    local mask = rp.tensor({false, true, false, false}, {dtype = 'bool'}):reshape(2, 2)
    local p = scores:masked_fill(mask, -math.huge):softmax(-1)
    assert.equal(0, p:totable()[1][2])
    fails(function() return (p - p):log():sub(math.huge):add(math.huge):totable() end,
      'made a NaN')
    assert.equal('nan', rp.detect_anomaly(true))
    fails(function()
      return scores:masked_fill(mask, -math.huge):softmax(-1):totable()
    end, 'masked_fill made an infinity')
    assert.is_true(rp.detect_anomaly(false))
  end)

  it('refuses other settings', function()
    for _, what in ipairs {'inf', 1, {}} do
      fails(function() rp.detect_anomaly(what) end, "true, false or 'nan'")
    end
    fails(function() rp.detect_anomaly() end, 'not nil')
    fails(function() rp.verify_replay(1) end, 'true or false', 'not 1')
  end)
end)

describe('a watched run', function()
  setup(run.quiet)
  teardown(run.loud)
  after_each(off)

  it('changes no bit', function()
    for _, name in ipairs(models.names) do
      local want = run.train(name, {ckpt = 'none', steps = 4})
      for _, spec in ipairs {'none', 'sqrt', 'ops', 'nodes=2'} do
        rp.verify_replay(true)
        run.same_bits(want, run.train(name, {ckpt = spec, steps = 4}),
          name .. ', verify, ' .. spec)
        rp.detect_anomaly(true)
        run.same_bits(want, run.train(name, {ckpt = spec, steps = 4,
          how = 'minimize'}), name .. ', both, ' .. spec)
        off()
      end
    end
  end)

  it('has a peak to the byte, with gradients that live to the end', function()
    local made = run.model 'gpt'
    local opt = rp.optim.SGD(made.parameters, {lr = 1e-3})
    local plain = opt:plan(made.loss(), {ckpt = 'every=1'})
    rp.detect_anomaly(true)
    local plan = opt:plan(made.loss(), {ckpt = 'every=1'})
    assert.is_true(plan.peak_bytes > plain.peak_bytes)
    opt:minimize(made.loss(), {ckpt = 'every=1'})
    assert.equal(plan.peak_bytes, rp.last_plan():measured_peak())
  end)
end)
