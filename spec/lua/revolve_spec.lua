-- revolve=S against the recurrence of Griewank & Walther (2000), counted in
-- the programs that come out.

local rp = require 'reprise'
local ckpt = require 'reprise.ckpt'
local revolve = require 'reprise.ckpt.revolve'
local run = require 'spec.support.run'

setup(run.quiet)
teardown(run.loud)

--- t[n][s] by the recurrence alone, for 1 <= s < n <= most.
local function recurrence(most)
  local t = {}
  for n = 1, most do
    t[n] = {}
    for s = 1, most do
      if n == 1 then
        t[n][s] = 0
      elseif s == 1 then
        t[n][s] = n * (n - 1) / 2
      else
        local least = math.huge
        for i = 1, n - 1 do
          least = math.min(least, i + t[i][s] + t[n - i][s - 1])
        end
        t[n][s] = least
      end
    end
  end
  return t
end

--- n steps h <- sin(exp(h)) from a leaf. Backward of a step reads exp's value
-- alone, which lies inside of the step.
local function steps(n)
  -- Small: a value below 256 bytes is not light, so segments alone replay.
  local x = rp.zeros(16, {dtype = 'f64', requires_grad = true})
  local state = rp.scan(function(h) return rp.sin(rp.exp(h)) end, x, n)
  return state:sum(), x
end

--- A step is replayed once for its own backward, without its sin, whose value
-- is the next state and still held; every other replay runs exp and sin. All
-- steps but the last have the former.
local function replayed_steps(plan, n)
  return (plan.n_replays + n - 1) / 2
end

describe('revolve', function()
  it('has the closed form of the recurrence', function()
    local t = recurrence(120)
    for n = 1, 120 do
      for s = 1, 120 do assert.equal(t[n][s], revolve.replays(n, s)) end
    end
  end)

  it('has the known values', function()
    local known = {
      {10, 3, 15}, {15, 5, 23}, {50, 7, 105}, {100, 10, 222}, {250, 25, 473},
    }
    for _, row in ipairs(known) do
      assert.equal(row[3], revolve.replays(row[1], row[2]))
    end
    -- n = C(s + r, s) steps: r n - C(s + r, r - 1).
    assert.equal(2 * 5151 - 102, revolve.replays(5151, 100))
    assert.equal(1e6 * (1e6 - 1) / 2, revolve.replays(1e6, 1))
    assert.equal(1e9 - 1, revolve.replays(1e9, 1e9))
  end)

  it('splits where the recurrence is least', function()
    for n = 2, 120 do
      for s = 2, n do
        local i = revolve.split(n, s)
        assert.equal(revolve.replays(n, s),
          i + revolve.replays(i, s) + revolve.replays(n - i, s - 1))
      end
    end
  end)

  local function check(n, s, loss, want)
    local plan = loss:plan {ckpt = {revolve = s}}
    assert.equal(want, replayed_steps(plan, n), ('n = %d, s = %d'):format(n, s))
  end

  it('replays t(n, s) steps in the program', function()
    local t = recurrence(60)
    for _, n in ipairs {2, 3, 4, 5, 6, 7, 10, 15, 21, 36} do
      local loss = steps(n)
      for s = 1, n - 1 do check(n, s, loss, t[n][s]) end
    end
    for _, case in ipairs {{50, 7, 105}, {100, 10, 222}, {250, 25, 473}} do
      check(case[1], case[2], steps(case[1]), case[3])
    end
  end)

  it('replays t(n, s) steps for all s < n <= 120 #long', function()
    local t = recurrence(120)
    for n = 2, 120 do
      local loss = steps(n)
      for s = 1, n - 1 do check(n, s, loss, t[n][s]) end
    end
  end)

  it('replays each step as often as the tree says, and none beyond the last', function()
    local n, s = 10, 3
    local loss = steps(n)
    local plan = loss:plan {ckpt = 'revolve=3'}
    local graph, runs = plan:graph(), {}
    for _, instruction in ipairs(plan:instructions()) do
      local node = instruction.run and graph.nodes[instruction.run]
      if node and node.op == 'exp' and not node.backward then
        runs[node.layer] = (runs[node.layer] or 0) + 1
      end
    end
    local total = 0
    for layer = 1, n do total = total + runs[layer] end
    assert.equal(n + revolve.replays(n, s), total)
    assert.equal(1, runs[n])
  end)

  -- The leaf is the first state and lies outside of the arena.
  it('holds exactly S states at its peak', function()
    for _, n in ipairs {12, 40} do
      local loss, x = steps(n)
      local state_bytes = 16 * 8
      local one = loss:plan {ckpt = 'revolve=1'}
      for s = 2, 8 do
        local plan = loss:plan {ckpt = {revolve = s}}
        assert.equal(one.live_bytes + (s - 1) * state_bytes, plan.live_bytes)
        assert.equal(plan.live_bytes, plan.arena_bytes)
      end
      assert.is_nil(x.grad)
    end
  end)

  it('changes no bit of the gradient', function()
    local loss, x = steps(30)
    loss:backward {ckpt = 'none'}
    local want = x.grad:totable()
    for _, s in ipairs {1, 2, 5, 29, 400} do
      local again, y = steps(30)
      again:backward {ckpt = {revolve = s}}
      assert.same(want, y.grad:totable())
    end
  end)

  it('steps through blocks where there are no layers', function()
    local x = rp.zeros(8, {dtype = 'f64', requires_grad = true})
    local h = x
    for _ = 1, 12 do h = rp.sin(rp.exp(h)) end
    local plan = h:sum():plan {ckpt = 'revolve=2'}
    assert.is_true(plan.n_replays > 0)
    assert.is_true(plan.arena_bytes < h:sum():plan({ckpt = 'none'}).arena_bytes)
  end)

  it('refuses what is no number of states, and models without steps', function()
    local function reason(spec) return (select(2, ckpt.parse(spec))) end
    assert.equal('S is a whole number of at least 1, not 0', reason 'revolve=0')
    assert.equal('S is a whole number of at least 1, not -2', reason 'revolve=-2')
    assert.equal('S is a whole number of at least 1, not 2.5', reason 'revolve=2.5')
    assert.matches('^S is missing: revolve=S', reason 'revolve')
    assert.has_error(function()
      ckpt.resolve('revolve=2').apply {layers = {}, blocks = {}, nodes = {}, n_forward = 0}
    end, 'the model has no two layers or blocks to step through: wrap each step in ' ..
      'rp.layer(name, fn), or use rp.scan')
  end)
end)

describe('rp.scan', function()
  it('runs a step n times, each a layer', function()
    local seen = {}
    local x = rp.ones(2, {requires_grad = true})
    local y = rp.scan(function(h, i)
      seen[#seen + 1] = i
      return rp.sin(h * 2)
    end, x, 3)
    assert.same({1, 2, 3}, seen)
    local layers = y:sum():plan():graph().layers
    assert.equal(3, #layers)
    assert.equal('scan.2', layers[2].name)
    local want = rp.sin(rp.sin(rp.sin(x * 2) * 2) * 2)
    assert.same(want:totable(), y:totable())
  end)

  it('carries any state', function()
    local state = rp.scan(function(s, i) return {s[1] + i, s[2] * 2} end,
      {rp.zeros(1), rp.ones(1)}, 4)
    assert.equal(10, state[1]:item())
    assert.equal(16, state[2]:item())
  end)

  it('says what it wants', function()
    assert.error_matches(function() rp.scan(rp.ones(1), rp.ones(1), 3) end,
      'the step comes first')
    assert.error_matches(function() rp.scan(function(h) return h end, rp.ones(1), 0) end,
      'n is a whole number of at least 1, not 0')
  end)
end)
