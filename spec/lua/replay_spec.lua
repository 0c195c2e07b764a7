-- Ways to use recipes in which a replay could go wrong, each under every
-- strategy: the bits are those of `none`, used in the same way.

local rp = require 'reprise'
local raw = require 'spec.support.raw'
local run = require 'spec.support.run'
local nn = rp.nn

local STRATEGIES = {
  'every=1', 'every=2', 'uniform=2', 'segments=2', 'nodes=3', 'sqrt',
  'ops', 'scope=*.mix', 'budget=min', 'budget=92%',
}

--- Three layers with dropout, each with a part called mix.
local function network()
  return nn.Layers(3, function()
    return nn.Sequential {
      nn.Linear(6, 8):named 'mix', nn.Tanh():named 'bend',
      nn.Dropout(0.25):named 'drop', nn.Linear(8, 6):named 'back',
    }
  end)
end

local function values(seed, rows)
  return rp.tensor(raw.fill(seed, {rows or 40, 6}, -2, 2)):reshape(rows or 40, 6)
end

local function list_of(name, t)
  return {name = name, numbers = raw.read(t.ptr)}
end

--- Each way is a function of a strategy that makes its model anew, works, and
-- returns a list of {name, numbers}.
local ways = {}

ways['an early evaluation'] = function(spec)
  local net = network()
  local opt = rp.optim.AdamW(net:parameters(), {lr = 0.05})
  local out = {}
  for step = 1, 3 do
    local h = net(values(step))
    local loss = (h * h):mean()
    -- Run before its backward: the middle, then all of it, then nothing.
    if step == 1 then out[#out + 1] = list_of('h', h:narrow(1, 1, 2)) end
    if step <= 2 then out[#out + 1] = list_of('early', loss) end
    opt:minimize(loss, {ckpt = spec})
    out[#out + 1] = list_of('loss', loss)
  end
  for _, p in ipairs(net:parameters()) do out[#out + 1] = list_of('p', p) end
  return out
end

ways['a value that a seed was set behind'] = function(spec)
  local net = network()
  rp.manual_seed(11)
  local h = net(values(1))
  local loss = (h * h):mean()
  local early = list_of('early', loss)
  rp.manual_seed(12)
  loss:backward {ckpt = spec}
  local out = {early}
  for _, p in ipairs(net:parameters()) do out[#out + 1] = list_of('grad', p.grad) end
  return out
end

ways['accumulation'] = function(spec)
  local net = network()
  local opt = rp.optim.SGD(net:parameters(), {lr = 0.1, momentum = 0.9})
  local out = {}
  for step = 1, 2 do
    for part = 1, 3 do
      local loss = net(values(10 * step + part)):square():mean() / 4
      loss:backward {ckpt = spec}
      out[#out + 1] = list_of('part', loss)
    end
    out[#out + 1] = list_of('grad', net:parameters()[1].grad)
    opt:minimize(net(values(step)):square():mean() / 4, {ckpt = spec})
  end
  for _, p in ipairs(net:parameters()) do out[#out + 1] = list_of('p', p) end
  return out
end

ways['a layer used several times'] = function(spec)
  local shared, other = network(), nn.Linear(6, 6)
  local parameters = shared:parameters()
  for _, p in ipairs(other:parameters()) do parameters[#parameters + 1] = p end
  local opt = rp.optim.AdamW(parameters, {lr = 0.05})
  for step = 1, 3 do
    local h = values(step)
    for _ = 1, 3 do h = shared(h) + other(h) end
    -- And its weight once more as such.
    opt:minimize((h * h):mean() + (other.weight * other.weight):sum() * 0.1,
      {ckpt = spec})
  end
  local out = {}
  for _, p in ipairs(parameters) do out[#out + 1] = list_of('p', p) end
  return out
end

ways['several losses over one graph'] = function(spec)
  local net, a, b = network(), nn.Linear(6, 2), nn.Linear(6, 3)
  local h = net(values(1))
  local first, second = a(h):square():mean(), b(h):tanh():sum()
  first:backward {ckpt = spec}
  second:backward {ckpt = spec}
  ;(first * second):backward {ckpt = spec}
  local out = {list_of('first', first), list_of('second', second)}
  for _, model in ipairs {net, a, b} do
    for _, p in ipairs(model:parameters()) do out[#out + 1] = list_of('grad', p.grad) end
  end
  return out
end

ways['a graph that changes shape'] = function(spec)
  local net = network()
  local opt = rp.optim.AdamW(net:parameters(), {lr = 0.05})
  local out = {}
  for step = 1, 8 do
    local rows = 24 + step % 4
    local h = values(step, rows)
    -- And depth: every other step goes through twice.
    for _ = 1, 1 + step % 2 do h = net(h) end
    local loss = (h * h):mean()
    opt:minimize(loss, {ckpt = spec})
    out[#out + 1] = list_of('loss', loss)
  end
  for _, p in ipairs(net:parameters()) do out[#out + 1] = list_of('p', p) end
  return out
end

ways['a value reused long after'] = function(spec)
  local net, head = network(), network()
  local opt = rp.optim.SGD(head:parameters(), {lr = 0.1})
  -- Made of what is not trained; dropout inside. Steps go by in between.
  for _, p in ipairs(net:parameters()) do p.requires_grad = false end
  local features = net(values(1))
  local out = {}
  for step = 1, 4 do
    local loss = (head(features) - values(step)):square():mean()
    opt:minimize(loss, {ckpt = spec})
    out[#out + 1] = list_of('loss', loss)
    if step == 2 then out[#out + 1] = list_of('features', features) end
    rp.randn(3):run()
  end
  for _, p in ipairs(head:parameters()) do out[#out + 1] = list_of('p', p) end
  return out
end

ways['value_and_grad at new parameters'] = function(spec)
  local net = network()
  local x = values(1)
  local step = rp.value_and_grad(function(w, b)
    return net((x:matmul(w) + b):tanh()):square():mean()
  end)
  local w = rp.tensor(raw.fill(3, {6, 6})):reshape(6, 6)
  local b = rp.zeros(6)
  local out = {}
  for i = 1, 3 do
    local loss, dw, db = step(w, b)
    -- One program over both, so the strategy has something to say.
    local total = loss + (dw * dw):sum()
    total:backward {ckpt = spec, also = {loss, dw, db}}
    for name, t in pairs {loss = loss, dw = dw, db = db} do
      out[#out + 1] = list_of(i .. name, t)
    end
    w, b = (w - dw * 0.1):detach(), (b - db * 0.1):detach()
    rp.run(w, b)
  end
  for _, p in ipairs(net:parameters()) do out[#out + 1] = list_of('grad', p.grad) end
  table.sort(out, function(p, q) return p.name < q.name end)
  return out
end

ways['a gradient of its own'] = function(spec)
  local net = network()
  local clipped = rp.custom_vjp(
    function(x, y) return x * y:tanh(), (x * 0.5):dropout(0.5) end,
    function(d1, d2, y1, _, x, y)
      return (d1 * y:tanh() + d2):clamp(-0.1, 0.1), d1 * y1 * x
    end)
  local opt = rp.optim.AdamW(net:parameters(), {lr = 0.05})
  local out = {}
  for step = 1, 3 do
    local h = net(values(step))
    local a, b = clipped(h, net(h))
    local loss = (net(a) + b):square():mean()
    opt:minimize(loss, {ckpt = spec})
    out[#out + 1] = list_of('loss', loss)
  end
  for _, p in ipairs(net:parameters()) do out[#out + 1] = list_of('p', p) end
  return out
end

describe('a seed', function()
  setup(run.quiet)
  teardown(run.loud)

  it('is that of the recording: a later one changes no recipe', function()
    local function work(late)
      rp.manual_seed(7)
      local net = network()
      rp.manual_seed(11)
      local loss = net(values(1)):square():mean()
      if late then
        rp.manual_seed(12)
        loss:run()
        rp.manual_seed(13)
      end
      loss:backward {ckpt = 'every=1'}
      local out = raw.read(loss.ptr)
      for _, p in ipairs(net:parameters()) do
        for _, x in ipairs(raw.read(p.grad.ptr)) do out[#out + 1] = x end
      end
      return out
    end
    local want = work(false)
    assert.is_nil(raw.bit_difference(work(true), want))
  end)

  it('keeps draws of two seeds apart in one program', function()
    rp.manual_seed(1)
    local a = rp.rand(5)
    rp.manual_seed(2)
    local b = rp.rand(5)
    rp.manual_seed(1)
    local c = rp.rand(5)
    rp.run(a, b, c)
    assert.is_nil(raw.bit_difference(raw.read(a.ptr), raw.read(c.ptr)))
    assert.truthy(raw.bit_difference(raw.read(a.ptr), raw.read(b.ptr)))
  end)
end)

describe('every strategy has the bits of none with', function()
  setup(run.quiet)
  teardown(function()
    run.loud()
    rp.verify_replay(false)
  end)

  local names = {}
  for name in pairs(ways) do names[#names + 1] = name end
  table.sort(names)

  local function work(name, spec)
    rp.manual_seed(7)
    return ways[name](spec)
  end

  for _, name in ipairs(names) do
    it(name, function()
      local want = work(name, 'none')
      assert(#want >= 3)
      for _, spec in ipairs(STRATEGIES) do
        for _, verified in ipairs {false, true} do
          rp.verify_replay(verified)
          local got = work(name, spec)
          rp.verify_replay(false)
          assert.equal(#want, #got)
          for i, entry in ipairs(want) do
            assert.equal(entry.name, got[i].name)
            local problem = raw.bit_difference(got[i].numbers, entry.numbers)
            if problem then
              error(('%s, %s: %s: %s'):format(spec, verified and 'verified' or 'plain',
                entry.name, problem), 0)
            end
          end
        end
      end
    end)
  end

  it('each of these, and something is recomputed in each', function()
    local replays
    local runner = require 'reprise.run'
    local execute = runner.execute
    finally(function() runner.execute = execute end)
    runner.execute = function(prepared)
      replays = replays + runner.look(prepared).n_replays
      return execute(prepared)
    end
    for _, name in ipairs(names) do
      replays = 0
      work(name, 'nodes=3')
      assert(replays > 0, name)
    end
  end)
end)
