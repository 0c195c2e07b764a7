-- Modules: what a walk finds, names and scopes, modes, state, first values.

local rp = require 'reprise'
local nn = rp.nn

local function names_of(model)
  local names = {}
  for name in model:named_parameters() do names[#names + 1] = name end
  return names
end

local function refused(pattern, fn)
  local ok, message = pcall(fn)
  assert.is_false(ok)
  assert.matches(pattern, message)
end

local Block = nn.module('Block', function(self, width)
  self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, width)
  self.mask = nn.Buffer(rp.ones(width))
end)

function Block:forward(x)
  self.seen = self.norm(x).scope
  return x + self.fc(x) * self.mask
end

local Model = nn.module('Model', function(self, n)
  self.blocks = nn.Layers(n, function() return Block(4) end)
  self.extra = {nn.Linear(4, 4), deep = {nn.Linear(4, 2)}}
end)

function Model:forward(x) return self.extra[1](self.blocks(x)) end

describe('a module', function()
  it('finds its parameters: numbers in order, then names sorted', function()
    local expected = {}
    -- 10 comes after 9, not after 1.
    for i = 1, 10 do
      for _, name in ipairs{'fc.bias', 'fc.weight', 'norm.bias', 'norm.weight'} do
        expected[#expected + 1] = ('blocks.%d.%s'):format(i, name)
      end
    end
    for _, name in ipairs{'1.bias', '1.weight', 'deep.1.bias', 'deep.1.weight'} do
      expected[#expected + 1] = 'extra.' .. name
    end
    assert.same(expected, names_of(Model(10)))
  end)

  it('finds buffers apart from parameters, and other tensors not at all', function()
    local model = Model(1)
    model.cache = rp.ones(3)
    model.input = rp.tensor{1, 2}
    assert.equal(1, #model:buffers())
    assert.equal(8, #model:parameters())
    assert.is_not_nil(model:state_dict()['blocks.1.mask'])
  end)

  it('sees shared modules, shared tensors and cycles once', function()
    local a = nn.Linear(2, 2)
    local b = nn.Linear(2, 2)
    b.weight = a.weight
    local model = nn.Sequential{a, b, a}
    a.parent = model
    assert.same({'1.bias', '1.weight', '2.bias'}, names_of(model))
    -- A handle of its own on the same leaf is the same parameter.
    b.tied = a.bias:requires_grad_()
    assert.equal(3, #model:parameters())
  end)

  it('names entries that :named named, and refuses two of one name', function()
    local model = nn.Sequential{nn.Linear(2, 2):named 'fc1', nn.ReLU(), nn.Linear(2, 2)}
    assert.same({'fc1.bias', 'fc1.weight', '3.bias', '3.weight'}, names_of(model))
    model[3]:named 'fc1'
    refused("two entries are both called 'fc1'", function() return model:parameters() end)
    refused('a name is made of letters', function() nn.ReLU():named 'a.b' end)
  end)

  it('is called in its own scope, under the name its parent has it by', function()
    local model = Model(2)
    local y = model(rp.ones(1, 4))
    assert.equal('model.blocks.2.norm', model.blocks[2].seen)
    assert.equal('model.extra.1', y.scope)
    assert.equal('', rp.ones(1).scope)
    model:named 'gpt'
    for _, block in ipairs(model.blocks) do block(rp.ones(1, 4)) end
    assert.equal('block.norm', model.blocks[1].seen)
    assert.equal('gpt.extra.1', model(rp.ones(1, 4)).scope)
  end)

  it('leaves no scope behind when it fails', function()
    local Bad = nn.module('Bad', function(self) self.fc = nn.Linear(2, 3) end)
    function Bad:forward(x) return self.fc(x):matmul(x) end
    local bad = Bad()
    for _ = 1, 2 do
      refused('inner dimensions', function() bad(rp.ones(1, 2)) end)
      assert.equal('', rp.relu(rp.ones(1)).scope)
    end
    -- An error caught inside is repaired by the call around it.
    local Careful = nn.module('Careful', function(self) self.bad = bad end)
    function Careful:forward(x)
      pcall(self.bad, x)
      return x
    end
    Careful()(rp.ones(1, 2))
    assert.equal('', rp.relu(rp.ones(1)).scope)
  end)

  it('needs a forward', function()
    refused("module 'Empty' has no forward: write function Empty:forward",
      function() nn.module('Empty')()(1) end)
  end)

  it('passes arguments and results through, whatever they are', function()
    local Odd = nn.module 'Odd'
    function Odd.forward(_, ...) return select('#', ...), nil, ... end
    local n, absent, a, b, c = Odd()(nil, 2, nil)
    assert.same({3, nil, nil, 2, nil}, {n, absent, a, b, c})
  end)

  it('changes modes everywhere', function()
    local model = nn.Sequential{nn.Dropout(0.5), nn.Sequential{nn.Dropout(0.5)}}
    local x = rp.ones(64)
    assert.not_equal(x:bytes(), model(x):bytes())
    model:eval()
    assert.is_false(model[2][1].training)
    assert.equal(x:bytes(), model(x):bytes())
    model:train()
    assert.not_equal(x:bytes(), model(x):bytes())
  end)

  it('prints as a tree', function()
    local model = nn.Sequential{nn.Linear(4, 8):named 'fc1', nn.Sequential{nn.ReLU()}}
    assert.equal('Sequential(\n  (fc1): Linear(4, 8)\n  (2): Sequential(\n    (1): ReLU()\n  )\n)',
      tostring(model))
    model[1].parent = model
    assert.matches('%(parent%): Sequential%(...%)', tostring(model))
  end)

  it('freezes, applies, zeroes', function()
    local model = nn.Sequential{nn.Linear(2, 2), nn.Linear(2, 2)}
    model[1]:requires_grad_(false)
    model(rp.ones(1, 2)):sum():backward()
    assert.is_nil(model[1].weight.grad)
    assert.is_not_nil(model[2].weight.grad)
    model:zero_grad()
    assert.is_nil(model[2].weight.grad)
    local count = 0
    model:apply(function() count = count + 1 end)
    assert.equal(3, count)
  end)
end)

describe('creating a model', function()
  it('allocates no values, however large it is', function()
    -- What earlier specs let go is no part of it.
    jit.flush() collectgarbage() collectgarbage()
    local before = rp.memory().bytes
    local model = nn.Layers(48, function() return nn.MultiHeadAttention(1600, 25) end)
    assert.equal(48 * 4, #model:parameters())
    assert.equal(before, rp.memory().bytes)
  end)

  it('draws PyTorch\'s first values', function()
    rp.manual_seed(1)
    local bound = 1 / math.sqrt(400)
    local fc = nn.Linear(400, 300)
    local w = fc.weight
    assert.is_true(w:max():item() <= bound and w:min():item() >= -bound)
    -- Uniform in -b..b has variance b^2 / 3; 120,000 draws give it to 1 %.
    assert.near(bound ^ 2 / 3, w:var():item(), 0.01 * bound ^ 2 / 3)
    assert.near(1, nn.Embedding(300, 400).weight:std():item(), 0.01)
    assert.equal(0, nn.MultiHeadAttention(8, 2).out.bias:abs():sum():item())
    local norm = nn.LayerNorm(8)
    assert.equal(8, norm.weight:sum():item())
    assert.equal(0, norm.bias:sum():item())
  end)

  it('is the same after the same seed', function()
    rp.manual_seed(7)
    local a = nn.Linear(3, 3).weight:bytes()
    rp.manual_seed(7)
    assert.equal(a, nn.Linear(3, 3).weight:bytes())
  end)
end)

describe('load_state_dict', function()
  it('sets parameters and buffers', function()
    local a, b = Block(3), Block(3)
    a.mask = nn.Buffer(rp.tensor{1, 2, 3})
    b:load_state_dict(a:state_dict())
    for name, t in pairs(a:state_dict()) do
      assert.equal(t:bytes(), b:state_dict()[name]:bytes(), name)
    end
    assert.same({1, 2, 3}, b.mask:totable())
    assert.is_true(b.fc.weight.requires_grad)
  end)

  it('casts to the parameter\'s dtype', function()
    local a = nn.Linear(1, 1, {bias = false})
    a:load_state_dict{weight = rp.tensor({{0.5}}, {dtype = 'f64'})}
    assert.equal(0.5, a.weight:item())
    assert.equal('f32', a.weight.dtype)
  end)

  it('lists all that does not fit in one error, and changes nothing then', function()
    local model = nn.Linear(2, 2)
    local before = model.weight:bytes()
    refused('%[load_state_dict%] the state does not fit: missing: bias; ' ..
      'unexpected: mask, scale; misshaped: weight is %(3,2%), not %(2,2%)', function()
      model:load_state_dict{weight = rp.ones(3, 2), scale = rp.ones(1), mask = rp.ones(1)}
    end)
    assert.equal(before, model.weight:bytes())
  end)
end)

describe('layers', function()
  it('of normalisation standardise', function()
    local x = rp.tensor({{1, 2, 3, 4}}, {dtype = 'f64'})
    local norm = nn.LayerNorm(4, {eps = 0, dtype = 'f64'})
    local s = math.sqrt(1.25)
    for i, y in ipairs(norm(x):totable()[1]) do assert.near((i - 2.5) / s, y, 1e-14) end
    local rms = nn.RMSNorm(4, {eps = 0, dtype = 'f64'})
    for i, y in ipairs(rms(x):totable()[1]) do assert.near(i / math.sqrt(7.5), y, 1e-14) end
  end)

  it('of activations are their functions', function()
    local x = rp.tensor{-1, 0.5}
    for class, op in pairs{ReLU = 'relu', SiLU = 'silu', Tanh = 'tanh', Sigmoid = 'sigmoid'} do
      assert.equal(rp[op](x):bytes(), nn[class]()(x):bytes(), class)
    end
    assert.equal(rp.gelu(x):bytes(), nn.GELU()(x):bytes())
    assert.equal(rp.gelu(x, {approximate = 'tanh'}):bytes(),
      nn.GELU{approximate = 'tanh'}(x):bytes())
  end)

  it('of attention are the product of its parts', function()
    rp.manual_seed(2)
    local attention = nn.MultiHeadAttention(4, 2, {causal = true, dtype = 'f64'})
    local x = rp.randn(1, 3, 4, {dtype = 'f64'})
    local y = attention(x)
    assert.equal('(1,3,4)', tostring(y.shape))
    -- By hand, head by head.
    local q, k, v = attention.qkv(x):chunk(3, -1)
    local parts = {}
    for h = 1, 2 do
      local function head(t) return t:narrow(-1, 2 * h - 1, 2):squeeze(1) end
      local scores = head(q):matmul(head(k):t()) / math.sqrt(2)
      local late = rp.tensor{{false, true, true}, {false, false, true}, {false, false, false}}
      parts[h] = scores:masked_fill(late, -math.huge):softmax():matmul(head(v))
    end
    local expected = attention.out(rp.cat(parts, -1))
    assert.is_true((y:squeeze(1) - expected):abs():max():item() < 1e-12)
  end)

  it('refuse what cannot be', function()
    refused('width 6 does not divide into 4 heads', function() nn.MultiHeadAttention(6, 4) end)
    refused("%[nn.Linear%] no option 'bais'", function() nn.Linear(1, 1, {bais = false}) end)
    refused('%[nn.Linear%] the number of outputs is a whole number of at least 1, not nil',
      function() nn.Linear(1) end)
    refused('%[nn.Dropout%] p is in 0..1, not 2', function() nn.Dropout(2) end)
    refused('entry 2 is a number, not a module or a function',
      function() nn.Sequential{nn.ReLU(), 3} end)
  end)
end)

describe('strategies see', function()
  local function layer_names(loss)
    local names = {}
    for i, layer in ipairs(loss:plan():graph().layers) do names[i] = layer.name end
    return table.concat(names, ' ')
  end

  it('entries of nn.Layers', function()
    assert.equal('model.blocks.1 model.blocks.2', layer_names(Model(2)(rp.ones(1, 4)):sum()))
  end)

  it('are named where an op in them refuses its inputs', function()
    local model = nn.Sequential{nn.Linear(2, 3):named 'a', nn.Linear(4, 3):named 'b'}
    assert.has_error(function() model(rp.ones(1, 2)) end,
      '[linear] in sequential.b: x (1,3), weight (3,4): x has 3 features, ' ..
      'the weight takes 4')
    assert.has_error(function() return rp.ones(1, {dtype = 'i64'}) + rp.ones(1) end,
      "[add] i64 and f32 differ; cast one with :to'f32'")
  end)

  it('children of the outermost nn.Sequential where there are no layers', function()
    local model = nn.Sequential{
      nn.Linear(2, 2):named 'fc1',
      nn.Sequential{nn.Linear(2, 2), nn.Tanh()},
      function(x) return x:tanh() end,
    }
    assert.equal('sequential.fc1 sequential.2 sequential.3',
      layer_names(model(rp.ones(1, 2)):sum()))
  end)

  it('what rp.layer wraps', function()
    local w = nn.Parameter(rp.ones(2, 2))
    local stage = rp.layer('stage', function(x) return x:matmul(w):tanh() end)
    local other = rp.layer('other', function(x) return stage(x):matmul(w) end)
    -- A layer inside another is part of it.
    assert.equal('stage other', layer_names(other(stage(rp.ones(1, 2))):sum()))
  end)
end)
