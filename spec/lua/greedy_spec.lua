-- greedy=SIZE: DTR's evictions, ahead of time. Its heuristic on a chain small
-- enough to do by hand; the peak, which never exceeds the budget; the bits.

local rp = require 'reprise'
local eviction = require 'reprise.eviction'
local models = require 'spec.support.models'
local run = require 'spec.support.run'

setup(run.quiet)
teardown(run.loud)

-- A graph as a strategy sees it: {seconds, inputs, kept} of each node, all of
-- 100 bytes.
local function graph_of(n_forward, list)
  local nodes = {}
  for i, entry in ipairs(list) do
    nodes[i] = {
      bytes = 100, workspace_bytes = 0, seconds = entry[1], inputs = entry[2],
      kept = entry[3] or false, mark = 0, effect = false,
    }
  end
  return {n_forward = n_forward, nodes = nodes}
end

describe('greedy by hand', function()
  -- a..e, a loss and the gradients of e..a, each of which reads its value.
  local chain = graph_of(6, {
    {2, {-1}}, {2, {1}}, {3, {2}}, {1, {3}}, {8, {4}}, {1, {5}, true},
    {1, {5}}, {1, {7, 4}}, {1, {8, 3}}, {1, {9, 2}}, {1, {10, 1}, true},
  })

  it('evicts in the order of the formula', function()
    local steps, most = eviction.simulate(eviction.model(chain), 400)
    assert.equal(400, most)
    -- Seconds over staleness; 100 bytes each, so they do not matter.
    assert.same({
      1, 2, 3, 4,
      -- At 8 s, room for e, which reads d: a 2/(8-4) = 1/2, b 2/(8-7) = 2, c
      -- was read just now.
      -1, 5,
      -- At 16 s: b alone would have 2/9 and c has 3/8, but b's replay needs a:
      -- (2+2)/9 = 4/9.
      -3, 6,
      -- At 17 s: b is now needed by c too, (2+2+3)/10; d (1+3)/1.
      -2, 7, -5, 8, -7, -4,
      -- c comes back behind a and b; each time one value may go.
      1, 2, -1, 3, -2, 9, -8, -3,
      1, 2, -1, 10, -9, -2,
      1, 11, -10, -1,
    }, steps)
  end)

  it('runs each node once where all fits', function()
    local steps, most = eviction.simulate(eviction.model(chain), math.huge)
    assert.same({1, 2, 3, 4, 5, 6, 7, -5, 8, -7, -4, 9, -8, -3, 10, -9, -2, 11, -10, -1},
      steps)
    assert.equal(700, most)
    assert.same(steps, (eviction.simulate(eviction.model(chain), 700)))
    assert.not_same(steps, (eviction.simulate(eviction.model(chain), 699)))
  end)

  it('fails where a node and what it reads do not fit', function()
    assert.is_table((eviction.simulate(eviction.model(chain), 400)))
    assert.is_nil((eviction.simulate(eviction.model(chain), 399)))
  end)

  it('holds a gradient until its update has run', function()
    -- y = w x; loss; dy; dw, read by an update of w, whose readers are node 1
    -- and node 3; node 3's result is wanted.
    local graph = graph_of(2, {
      {1, {-1, -2}}, {1, {1}, true}, {1, {-2, 1}}, {1, {3}}, {1, {-2, 4}},
    })
    graph.nodes[5].effect, graph.nodes[5].bytes = true, 0
    assert.same({1, 2, 3, -1, 4, -3, -4}, (eviction.simulate(eviction.model(graph), 300)))
  end)
end)

for _, name in ipairs(models.names) do
  describe('greedy for ' .. name, function()
    local made, loss

    before_each(function()
      made = run.model(name)
      loss = made.loss()
    end)

    it('keeps within the budget', function()
      local none = loss:plan {ckpt = 'none'}
      local most = none.peak_bytes
      local least = loss:plan({ckpt = 'greedy=min'}).peak_bytes
      assert.is_true(least <= most)
      for k = 0, 20 do
        local budget = math.floor(least + (most - least) * k / 20)
        assert.is_true(loss:plan({ckpt = {greedy = budget}}).peak_bytes <= budget)
      end
      local all = loss:plan {ckpt = 'greedy=100%'}
      assert.is_true(all.peak_bytes <= most)
      -- Marks are replayed whatever the strategy.
      if none.n_replays == 0 then assert.equal(0, all.n_replays) end
    end)

    it('refuses what it cannot meet with the least that it can', function()
      local ok, message = pcall(loss.plan, loss, {ckpt = 'greedy=1'})
      assert.is_false(ok)
      local least = tonumber(message:match
        'cannot be met: the least for greedy is [%d%.]+ %a+ %((%d+) bytes%)')
      assert.equal(least, loss:plan({ckpt = 'greedy=min'}).peak_bytes)
      assert.equal(least, loss:plan({ckpt = {greedy = least}}).peak_bytes)
      assert.has_error(function() loss:plan {ckpt = {greedy = least - 1}} end)
    end)

    it('is the peak that the run has, bits as under none', function()
      local function gradients(ckpt)
        for _, p in ipairs(made.parameters) do p.grad = nil end
        rp.manual_seed(3)
        made.loss():backward {ckpt = ckpt}
        return run.gradients(made.parameters), rp.last_plan()
      end
      local want = gradients 'none'
      local least = loss:plan({ckpt = 'greedy=min'}).peak_bytes
      local most = loss:plan({ckpt = 'none'}).peak_bytes
      for _, share in ipairs {0, 0.3, 0.7} do
        local got, plan = gradients {greedy = math.floor(least + share * (most - least))}
        assert.same(want, got)
        assert.equal(plan.peak_bytes, plan:measured_peak())
      end
    end)

    it('trains to the same bits', function()
      local how = {how = 'minimize', steps = 5, ckpt = 'none'}
      local kept = run.train(name, how)
      how.ckpt = 'greedy=min'
      run.same_bits(kept, run.train(name, how), how.ckpt)
    end)
  end)
end

describe('greedy', function()
  it('replays, and drops what rp.checkpoint marked', function()
    local nn = rp.nn
    local net = nn.Sequential {nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()}
    local function loss(mark)
      local x = rp.ones(32, 64)
      local y = mark and rp.checkpoint(function(t) return net(t) end, x) or net(x)
      return y:mul(y):sum()
    end
    assert.is_true(loss():plan({ckpt = 'greedy=min'}).n_replays > 0)
    assert.equal(0, loss():plan({ckpt = 'greedy=1GiB'}).n_replays)
    assert.is_true(loss(true):plan({ckpt = 'greedy=1GiB'}).n_replays > 0)
  end)

  it('is a pure function of the graph', function()
    local loss = run.model('gpt').loss()
    local function program()
      local answer
      loss:plan {ckpt = function(graph)
        answer = rp.ckpt.resolve('greedy=min').apply(graph)
        return answer
      end}
      return answer.program
    end
    assert.same(program(), program())
  end)

  -- Which values are evicted jumps from limit to limit: the front is offered
  -- more limits than greedy's first search looks at. greedy goes on between
  -- two of them; half a per cent is what it may find there.
  it('is no better than what a budget of its peak buys', function()
    local n = 0
    for _, name in ipairs {'resnet', 'gpt', 'mlp', 'unet'} do
      local loss = run.model(name).loss()
      for share = 60, 90, 10 do
        local ok, plan = pcall(loss.plan, loss, {ckpt = ('greedy=%d%%'):format(share)})
        if ok then
          local best = loss:plan {ckpt = ('budget=%d'):format(plan.peak_bytes)}
          assert(best.step_seconds <= plan.step_seconds * 1.005,
            ('%s, %d %%: %g, %g s'):format(name, share, best.step_seconds,
            plan.step_seconds))
          n = n + 1
        end
      end
    end
    assert.is_true(n >= 4, n)
  end)
end)
