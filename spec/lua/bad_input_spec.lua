-- What a user gets wrong, and what is said: the thing's name, what is wrong
-- with it, what would be right, at the user's own line; and all is as it was.

local rp = require 'reprise'
local fails = require 'spec.support.fails'
local raw = require 'spec.support.raw'
local run = require 'spec.support.run'
local nn = rp.nn

local function mlp()
  return nn.Sequential {
    nn.Linear(6, 5):named 'fc1', nn.ReLU():named 'act1',
    nn.Linear(5, 4):named 'fc2', nn.ReLU():named 'act2',
    nn.Linear(4, 3):named 'fc3',
  }
end

describe('a mistake', function()
  setup(run.quiet)
  teardown(run.loud)

  it('in what is to be called', function()
    local x = rp.ones(2)
    fails(function() rp.no_grad(3) end, 'no_grad', 'number')
    fails(function() rp.layer('a', x) end, 'layer', "'a'", 'table')
    fails(function() rp.checkpoint('f', x) end, 'checkpoint', 'function')
    fails(function() rp.scan(x, x, 2) end, 'scan', 'step')
    fails(function() rp.checkpoint_sequential({rp.relu, 3}, 2, x) end,
      'checkpoint_sequential', 'entry 2', 'number')
    assert.is_true(rp.layer('a', nn.ReLU())(nn.Parameter(x)).requires_grad)
  end)

  describe('in shapes:', function()
    it('inner dimensions of a product', function()
      fails(function() return rp.ones(2, 3):matmul(rp.ones(4, 5)) end,
        'matmul', '(2,3)', '(4,5)', '3', '4')
    end)

    it('shapes that do not broadcast', function()
      fails(function() return rp.ones(2, 3) + rp.ones(4) end,
        'add', '(2,3)', '(4)')
      fails(function() return rp.ones(2, 3):lt(rp.ones(2, 4)) end,
        'lt', '(2,3)', '(2,4)')
    end)

    it('a linear layer of another width', function()
      fails(function() return nn.Linear(6, 5)(rp.ones(2, 7)) end,
        'linear', '(2,7)', '(5,6)')
    end)

    it('a reshape that does not fit', function()
      fails(function() return rp.ones(2, 3):reshape(4, 2) end,
        'reshape', '(2,3)', '(4,2)')
    end)

    it('parts that cannot be put together', function()
      fails(function() return rp.cat({rp.ones(2, 3), rp.ones(3, 3)}, 2) end,
        'cat', '(2,3)', '(3,3)')
      fails(function() return rp.cat({}, 1) end, 'cat')
    end)

    it('an expand of a dim that is not 1', function()
      fails(function() return rp.ones(2, 3):expand(4, 3) end,
        'expand', '(2,3)', '4')
    end)

    it('a norm whose weight is of another width', function()
      fails(function() return nn.LayerNorm(5)(rp.ones(2, 4)) end,
        'layer_norm', '(2,4)', '(5)')
    end)

    it('labels of another count than rows', function()
      fails(function()
        return rp.cross_entropy(rp.ones(4, 3), rp.tensor({0, 1, 2},
          {dtype = 'i32'}))
      end, 'cross_entropy', '(4,3)', '(3)')
    end)

    it('a negative or enormous size', function()
      fails(function() return rp.zeros(2, -3) end, 'zeros', '-3')
      fails(function() return rp.zeros(2 ^ 31, 2 ^ 31, 2 ^ 31) end, 'too large',
        '(2147483648,2147483648,2147483648)')
      fails(function() return rp.zeros(1.5) end, 'zeros', '1.5')
      fails(function() return rp.zeros(1, 1, 1, 1, 1, 1, 1, 1, 1) end, '8')
    end)

    it('attention over batches or heads that differ', function()
      local attend = rp.scaled_dot_product_attention
      local q = rp.ones(2, 2, 3, 4)
      fails(function() return attend(q, rp.ones(3, 2, 5, 4), rp.ones(3, 2, 5, 4)) end,
        'scaled_dot_product_attention', 'batch', '2 and 3')
      fails(function() return attend(q, rp.ones(2, 2, 5, 4), rp.ones(2, 4, 5, 4)) end,
        'scaled_dot_product_attention', 'heads', '2 and 4')
    end)

    it('a list that is not rectangular', function()
      fails(function() return rp.tensor {{1, 2}, {3}} end, 'tensor')
    end)

    it('an empty dim where something must be chosen', function()
      fails(function() return rp.zeros(0, 3):max() end, 'max', '(0,3)')
    end)
  end)

  describe('in dims and positions:', function()
    it('dim 0', function()
      local x = rp.ones(2, 3)
      for name, call in pairs {
        sum = function() return x:sum(0) end,
        softmax = function() return x:softmax(0) end,
        narrow = function() return x:narrow(0, 1, 1) end,
        transpose = function() return x:transpose(0, 1) end,
        cat = function() return rp.cat({x, x}, 0) end,
        unsqueeze = function() return x:unsqueeze(0) end,
      } do
        fails(call, name, 'dim 0', '1')
      end
    end)

    it('a dim that is not there', function()
      local x = rp.ones(2, 3)
      fails(function() return x:sum(3) end, 'sum', 'dim 3')
      fails(function() return x:sum(-3) end, 'sum', 'dim -3')
      fails(function() return x:sum(1.5) end, 'sum', '1.5')
      fails(function() return x:permute(1, 1) end, 'permute')
    end)

    it('a position outside', function()
      local x = rp.ones(2, 3)
      fails(function() return x:narrow(2, 3, 2) end, 'narrow', '3')
      fails(function() return x:narrow(2, 0, 1) end, 'narrow', '0')
      fails(function() return x:select(1, 3) end, '3')
    end)
  end)

  describe('in dtypes:', function()
    it('two that differ', function()
      local x, i = rp.ones(3), rp.tensor({1, 2, 3}, {dtype = 'i32'})
      fails(function() return x + i end, 'add', 'f32', 'i32', 'to')
      fails(function() return x:matmul(rp.ones(3, {dtype = 'f64'})) end,
        'f32', 'f64')
    end)

    it('one the op does not take', function()
      local i = rp.tensor({1, 2, 3}, {dtype = 'i32'})
      fails(function() return i:exp() end, 'exp', 'i32')
      fails(function() return i:softmax(1) end, 'softmax', 'i32')
      fails(function()
        return rp.cross_entropy(rp.ones(2, 3), rp.ones(2))
      end, 'cross_entropy', 'f32', 'i64')
      fails(function() return rp.embedding(rp.ones(2), rp.ones(3, 4)) end,
        'embedding', 'f32')
      fails(function()
        return rp.where(rp.ones(3), rp.ones(3), rp.ones(3))
      end, 'where', 'bool')
    end)

    it('one that does not exist', function()
      fails(function() return rp.zeros(2, {dtype = 'float'}) end, 'float', 'f32')
      fails(function() return rp.ones(2):to 'f16' end, 'f16', 'f32')
    end)

    it('a gradient of whole numbers', function()
      fails(function()
        return rp.tensor({1, 2}, {dtype = 'i32', requires_grad = true})
      end, 'i32')
    end)
  end)

  describe('in values:', function()
    it('a label out of range', function()
      local w = nn.Parameter(rp.ones(4, 3))
      local opt = rp.optim.SGD({w}, {lr = 1})
      local labels = rp.tensor({0, 1, 3, 2}, {dtype = 'i32'})
      local loss = rp.cross_entropy(w, labels)
      fails(function() loss:backward() end, 'label 3', '0..2')
      fails(function() opt:minimize(rp.cross_entropy(w, labels)) end,
        'label 3', '0..2')
      assert.same(raw.read(rp.ones(4, 3).ptr), raw.read(w.ptr))
      local negative = rp.tensor({0, 1, -1, 2}, {dtype = 'i64'})
      fails(function() return rp.cross_entropy(w, negative):item() end,
        'label -1', '0..2')
      -- Found by the kernel, for they are no leaf.
      fails(function() return rp.cross_entropy(w, negative + 0):item() end,
        '[cross_entropy]', 'label -1', '0..2')
    end)

    it('an ignored label that is no label', function()
      for _, bad in ipairs {1.5, 0 / 0, math.huge, 1e300} do
        fails(function()
          return rp.cross_entropy(rp.ones(2, 3), rp.tensor({0, 1}, {dtype = 'i64'}),
            {ignore_index = bad})
        end, 'ignore_index', 'whole number')
      end
    end)

    it('a token out of range', function()
      local table_of = nn.Embedding(5, 2)
      local tokens = rp.tensor({4, 5}, {dtype = 'i32'})
      fails(function() return table_of(tokens):totable() end, '5', '0..4')
      fails(function()
        return rp.ones(3, 2):index_select(1, rp.tensor({3}, {dtype = 'i64'}))
          :totable()
      end, '3', '0..2')
    end)

    it('item of more than one value', function()
      fails(function() return rp.ones(2):item() end, 'item', '(2)')
    end)

    it('an option that does not exist', function()
      fails(function()
        return rp.optim.AdamW({nn.Parameter(rp.ones(2))}, {lrate = 1})
      end, 'lrate', 'lr')
      fails(function() return rp.dropout(rp.ones(2), 1.5) end, 'dropout', '1.5')
      fails(function()
        local q = rp.ones(1, 1, 2, 2)
        return rp.scaled_dot_product_attention(q, q, q, {is_causal = 'no'})
      end, 'is_causal', 'true or false', 'no')
    end)

    it('something that is no function under autocast', function()
      fails(function() return rp.autocast('bf16', 5) end, 'autocast', 'function', 'number')
      assert.equal(false, rp.autocast(false))
    end)

    it('an optimizer without parameters', function()
      fails(function() return rp.optim.SGD({}, {lr = 1}) end, 'parameter')
    end)

    it('something that is no tensor', function()
      fails(function() return rp.ones(2) + 'x' end, 'tensor', 'string')
      fails(function() return rp.ones(2):matmul(3) end, 'matmul', 'number')
      fails(function() return rp.tensor {1, 'a'} end, 'tensor')
      fails(function() return rp.ones(2).shap end, 'shap')
    end)
  end)

  describe('in what is asked:', function()
    it('an ordering of tensors', function()
      local a, b = rp.ones(2), rp.ones(2)
      fails(function() return a < b end, ':lt(')
      fails(function() return a <= b end, ':le(')
      fails(function() return a > b end, ':lt(')
    end)

    it('backward of a non-scalar', function()
      local w = nn.Parameter(rp.ones(2, 3))
      fails(function() (w * 2):backward() end, '(2,3)', 'sum')
      assert.is_nil(w.grad)
    end)

    it('backward of what nothing trainable reaches', function()
      fails(function() rp.ones(2):sum():backward() end, 'grad')
    end)

    it('a tensor used after its parameter was updated', function()
      local model = nn.Linear(3, 2):named 'head'
      local x = rp.ones(1, 3)
      local opt = rp.optim.SGD(model:parameters(), {lr = 0.5})
      local late = model(x):sum()
      opt:minimize(model(x):sum())
      -- The leaf, who changed it, and what to write instead.
      fails(function() return late:item() end, 'weight', 'sgd', 'also')
      fails(function() late:backward() end, 'weight', 'sgd')
      fails(function() opt:minimize(late) end, 'weight', 'sgd')
      -- The parameter itself goes on, and the step did not count.
      assert.equal(1, opt:step_count())
      opt:minimize(model(x):sum())
      assert.equal(2, opt:step_count())
    end)

    it('a tensor used after a leaf was written over', function()
      local x = rp.tensor {1, 2}
      local y = x * 2
      x:copy_(rp.tensor {3, 4})
      fails(function() return y:totable() end, 'changed')
      assert.same({6, 8}, (x * 2):totable())
    end)

    it('a second backward through freed values works: they are recipes', function()
      local w = nn.Parameter(rp.ones(3))
      local loss = (w * w):sum()
      loss:backward()
      loss:backward()
      assert.same({4, 4, 4}, w.grad:totable())
    end)

    it('requires_grad on a result', function()
      fails(function() (rp.ones(2) * 2).requires_grad = true end, 'leaf')
    end)
  end)
end)

describe('a strategy spec', function()
  setup(run.quiet)
  teardown(run.loud)

  local function under(spec, model)
    model = model or mlp()
    local loss = model(rp.ones(2, 6)):sum()
    loss:backward {ckpt = spec}
  end

  it('that does not exist names the nearest', function()
    fails(function() under 'evry=2' end, 'evry', 'every=2')
    fails(function() under 'sqr' end, 'sqr', 'sqrt')
    fails(function() under 'atention' end, 'atention', 'attention')
    fails(function() under 'xyzzy' end, 'xyzzy', 'none', 'every', 'sqrt')
    fails(function() rp.ckpt 'segmnts=2' end, 'segmnts', 'segments=2')
  end)

  it('needs a whole number of at least 1', function()
    for _, name in ipairs {'every', 'uniform', 'segments', 'nodes'} do
      for _, n in ipairs {'0', '-1', '1.5', 'two', ''} do
        fails(function() under(name .. '=' .. n) end, name)
      end
    end
    fails(function() under 'every' end, 'every', 'missing')
    fails(function() under 'none=3' end, 'none')
    fails(function() under 'sqrt=3' end, 'sqrt')
  end)

  it('that matches nothing says what there is', function()
    fails(function() under 'scope=*.attention' end, 'scope', 'fc1')
    fails(function() under 'attention' end, 'attention', 'fc1')
    fails(function() under 'ops=conv2d' end, 'conv2d', 'linear')
  end)

  it('of layers needs layers', function()
    local w = nn.Parameter(rp.ones(3))
    fails(function() (w * w):sum():backward {ckpt = 'every=2'} end,
      'every', 'layer')
  end)

  it('of blocks is refused with the reason', function()
    fails(function() under 'blocks=fc1..fc9' end, 'fc9', 'fc1')
    fails(function() under 'blocks=fc2..fc1' end, 'fc2', 'fc1')
    fails(function() under 'blocks=fc1..act2,fc2..fc3' end, 'overlap')
    fails(function() under 'blocks=' end, 'blocks')
  end)

  it('of the wrong type', function()
    fails(function() under(3) end, 'number')
    fails(function() under {every = 2, sqrt = true} end, 'one strategy')
  end)

  it('is checked where it is set, and the old one stays', function()
    rp.ckpt 'every=2'
    fails(function() rp.ckpt 'every=0' end, 'every')
    under(nil)
    rp.ckpt 'none'
  end)

  describe('of a file', function()
    local path

    local function file(text)
      path = os.tmpname() .. '.lua'
      local f = assert(io.open(path, 'w'))
      f:write(text)
      f:close()
      return path
    end

    after_each(function()
      if path then os.remove(path) end
      path = nil
    end)

    it('that is not there', function()
      fails(function() under './no_such_file.lua' end, 'no_such_file.lua')
    end)

    it('with an error names its line', function()
      local name = file 'return function(graph)\n  return nil + 1\nend'
      fails(function() under(name) end, name .. ':2:')
    end)

    it('with a syntax error names its line', function()
      local name = file 'return function(graph)\n  retrun {}\nend'
      fails(function() under(name) end, name .. ':2:')
    end)

    it('that returns nonsense says what', function()
      local cases = {
        ['return 3'] = {'function'},
        ['return function() return 3 end'] = {'number'},
        ['return function() return {3} end'] = {'segment'},
        ['return function() return {{first = 1}} end'] = {'last'},
        ['return function() return {{first = 2, last = 1}} end'] = {'first'},
        ['return function() return {{first = 1, last = 10000}} end'] =
          {'10000'},
        ['return function() return {{first = 1, last = 3}, ' ..
          '{first = 2, last = 4}} end'] = {'overlap'},
        ['return function() return {{first = 1, last = 3, keep = {9}}} end'] =
          {'keep'},
        ['return function() return {program = {1, 1, 1}} end'] = {},
      }
      for text, wanted in pairs(cases) do
        local name = file(text)
        fails(function() under(name) end, unpack(wanted))
        os.remove(name)
      end
    end)

    it('that changes nothing of the model when it fails', function()
      local model = mlp()
      local name = file 'return function() return {3} end'
      pcall(under, name, model)
      for _, p in ipairs(model:parameters()) do assert.is_nil(p.grad) end
      under('none', model)
      for _, p in ipairs(model:parameters()) do assert.truthy(p.grad) end
    end)
  end)
end)

describe('after mistakes', function()
  it('nothing is left behind', function()
    local function memory()
      -- Compiled traces may hold a value of an earlier spec.
      jit.flush() collectgarbage() collectgarbage()
      local m = rp.memory()
      return {m.storage_bytes, m.nodes}
    end
    local x = rp.ones(2, 3)
    rp.run(x)
    local function wrong()
      pcall(function() return x:matmul(rp.ones(4, 5)) end)
      pcall(function() return x + rp.ones(4) end)
      pcall(function() return x:sum(0) end)
      pcall(function() return x:exp():item() end)
      pcall(function() (x * 2):backward() end)
      pcall(function() x:sum():backward {ckpt = 'evry=2'} end)
      pcall(function()
        return rp.cross_entropy(x, rp.tensor({7, 7}, {dtype = 'i32'})):item()
      end)
    end
    wrong()
    local before = memory()
    for _ = 1, 50 do wrong() end
    assert.same(before, memory())
    assert.equal(6, x:sum():item())
  end)
end)
