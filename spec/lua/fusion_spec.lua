-- Chains and trees of elementwise ops run as one node, tile by tile: to the
-- bits of the ops one by one, over shapes, strides, broadcasts and dtypes.

local rp = require 'reprise'
local chains = require 'spec.support.chains'
local models = require 'spec.support.models'
local run = require 'spec.support.run'
local nn, both = rp.nn, run.fused_and_apart

local function ops_of(plan)
  local list = {}
  for _, node in ipairs(plan:graph().nodes) do list[#list + 1] = node.op end
  return list
end

--- The plan that running t takes.
local function plan_of(t)
  t:run()
  return rp.last_plan()
end

describe('fusion', function()
  setup(run.quiet)
  teardown(run.loud)

  local shapes = {{7}, {5, 3}, {64, 129}, {3, 1, 50, 33}, {9000}, {2, 5000}, {1, 1}, {0, 4}}
  for _, dtype in ipairs {'f32', 'f64'} do
    for s, shape in ipairs(shapes) do
      local name = table.concat(shape, 'x') .. ' ' .. dtype
      it('changes no bit of random chains, ' .. name, function()
        local some = false
        for length = 2, 12 do
          local seed = 1000 * s + length
          local nodes
          local fused, apart = both(function()
            rp.manual_seed(seed)
            chains.seed(seed)
            local y = chains.of(chains.operands(shape, dtype), length)
            local count = #plan_of(y):graph().nodes
            nodes = nodes or count
            some = some or count > nodes
            return y:totable()
          end)
          assert.same(apart, fused)
        end
        assert.is_true(some)
      end)
    end
  end

  it('changes no bit of gradients, under any strategy', function()
    for _, name in ipairs(models.names) do
      for _, spec in ipairs {'none', 'every=1', 'nodes=2', 'budget=min'} do
        local fused, apart = both(function()
          local made = run.model(name, 'f32')
          local loss = made.loss()
          local ok, message = pcall(loss.backward, loss, {ckpt = spec})
          local list = {loss:item(), ok or message}
          for i, p in ipairs(made.parameters) do list[i + 2] = p.grad and p.grad:totable() end
          return list
        end)
        assert.same(apart, fused, name .. ' ' .. spec)
      end
    end
  end)

  it('makes one node of a chain, and nothing in between takes memory', function()
    local x = rp.randn(256, 256):run()
    local fused, apart = both(function()
      return plan_of((((x * 2):tanh() + x):exp() - 1):cumsum(1))
    end)
    assert.same({'mul+tanh+add+exp+sub', 'cumsum'}, ops_of(fused))
    assert.same({'mul', 'tanh', 'add', 'exp', 'sub', 'cumsum'}, ops_of(apart))
    -- One value, and a piece of 1024 for each of two that live at a time, for
    -- each thread.
    local value = 256 * 256 * 4
    assert.is_true(fused.live_bytes <= value + 2 * 1024 * 4 * rp.get_num_threads() + 256)
    assert.is_true(apart.live_bytes >= value)
  end)

  it('calls a node by all its ops', function()
    local x = rp.randn(8):run()
    local plan = plan_of(x:reciprocal():reciprocal():reciprocal():reciprocal()
      :reciprocal():reciprocal():reciprocal():reciprocal():sum())
    assert.same({('reciprocal+'):rep(8) .. 'sum'}, ops_of(plan))
  end)

  it('stops at what others read, at layers, marks, results and kept values', function()
    local function ops(fn)
      return table.concat(ops_of(plan_of(fn():cumsum(1))), ' ')
    end
    local x = rp.randn(32, 32):run()
    assert.equal('tanh+exp cumsum', ops(function() return x:tanh():exp() end))
    -- Others read tanh's value: a product.
    assert.equal('tanh matmul exp+add cumsum', ops(function()
      local t = x:tanh()
      return rp.matmul(t, x):exp() + t
    end))
    assert.equal('tanh exp cumsum', ops(function() return x:tanh():keep():exp() end))
    assert.equal('tanh exp cumsum', ops(function()
      return rp.checkpoint(function() return x:tanh() end):exp()
    end))
    assert.equal('tanh exp cumsum', ops(function()
      return rp.layer('a', function() return x:tanh() end)():exp()
    end))
    -- Backward reads what both made.
    local w = nn.Parameter(rp.randn(32, 32))
    local plan = rp.matmul(x, w):tanh():exp():sum():plan()
    assert.is_truthy(table.concat(ops_of(plan), ' '):find('tanh exp', 1, true))
  end)

  it('needs tiles no larger than the values', function()
    local x = rp.randn(4, 8):run()
    -- Two values of 128 bytes, and one that lives beside another in a tile.
    local plan = plan_of((((x * 2):tanh() + x):exp() - 1):sum())
    assert.is_true(plan.live_bytes <= 4 * 128)
  end)

  it('leaves gradients where their forward op went', function()
    local h = rp.randn(4, 8):run() -- too small to be light
    for i = 1, 4 do
      local x, s, w = h, nn.Parameter(rp.randn(8)), nn.Parameter(rp.randn(8, 8))
      h = rp.layer('l' .. i, function() -- begins with a chain
        return rp.matmul(((x * s + 0.5) * x):tanh():sin(), w):gelu()
      end)()
    end
    local plan = h:square():sum():plan {ckpt = 'every=1'}
    local replays = {}
    for _, at in ipairs(plan:instructions()) do
      if at.run and at.replay then replays[at.run] = (replays[at.run] or 0) + 1 end
    end
    for node, n in pairs(replays) do
      assert.equal(1, n, plan:graph().nodes[node].op .. ' is replayed')
    end
  end)

  it('tells a strategy what is random', function()
    local x = rp.randn(64, 64):run()
    local plan = plan_of((rp.dropout(x, 0.5) + x):exp():cumsum(1))
    assert.same({'dropout+add+exp', 'cumsum'}, ops_of(plan))
    assert.is_true(plan:graph().nodes[1].random)
    assert.is_false(plan:graph().nodes[2].random)
  end)

  it('lets the output take an operand\'s place where every part has read it', function()
    local x = rp.randn(64, 64):run()
    local w = rp.randn(64, 64):run()
    -- h dies in the fused node and is read by its first part and its last.
    local fused, apart = both(function()
      local h = rp.matmul(x, w)
      local y = (h:exp() * w - h) * 0.5
      return {y:run():totable(), rp.matmul(y, w):sum():item()}
    end)
    assert.same(apart, fused)
  end)

  it('keeps to detect_anomaly: the op that made the NaN is named', function()
    local before = rp.detect_anomaly(true)
    local ok, message = pcall(function()
      return ((rp.zeros(4) - 1):sqrt() * 2 + 1):run()
    end)
    rp.detect_anomaly(before)
    assert.is_false(ok)
    assert.is_truthy(message:find('sqrt', 1, true))
  end)

  it('refuses what is neither true nor false', function()
    assert.has_error(function() rp.fusion(1) end)
  end)
end)
