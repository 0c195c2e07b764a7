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
      assert.matches('budget 0.0 MiB %(1 bytes%) cannot be met', message)
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

describe('a budget', function()
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
