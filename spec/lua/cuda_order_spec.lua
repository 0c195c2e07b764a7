-- What a device that runs behind the host can get wrong: the order of its queues,
-- whose device is meant, what failures leave behind. On the emulated device.

local ffi = require 'ffi'
ffi.C.setenv('RP_EMULATED_DEVICES', '3', 1)

local rp = require 'reprise'
local emulated = require 'spec.support.emulated'
local failure = require 'reprise.failure'
local fails = require 'spec.support.fails'
local nn, optim = rp.nn, rp.optim

local there, reason = emulated.there()

describe('a device behind the host', function()
  if not there then
    pending(reason)
    return
  end

  local hooks = emulated.hooks()

  before_each(function() rp.set_default_device 'cuda' end)
  after_each(function()
    rp.set_default_device 'cpu'
    rp.cuda.graphs(true)
    rp.detect_anomaly(false)
    hooks.rp_emulated_fail_launch(0)
    hooks.rp_emulated_fail_instantiate(0)
  end)

  it('zeroes a leaf before its first bytes arrive, not behind them', function()
    -- More than the pinned buffers hold: the host waits for the copies.
    local n = 5 * 2^20
    local busy = rp.randn(8, 8)
    rp.run(busy:matmul(busy))
    local batches = rp.data.loader({{n}}, function(x)
      for _, i in ipairs {0, 1, n / 2, n - 1} do x[i] = i + 1 end
    end)
    local x = batches:next()
    assert.same({1, 2}, x:narrow(1, 1, 2):totable())
    assert.same({n / 2 + 1}, x:narrow(1, n / 2 + 1, 1):totable())
    assert.same({n}, x:narrow(1, n, 1):totable())
  end)

  it('forgets the bad index of a step that failed otherwise', function()
    local table_ = nn.Parameter(rp.ones(5, 2))
    local opt = optim.SGD({table_}, {lr = 1})
    local bad = rp.tensor({1, 6}, {dtype = 'i64'}) + 1
    rp.detect_anomaly(true)
    fails(function()
      opt:minimize((rp.embedding(table_, bad) - 1):log():mul(0):sum())
    end, 'log', 'infinity')
    rp.detect_anomaly(false)
    opt:minimize(table_:sum())
    assert.same({0, 0}, table_[1]:totable())
  end)

  it('keeps a loss apart from that of a later step that failed', function()
    rp.detect_anomaly(true)
    local w = nn.Parameter(rp.tensor {1.25})
    local opt = optim.SGD({w}, {lr = 0})
    local function step(shift)
      local loss = (w - shift):sqrt():sum()
      opt:minimize(loss)
      return loss
    end
    local good = step(1)
    fails(function() step(1.25) end, 'infinity') -- in the gradient alone
    assert.equal(0.5, good:item())
  end)

  it('runs op by op what it cannot record, and says so once', function()
    local said, sink = {}, failure.sink
    failure.sink = function(text) said[#said + 1] = text end
    local function train(name, fail)
      rp.set_default_device(name)
      rp.manual_seed(2)
      local w = nn.Parameter(rp.ones(7))
      local opt = optim.AdamW({w}, {lr = 0.1})
      local list = {}
      for step = 1, 5 do
        if step == 2 and fail then hooks.rp_emulated_fail_instantiate(1) end
        local loss = (rp.dropout(w, 0.3) * step):sum()
        opt:minimize(loss)
        list[step] = loss:item()
      end
      return list, w:bytes()
    end
    local losses, bytes = train('cuda', false)
    rp.cuda.synchronize()
    local again, other = train('cuda:1', true)
    failure.sink = sink
    assert.equal(1, #said)
    assert.truthy(said[1]:find('could not be recorded', 1, true), said[1])
    assert.same(losses, again)
    assert.equal(bytes, other)
  end)

  it('takes the work of several devices in turn', function()
    local function train(name)
      rp.set_default_device(name)
      rp.manual_seed(4)
      local net = nn.Sequential {nn.Linear(6, 6), nn.Dropout(0.2), nn.ReLU(), nn.Linear(6, 3)}
      local opt = optim.AdamW(net:parameters(), {lr = 0.05, clip_grad_norm = 1})
      local x = rp.randn(4, 6):run()
      return function(step)
        rp.set_default_device(name)
        rp.manual_seed(step)
        local loss = net(x):pow(2):sum()
        opt:minimize(loss, {ckpt = 'every=1'})
        return loss:item()
      end, net
    end
    local alone, net = train 'cuda'
    local losses = {}
    for step = 1, 5 do losses[step] = alone(step) end
    local first, one = train 'cuda'
    local second, two = train 'cuda:1'
    for step = 1, 5 do
      assert.equal(losses[step], first(step))
      assert.equal(losses[step], second(step))
    end
    for i, p in ipairs(net:parameters()) do
      assert.equal(p:bytes(), one:parameters()[i]:bytes())
      assert.equal(p:bytes(), two:parameters()[i]:bytes())
    end
    local moved = net:parameters()[1]:detach():to 'cuda:1'
    assert.equal('cuda:1', moved.device)
    assert.equal(net:parameters()[1]:bytes(), moved:to 'cuda':bytes())
  end)

  it('checks each launch outside of recordings alone', function()
    ffi.C.setenv('RP_CUDA_CHECK', '1', 1)
    rp.set_default_device 'cuda:2'
    ffi.C.setenv('RP_CUDA_CHECK', '', 1)
    rp.cuda.graphs(true, 'cuda:2')
    local w = nn.Parameter(rp.ones(4))
    local opt = optim.SGD({w}, {lr = 0.25})
    for _ = 1, 4 do opt:minimize(w:sum()) end
    assert.same({0, 0, 0, 0}, w:totable())
  end)

  it('compares strategies in the process that has it: no child could use it', function()
    local comparison = rp.compare(function()
      rp.set_default_device 'cuda'
      local net = nn.Layers(3, function()
        return nn.Sequential {nn.Linear(6, 6), nn.Dropout(0.2), nn.GELU()}
      end)
      local x = rp.randn(4, 6):run()
      return function() return net(x):pow(2):sum() end, optim.SGD(net:parameters(), {lr = 0.1})
    end, {'none', 'every=1'}, {steps = 3})
    for _, row in ipairs(comparison.rows) do
      assert.is_nil(row.error)
      assert.is_nil(row.resident_bytes)
    end
    assert.is_true(comparison.same_bits)
    assert.is_true(comparison:as_promised())
  end)

  it('is where gradients and likenesses of its tensors lie, whatever the default', function()
    rp.set_default_device 'cpu'
    local w = nn.Parameter(rp.tensor({1, 2, 3}, {device = 'cuda'}))
    local g = rp.grad((w * w * w):sum(), w)
    assert.same({3, 12, 27}, g:totable())
    assert.same({6, 12, 18}, rp.grad(g:sum(), w):totable())
    local square = rp.custom_vjp(function(x) return x * x end,
      function(d_y, _, x) return d_y * x * 2 end)
    square(w):sum():backward()
    assert.same({2, 4, 6}, w.grad:totable())
    for _, name in ipairs {'randn_like', 'rand_like'} do
      assert.equal('cuda', rp[name](w).device)
      assert.equal('cpu', rp[name](w, {device = 'cpu'}).device)
    end
    assert.equal('cuda', rp.zeros_like(w, {requires_grad = true}).device)
    assert.equal('cpu', rp.get_default_device())
  end)

  it('gives memory that lies free between leaves to whoever needs it', function()
    local mega = 2^20
    local held, kept = {}, {}
    for i = 1, 6 do -- 16 MiB and a bit, in turn
      held[2 * i - 1] = rp.randn(4 * mega):run()
      held[2 * i] = rp.full({1000}, i):exp():run()
      kept[i] = held[2 * i]
    end
    local before = kept[3]:bytes()
    for i = 1, #held, 2 do held[i] = false end
    collectgarbage()
    collectgarbage()
    hooks.rp_emulated_limit(hooks.rp_emulated_used() + 8 * mega)
    -- An arena, then a leaf, that the device has no more memory for.
    local ok, message = pcall(function()
      local x = rp.randn(6 * mega)
      assert.truthy((x * 2):tanh():sum():item() ~= nil)
      rp.randn(4 * mega):run()
    end)
    hooks.rp_emulated_limit(16 * 2^30)
    assert.truthy(ok, message)
    assert.equal(before, kept[3]:bytes())
  end)

  it('says an error, and goes on saying it, once it is lost', function()
    local w = nn.Parameter(rp.ones(4))
    local opt = optim.SGD({w}, {lr = 0.25})
    local x = rp.randn(4, {device = 'cpu'}):run()
    opt:minimize((w * w):sum())
    hooks.rp_emulated_fail_launch(1)
    fails(function()
      opt:minimize((w * w):sum())
      rp.cuda.synchronize()
    end, 'cuda', 'lost')
    for _ = 1, 2 do
      fails(function() w:totable() end, 'cuda')
      fails(function() rp.cuda.synchronize() end, 'lost')
      fails(function() opt:minimize((w * w):sum()) end, 'cuda')
      fails(function() x:to 'cuda' end, 'cuda')
      fails(function() rp.randn(2^20):run() end, 'cuda')
    end
    assert.equal(4, #x:totable())
    collectgarbage()
    hooks.rp_emulated_reset()
  end)
end)
