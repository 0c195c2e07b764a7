-- A step that is taken only when all of it is finite, and what can be seen of
-- one that was not.

local rp = require 'reprise'
local fails = require 'spec.support.fails'
local raw = require 'spec.support.raw'
local run = require 'spec.support.run'
local models = require 'spec.support.models'
local nn = rp.nn

local optimizers = {
  SGD = {lr = 0.1, weight_decay = 0.1}, Momentum = {lr = 0.1, momentum = 0.9},
  Adam = {lr = 0.1, weight_decay = 0.1}, AdamW = {lr = 0.1},
}

local function optimizer(name, parameters)
  local kind = name == 'Momentum' and 'SGD' or name
  return rp.optim[kind](parameters, optimizers[name])
end

--- All that a step may change, as numbers.
local function state(opt)
  local out = {}
  for key, t in pairs(opt:state_dict()) do out[key] = raw.read(t.ptr) end
  for i, p in ipairs(opt:parameters()) do out['p' .. i] = raw.read(p.ptr) end
  return out
end

local function same(want, got)
  for key, list in pairs(want) do
    local problem = raw.bit_difference(got[key], list)
    if problem then error(key .. ': ' .. problem, 2) end
  end
end

describe('all_finite', function()
  local function verdict(dtype, data)
    return raw.read(raw.record('all_finite', {raw.leaf(dtype, {#data}, data)}))[1]
  end

  it('finds a NaN or an infinity anywhere', function()
    for _, dtype in ipairs {'f32', 'f64'} do
      local data = {}
      for i = 1, 40000 do data[i] = (i % 7 - 3) * 1e30 end
      assert.equal(1, verdict(dtype, data))
      for _, at in ipairs {1, 2, 17, 16384, 39999, 40000} do
        for _, bad in ipairs {0 / 0, math.huge, -math.huge} do
          local was = data[at]
          data[at] = bad
          assert.equal(0, verdict(dtype, data))
          data[at] = was
        end
      end
    end
  end)

  it('lets the largest and the least numbers pass', function()
    assert.equal(1, verdict('f32', {3.4e38, -3.4e38, 1e-45, 0, -0.0}))
    assert.equal(1, verdict('f64', {1.7e308, -1.7e308, 5e-324}))
    -- bf16 as it lies in memory: the largest, 1, infinity, a NaN.
    assert.equal(1, verdict('bf16', {0x7f7f, 0x3f80, 0xff7f}))
    assert.equal(0, verdict('bf16', {0x3f80, 0xff80}))
    assert.equal(0, verdict('bf16', {0x7fc0}))
  end)

  it('is true of nothing', function()
    assert.equal(1, verdict('f32', {}))
  end)
end)

describe('minimize with if_finite', function()
  setup(run.quiet)
  teardown(run.loud)

  it('is minimize where all is finite, bit for bit', function()
    for name in pairs(optimizers) do
      for _, clip in ipairs {0, 0.5} do
        local function train(if_finite, spec)
          local made = run.model 'mlp'
          local opt = optimizer(name, made.parameters)
          opt:clip_grad_norm(clip)
          rp.manual_seed(2)
          local losses = {}
          for i = 1, 4 do
            local loss, updated = opt:minimize(made.loss(), {if_finite = if_finite,
              ckpt = spec})
            assert.is_true(updated)
            losses[i] = loss:item()
          end
          assert.equal(4, opt:step_count())
          return {losses = losses, gradients = {}, parameters = run.numbers(made.parameters)}
        end
        local want = train(false, 'none')
        for _, spec in ipairs {'none', 'every=1', 'sqrt', 'budget=min'} do
          run.same_bits(want, train(true, spec), name .. ', ' .. spec)
        end
      end
    end
  end)

  it('leaves everything where the loss is not', function()
    for name in pairs(optimizers) do
      for _, dtype in ipairs {'f32', 'f64'} do
        local made = run.model('mlp', dtype)
        local opt = optimizer(name, made.parameters)
        for _, clip in ipairs {0, 1} do
          opt:clip_grad_norm(clip)
          assert.is_true(select(2, opt:minimize(made.loss(), {if_finite = true})))
          local before = state(opt)
          for _, bad in ipairs {0 / 0, math.huge} do
            local loss, updated = opt:minimize(made.loss() + bad, {if_finite = true})
            assert.is_false(updated)
            assert.is_false(math.abs(loss:item()) < math.huge)
            same(before, state(opt))
          end
          assert.equal(before.step[1], opt:step_count())
        end
      end
    end
  end)

  it('leaves everything where one gradient alone is not', function()
    local made = run.model 'gpt'
    local w = nn.Parameter(rp.zeros(3))
    local all = {w}
    for _, p in ipairs(made.parameters) do all[#all + 1] = p end
    local opt = optimizer('AdamW', all)
    local before = state(opt)
    for _, spec in ipairs {'none', 'every=1', 'ops', 'budget=min'} do
      -- sqrt(0) is finite, its gradient is not.
      local loss, updated = opt:minimize(made.loss() + w:sqrt():sum(),
        {if_finite = true, ckpt = spec})
      assert.is_true(math.abs(loss:item()) < math.huge)
      assert.is_false(updated)
      same(before, state(opt))
    end
    -- Without it the fault spreads.
    assert.is_true(select(2, opt:minimize(made.loss() + w:sqrt():sum())))
    assert.not_equal(w:sum():item(), w:sum():item())
  end)

  it('looks at what .grad held, too, and uses it up', function()
    local w = nn.Parameter(rp.tensor {1, 2})
    local opt = optimizer('SGD', {w})
    ;(w * math.huge):sum():backward()
    assert.is_false(select(2, opt:minimize((w * w):sum(), {if_finite = true})))
    assert.is_nil(w.grad)
    assert.same({1, 2}, w:totable())
    assert.is_true(select(2, opt:minimize((w * w):sum(), {if_finite = true})))
  end)

  it('leaves running statistics, which a step that is taken moves once', function()
    local function train(options, poison)
      rp.manual_seed(1)
      local norm = nn.BatchNorm2d(3)
      local model = nn.Sequential {nn.Conv2d(2, 3, 3), norm, nn.ReLU(), nn.Conv2d(3, 2, 3)}
      local opt = optimizer('AdamW', model:parameters())
      local x = rp.tensor(raw.fill(3, {2, 2, 6, 6}, -2, 2)):reshape(2, 2, 6, 6)
      local loss = model(x):square():mean()
      if poison then loss = loss * poison end
      local _, updated = opt:minimize(loss, options)
      if poison then assert.equal(poison == 1, updated) end
      -- What inspect replays moves them no more.
      if not updated then assert(#loss:inspect '*batch_norm' == 1) end
      local out = {}
      for _, t in pairs(model:state_dict()) do out[#out + 1] = raw.read(t.ptr) end
      table.sort(out, function(a, b)
        for i = 1, math.min(#a, #b) do if a[i] ~= b[i] then return a[i] < b[i] end end
        return #a < #b
      end)
      return out
    end
    for _, spec in ipairs {'none', 'nodes=2', 'ops', 'budget=min'} do
      local want = train({ckpt = spec}, 1)
      local got = train({ckpt = spec, if_finite = true}, 1)
      for i, list in ipairs(want) do assert.is_nil(raw.bit_difference(got[i], list)) end
      local left = train({ckpt = spec, if_finite = true}, 0 / 0)
      local ones, zeros = 0, 0
      for _, list in ipairs(left) do
        local sum = list[1] + list[2] + (list[3] or 0)
        assert.equal(sum, sum)
        if #list == 3 and list[1] == 1 and list[2] == 1 then ones = ones + 1 end
        if #list == 3 and list[1] == 0 and list[2] == 0 then zeros = zeros + 1 end
      end
      -- Weight and variance are 1, bias and mean 0, as they were made.
      assert.is_true(ones >= 2 and zeros >= 2)
    end
  end)

  it('takes a gradient whose square overflows', function()
    local w = nn.Parameter(rp.tensor {1, 2})
    local opt = rp.optim.SGD({w}, {lr = 1e-30})
    assert.is_true(select(2, opt:minimize((w * 1e30):sum(), {if_finite = true})))
    assert.near(0, w[1]:item(), 1e-6)
  end)

  it('costs gradients that live until all are known: the plan says so', function()
    local made = run.model 'gpt'
    local opt = optimizer('SGD', made.parameters)
    local plain = opt:plan(made.loss(), {ckpt = 'every=1'})
    local plan = opt:plan(made.loss(), {ckpt = 'every=1', if_finite = true})
    assert.is_true(plan.peak_bytes > plain.peak_bytes)
    opt:minimize(made.loss(), {ckpt = 'every=1', if_finite = true})
    assert.equal(plan.peak_bytes, rp.last_plan():measured_peak())
    -- One plan for steps that are taken and steps that are not.
    local plans = rp.memory().plan_misses
    opt:minimize(made.loss() + 0, {ckpt = 'every=1', if_finite = true})
    opt:minimize(made.loss() + 0 / 0, {ckpt = 'every=1', if_finite = true})
    assert.equal(plans + 1, rp.memory().plan_misses)
  end)

  it('is of minimize alone', function()
    local w = nn.Parameter(rp.ones(2))
    fails(function() w:sum():backward {if_finite = true} end, "no option 'if_finite'")
  end)
end)

describe('inspect', function()
  setup(run.quiet)
  teardown(run.loud)

  it('replays any value of a step that was left out, exactly', function()
    for _, name in ipairs(models.names) do
      -- What the forward pass goes through, from a run of its own.
      local made = run.model(name)
      rp.manual_seed(5)
      local want = {}
      for i, seen in ipairs(made.loss():inspect '*') do
        want[i] = {name = seen.name, bytes = raw.bytes(seen.value.ptr)}
      end
      assert(#want > 10)
      for _, spec in ipairs {'none', 'ops', 'nodes=2', 'budget=min'} do
        made = run.model(name)
        local opt = optimizer('AdamW', made.parameters)
        rp.manual_seed(5)
        local loss = made.loss()
        local _, updated = opt:minimize(loss + math.huge, {if_finite = true, ckpt = spec})
        assert.is_false(updated)
        local got = loss:inspect '*'
        assert.equal(#want, #got)
        for i, seen in ipairs(got) do
          assert.equal(want[i].name, seen.name)
          assert(want[i].bytes == raw.bytes(seen.value.ptr), name .. ', ' .. spec
            .. ': ' .. seen.name .. ' differs')
        end
      end
    end
  end)

  it('takes globs of scopes and of scope.op', function()
    local made = run.model 'gpt'
    local opt = optimizer('SGD', made.parameters)
    local loss = made.loss()
    opt:minimize(loss + 0 / 0, {if_finite = true})
    local seen = loss:inspect '*.blocks.2.*'
    assert(#seen > 5)
    for _, one in ipairs(seen) do
      assert.matches('%.blocks%.2%.', one.name)
      assert.is_true(one.value:is_held())
    end
    local gelu = loss:inspect '*.blocks.2.mlp.*gelu*'
    assert.equal(1, #gelu)
    assert.same({2, 6, 32}, {unpack(gelu[1].value.shape)})
    fails(function() loss:inspect '*.blocks.9.*' end, "'*.blocks.9.*'", 'gpt.blocks.1',
      'finite_spec.lua:')
    fails(function() loss:inspect() end, '[inspect]')
  end)

  it('works before a step, and is refused after one', function()
    local model = nn.Linear(3, 2):named 'head'
    local x = rp.ones(1, 3)
    local opt = optimizer('SGD', model:parameters())
    local loss = model(x):tanh():sum()
    assert.equal('tanh', loss:inspect 'tanh'[1].name)
    opt:minimize(loss)
    fails(function() loss:inspect 'tanh' end, '[inspect]', 'no longer those of this step',
      'if_finite', 'sgd', 'finite_spec.lua:')
    assert.is_true(loss:is_held())
  end)
end)
