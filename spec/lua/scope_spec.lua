-- Checkpoints by hand, taps, no_grad: what is recorded where, and that the
-- values do not depend on it.

local rp = require 'reprise'
local failure = require 'reprise.failure'
local nn = rp.nn

local function refused(pattern, fn)
  local ok, message = pcall(fn)
  assert.is_false(ok)
  assert.matches(pattern, message)
end

--- The notices given while fn runs.
local function notices(fn)
  local heard, sink = {}, failure.sink
  failure.sink = function(text) heard[#heard + 1] = text end
  local ok, message = pcall(fn)
  failure.sink = sink
  assert(ok, message)
  return table.concat(heard, '\n')
end

local function model(n)
  rp.manual_seed(3)
  local list = {}
  for i = 1, n do
    list[i] = nn.Sequential{nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.2)}
  end
  return nn.Sequential(list)
end

local function gradients(net, forward)
  rp.manual_seed(4)
  net:zero_grad()
  local loss = forward(rp.ones(4, 8)):sum()
  local plan = loss:plan()
  loss:backward()
  local bits = {loss:bytes()}
  for _, p in ipairs(net:parameters()) do bits[#bits + 1] = p.grad:bytes() end
  return table.concat(bits), plan
end

describe('rp.checkpoint', function()
  local net = model(4)
  local plain, plain_plan = gradients(net, net)

  it('changes no bit and needs less', function()
    local bits, plan = gradients(net, function(x)
      for i = 1, 4 do x = rp.checkpoint(net[i], x) end
      return x
    end)
    assert.equal(plain, bits)
    assert.equal(4, #plan:segments())
    assert.is_true(plan.n_replays > 0)
    assert.is_true(plan.kept_bytes < plain_plan.kept_bytes)
  end)

  it('nests', function()
    local bits, plan = gradients(net, function(x)
      return rp.checkpoint(function(y)
        return net[4](rp.checkpoint(function(z) return net[3](net[2](z)) end, net[1](y)))
      end, x)
    end)
    assert.equal(plain, bits)
    local segments = plan:segments()
    assert.equal(2, #segments)
    assert.equal(1, segments[2].parent)
  end)

  it('takes and gives any number of things, tensors or not', function()
    local a, n, b, absent = rp.checkpoint(function(x, k, y, missing)
      return x * k, k, y + 1, missing
    end, rp.ones(1), 3, rp.zeros(1), nil)
    assert.equal(3, a:item())
    assert.equal(3, n)
    assert.equal(1, b:item())
    assert.is_nil(absent)
  end)

  it('accepts PyTorch\'s preserve_rng_state, which changes nothing', function()
    for _, options in ipairs{{preserve_rng_state = false}, {preserve_rng_state = true,
      use_reentrant = false}} do
      local n
      local bits = gradients(net, function(x)
        for i = 1, 4 do
          x = rp.checkpoint(function(...)
            n = select('#', ...)
            return net[i](...)
          end, x, options)
        end
        return x
      end)
      assert.equal(1, n)
      assert.equal(plain, bits)
    end
  end)

  it('hands other tables on', function()
    assert.equal(5, rp.checkpoint(function(_, t) return t.k end, rp.ones(1), {k = 5}))
  end)

  it('is closed again by an error', function()
    refused('boom', function() rp.checkpoint(function() error 'boom' end) end)
    assert.equal(0, #(nn.Parameter(rp.ones(2)) * 2):sum():plan():segments())
  end)

  it('says when it can save nothing', function()
    assert.matches('inside rp.no_grad saves nothing', notices(function()
      rp.no_grad(rp.checkpoint, rp.relu, rp.ones(2))
    end))
    assert.matches('1 of 1 segments can save nothing; .* a single op', notices(function()
      local w = nn.Parameter(rp.ones(3))
      local y = rp.checkpoint(rp.exp, w * 2)
      ;(y * 3):sum():backward()
    end))
    local Checkpointed = nn.module('Checkpointed', function(self) self.fc = nn.Linear(2, 2) end)
    function Checkpointed:forward(x)
      return rp.checkpoint(function(y) return self.fc(y):tanh():exp() end, x)
    end
    assert.matches('a model in eval mode', notices(function()
      Checkpointed():eval()(rp.ones(1, 2))
    end))
  end)
end)

describe('rp.checkpoint_sequential', function()
  local net = model(5)
  local plain = gradients(net, net)

  it('splits evenly: sizes differ by at most one', function()
    for segments = 1, 5 do
      local bits, plan = gradients(net, function(x)
        return rp.checkpoint_sequential(net, segments, x)
      end)
      assert.equal(plain, bits)
      local sizes = {}
      local graph = plan:graph()
      for _, segment in ipairs(plan:segments()) do
        local n = 0
        for i = segment.first, segment.last do
          if graph.nodes[i].op == 'linear' then n = n + 1 end
        end
        sizes[#sizes + 1] = n
      end
      local expected = {
        {5}, {3, 2}, {2, 2, 1}, {2, 1, 1, 1}, {1, 1, 1, 1, 1},
      }
      assert.same(expected[segments], sizes)
    end
  end)

  it('takes plain functions, and the scopes of a Sequential', function()
    local y, n = rp.checkpoint_sequential({
      function(x, k) return x * k, k + 1 end, function(x, k) return x * k, k end,
    }, 2, rp.ones(1), 2)
    assert.equal(6, y:item())
    assert.equal(3, n)
    assert.equal('sequential.5.3', rp.checkpoint_sequential(net, 2, rp.ones(1, 8)).scope)
  end)

  it('refuses impossible splits', function()
    refused('segments is a whole number in 1..5, not 6',
      function() rp.checkpoint_sequential(net, 6, rp.ones(1, 8)) end)
    refused('not 0', function() rp.checkpoint_sequential(net, 0, rp.ones(1, 8)) end)
    refused('a list of functions comes first', function() rp.checkpoint_sequential({}, 1) end)
  end)
end)

describe('nn.CheckpointedAttention', function()
  it('is attention, and keeps no weights', function()
    local q = nn.Parameter(rp.randn(2, 16, 8))
    local bools = rp.randn(16, 16):gt(-1)
    local numbers = rp.randn(16, 16)
    rp.run(bools, numbers)
    local attention = nn.CheckpointedAttention()
    local function run(attend, mask)
      q.grad = nil
      local loss = (attend(q * 1, q * 2, q * 3, mask) ^ 2):sum()
      local plan = loss:plan()
      loss:backward()
      return q.grad:bytes(), plan
    end
    for _, mask in ipairs {bools, numbers} do
      local plain, kept = run(rp.scaled_dot_product_attention, mask)
      local bits, plan = run(attention, mask)
      assert.equal(plain, bits)
      -- With numbers as the mask there are weights to drop; else none exist.
      assert.is_true(plan.peak_bytes <= kept.peak_bytes)
      assert.is_true(mask == bools or plan.n_replays > 0)
      assert.equal(mask == numbers and 1 or 0, #plan:segments())
    end
  end)
end)

describe('t:keep', function()
  it('stands against the strategy', function()
    local net = model(2)
    local kept
    local loss = rp.checkpoint(function(x)
      kept = net[1](x):exp():keep()
      return net[2](kept)
    end, rp.ones(4, 8)):sum()
    local plan = loss:plan{ckpt = 'every=1'}
    local graph, runs = plan:graph(), {}
    for _, step in ipairs(plan:instructions()) do
      if step.run then
        local op = graph.nodes[step.run].op
        runs[op] = (runs[op] or 0) + 1
      end
    end
    -- The value of exp is there; tanh, in both halves, is run again.
    assert.equal(1, runs.exp)
    assert.equal(4, runs.tanh)
    assert.is_true(rp.is_tensor(kept))
  end)
end)

describe('t:tap', function()
  it('makes a value of the step readable after it', function()
    local w = nn.Parameter(rp.tensor{1, 2})
    local opt = rp.optim.SGD({w}, {lr = 1})
    local loss = ((w * 3):tap 'tripled' ^ 2):sum()
    opt:minimize(loss)
    -- The value before the update.
    assert.same({3, 6}, rp.tapped 'tripled':totable())
    assert.same({1 - 18, 2 - 36}, w:totable())
  end)

  it('is found by its scope too', function()
    local net = nn.Sequential{function(x) return x:exp():tap 'h' end,
      function(x) return x:exp():tap 'h' end}
    net(rp.zeros(1))
    assert.equal('sequential.1', rp.tapped 'sequential.1.h'.scope)
    assert.equal('sequential.2', rp.tapped 'h'.scope)
    refused("nothing is tapped as 'x'; there is", function() rp.tapped 'x' end)
  end)
end)

describe('rp.no_grad', function()
  it('records no gradients inside, and again outside', function()
    local w = nn.Parameter(rp.ones(2))
    local y, n = rp.no_grad(function(k) return w * 2, k end, 7)
    assert.equal(7, n)
    assert.is_false(y.requires_grad)
    assert.is_true((w * 2).requires_grad)
    refused('boom', function() rp.no_grad(error, 'boom') end)
    assert.is_true((w * 2).requires_grad)
    rp.no_grad(function()
      rp.no_grad(function() end)
      assert.is_false((w * 2).requires_grad)
    end)
  end)
end)

describe('gradients as recipes', function()
  it('come for any tensor, and again', function()
    local x = rp.tensor({1, 2, 3}, {dtype = 'f64', requires_grad = true})
    local y = (x ^ 3):sum()
    local dx = rp.grad(y, x)
    assert.same({3, 12, 27}, dx:totable())
    -- A Hessian-vector product: d (3 x^2 . v) / dx = 6 x v.
    local v = rp.tensor({1, 0, 2}, {dtype = 'f64'})
    assert.same({6, 0, 36}, rp.grad((dx * v):sum(), {x})[1]:totable())
  end)

  it('come for what the value does not reach as zeros', function()
    local x, z = nn.Parameter(rp.ones(2)), nn.Parameter(rp.ones(3))
    local both = rp.grad((x * 2):sum(), {x, z})
    assert.same({2, 2}, both[1]:totable())
    assert.same({0, 0, 0}, both[2]:totable())
  end)

  it('come with the value', function()
    local f = rp.value_and_grad(function(w, b, k) return (w * k + b):sum() end)
    local value, dw, db = f(nn.Parameter(rp.ones(2)), nn.Parameter(rp.zeros(2)), 3)
    assert.equal(6, value:item())
    assert.same({3, 3}, dw:totable())
    assert.same({1, 1}, db:totable())
  end)

  it('need a scalar, or what flows in', function()
    local x = nn.Parameter(rp.ones(2))
    refused('not a scalar', function() rp.grad(x * 2, {x}) end)
    assert.same({2, 20}, rp.grad(x * 2, x, rp.tensor{1, 10}):totable())
    refused('%[custom_vjp%] two functions are wanted', function() rp.custom_vjp(rp.relu) end)
  end)
end)
