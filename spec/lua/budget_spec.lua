-- budget=SIZE: the whole peak never exceeds it, a larger one is never slower,
-- and one that cannot be met is refused with the least that can.

local rp = require 'reprise'
local models = require 'spec.support.models'
local run = require 'spec.support.run'

setup(run.quiet)
teardown(run.loud)

local BUDGETS = 50

--- What budget=BYTES answers for a loss, from one front: it does not depend on
-- the budget, and making it is what takes time.
local function budgeted(loss)
  local graph
  loss:plan {ckpt = function(given)
    local front = given.front()
    graph = given
    graph.front = function() return front end
    return {}
  end}
  return function(bytes)
    local answer = rp.ckpt.resolve({budget = bytes}).apply(graph)
    return loss:plan {ckpt = function() return answer end}
  end, graph.front()[1].peak_bytes
end

local function least_of(loss)
  local ok, message = pcall(loss.plan, loss, {ckpt = 'budget=1'})
  assert.is_false(ok)
  local bytes = message:match 'the least for this model is [%d%.]+ %a+ %((%d+) bytes%)'
  return tonumber(bytes), message
end

for _, name in ipairs(models.names) do
  describe('a budget for ' .. name, function()
    local made, loss

    before_each(function()
      made = run.model(name)
      loss = made.loss()
    end)

    it('is kept, and more memory is never slower', function()
      local most = loss:plan({ckpt = 'none'}).peak_bytes
      local plan_within, least = budgeted(loss)
      local before, seconds = 0, math.huge
      for k = 0, BUDGETS - 1 do
        local budget = math.floor(least + (most - least) * k / (BUDGETS - 2))
        local plan = plan_within(budget)
        assert.is_true(plan.peak_bytes <= budget)
        assert.is_true(plan.peak_bytes >= before)
        assert.is_true(plan.step_seconds <= seconds)
        before, seconds = plan.peak_bytes, plan.step_seconds
      end
      -- In `none`'s bytes a light value or two may be kept all the same.
      local none = loss:plan {ckpt = 'none'}
      assert.is_true(seconds <= none.step_seconds)
    end)

    it('that cannot be met is refused with the least, which can', function()
      local least, message = least_of(loss)
      assert.matches('budget 1 B %(1 bytes%) cannot be met', message)
      assert.equal(least, loss:plan({ckpt = {budget = least}}).peak_bytes)
      assert.equal(least, loss:plan({ckpt = 'budget=min'}).peak_bytes)
      assert.has_error(function() loss:plan {ckpt = {budget = least - 1}} end)
    end)

    it('is the peak that the run has, bits as under none', function()
      local function gradients(ckpt)
        for _, p in ipairs(made.parameters) do p.grad = nil end
        rp.manual_seed(3)
        local fresh = made.loss()
        fresh:backward {ckpt = ckpt}
        return run.gradients(made.parameters), rp.last_plan()
      end
      local want = gradients 'none'
      for _, spec in ipairs {'budget=min', 'budget=60%', 'budget=85%'} do
        local ok, got, plan = pcall(gradients, spec)
        if ok then
          assert.same(want, got)
          assert.equal(plan.peak_bytes, plan:measured_peak())
        else
          assert.matches('cannot be met', got)
        end
      end
    end)
  end)
end

describe('blocks', function()
  local GPT = require 'examples.models.gpt'

  --- {blocks, least = bytes of the arena} with tokens that are held or not.
  local function front_of(held)
    local model = GPT {vocabulary = 17, seq = 16, layers = 4, heads = 2,
                       width = 16, dropout = 0.1}
    local ids = rp.randint(0, 16, {4, 16}, {dtype = 'i32'})
    if held then ids:run() end
    local found
    rp.cross_entropy(model(ids), ids):plan {ckpt = function(graph)
      found = {blocks = #graph.blocks,
               least = graph.front()[1].peak_bytes - graph.persistent_bytes}
      return {}
    end}
    return found
  end

  it('are not joined by what needs no gradient', function()
    local held, recorded = front_of(true), front_of(false)
    assert.is_true(held.blocks > 8)
    -- The tokens' recipe is one more; their bytes are in the arena now.
    assert.equal(held.blocks + 1, recorded.blocks)
    assert.is_true(recorded.least <= held.least + 4 * 16 * 4)
  end)

  it('end where frozen layers hand over one value', function()
    local function blocks_of(made)
      local count
      made.loss():plan {ckpt = function(graph)
        count = #graph.blocks
        return {}
      end}
      return count
    end
    assert.equal(blocks_of(run.model 'mlp'), blocks_of(run.model 'frozen'))
  end)
end)

describe('a long chain', function()
  local kinds = {'exp', 'sin', 'gelu', 'tanh'}

  local function chain_of(steps, kind_of)
    local x = rp.ones(4, 4, {requires_grad = true})
    local front, graph
    rp.scan(function(h, i) return rp[kinds[kind_of(i)]](h) end, x, steps):sum():plan {
      ckpt = function(given)
        graph, front = given, given.front()
        return {}
      end}
    return front.chain, graph
  end

  it('whose blocks repeat is solved as it is', function()
    local chain, graph = chain_of(300, function(i) return i % 4 + 1 end)
    assert.equal(#graph.blocks, chain.n_blocks)
    assert.equal(chain.n_blocks, chain.n_solved)
    assert.is_true(chain.n_kinds <= 8)
    assert.equal(0, chain.lost_time)
  end)

  it('that does not repeat is merged, and the loss told', function()
    local state = 7
    local before = rp.fusion(false) -- fused, merging happens to lose nothing
    local chain = chain_of(520, function()
      state = state * 48271 % 2147483647
      return state % 4 + 1
    end)
    rp.fusion(before)
    assert.is_true(chain.n_solved < chain.n_blocks)
    -- Merged blocks have more ways to run: it may even gain.
    assert.is_true(chain.lost_time ~= 0 and math.abs(chain.lost_time) < 0.2)
    assert.matches('blocks were solved as',
      require 'reprise.report.plan'.coarsened(chain))
  end)
end)

describe('a plan of single values', function()
  local summary = require 'reprise.report.summary'

  --- Points of a U-Net's front that are explicit programs, with their plans.
  local function explicit()
    local loss = run.model('unet').loss()
    local front
    loss:plan {ckpt = function(graph)
      front = graph.front()
      return {}
    end}
    local list = {}
    for _, point in ipairs(front) do
      if point.answer.program and #list < 6 then
        list[#list + 1] = {point, loss:plan {ckpt = function() return point.answer end}}
      end
    end
    return list
  end

  it('is reported as it runs', function()
    local list = explicit()
    assert.is_true(#list > 0)
    for _, pair in ipairs(list) do
      local point, plan = pair[1], pair[2]
      assert.equal(point.peak_bytes, plan.peak_bytes)
      assert.near(point.seconds, plan.step_seconds, 1e-12)
      local times, again, most = {}, 0, 0
      for _, step in ipairs(point.answer.program) do
        if step > 0 then times[step] = (times[step] or 0) + 1 end
      end
      for _, n in pairs(times) do
        if n > 1 then again = again + 1 end
        most = math.max(most, n - 1)
      end
      local told = summary.of(plan)
      assert.equal(again, told.recomputed_nodes)
      assert.equal(most, told.most_replays)
      local runs, replays = 0, 0
      for _, n in pairs(times) do runs, replays = runs + n, replays + n - 1 end
      assert.equal(replays, told.n_replays)
      assert.is_true(runs <= plan.n_runs)
      assert.equal(0, told.n_segments)
      local seconds = 0
      for _, step in ipairs(plan:instructions()) do
        if step.run and step.replay then
          seconds = seconds + plan:graph().nodes[step.run].seconds
        end
      end
      assert.near(seconds, plan.replay_seconds, 1e-12)
      local parts = 0
      for _, part in ipairs(require 'reprise.report.plan'.parts(told)) do
        parts = parts + part[2]
      end
      assert.equal(plan.peak_bytes, parts)
      local path = os.tmpname()
      require 'reprise.report.picture'(plan, 'U-Net'):save(path)
      local file = io.open(path)
      assert.matches('<svg', file:read '*a')
      file:close()
      os.remove(path)
    end
  end)
end)

describe('a budget', function()
  it('is planned for a loss that the backward pass makes, with no forward pass', function()
    local x = rp.randn(64, 32):run()
    local w = rp.nn.Parameter(rp.randn(100, 32))
    local labels = rp.randint(0, 100, {64}):run()
    local function plan(spec)
      return rp.linear_cross_entropy(x, w, labels):plan {ckpt = spec}
    end
    assert.equal(0, plan('none'):graph().n_forward)
    assert.equal(plan('none').peak_bytes, plan('budget=min').peak_bytes)
  end)

  it('is a share of what none needs above the persistent bytes', function()
    local loss = run.model('mlp').loss()
    local none = loss:plan {ckpt = 'none'}
    local plan = loss:plan {ckpt = 'budget=90%'}
    assert.is_true(plan.arena_bytes <= 0.9 * none.arena_bytes)
    assert.equal(none.peak_bytes, loss:plan({ckpt = 'budget=100%'}).peak_bytes)
  end)

  it('is refused when it is no amount', function()
    local function reason(spec) return (select(2, rp.ckpt.parse(spec))) end
    assert.matches('^abc is no amount: bytes, as in budget=2GiB', reason 'budget=abc')
    assert.matches('^%-1 is no amount', reason 'budget=-1')
    assert.matches('^0 is no amount', reason 'budget=0')
    assert.matches('^0%%: a share is above 0 %% and at most 100 %%', reason 'budget=0%')
    assert.matches('^400%%: a share is above 0', reason 'budget=400%')
    assert.matches('^the amount is missing', reason 'budget')
  end)
end)
