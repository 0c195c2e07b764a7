-- Tensors as Lua sees them: making, reading, printing, properties, and what
-- Lua's own operators do.

local ffi = require 'ffi'
local rp = require 'reprise'

describe('rp.tensor', function()
  it('takes numbers, lists, booleans', function()
    assert.equal(3.25, rp.tensor(3.25):item())
    assert.same({{1, 2, 3}, {4, 5, 6}}, rp.tensor{{1, 2, 3}, {4, 5, 6}}:totable())
    assert.same({true, false}, rp.tensor{true, false}:totable())
    assert.same({}, rp.tensor{}:totable())
    assert.same({{}, {}}, rp.zeros(2, 0):totable())
  end)

  it('takes dtypes, and rounds to them', function()
    assert.equal('f32', rp.tensor(1).dtype)
    -- 0.1 is 13421773 / 2^27 in f32 and 205 / 2^11 in bf16.
    assert.equal(13421773 / 2^27, rp.tensor(0.1):item())
    assert.equal(0.1, rp.tensor(0.1, {dtype = 'f64'}):item())
    assert.equal(205 / 2^11, rp.tensor(0.1, {dtype = 'bf16'}):item())
    assert.equal(2^53, rp.tensor(2^53, {dtype = 'i64'}):item())
    assert.equal('number', type(rp.tensor(7, {dtype = 'i64'}):item()))
  end)

  it('takes arrays, with the dtype that they have', function()
    local t = rp.tensor(ffi.new('int32_t[4]', 5, 6, 7, 8), {shape = {2, 2}})
    assert.equal('i32', t.dtype)
    assert.same({{5, 6}, {7, 8}}, t:totable())
    local pointer = ffi.cast('double *', ffi.new('double[3]', 1, 2, 3))
    assert.same({1, 2}, rp.tensor(pointer, {shape = {2}}):totable())
  end)

  it('refuses what does not fit', function()
    local function refused(pattern, ...)
      local ok, message = pcall(rp.tensor, ...)
      assert.is_false(ok)
      assert.matches(pattern, message)
    end
    refused('ragged lists: at depth 2 one has 2 entries, another 3', {{1, 2}, {3, 4, 5}})
    refused('value 2 is x, and f32 wants a number', {1, 'x'})
    refused('value 1 is 1.5, and i32 wants a whole number', {1.5}, {dtype = 'i32'})
    refused('value 1 is 4294967296, and i32', {2^32}, {dtype = 'i32'})
    refused("no dtype 'f16'; there are f32, f64", {1}, {dtype = 'f16'})
    refused("no option 'dtpe'; there are device, dtype, requires_grad, shape", {1}, {dtpe = 'f64'})
    refused("no device 'tpu'; there are cpu, cuda", {1}, {device = 'tpu'})
    refused('a pointer needs {shape = ...}', ffi.cast('float *', ffi.new 'float[1]'))
    refused('shape %(3%) needs 12 bytes, the array has 8', ffi.new 'float[2]', {shape = {3}})
    refused('2 values do not fill shape %(3%)', {1, 2}, {shape = {3}})
    refused('this is a tensor already', rp.ones(2))
  end)

  it('is a leaf that can be trained', function()
    local w = rp.tensor({1, 2}, {requires_grad = true})
    assert.is_true(w.is_leaf)
    assert.is_true(w.requires_grad)
    assert.is_false(rp.ones(2).requires_grad)
    local v = rp.ones({2}, {requires_grad = true})
    assert.is_true(v.is_leaf and v.requires_grad)
  end)
end)

describe('creation', function()
  it('takes sizes one by one or as a list', function()
    assert.equal('(2,3)', tostring(rp.zeros(2, 3).shape))
    assert.equal('(2,3)', tostring(rp.ones({2, 3}).shape))
    assert.equal('f64', rp.zeros(2, 3, {dtype = 'f64'}).dtype)
    assert.equal('i32', rp.zeros({2, 3}, {dtype = 'i32'}).dtype)
    assert.equal('f64', rp.randn{2, 3, dtype = 'f64'}.dtype)
    assert.equal('()', tostring(rp.zeros().shape))
  end)

  it('full and its likes broadcast a number', function()
    assert.same({{7, 7}}, rp.full({1, 2}, 7):totable())
    local x = rp.tensor({1, 2}, {dtype = 'i64'})
    assert.equal('i64', rp.ones_like(x).dtype)
    assert.same({0, 0}, x:zeros_like():totable())
    assert.same({2.5, 2.5}, rp.full_like(x, 2.5, {dtype = 'f32'}):totable())
  end)

  it('arange ends before its stop, as in PyTorch', function()
    assert.same({0, 1, 2}, rp.arange(3):totable())
    assert.same({2, 3.5}, rp.arange(2, 5, 1.5):totable())
    assert.same({3, 2, 1}, rp.arange(3, 0, -1, {dtype = 'i32'}):totable())
    assert.same({}, rp.arange(3, 1):totable())
  end)

  it('randint stays in its range', function()
    local list = rp.randint(-2, 3, {1000}):totable()
    local seen = {}
    for _, x in ipairs(list) do seen[x] = true end
    assert.same({[-2] = true, [-1] = true, [0] = true, [1] = true, [2] = true}, seen)
    assert.equal('i64', rp.randint(5, {2}).dtype)
  end)

  it('draws the same after the same seed, and goes on otherwise', function()
    rp.manual_seed(5)
    local a, b = rp.randn(8), rp.randn(8)
    rp.manual_seed(5)
    local c = rp.randn(8)
    assert.equal(a:bytes(), c:bytes())
    assert.not_equal(a:bytes(), b:bytes())
  end)

  it('follows the default dtype', function()
    rp.set_default_dtype 'f64'
    local dtype = rp.ones(2).dtype .. rp.tensor(1).dtype .. rp.randn(1).dtype
    rp.set_default_dtype 'f32'
    assert.equal('f64f64f64', dtype)
    assert.has_error(function() rp.set_default_dtype 'i32' end)
  end)
end)

describe('a tensor', function()
  local x = rp.tensor{{1, 2, 3}, {4, 5, 6}}

  it('has properties', function()
    assert.same({2, 3}, x.shape)
    assert.equal('(2,3)', tostring(x.shape))
    assert.is_true(x.shape == rp.ones(2, 3).shape)
    assert.equal('cpu', x.device)
    assert.equal(2, x:dim())
    assert.equal(6, x:numel())
    assert.equal(3, x:size(-1))
    assert.is_nil(x.grad)
    assert.is_true(rp.is_tensor(x))
    assert.is_false(rp.is_tensor{})
  end)

  it('refuses fields that it has not', function()
    assert.has_error(function() return x.shap end,
      "a tensor has no field 'shap'; did you mean shape?")
    assert.has_error(function() return x:bmm(x) end,
      "a tensor has no field 'bmm'; there is matmul")
    assert.has_error(function() return x:add_(1) end, "a tensor has no field 'add_': " ..
      'a recipe does not change; write x = x:add(...)')
    assert.has_error(function() x.shape = {1} end)
    assert.has_error(function() x.foo = 1 end)
  end)

  it('is indexed along its first dim, from 1', function()
    assert.same({1, 2, 3}, x[1]:totable())
    assert.same({4, 5, 6}, x[-1]:totable())
    assert.equal(6, x[2][3]:item())
    assert.has_error(function() return x[3] end)
    assert.has_error(function() return x[0] end)
  end)

  it('computes with numbers on either side', function()
    local y = rp.tensor{2, 4}
    assert.same({3, 5}, (y + 1):totable())
    assert.same({-1, -3}, (1 - y):totable())
    assert.same({4, 8}, (2 * y):totable())
    assert.same({0.5, 0.25}, (1 / y):totable())
    assert.same({4, 16}, (2 ^ y):totable())
    assert.same({4, 16}, (y ^ 2):totable())
    assert.same({8, 64}, (y ^ 3):totable())
    assert.same({-2, -4}, (-y):totable())
    assert.same({1.5, 3}, rp.sub(y, y / 4):totable())
    assert.same({1, 2}, (rp.tensor{1, 4} ^ 0.5):totable())
  end)

  -- What PyTorch gives.
  it('computes with fractions where it holds whole numbers', function()
    local t = rp.tensor({1, 2}, {dtype = 'i64'})
    assert.same({2.5, 3.5}, (t + 1.5):totable())
    assert.same({1.75, 1.5}, (2 - t * 0.25):totable())
    assert.same({0.5, 1}, (t / 2):totable())
    assert.same({3, 1.5}, (3 / t):totable())
    assert.same({1, 1}, (t / t):totable())
    assert.same({true, false}, t:lt(1.5):totable())
    assert.same({1.5, 2}, rp.maximum(t, 1.5):totable())
    assert.same({0.5, 0}, (rp.tensor{true, false} * 0.5):totable())
    assert.same({'f32', 'i64'}, {(t / 2).dtype, (t * 2).dtype})
    assert.has_error(function() return rp.where(t:gt(1), t, 0.5) end)
  end)

  it('is equal to itself alone', function()
    local y = rp.tensor{{1, 2, 3}, {4, 5, 6}}
    assert.is_true(x == x)
    assert.is_false(x == y)
    assert.is_false(x == nil)
    assert.is_false(x == 3)
    local w = rp.ones({2}, {requires_grad = true})
    w:sum():backward()
    assert.is_true(w.grad == w.grad)
  end)

  it('is not ordered', function()
    local y = rp.ones(2)
    for _, compare in ipairs{
      function() return y < y end, function() return y <= y end,
      function() return y > y end, function() return y >= y end,
    } do
      local ok, message = pcall(compare)
      assert.is_false(ok)
      assert.matches(':l[te]%(b%)', message)
    end
    -- Of a number and a table Lua itself says so, without asking.
    assert.has_error(function() return y < 1 end)
  end)

  it('says where it was wrong: the caller\'s line', function()
    local function line_of(fn)
      local _, message = pcall(fn)
      return tonumber(message:match 'tensor_spec.lua:(%d+): ')
    end
    local here = debug.getinfo(1, 'l').currentline
    assert.equal(here + 2, line_of(function()
      return (x:matmul(x)) end))
    assert.equal(here + 4, line_of(function()
      return (x:sum(0)) end))
    assert.equal(here + 6, line_of(function()
      return (x + {}) end))
    assert.equal(here + 8, line_of(function()
      return (rp.nn.Linear(3, 4)(rp.ones(2, 5))) end))
  end)
end)

describe('dims', function()
  local x = rp.tensor{{1, 2, 3}, {4, 5, 6}}

  local function refused(pattern, fn)
    local ok, message = pcall(fn)
    assert.is_false(ok)
    assert.matches(pattern, message)
  end

  it('count from 1, or from the end', function()
    assert.same({5, 7, 9}, x:sum(1):totable())
    assert.same({5, 7, 9}, x:sum(-2):totable())
    assert.same({{6}, {15}}, x:sum(2, true):totable())
    assert.same(21, x:sum{1, -1}:item())
    assert.same(21, x:sum():item())
  end)

  it('of 0 and out of range are errors that name the function', function()
    refused('%[sum%] dim 0: dims count from 1; dims are 1..2, or %-1..%-2 from the end',
      function() return x:sum(0) end)
    refused('%[softmax%] dim 3: dims are 1..2', function() return x:softmax(3) end)
    refused('%[mean%] dim %-1: a scalar has no dims', function() return rp.tensor(1):mean(-1) end)
    refused('%[sum%] dim %-2 twice', function() return x:sum{1, -2} end)
    refused('%[sum%] a dim is a whole number, not 1.5', function() return x:sum(1.5) end)
    refused('%[transpose%] a dim is a whole number, not nil', function() return x:transpose(1) end)
  end)
end)

describe('views and rearrangements', function()
  local x = rp.tensor{{1, 2, 3}, {4, 5, 6}}

  it('keep the order of values', function()
    assert.same({{1, 2}, {3, 4}, {5, 6}}, x:reshape(3, 2):totable())
    assert.same({{1, 2}, {3, 4}, {5, 6}}, x:view{-1, 2}:totable())
    assert.same({1, 2, 3, 4, 5, 6}, x:flatten():totable())
    assert.same({{1, 4}, {2, 5}, {3, 6}}, x:t():totable())
    assert.same({{1, 4}, {2, 5}, {3, 6}}, x:transpose(-1, 1):totable())
    assert.same({{1, 4}, {2, 5}, {3, 6}}, x:permute(2, 1):totable())
    assert.equal('(2,1,3)', tostring(x:unsqueeze(2).shape))
    assert.equal('(2,3,1)', tostring(x:unsqueeze(-1).shape))
    assert.equal('(2,3)', tostring(x:unsqueeze(1):squeeze().shape))
    assert.equal('(1,2,3)', tostring(x:unsqueeze(1):squeeze(2).shape))
    assert.equal('(2,2,3)', tostring(x:expand(2, -1, 3).shape))
  end)

  it('cut pieces out', function()
    assert.same({{2, 3}, {5, 6}}, x:narrow(2, 2, 2):totable())
    assert.same({{1, 3}, {4, 6}}, x:slice(2, 1, -1, 2):totable())
    assert.same({{4, 5, 6}}, x:slice(1, 2):totable())
    assert.same({{}, {}}, x:slice(2, 3, 2):totable())
    assert.same({2, 5}, x:select(2, 2):totable())
    local a, b = x:split(2, 2)
    assert.same({{1, 2}, {4, 5}}, a:totable())
    assert.same({{3}, {6}}, b:totable())
    local first, second, third = x:chunk(3, -1)
    assert.same({{1}, {4}}, first:totable())
    assert.same({{2}, {5}}, second:totable())
    assert.same({{3}, {6}}, third:totable())
    assert.equal(2, select('#', x:split({1, 2}, 2)))
  end)

  it('put pieces together', function()
    local a = rp.tensor{1, 2}
    assert.same({1, 2, 1, 2}, rp.cat{a, a}:totable())
    assert.same({{1, 2}, {1, 2}}, rp.stack{a, a}:totable())
    assert.same({{1, 1}, {2, 2}}, rp.stack({a, a}, -1):totable())
    -- PyTorch's order: the last dim's widths first.
    assert.same({{9, 1, 2}}, a:unsqueeze(1):pad({1, 0}, 9):totable())
    assert.same({{1, 2}, {0, 0}}, a:unsqueeze(1):pad{0, 0, 0, 1}:totable())
  end)

  it('say what does not fit', function()
    for pattern, fn in pairs{
      ['6 values do not divide into %(4,%-1%)'] = function() return x:reshape(4, -1) end,
      ['only one size may be %-1'] = function() return x:reshape(-1, -1) end,
      ['positions 3..4 of dim 2, which has 3'] = function() return x:narrow(2, 3, 2) end,
      ['position 0: positions count from 1'] = function() return x:narrow(2, 0, 1) end,
      ['sizes %(1,1%) do not add up to 3'] = function() return x:split({1, 1}, 2) end,
      ['t%(%) is for matrices'] = function() return rp.ones(2, 2, 2):t() end,
      ['1 dims for a tensor of 2'] = function() return x:permute(1) end,
    } do
      local ok, message = pcall(fn)
      assert.is_false(ok)
      assert.matches(pattern, message)
    end
  end)

  it('split has the gradient of narrow, bit for bit', function()
    local function gradient(cut)
      local w = rp.tensor({{1, 2, 3, 4}, {5, 6, 7, 8}}, {requires_grad = true})
      local a, b = cut(w)
      ;(a * a * b):sum():backward()
      return w.grad:bytes()
    end
    assert.equal(
      gradient(function(w) return w:narrow(2, 1, 2), w:narrow(2, 3, 2) end),
      gradient(function(w) return w:chunk(2, -1) end))
  end)
end)

describe('printing', function()
  -- The expected texts are PyTorch 2.9's, but for 'dtype=' and (2,0).
  local function arange(n, shape, divisor)
    local list = {}
    for i = 1, n do list[i] = (i - 1) / (divisor or 1) end
    return rp.tensor(list, {shape = shape})
  end

  it('chooses one format for all values', function()
    assert.equal('tensor([[ 1.0000,  2.5000],\n        [    nan, -3.0000]])',
      tostring(rp.tensor{{1, 2.5}, {0 / 0, -3}}))
    assert.equal('tensor([-1., 22.])', tostring(rp.tensor{-1, 22}))
    assert.equal('tensor([1.0000e-05, 1.0000e+00, 2.0000e+00])',
      tostring(rp.tensor{1e-5, 1, 2}))
    assert.equal('tensor([1.0000e+05, 1.0000e+00])', tostring(rp.tensor{1e5, 1}))
    assert.equal('tensor([0., 0.])', tostring(rp.tensor{0, 0}))
    assert.equal('tensor([   inf, 1.5000])', tostring(rp.tensor{math.huge, 1.5}))
    assert.equal('tensor(3.2500)', tostring(rp.tensor(3.25)))
    assert.equal('tensor([1.5000], dtype=f64)', tostring(rp.tensor({1.5}, {dtype = 'f64'})))
    assert.equal('tensor([ true, false])', tostring(rp.tensor{true, false}))
    assert.equal('tensor([])', tostring(rp.tensor{}))
    assert.equal('tensor([], size=(2,0))', tostring(rp.zeros(2, 0)))
    assert.equal('tensor([1.], requires_grad=true)',
      tostring(rp.tensor({1}, {requires_grad = true})))
  end)

  it('lays dims out in blocks and wraps at 80 columns', function()
    assert.equal('tensor([[[1, 2],\n         [3, 4]],\n\n' ..
      '        [[5, 6],\n         [7, 8]]], dtype=i64)',
      tostring(rp.tensor({{{1, 2}, {3, 4}}, {{5, 6}, {7, 8}}}, {dtype = 'i64'})))
    assert.equal('tensor([0.0000, 0.3333, 0.6667, 1.0000, 1.3333, 1.6667, ' ..
      '2.0000, 2.3333, 2.6667,\n        3.0000, 3.3333])', tostring(arange(11, nil, 3)))
  end)

  it('summarises more than 1000 values', function()
    assert.equal('tensor([0.0000e+00, 1.0000e+00, 2.0000e+00,  ..., 1.9970e+03, 1.9980e+03,\n' ..
      '        1.9990e+03])', tostring(arange(2000)))
    assert.equal([=[
tensor([[0.0000e+00, 1.0000e+00, 2.0000e+00,  ..., 3.7000e+01, 3.8000e+01,
         3.9000e+01],
        [4.0000e+01, 4.1000e+01, 4.2000e+01,  ..., 7.7000e+01, 7.8000e+01,
         7.9000e+01],
        [8.0000e+01, 8.1000e+01, 8.2000e+01,  ..., 1.1700e+02, 1.1800e+02,
         1.1900e+02],
        ...,
        [1.0800e+03, 1.0810e+03, 1.0820e+03,  ..., 1.1170e+03, 1.1180e+03,
         1.1190e+03],
        [1.1200e+03, 1.1210e+03, 1.1220e+03,  ..., 1.1570e+03, 1.1580e+03,
         1.1590e+03],
        [1.1600e+03, 1.1610e+03, 1.1620e+03,  ..., 1.1970e+03, 1.1980e+03,
         1.1990e+03]])]=], tostring(arange(1200, {30, 40})))
  end)
end)

describe('functions', function()
  it('of ops without attributes come from the registry', function()
    local binding = require 'reprise.ffi'
    local info = ffi.new 'rp_op_info'
    binding.C.rp_op_describe(binding.C.rp_op_find 'tanh', info)
    assert.equal('tanh', ffi.string(info.name))
    assert.equal(math.tanh(0.5), rp.tensor(0.5, {dtype = 'f64'}):tanh():item())
    assert.is_function(rp.logical_and)
    assert.is_nil(rp.tanh_grad)
    assert.is_nil(rp.adamw)
  end)

  it('take PyTorch\'s arguments', function()
    local x = rp.tensor{-2, 0.5, 3}
    assert.same({-1, 0.5, 1}, x:clamp(-1, 1):totable())
    assert.same({-1, 0.5, 3}, x:clamp{min = -1}:totable())
    assert.same({0, 0.5, 3}, rp.where(x:lt(0), 0, x):totable())
    assert.same({9, 0.5, 3}, x:masked_fill(x:lt(0), 9):totable())
    assert.same({-2, 0, 3}, x:to 'i32':totable())
    assert.is_true(x:to 'f32' == x)
    assert.equal(3, x:max():item())
    assert.same({1, 1, 3}, x:max(rp.ones(3)):totable())
    assert.equal(2, x:argmax():item())
    assert.same({-2, -1.5, 1.5}, x:cumsum(1):totable())
    assert.equal(5.5, x:norm(1):item())
    assert.equal(3, x:norm(math.huge):item())
    -- var of 1, 2, 3, 4: 5/4 by n, 5/3 by n - 1.
    local y = rp.tensor({1, 2, 3, 4}, {dtype = 'f64'})
    assert.near(5 / 3, y:var():item(), 1e-15)
    assert.near(5 / 4, y:var(1, {correction = 0}):item(), 1e-15)
    assert.near(math.sqrt(5 / 3), y:std():item(), 1e-15)
    assert.same({{1, 0}, {1, 1}}, rp.tensor{{7, 7}, {7, 7}}
      :scaled_masked_softmax{causal = true}:gt(0):to 'f32':totable())
  end)

  it('multiply vectors and matrices', function()
    local m, v = rp.tensor{{1, 2}, {3, 4}}, rp.tensor{1, 10}
    assert.equal(101, v:matmul(v):item())
    assert.same({21, 43}, m:matmul(v):totable())
    assert.same({31, 42}, v:matmul(m):totable())
    assert.equal('(5,2)', tostring(rp.ones(5, 2, 2):matmul(v).shape))
  end)

  it('embed with the integer tensor as indices, in either order', function()
    local w, i = rp.tensor{{1, 2}, {3, 4}}, rp.tensor({1, 0}, {dtype = 'i32'})
    assert.same({{3, 4}, {1, 2}}, rp.embedding(i, w):totable())
    assert.same({{3, 4}, {1, 2}}, rp.embedding(w, i):totable())
  end)

  it('attend with a mask of bools or of numbers to add', function()
    local q = rp.randn(1, 3, 4)
    local bools = rp.tensor{{true, false, false}, {true, true, false}, {true, true, true}}
    local numbers = rp.zeros(3, 3):masked_fill(bools:logical_not(), -math.huge)
    local by_flag = rp.scaled_dot_product_attention(q, q, q, {is_causal = true}):bytes()
    assert.equal(by_flag, rp.scaled_dot_product_attention(q, q, q, bools):bytes())
    local added = rp.scaled_dot_product_attention(q, q, q, {attn_mask = numbers})
    local difference = added - rp.scaled_dot_product_attention(q, q, q, bools)
    -- The scores are scaled before or in the softmax: some roundings apart.
    assert.is_true(difference:abs():max():item() < 1e-6)
  end)

  it('name what they refuse', function()
    local x = rp.ones(2, 3)
    for pattern, fn in pairs{
      ['%[add%] a tensor is wanted here, not string'] = function() return x + 'y' end,
      ['%[relu%] a tensor is wanted here, not nil'] = function() return rp.relu() end,
      ["%[mse_loss%] reduction is 'mean', 'sum' or 'none', not 'max'"] =
        function() return rp.mse_loss(x, x, {reduction = 'max'}) end,
      ["%[gelu%] approximate is 'none' or 'tanh', not 'erf'"] =
        function() return x:gelu 'erf' end,
      ['%[dropout%] p is in 0..1, not 2'] = function() return x:dropout(2) end,
      ['%[norm%] p is 1, 2 or math.huge, not 3'] = function() return x:norm(3) end,
      ['%[cat%] a list of tensors is wanted'] = function() return rp.cat(x) end,
      ['%[item%] a tensor of shape %(2,3%) has 6 values'] = function() return x:item() end,
    } do
      local ok, message = pcall(fn)
      assert.is_false(ok)
      assert.matches(pattern, message)
    end
  end)
end)
