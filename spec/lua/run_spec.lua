-- What runs, what a strategy may return, what is said; plans and memory as
-- Lua sees them. That no strategy changes a bit is identity_spec's.

local rp = require 'reprise'
local failure = require 'reprise.failure'
local nn = rp.nn

local function refused(pattern, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  assert.matches(pattern, message)
end

--- Layers of a linear map and tanh; two nodes each.
local function model(n)
  return nn.Layers(n, function()
    return nn.Sequential{nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh()}
  end)
end

describe('rp.run', function()
  it('runs several tensors, which are then held', function()
    local a, b = rp.ones(2) + 1, rp.ones(2) + 2
    assert.is_false(a:is_held())
    assert.is_true(rp.run(a, b) == a)
    assert.is_true(a:is_held() and b:is_held())
    local c = rp.ones(1) * 3
    assert.is_true(c:run() == c)
    rp.run{a, c}
    refused('%[run%] a tensor is wanted here, not number', rp.run, a, 3)
  end)

  it('runs nothing that is not asked for', function()
    local called = 0
    local fn = rp.custom_vjp(function(x)
      called = called + 1
      return x * 2
    end, function(dy) return dy * 2 end)
    local w = nn.Parameter(rp.ones(2))
    local loss = rp.checkpoint(function(x) return fn(x):exp():exp() end, w):sum()
    assert.is_true(loss:plan().n_replays > 0)
    loss:backward()
    -- The user's Lua runs once, whatever is replayed.
    assert.equal(1, called)
    local y = math.exp(2)
    assert.near(2 * y * math.exp(y), w.grad[1]:item(), 1e-3 * math.exp(y))
  end)
end)

describe('backward', function()
  it('adds to .grad, until it is dropped', function()
    local w = nn.Parameter(rp.ones(2))
    ;(w * 3):sum():backward()
    ;(w * 4):sum():backward()
    assert.same({7, 7}, w.grad:totable())
    w.grad = nil
    assert.is_nil(w.grad)
  end)

  it('takes some leaves alone, and delivers other values', function()
    local a, b = nn.Parameter(rp.ones(1)), nn.Parameter(rp.ones(1))
    local inner = a * b * 2
    local loss = (inner * 3):sum()
    loss:backward{wrt = {a}, also = inner}
    assert.equal(6, a.grad:item())
    assert.is_nil(b.grad)
    assert.is_true(inner:is_held())
  end)

  it('refuses what has no gradient', function()
    local w = nn.Parameter(rp.ones(2))
    refused('scalar', function() (w * 2):backward() end)
    refused("no option 'retain'; there are also, ckpt, inputs, wrt",
      function() w:sum():backward{retain = true} end)
    refused('%[ckpt%] evry=2: no strategy', function() w:sum():backward{ckpt = 'evry=2'} end)
  end)
end)

describe('a strategy', function()
  local net = model(3)
  local x = rp.ones(4, 16)

  local function loss() return net(x):sum() end

  local function with(strategy)
    return function() loss():plan{ckpt = strategy} end
  end

  it('sees the graph', function()
    local seen
    loss():plan{ckpt = function(graph)
      seen = graph
      return {}
    end}
    assert.equal(3, #seen.layers)
    assert.equal('layers.2', seen.layers[2].name)
    local first, last = seen.layers[2].first, seen.layers[2].last
    assert.equal(4, last - first + 1)
    for i = first, last do
      local node = seen.nodes[i]
      assert.equal(2, node.layer)
      assert.equal(4 * 16 * 4, node.bytes)
      assert.same({4, 16}, node.shape)
      assert.equal('f32', node.dtype)
      assert.equal(node.op == 'linear', node.costly)
      assert.is_false(node.backward)
      assert.equal(i, node.first)
    end
    assert.equal('linear', seen.nodes[first].op)
    assert.equal('layers.2.1', seen.nodes[first].scope)
    assert.is_true(seen.nodes[first].flops > 2 * 4 * 16 * 15)
    assert.is_true(seen.nodes[first].seconds > 0)
    assert.equal(first - 1, seen.nodes[first].inputs[1])
    assert.is_true(seen.nodes[first].inputs[2] < 0)
    assert.is_true(#seen.nodes > seen.n_forward)
    assert.is_true(seen.nodes[#seen.nodes].backward)
  end)

  it('is asked once for a graph', function()
    local asked = 0
    local function strategy(graph)
      asked = asked + 1
      return {graph.layers[1]}
    end
    local opt = rp.optim.SGD(net:parameters(), {lr = 0.01})
    for _ = 1, 3 do opt:minimize(loss(), {ckpt = strategy}) end
    assert.equal(1, asked)
  end)

  it('may return layers, spans, nodes, nested segments, keeps', function()
    local plan = loss():plan{ckpt = function(graph)
      local a, b = graph.layers[1], graph.layers[3]
      return {{a.first, b.last, keep = {graph.nodes[a.last]}, segments = {graph.layers[2], b}}}
    end}
    local segments = plan:segments()
    assert.equal(3, #segments)
    assert.equal(1, #segments[1].keep)
    assert.equal(1, segments[2].parent)
    assert.equal(1, segments[3].parent)
    assert.equal('function', plan.strategy)
    assert.is_true(plan.recompute_fraction > 0)
  end)

  it('may return a program', function()
    local kept
    local plan = loss():plan{ckpt = function(graph)
      local steps = {}
      for i = 1, #graph.nodes do steps[i] = i end
      return {program = steps}
    end}
    loss():plan{ckpt = function(graph)
      kept = graph
      return {}
    end}
    assert.equal(0, plan.n_replays)
    refused('the program never runs node', with(function(graph)
      return {program = {#graph.nodes > 0 and 1 or nil}}
    end))
    assert.is_true(#kept.nodes > 0)
  end)

  it('is told what is wrong with what it returns, and where', function()
    local line = debug.getinfo(1, 'l').currentline + 1
    local function nothing() end
    refused(('%%[ckpt%%] function: .*run_spec.lua:%d: the strategy returned nothing'):format(line),
      with(nothing))
    refused('it returned a function, not segments', with(function() return nothing end))
    refused('segments%[1%].last is 9999: the forward nodes are 1..',
      with(function() return {{1, 9999}} end))
    refused('overlap', with(function(graph)
      return {graph.layers[1], graph.layers[1]}
    end))
    refused('run_spec.lua:%d+: attempt to', with(function(graph) return graph.x.y end))
    -- The error is the caller's, and names the strategy.
    refused('^%S*run_spec.lua:%d+: %[ckpt%] every=2: the model has no layers', function()
      (nn.Parameter(rp.ones(1)) * 2):sum():backward{ckpt = 'every=2'}
    end)
  end)

  it('that fails changes nothing: the next one is asked', function()
    local made = loss()
    refused('boom', function() made:plan{ckpt = function() error 'boom' end} end)
    assert.equal('none', made:plan().strategy)
    made:backward()
  end)

  it('is the default one when nothing is said', function()
    rp.ckpt 'every=1'
    local plan = loss():plan()
    rp.ckpt 'none'
    assert.equal('every=1', plan.strategy)
    assert.equal(3, #plan:segments())
    assert.equal(0, #loss():plan():segments())
  end)
end)

describe('a plan', function()
  it('promises what is measured, and adds up', function()
    local net = model(3)
    local opt = rp.optim.AdamW(net:parameters())
    for _, spec in ipairs{'none', 'every=1', 'sqrt'} do
      local loss = net(rp.ones(4, 16)):sum()
      local plan = opt:plan(loss, {ckpt = spec})
      assert.equal(plan.peak_bytes, plan.persistent_bytes + plan.arena_bytes)
      assert.is_true(plan.live_bytes <= plan.arena_bytes)
      -- 6 linear layers of 16 x 16 + 16 floats, two states each.
      assert.is_true(plan.role_bytes.parameter >= 6 * 272 * 4)
      assert.is_true(plan.role_bytes.optimizer >= 2 * 6 * 272 * 4)
      opt:minimize(loss, {ckpt = spec})
      assert.equal(plan.peak_bytes, rp.last_plan():measured_peak())
      assert.is_true(rp.last_plan():measured_seconds() > 0)
    end
  end)

  it('lists instructions and instances that fit each other', function()
    local net = model(2)
    local plan = net(rp.ones(4, 16)):sum():plan{ckpt = 'every=1'}
    local instructions, graph = plan:instructions(), plan:graph()
    local runs, replays = 0, 0
    for _, step in ipairs(instructions) do
      if step.run then
        runs = runs + 1
        if step.replay then replays = replays + 1 end
        assert.is_not_nil(graph.nodes[step.run])
      end
      assert.is_true(step.live_bytes <= plan.arena_bytes)
    end
    assert.equal(plan.n_runs, runs)
    assert.equal(plan.n_replays, replays)
    for _, instance in ipairs(plan:instances()) do
      assert.is_true(instance.born <= instance.dead)
      if instance.in_arena then
        assert.is_true(instance.offset + instance.size_bytes <= plan.arena_bytes)
      end
    end
  end)
end)

describe('memory', function()
  it('is reported, with a peak that can begin anew', function()
    do
      local big = rp.run(rp.ones(1024, 256) + 1)
      assert.is_true(big:is_held())
      assert.is_true(rp.memory().bytes >= 2^20)
      assert.equal(rp.max_memory_allocated(), rp.memory().peak_bytes)
    end
    collectgarbage()
    collectgarbage()
    rp.reset_peak_memory_stats()
    assert.equal(rp.memory().bytes, rp.max_memory_allocated())
  end)

  it('of handles that nobody has is collected without being asked', function()
    collectgarbage()
    rp.reset_peak_memory_stats()
    local before = rp.memory().bytes
    -- 200 values of 1 MiB, each dropped: Lua sees some bytes a handle.
    for i = 1, 200 do rp.run(rp.ones(1024, 256) + i) end
    assert.is_true(rp.max_memory_allocated() - before < 100 * 2^20)
  end)

  it('of recipes stays where it is in a loop that records', function()
    collectgarbage()
    local w = nn.Parameter(rp.ones(8))
    for _ = 1, 50 do rp.run((w * 2):sum()) end
    collectgarbage()
    local nodes = rp.memory().nodes
    for _ = 1, 2000 do rp.run((w * 2):sum()) end
    collectgarbage()
    assert.equal(nodes, rp.memory().nodes)
  end)
end)

describe('notices', function()
  it('go where failure.sink says', function()
    local heard, sink = {}, failure.sink
    failure.sink = function(text) heard[#heard + 1] = text end
    failure.notice_once 'a test of notices'
    failure.notice_once 'a test of notices'
    failure.sink = sink
    assert.same({'a test of notices'}, heard)
  end)
end)

describe('settings', function()
  it('of threads and seeds are checked', function()
    local n = rp.get_num_threads()
    rp.set_num_threads(1)
    assert.equal(1, rp.get_num_threads())
    rp.set_num_threads(n)
    refused('%[set_num_threads%] the number is a whole number of at least 1, not 0',
      rp.set_num_threads, 0)
    refused('%[manual_seed%] a whole number', rp.manual_seed, -1)
  end)
end)
