-- Long computations with scalars: thousands of values of the least size.

local rp = require 'reprise'
local run = require 'spec.support.run'

describe('a chain of thousands of scalars', function()
  setup(run.quiet)
  teardown(run.loud)

  local STEPS = 2000

  --- The sum of x_i = sin(a x_(i-1)) + w_i, x_0 = 1, and its derivative by a.
  local function by_hand(a, weight)
    local x, d, sum, d_sum = 1, 0, 0, 0
    for i = 1, STEPS do
      d = math.cos(a * x) * (x + a * d)
      x = math.sin(a * x) + weight(i)
      sum, d_sum = sum + x, d_sum + d
    end
    return sum, d_sum
  end

  local function recorded(a, weight)
    local x, sum = rp.full({}, 1, {dtype = 'f64'}), nil
    for i = 1, STEPS do
      x = rp.sin(a * x) + weight(i)
      sum = sum and sum + x or x
    end
    return sum
  end

  local function near(want, got) assert.near(1, got / want, 1e-10) end

  for _, spec in ipairs {'none', 'sqrt', 'nodes=8'} do
    it('has its gradient and no more bytes than are alive, under ' .. spec, function()
      local a = rp.nn.Parameter(rp.full({}, 0.9, {dtype = 'f64'}))
      local loss = recorded(a, function() return 0 end)
      local plan = loss:plan {ckpt = spec}
      assert(plan.n_instructions > 6 * STEPS)
      assert(plan.arena_bytes <= plan.live_bytes * (1 + 1 / 256))
      loss:backward {ckpt = spec}
      local want, d_want = by_hand(0.9, function() return 0 end)
      near(want, loss:item())
      near(d_want, a.grad:item())
    end)
  end

  it('is planned among larger values as well', function()
    local a = rp.nn.Parameter(rp.full({}, 0.9, {dtype = 'f64'}))
    -- 700 elements, then 1 to 3 more, so that no two sizes are the rule.
    local function weight(i)
      if i % 20 ~= 0 then return 0 end
      return (rp.ones(700 + i % 3, {dtype = 'f64'}) * a):sum() * 1e-4
    end
    local loss = recorded(a, weight)
    local plan = loss:plan()
    assert(plan.arena_bytes <= plan.live_bytes * 1.05)
    loss:backward()
    local function value(x)
      local sum = by_hand(x, function(i)
        return i % 20 == 0 and (700 + i % 3) * x * 1e-4 or 0
      end)
      return sum
    end
    near(value(0.9), loss:item())
    local step = 1e-6
    local difference = (value(0.9 + step) - value(0.9 - step)) / (2 * step)
    assert.near(1, a.grad:item() / difference, 1e-6)
  end)
end)
