-- linear_cross_entropy and the gradient that makes its loss too; values by op
-- are golden_spec's and gradcheck_spec's.

local rp = require 'reprise'
local raw = require 'spec.support.raw'
local run = require 'spec.support.run'

local nn = rp.nn

local function values(seed, shape, dtype, lo, hi)
  return rp.tensor(raw.fill(seed, shape, lo, hi), {dtype = dtype}):reshape(shape)
end

local function labels_of(seed, n, classes, ignored)
  local list = raw.fill(seed, {n}, 0, classes)
  for i = 1, n do
    list[i] = ignored and i % 3 == 0 and ignored or math.floor(list[i])
  end
  return rp.tensor(list, {dtype = 'i64'})
end

local function problem_of(n, width, classes, dtype, ignored)
  return {
    x = nn.Parameter(values(1, {n, width}, dtype, -2, 2)),
    w = nn.Parameter(values(2, {classes, width}, dtype)),
    bias = nn.Parameter(values(3, {classes}, dtype)),
    labels = labels_of(4, n, classes, ignored),
    options = {ignore_index = ignored},
  }
end

local function with_bias(p)
  return {bias = p.bias, ignore_index = p.options.ignore_index,
          reduction = p.options.reduction}
end

local function fused(p)
  return rp.linear_cross_entropy(p.x, p.w, p.labels, with_bias(p))
end

local function separate(p)
  return rp.cross_entropy(rp.linear(p.x, p.w, p.bias), p.labels, p.options)
end

local function parameters_of(p) return {p.x, p.w, p.bias} end

--- The loss and all gradients of one backward pass.
local function after_backward(p, loss, options)
  for _, leaf in ipairs(parameters_of(p)) do leaf.grad = nil end
  loss:backward(options)
  local out = run.gradients(parameters_of(p))
  out[4] = {loss:item()}
  return out
end

local function assert_near(want, got, tolerance, what)
  for i = 1, #want do
    local problem = raw.difference(got[i], want[i], tolerance)
    if problem then error(('%s, number %d: %s'):format(what, i, problem), 2) end
  end
end

local function assert_same_bits(want, got, what)
  for i = 1, #want do
    local problem = raw.bit_difference(got[i], want[i])
    if problem then error(('%s, number %d: %s'):format(what, i, problem), 2) end
  end
end

--- How often each op is in the plan of a backward pass.
local function ops_of(plan)
  local count = {}
  for _, node in ipairs(plan:graph().nodes) do
    count[node.op] = (count[node.op] or 0) + 1
  end
  return count
end

describe('linear_cross_entropy', function()
  setup(run.quiet)
  teardown(run.loud)

  -- Rows around the least chunk of 128 and its grain of 16; few and many
  -- classes; 9001 classes of f32 make chunks of 128 rows.
  local shapes = {{1, 3, 5}, {5, 1, 1}, {37, 4, 1}, {127, 3, 9001},
                  {129, 3, 9001}, {300, 2, 9001}, {400, 8, 65}}
  -- f32: sums of up to 9001 terms in another order.
  for dtype, tolerance in pairs {f64 = 1e-12, f32 = 2e-5} do
    it('is the separate ops, loss and gradients: ' .. dtype, function()
      for _, shape in ipairs(shapes) do
        for _, ignored in ipairs {-100, 0} do
          for _, reduction in ipairs {'mean', 'sum'} do
            local p = problem_of(shape[1], shape[2], shape[3], dtype, ignored)
            p.options.reduction = reduction
            -- One class, and that one ignored: PyTorch's NaN, below.
            if not (shape[3] == 1 and ignored == 0) then
              assert_near(after_backward(p, separate(p)),
                after_backward(p, fused(p)), tolerance,
                ('%s %s %d'):format(table.concat(shape, 'x'), reduction, ignored))
            end
          end
        end
      end
    end)
  end

  it('has the same bits alone and with its gradient', function()
    for _, shape in ipairs(shapes) do
      local p = problem_of(shape[1], shape[2], shape[3], 'f32', 2)
      local alone = rp.no_grad(function() return fused(p) end):item()
      local early = fused(p)
      assert.equal(alone, early:item())
      local kept = after_backward(p, fused(p))
      assert.equal(alone, kept[4][1])
      assert_same_bits(kept, after_backward(p, early), 'run before backward')
    end
  end)

  it('is one node of a program that differentiates it', function()
    local p = problem_of(6, 4, 7, 'f32')
    local count = ops_of(fused(p):plan())
    assert.equal(1, count.linear_cross_entropy_grad)
    assert.is_nil(count.linear_cross_entropy)
    assert.is_nil(count.linear)
    -- Also where the forward pass goes on from the loss.
    count = ops_of((fused(p) * 0.5 + p.x:sum()):plan())
    assert.equal(1, count.linear_cross_entropy_grad)
    assert.is_nil(count.linear_cross_entropy)
    -- Two losses are two.
    local q = problem_of(6, 4, 7, 'f32')
    count = ops_of((fused(p) + fused(q)):plan())
    assert.equal(2, count.linear_cross_entropy_grad)
    assert.is_nil(count.linear_cross_entropy)
  end)

  it('makes no gradient where none is wanted', function()
    local p = problem_of(6, 4, 7, 'f32')
    rp.run(fused(p))
    assert.same({linear_cross_entropy = 1}, ops_of(rp.last_plan()))
    p.w.requires_grad, p.bias.requires_grad = false, false
    local plan = fused(p):plan()
    for _, instance in ipairs(plan:instances()) do
      if not instance.workspace and
         plan:graph().nodes[instance.node].op == 'linear_cross_entropy_grad' then
        assert.is_true(instance.output <= 2)
      end
    end
    local all = problem_of(6, 4, 7, 'f32')
    assert_same_bits({after_backward(all, fused(all))[1]},
      {after_backward(p, fused(p))[1]}, 'x alone')
    assert.is_nil(p.w.grad)
  end)

  it('never holds the logits', function()
    local n, classes = 4096, 4096
    local p = problem_of(n, 2, classes, 'f32')
    local loss = fused(p)
    -- Chunks of 4 MiB, gradients, a row of numbers for each label, and a
    -- product's scratch.
    assert.is_true(loss:plan().arena_bytes < 4 * n * classes / 8)
    assert.is_true(separate(p):plan().arena_bytes >= 4 * n * classes)
  end)

  it('takes what flows into it as a factor', function()
    local p = problem_of(5, 3, 4, 'f64', 1)
    local once = after_backward(p, fused(p))
    local scaled = after_backward(p, fused(p) * -2.5)
    for i = 1, 3 do
      for k, v in ipairs(once[i]) do
        assert.near(-2.5 * v, scaled[i][k], 1e-15)
      end
    end
    assert_near(after_backward(p, separate(p) ^ 2 + separate(p):tanh()),
      after_backward(p, fused(p) ^ 2 + fused(p):tanh()), 1e-12, 'composed')
  end)

  it('accumulates in .grad', function()
    local p = problem_of(5, 3, 4, 'f64', 1)
    local once = after_backward(p, fused(p) / 2)
    for _, leaf in ipairs(parameters_of(p)) do leaf.grad = nil end
    for _ = 1, 2 do (fused(p) / 2):backward() end
    for i, grads in ipairs(run.gradients(parameters_of(p))) do
      for k, v in ipairs(grads) do assert.equal(2 * once[i][k], v) end
    end
  end)

  it('has PyTorch\'s NaN where no label counts', function()
    local p = problem_of(3, 2, 4, 'f32')
    p.labels = rp.tensor({-100, -100, -100}, {dtype = 'i32'})
    local out = after_backward(p, fused(p))
    assert.is_true(out[4][1] ~= out[4][1])
    assert.same({0, 0, 0, 0, 0, 0}, out[1])
    p.options.reduction = 'sum'
    assert.equal(0, after_backward(p, fused(p))[4][1])
  end)

  it('takes no rows', function()
    local p = problem_of(2, 3, 4, 'f32')
    p.x = nn.Parameter(rp.zeros(0, 3))
    p.labels = rp.zeros({0}, {dtype = 'i64'})
    local out = after_backward(p, fused(p))
    assert.is_true(out[4][1] ~= out[4][1])
    assert.same({0, 0, 0, 0}, out[3])
    for _, v in ipairs(out[2]) do assert.equal(0, v) end
    p.options.reduction = 'sum'
    assert.equal(0, after_backward(p, fused(p))[4][1])
  end)

  it('takes strided features and weights, and any leading dims', function()
    local x = nn.Parameter(values(1, {2, 5, 6}, 'f64'))
    local w = nn.Parameter(values(2, {3, 7}, 'f64'))
    local labels = labels_of(3, 6, 7):reshape(2, 3)
    local function gradients(loss)
      return {raw.read(rp.grad(loss, x).ptr), raw.read(rp.grad(loss, w).ptr)}
    end
    local features = x:narrow(2, 2, 3):narrow(3, 1, 3)
    assert_near(
      gradients(rp.cross_entropy(features:matmul(w), labels)),
      gradients(rp.linear_cross_entropy(features, w:t(), labels)), 1e-12,
      'strided')
    local loss = rp.linear_cross_entropy(features, w:t(), labels)
    assert.equal(1, ops_of(loss:plan()).linear_cross_entropy_grad)
    assert.is_nil(ops_of(loss:plan()).linear_cross_entropy)
  end)

  it('has each row\'s loss without a reduction', function()
    local p = problem_of(5, 3, 4, 'f64', 1)
    p.options.reduction = 'none'
    local rows = fused(p)
    assert.same({5}, rows.shape)
    local total = 0
    for _, v in ipairs(rows:totable()) do total = total + v end
    p.options.reduction = 'sum'
    assert.near(total, fused(p):item(), 1e-13)
    p.options.reduction = 'none'
    local weights = values(9, {5}, 'f64')
    assert_near(after_backward(p, (separate(p) * weights):sum()),
      after_backward(p, (fused(p) * weights):sum()), 1e-12, 'weighted')
  end)

  it('is differentiated twice', function()
    local p = problem_of(5, 3, 4, 'f64', 1)
    local function second(loss)
      local total
      for _, g in ipairs(rp.grad(loss, parameters_of(p))) do
        local part = (g * g):sum()
        total = total and total + part or part
      end
      local out = {}
      for i, g in ipairs(rp.grad(total * loss, parameters_of(p))) do
        out[i] = raw.read(g.ptr)
      end
      return out
    end
    assert_near(second(separate(p)), second(fused(p)), 1e-11, 'second')
  end)

  it('changes no bit under any strategy', function()
    local p = problem_of(300, 4, 9001, 'f32', 3)
    local function loss()
      local h = p.x
      for i = 1, 3 do
        h = rp.layer('layer' .. i, function(v) return v:tanh() * 1.5 end)(h)
      end
      return rp.linear_cross_entropy(h, p.w, p.labels, with_bias(p))
    end
    local kept = after_backward(p, loss(), {ckpt = 'none'})
    for _, spec in ipairs {'every=1', 'uniform=2', 'nodes=2', 'nodes=3', 'sqrt',
                           'ops', 'budget=min'} do
      assert_same_bits(kept, after_backward(p, loss(), {ckpt = spec}), spec)
    end
    local marked = rp.checkpoint(loss)
    assert_same_bits(kept, after_backward(p, marked), 'inside a mark')
    assert_same_bits(kept, after_backward(p, rp.checkpoint(function()
      return loss() * 1
    end)), 'read inside a mark')
  end)

  local function fails(fn, ...)
    local ok, message = pcall(fn)
    assert.is_false(ok)
    for _, part in ipairs {...} do
      assert.is_truthy(tostring(message):find(part, 1, true), message)
    end
  end

  it('says what does not fit', function()
    local x, w = rp.ones(4, 3), rp.ones(5, 3)
    local y = rp.tensor({0, 1, 2, 3}, {dtype = 'i32'})
    local ce = rp.linear_cross_entropy
    fails(function() return ce(x, rp.ones(3, 5), y) end,
      'linear_cross_entropy', '(4,3)', '(3,5)', 'x has 3 features')
    fails(function() return ce(x, w, rp.tensor({0, 1}, {dtype = 'i32'})) end,
      'labels (2)', '(4,3)')
    fails(function() return ce(x, w, rp.ones(4)) end, 'labels are f32')
    fails(function() return ce(x, w:to 'f64', y) end, 'f32 and f64 differ')
    fails(function() return ce(x, w, y, {bias = rp.ones(4)}) end,
      'needs a bias (5)')
    fails(function() return ce(x, w, y, {bias = rp.ones(5):to 'f64'}) end,
      'f32 and f64 differ')
    fails(function() return ce(x, w, y, {reduction = 'avg'}) end,
      "'mean', 'sum' or 'none'", "'avg'")
    fails(function() return ce(x, w, y, {weight = w}) end, 'weight')
    fails(function() return ce(x, w) end, 'linear_cross_entropy')
  end)

  it('says which label is out of range, and changes nothing', function()
    for _, bad in ipairs {5, -1} do
      local p = problem_of(4, 3, 5, 'f32')
      p.labels = rp.tensor({0, 1, bad, 2}, {dtype = 'i32'})
      local opt = rp.optim.SGD(parameters_of(p), {lr = 1})
      local before = raw.read(p.w.ptr)
      local text = ('label %d, valid 0..4'):format(bad)
      fails(function() return fused(p):item() end, text)
      fails(function() return fused(p):backward() end, text)
      fails(function() return opt:minimize(fused(p)) end, text)
      fails(function() -- computed: found by the kernel
        p.labels = p.labels + 0
        return fused(p):item()
      end, text)
      assert.same(before, raw.read(p.w.ptr))
    end
  end)
end)

describe('a tied embedding\'s gradient', function()
  setup(run.quiet)
  teardown(run.loud)

  local classes, width = 9, 4

  local function tied(times)
    local w = nn.Parameter(values(1, {classes, width}, 'f64'))
    local ids = labels_of(2, 6, classes)
    local h = rp.embedding(ids, w)
    for _ = 2, times or 1 do h = h + rp.embedding(ids, w):tanh() end
    return w, rp.linear_cross_entropy(h, w, labels_of(3, 6, classes))
  end

  it('goes onto the head\'s in place', function()
    local _, loss = tied()
    local plan = loss:plan()
    local count = ops_of(plan)
    assert.equal(1, count.embedding_grad_add)
    assert.is_nil(count.embedding_grad)
    assert.is_nil(count.add)
    for _, instance in ipairs(plan:instances()) do
      if instance.in_arena and not instance.workspace and
         plan:graph().nodes[instance.node].op == 'embedding_grad_add' then
        local other
        for _, candidate in ipairs(plan:instances()) do
          if candidate.node ~= instance.node and
             candidate.offset == instance.offset and candidate.in_arena and
             candidate.size_bytes == instance.size_bytes and
             candidate.read_by == instance.born then
            other = candidate
          end
        end
        assert.is_truthy(other, 'the sum has bytes of its own')
      end
    end
  end)

  it('is the sum of both', function()
    for times = 1, 3 do
      local w, loss = tied(times)
      local at = raw.read(w.ptr)
      local got = raw.read(rp.grad(loss, w).ptr)
      local function value(data)
        local v = rp.tensor(data, {dtype = 'f64'}):reshape(classes, width)
        local ids = labels_of(2, 6, classes)
        local h = rp.embedding(ids, v)
        for _ = 2, times do h = h + rp.embedding(ids, v):tanh() end
        return rp.linear_cross_entropy(h, v, labels_of(3, 6, classes)):item()
      end
      for i = 1, #at do
        local step, data = 1e-6, {unpack(at)}
        data[i] = at[i] + step
        local above = value(data)
        data[i] = at[i] - step
        assert.near((above - value(data)) / (2 * step), got[i], 1e-8)
      end
    end
  end)

  it('does not matter to the sum it goes onto elsewhere', function()
    -- One table under two lookups: the first's gradient stays readable.
    local w = nn.Parameter(values(1, {classes, width}, 'f64'))
    local a, b = labels_of(2, 3, classes), labels_of(5, 4, classes)
    local ga = rp.grad(rp.embedding(a, w):sum(), w)
    local gb = rp.grad(rp.embedding(b, w):sum(), w)
    local both = rp.grad(rp.embedding(a, w):sum() + rp.embedding(b, w):sum(), w)
    rp.run(ga, gb, both)
    local x, y, z = raw.read(ga.ptr), raw.read(gb.ptr), raw.read(both.ptr)
    for i = 1, #z do assert.equal(x[i] + y[i], z[i]) end
  end)
end)
