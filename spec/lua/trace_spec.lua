-- What a trace says is what the plans say, and what the clock says.

local cjson = require 'cjson'
local clock = require 'reprise.report.clock'
local rp = require 'reprise'
local run = require 'spec.support.run'

describe('rp.trace', function()
  setup(run.quiet)
  teardown(run.loud)

  local made, opt
  before_each(function()
    made = run.model 'gpt'
    opt = rp.optim.AdamW(made.parameters, {lr = 1e-3})
  end)

  local function step(spec)
    opt:minimize(made.loss(), {ckpt = spec})
  end

  it('notes every RUN of every program, in order, recomputations as such', function()
    step 'every=1'
    local started = clock()
    local events = rp.trace(function()
      step 'every=1'
      step 'every=1'
    end):events()
    local took = clock() - started
    local plan, counts, total = rp.last_plan(), {}, 0
    assert.equal(2 * plan.n_runs, #events)
    for i, event in ipairs(events) do
      counts[event.kind] = (counts[event.kind] or 0) + 1
      total = total + event.seconds
      assert.is_true(event.seconds >= 0)
      if i > 1 then
        local before = events[i - 1]
        assert.is_true(event.start_ns >= before.start_ns + 1e9 * before.seconds - 1)
      end
    end
    assert.equal(2 * plan.n_replays, counts.replay)
    assert.is_true(total > 0 and total <= took)
    local most = 0
    for _, event in ipairs(events) do most = math.max(most, event.live_bytes) end
    assert.equal(plan.live_bytes, most)
  end)

  it('is off when it is stopped, and changes no bit', function()
    step 'none'
    local trace = rp.trace()
    step 'none'
    trace:stop()
    local n = #trace:events()
    step 'none'
    assert.equal(n, #trace:events())
    assert.equal(rp.last_plan().n_runs, n)

    local losses = {}
    for i = 1, 2 do
      made = run.model 'gpt'
      rp.manual_seed(3)
      local loss = made.loss()
      if i == 1 then loss:backward()
      else rp.trace(function() loss:backward() end) end
      losses[i] = loss:item()
    end
    assert.equal(losses[1], losses[2])
  end)

  it('survives an error in what it watches', function()
    assert.has_error(function() rp.trace(function() error('mine', 0) end) end,
      'mine')
    local trace = rp.trace()
    assert.has_error(function() rp.trace() end,
      '[trace] a trace is on already; stop it first: trace:stop()')
    trace:stop()
    assert.same({}, trace:events())
  end)

  it('writes what Chrome reads', function()
    local path = os.tmpname()
    local trace = rp.trace(function() step 'every=1' end):save(path)
    local file = io.open(path)
    local object = cjson.decode(file:read '*a')
    file:close()
    os.remove(path)
    local rows, runs, counters = {}, {}, {}
    for _, event in ipairs(object.traceEvents) do
      if event.ph == 'M' then rows[event.tid] = event.args.name end
      if event.ph == 'X' then runs[#runs + 1] = event end
      if event.ph == 'C' then counters[#counters + 1] = event end
    end
    local events = trace:events()
    assert.equal(#events, #runs)
    assert.equal(#events, #counters)
    local replays = 0
    for i, event in ipairs(runs) do
      assert.equal(events[i].name, event.name)
      assert.equal(event.args.recomputed, rows[event.tid] == 'recomputed')
      if event.args.recomputed then replays = replays + 1 end
      local total = 0
      for _, bytes in pairs(counters[i].args) do total = total + bytes end
      assert.equal(event.args.live_bytes + rp.last_plan().persistent_bytes, total)
    end
    assert.equal(rp.last_plan().n_replays, replays)
  end)
end)
