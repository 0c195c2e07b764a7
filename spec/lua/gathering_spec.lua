-- Updates that wait for each other on a device that takes many in one launch: fewer
-- launches, the same bits, no byte more. Runs on the emulated device.

local rp = require 'reprise'
local emulated = require 'spec.support.emulated'
local models = require 'spec.support.models'
local run = require 'spec.support.run'
local GPT = require 'examples.models.gpt'
local nn, optim = rp.nn, rp.optim

local there, reason = emulated.there()

describe('gathering', function()
  if not there then
    pending(reason)
    return
  end

  local hooks

  setup(function()
    run.quiet()
    hooks = emulated.hooks()
    rp.set_default_device 'cuda'
  end)
  teardown(function()
    rp.set_default_device 'cpu'
    run.loud()
  end)
  after_each(function() rp.gathering(true) end)

  --- fn(), gathered and one by one.
  local function both(fn)
    local gathered = fn()
    rp.gathering(false)
    local apart = fn()
    rp.gathering(true)
    return gathered, apart
  end

  for _, name in ipairs {'mlp', 'gpt', 'resnet'} do
    it('changes no bit of ' .. name .. ' under any strategy', function()
      for i, spec in ipairs {'none', 'every=1', 'sqrt', 'ops', 'budget=min'} do
        local o = {
          steps = 2, ckpt = spec, how = i % 2 == 1 and 'minimize' or 'backward',
          clip = i % 3 == 0 and 0.5 or nil,
        }
        local gathered, apart = both(function() return run.train(name, o) end)
        run.same_bits(apart, gathered, name .. ' ' .. spec)
      end
    end)
  end

  it('costs no byte of any strategy, and measures what it predicts', function()
    local calls, runs = 0, 0
    for _, name in ipairs(models.names) do
      local made = run.model(name)
      local opt = optim.AdamW(made.parameters, {lr = 1e-3})
      for _, spec in ipairs {'none', made.specs[1], 'sqrt', 'budget=min'} do
        local gathered, apart = both(function()
          return opt:plan(made.loss(), {ckpt = spec})
        end)
        assert(gathered.peak_bytes <= apart.peak_bytes, name .. ' ' .. spec)
        assert(gathered.live_bytes <= apart.live_bytes, name .. ' ' .. spec)
        for _, at in ipairs(apart:instructions()) do assert.is_false(at.joins) end
        local nodes = gathered:graph().nodes
        for _, at in ipairs(gathered:instructions()) do
          if at.run and nodes[at.run].op == 'adamw' then
            runs = runs + 1
            calls = calls + (at.joins and 0 or 1)
          end
        end
      end
      opt:minimize(made.loss(), {ckpt = made.specs[1]})
      local plan = rp.last_plan()
      assert.equal(plan.peak_bytes, plan:measured_peak())
    end
    assert(calls < runs / 2, ('%d calls for %d updates'):format(calls, runs))
  end)

  --- Launches of each name in fn().
  local function launches(fn, ...)
    local before = {}
    rp.cuda.synchronize()
    for _, name in ipairs {...} do before[name] = hooks.rp_emulated_launches_of(name) end
    fn()
    rp.cuda.synchronize()
    local out = {}
    for i, name in ipairs {...} do
      out[i] = tonumber(hooks.rp_emulated_launches_of(name) - before[name])
    end
    return unpack(out)
  end

  it('updates 148 parameters of GPT-2 in two launches', function()
    rp.manual_seed(3)
    local model = GPT {vocabulary = 32, seq = 16, layers = 12, heads = 2, width = 8, dropout = 0}
    local parameters = model:parameters()
    assert.equal(148, #parameters)
    local opt = optim.AdamW(parameters, {lr = 1e-3})
    local x = rp.randint(0, 32, {8, 16}):run()
    -- Where activations are larger than gradients, as they are in training, the
    -- first may wait for the last.
    local function minimize() opt:minimize(model:loss(x, x)) end
    assert.equal(2, (launches(minimize, 'update')))
    assert.equal(2, (launches(minimize, 'update'))) -- from a recording
    local backward = launches(function() model:loss(x, x):backward() end, 'assign')
    assert(backward <= 4, backward)
    assert.equal(2, (launches(function() opt:step() end, 'update')))
    rp.gathering(false)
    assert.equal(148, (launches(minimize, 'update')))
  end)

  it('writes a leaf once a launch', function()
    -- One norm used twice: its statistics follow each other.
    local function train()
      rp.manual_seed(4)
      local norm = nn.BatchNorm2d(3)
      local net = nn.Sequential {nn.Conv2d(2, 3, 1), norm, nn.ReLU(), nn.Conv2d(3, 3, 1), norm}
      local opt = optim.SGD(net:parameters(), {lr = 0.1})
      for _ = 1, 3 do
        local y = net(rp.randn(2, 2, 4, 4))
        opt:minimize((y * y):mean())
      end
      return {norm.running_mean:totable(), norm.running_var:totable()}
    end
    local gathered, apart = both(train)
    assert.same(apart, gathered)
  end)

  it('keeps what belongs to each: numbers of groups, and a guard for all', function()
    local function train()
      rp.manual_seed(5)
      local net = nn.Sequential {nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)}
      local list = net:parameters()
      local opt = optim.AdamW({
        {params = {list[1], list[3]}, weight_decay = 0.5},
        {params = {list[2], list[4]}, lr = 0.2, weight_decay = 0},
      }, {lr = 0.1})
      local said = {}
      for step = 1, 4 do
        local x = rp.randn(7, 6) * (step == 3 and 1 / 0 or 1)
        local y = net(x)
        said[step] = select(2, opt:minimize((y * y):mean(), {if_finite = true}))
      end
      local out = {said}
      for i, p in ipairs(list) do out[i + 1] = p:totable() end
      return out
    end
    local gathered, apart = both(train)
    assert.same({true, true, false, true}, gathered[1])
    assert.same(apart, gathered)
  end)
end)
