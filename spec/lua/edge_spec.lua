-- Reductions run inside the group of elementwise ops that they alone read:
-- nothing of full size is written, and the bits are those of the ops one by
-- one, whatever the shape, the dims, the dtype and the number of threads.

local rp = require 'reprise'
local chains = require 'spec.support.chains'
local raw = require 'spec.support.raw'
local run = require 'spec.support.run'
local nn, both = rp.nn, run.fused_and_apart

local function ops_of(plan)
  local list = {}
  for _, node in ipairs(plan:graph().nodes) do list[#list + 1] = node.op end
  return table.concat(list, ' ')
end

local function plan_of(t)
  t:run()
  return rp.last_plan()
end

local function ops(t) return ops_of(plan_of(t)) end

--- All numbers of t to the last bit, NaN and -0 among them.
local function bits(t)
  local list = raw.read(t:run().ptr)
  for i, value in ipairs(list) do list[i] = ('%.17g'):format(value) end
  return table.concat(list, ' ')
end

local folds = {'sum', 'mean', 'max', 'min'}

--- The dims of a set of them, given as a number.
local function dims_of(rank, set)
  local dims = {}
  for d = 1, rank do
    if math.floor(set / 2 ^ (d - 1)) % 2 == 1 then dims[#dims + 1] = d end
  end
  return #dims == 1 and dims[1] or dims
end

--- fn makes a tensor: its bits fused and apart, on one thread and on three.
local function assert_same_bits(fn, message)
  local fused, apart = both(function() return bits(fn()) end)
  assert.same(apart, fused, message)
  local before = rp.get_num_threads()
  rp.set_num_threads(3)
  local ok, again = pcall(function() return bits(fn()) end)
  rp.set_num_threads(before)
  assert.is_true(ok, again)
  assert.same(apart, again, message)
end

describe('a reduction at the edge of a group', function()
  setup(run.quiet)
  teardown(run.loud)

  local shapes = {
    {7}, {9000}, {70001}, {0}, {5, 3}, {64, 129}, {300, 10}, {3000, 17}, {2, 5000}, {3, 4111},
    {40, 1500}, {0, 4}, {4, 0}, {1, 1}, {6, 1, 33}, {5, 40, 20}, {3, 1, 50, 33}, {4, 3, 7, 130},
  }
  for _, dtype in ipairs {'f32', 'f64', 'bf16'} do
    it('changes no bit of random chains, ' .. dtype, function()
      local joined, which = 0, 0
      for _, shape in ipairs(shapes) do
        local empty = false
        for _, n in ipairs(shape) do empty = empty or n == 0 end
        for set = 1, 2 ^ #shape - 1 do
          which = which + 1
          local function made()
            rp.manual_seed(which)
            chains.seed(which)
            local x = chains.of(chains.operands(shape, dtype), 1 + chains.draw(5))
            if dtype == 'bf16' then x = x:to 'f32' end
            local fold = folds[chains.draw(empty and 2 or 4)]
            return x[fold](x, dims_of(#shape, set), chains.draw(2) == 1)
          end
          local ends = ops(made()):match '[%+ ]([a-z]+)$'
          assert.is_truthy(ends)
          if ops(made()):find('%+' .. ends .. '$') then joined = joined + 1 end
          assert_same_bits(made, table.concat(shape, 'x') .. ' set ' .. set)
        end
      end
      assert.is_true(joined > which * 0.9)
    end)
  end

  it('sees infinities, NaN and zeros of either sign as the ops apart do', function()
    for _, dtype in ipairs {'f32', 'f64'} do
      local list = {}
      for i = 1, 5000 do list[i] = i % 3 == 0 and -0.0 or 0.0 end
      for _, special in ipairs {{}, {[4999] = 0 / 0}, {[1] = 1 / 0},
                                {[2100] = -1 / 0, [3000] = 0 / 0}} do
        for i, value in pairs(special) do list[i] = value end
        local x = rp.tensor(list, {dtype = dtype})
        for _, shape in ipairs {{5000}, {2, 2500}, {1250, 4}} do
          for _, fold in ipairs(folds) do
            assert_same_bits(function() return rp[fold](x:reshape(shape):neg(), 1) end)
            assert_same_bits(function() return rp[fold](x:reshape(shape):neg()) end)
          end
        end
      end
    end
  end)

  it('takes one element, and what is seen with other dims', function()
    local one = rp.randn({}):run()
    assert.equal('mul+sum', ops((one * 2):sum()))
    assert_same_bits(function() return (one * 2):sum() end)
    local x = rp.randn(6, 5, 40):run()
    assert.equal('exp+sum', ops(x:exp():reshape(30, 40):sum(1)))
    assert_same_bits(function() return x:exp():reshape(30, 40):sum(1) end)
    assert.equal('exp+mean', ops(x:exp():reshape(50, 24):mean(-1)))
    assert_same_bits(function() return x:exp():reshape(50, 24):mean(-1) end)
    -- Not in the order in which it is made.
    assert.is_nil(ops(x:exp():permute(3, 1, 2):sum(-1)):find('exp+sum', 1, true))
    assert_same_bits(function() return x:exp():permute(3, 1, 2):sum(-1) end)
  end)

  it('draws what dropout draws by itself', function()
    for _, shape in ipairs {{5000}, {123, 45}, {7, 4111}} do
      local x = rp.randn(shape):run()
      for _, dims in ipairs {{}, {1}, {-1}} do
        local function made()
          rp.manual_seed(7)
          return (rp.dropout(x * 2, 0.4) + x):sum(dims[1])
        end
        assert.equal('mul+dropout+add+sum', ops(made()))
        assert_same_bits(made)
      end
    end
  end)

  it('is the whole loss, and takes no memory of its size', function()
    local p, t = rp.randn(512, 700):run(), rp.randn(512, 700):run()
    local loss = plan_of(((p - t) ^ 2):mean())
    assert.equal('sub+square+mean', ops_of(loss))
    -- A piece for each of two threads, twice, and eleven partial sums.
    local a_thread = 2 * 2048 * 4
    assert.is_true(loss.live_bytes <= rp.get_num_threads() * a_thread + 512)
    local columns = plan_of((p * t):sum(1))
    assert.equal('mul+sum', ops_of(columns))
    assert.is_true(columns.live_bytes <= 512 * 700)
    assert.equal('sub+square+sum sqrt', ops((p - t):norm()))
    assert.equal('sub+abs+max', ops((p - t):norm(math.huge)))
  end)

  it('stops at what others read, at layers, marks, results and kept values', function()
    local x = rp.randn(32, 32):run()
    assert.equal('exp cumsum sum add', ops((function()
      local y = x:exp()
      return y:cumsum(1) + y:sum()
    end)()))
    assert.equal('exp sum', ops(x:exp():keep():sum()))
    assert.equal('exp sum', ops(rp.checkpoint(function() return x:exp() end):sum()))
    assert.equal('exp sum', ops(rp.layer('a', function() return x:exp() end)():sum()))
    local y = x:exp()
    rp.run(y, y:sum())
    assert.equal('exp sum', ops_of(rp.last_plan()))
    -- Integers have their own order: none.
    assert.equal('gt sum', ops(x:gt(0):sum()))
    assert.equal('exp var', ops(x:exp():var()))
  end)

  it('lets backward make again in its own group what forward makes in passing', function()
    local start, t = rp.randn(300, 200):run(), rp.randn(300, 200):run()
    local p = nn.Parameter(start)
    local function list(loss) return ops_of(loss:plan {ckpt = 'none'}) end
    assert.equal('sub+square+mean mul sub+mul+mul assign', list(((p - t) ^ 2):mean()))
    assert.equal('exp+sum exp+mul assign', list(p:exp():sum()))
    -- Neither side may write what the other could keep: a product's operand.
    local w = nn.Parameter(rp.randn(200, 3):run())
    local h = rp.matmul((p - t):tanh(), w)
    assert.is_truthy(list(h:square():sum()):find('sub+tanh matmul', 1, true))
    -- Of full size: the gradient.
    local value = 300 * 200 * 4
    local function deep() return (((p - t):square() + 1):sqrt() * 2):mean() end
    assert.is_true(deep():plan({ckpt = 'none'}).live_bytes < 1.5 * value)
    for _, fn in ipairs {deep, function() return (rp.dropout(p, 0.5):exp() - t):abs():sum() end,
                         function() return ((p * t):exp() * (p - 1)):sum(1):square():mean() end} do
      for _, spec in ipairs {'none', 'nodes=1', 'nodes=2', 'budget=min'} do
        local fused, apart = both(function()
          rp.manual_seed(3)
          p = nn.Parameter(start)
          local loss = fn()
          local plan = loss:plan {ckpt = spec}
          loss:backward {ckpt = spec}
          assert.equal(plan.peak_bytes, rp.last_plan():measured_peak())
          return {loss:item(), bits(p.grad)}
        end)
        assert.same(apart, fused, spec)
      end
    end
  end)

  it('gives a bias its gradient from what a group makes', function()
    local x, start = rp.randn(400, 60):run(), rp.randn(60):run()
    local b = nn.Parameter(start)
    local plan = (x + b):gelu():sum():plan {ckpt = 'none'}
    assert.is_truthy(ops_of(plan):find('gelu_grad+sum_to', 1, true))
    local fused, apart = both(function()
      b = nn.Parameter(start);
      (x + b):gelu():sum():backward()
      return bits(b.grad)
    end)
    assert.same(apart, fused)
  end)
end)
