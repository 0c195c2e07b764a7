-- Products that make an operand, or hand on their result, in tiles: to the bits
-- of the ops one by one, forward and backward, and without what they are to
-- leave out.

local rp = require 'reprise'
local raw = require 'spec.support.raw'
local run = require 'spec.support.run'
local nn, both = rp.nn, run.fused_and_apart

local MIB = 2 ^ 20

local function ops_of(plan)
  local list = {}
  for _, node in ipairs(plan:graph().nodes) do list[#list + 1] = node.op end
  return ' ' .. table.concat(list, ' ') .. ' '
end

local function has(plan, op) return ops_of(plan):find(' ' .. op .. ' ', 1, true) ~= nil end

--- How many nodes hold a product and more.
local function tiled(plan)
  local n = 0
  for _, node in ipairs(plan:graph().nodes) do
    local product = (node.op .. '+'):find 'linear%+' or (node.op .. '+'):find 'matmul%+'
    if product and node.op:find('+', 1, true) then n = n + 1 end
  end
  return n
end

local function values_of(tensors)
  local list = {}
  for i, t in ipairs(tensors) do
    t:run()
    list[i] = raw.read(t.ptr)
  end
  return list
end

local function same(apart, fused, what)
  assert.equal(#apart, #fused)
  for i = 1, #apart do
    local problem = raw.bit_difference(fused[i], apart[i])
    if problem then error(('%s: tensor %d: %s'):format(what, i, problem), 2) end
  end
end

local state = 1
local function draw(n)
  state = (state * 1103515245 + 12345) % 2147483648
  return math.floor(state / 65536) % n + 1
end

local unary = {'gelu', 'tanh', 'relu', 'silu', 'sigmoid', 'square'}

--- One to three elementwise ops; at most one draws.
local function chain(x, others, may_drop)
  for _ = 1, draw(3) do
    local kind = draw(5)
    if kind <= 2 then
      x = x[unary[draw(#unary)]](x)
    elseif kind == 3 and may_drop then
      x, may_drop = rp.dropout(x, 0.3), false
    elseif kind == 4 then
      x = x * others[draw(#others)]
    else
      x = x + others[draw(#others)]
    end
  end
  return x
end

--- Two products with elementwise ops around them and a loss: (rows, inner) is
-- what lies between them. Returns the parameters and the loss.
local function network(rows, inner, width, dtype)
  local parameters = {}
  local function parameter(...)
    local p = nn.Parameter(rp.randn(..., {dtype = dtype}) * 0.1)
    parameters[#parameters + 1] = p
    return p
  end
  local function others(n)
    return {rp.randn(rows, n, {dtype = dtype}):run(), rp.randn(n, {dtype = dtype}):run(),
            rp.randn(rows, 1, {dtype = dtype}):run(), rp.randn(n, rows, {dtype = dtype}):run():t()}
  end
  local x = parameter {rows, width}
  local pre
  if draw(2) == 1 then
    pre = rp.linear(x, parameter {inner, width}, draw(2) == 1 and parameter {inner} or nil)
  else
    pre = rp.matmul(x, parameter {width, inner})
  end
  local random = draw(3)
  local act = chain(pre, others(inner), random == 1)
  if draw(3) == 1 then act = act * rp.linear(x, parameter {inner, width}) end
  local kind, n, out = draw(4), width
  if kind == 1 then
    out = rp.linear(act, parameter {width, inner}, draw(2) == 1 and parameter {width} or nil)
  elseif kind == 2 then
    out = rp.matmul(act, parameter {inner, width})
  elseif kind == 3 then
    out = rp.matmul(act:t(), parameter {rows, width})
  else
    out, n = rp.matmul(parameter {width, rows}, act), inner
  end
  if kind <= 2 then out = chain(out, others(n), random == 2) end
  return parameters, out:to('f32'):square():sum()
end

describe('tiled products', function()
  setup(run.quiet)
  teardown(run.loud)

  for _, dtype in ipairs {'f32', 'bf16'} do
    it('change no bit of random networks, ' .. dtype, function()
      local some = 0
      for seed = 1, 12 do
        local wide = dtype == 'bf16' and 2 or 1
        local rows = ({1024, 1100, 2048 + 13, 800})[seed % 4 + 1]
        local inner = math.ceil(4.1 * MIB / 4 / rows) * wide + 5 * (seed % 3)
        for _, spec in ipairs {'none', 'budget=min'} do
          local fused, apart = both(function()
            rp.manual_seed(seed)
            state = seed
            local parameters, loss = network(rows, inner, 64 + 32 * (seed % 5), dtype)
            some = some + tiled(loss:plan())
            loss:backward {ckpt = spec}
            local list = {loss}
            for _, p in ipairs(parameters) do list[#list + 1] = p.grad end
            return values_of(list)
          end)
          same(apart, fused, ('seed %d, %s'):format(seed, spec))
        end
      end
      assert.is_true(some > 30, some .. ' nodes')
    end)
  end

  --- gelu between two products, as inner does it; h is (1024, 1024).
  local function mlp(inner, dtype)
    local x = rp.randn(1024, 96, {dtype = dtype}):run()
    local first = nn.Parameter(rp.randn(1024, 96, {dtype = dtype}))
    local second = nn.Parameter(rp.randn(64, 1024, {dtype = dtype}))
    return inner(rp.linear(x, first), second):sum()
  end

  it('hold what they make nowhere as a whole', function()
    local fused, apart = both(function()
      return mlp(function(h, w) return rp.linear(h:gelu(), w) end):plan {ckpt = 'none'}
    end)
    assert.is_true(has(fused, 'gelu+linear'))
    assert.is_true(has(fused, 'gelu+matmul'))
    assert.is_true(has(fused, 'matmul+gelu_grad'))
    -- Gelu's input and, made again or as a gradient, its output: 4 MiB each. As one
    -- the gradient of the input lies over it, a tile of 1 to 3 MiB is beside it.
    assert.is_true(apart.live_bytes >= 8 * MIB)
    assert.is_true(fused.live_bytes <= 7 * MIB)
  end)

  it('are the same under every strategy', function()
    local loss = mlp(function(h, w) return rp.linear(h:gelu(), w) end)
    local none = ops_of(loss:plan {ckpt = 'none'})
    for _, spec in ipairs {'nodes=1', 'ops', 'budget=min'} do
      assert.equal(none, ops_of(loss:plan {ckpt = spec}))
    end
  end)

  it('stop at kept values, layers, marks and results, and at what others read', function()
    local function takes(inner, dtype)
      return has(mlp(inner, dtype):plan {ckpt = 'none'}, 'gelu+linear')
    end
    assert.is_true(takes(function(h, w) return rp.linear(h:gelu(), w) end))
    assert.is_false(takes(function(h, w) return rp.linear(h:gelu(), w) end, 'f64'))
    assert.is_false(takes(function(h, w) return rp.linear(h:gelu():keep(), w) end))
    assert.is_false(takes(function(h, w)
      return rp.linear(rp.layer('a', function() return h:gelu() end)(), w)
    end))
    assert.is_false(takes(function(h, w)
      return rp.linear(rp.checkpoint(function() return h:gelu() end), w)
    end))
    assert.is_false(takes(function(h, w)
      local a = h:gelu()
      return rp.linear(a, w) + a:mean(-1, true)
    end))
    -- 2 MiB.
    assert.is_false(takes(function(h, w)
      return rp.linear(h:narrow(1, 1, 512):gelu(), w)
    end))
    local before = rp.detect_anomaly(true)
    local watched = takes(function(h, w) return rp.linear(h:gelu(), w) end)
    rp.detect_anomaly(before)
    assert.is_false(watched)
  end)

  it('tell a strategy that they are costly, and what is random', function()
    local plan = mlp(function(h, w) return rp.linear(rp.dropout(h:gelu(), 0.5), w) end)
      :plan {ckpt = 'none'}
    for _, node in ipairs(plan:graph().nodes) do
      if node.op == 'gelu+dropout+linear' then
        assert.is_true(node.costly)
        assert.is_true(node.random)
        return
      end
    end
    error(ops_of(plan))
  end)
end)
