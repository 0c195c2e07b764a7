-- Attention as one op, against its parts and against what must hold. Values
-- from PyTorch are in golden_spec, differences in gradcheck_spec.

local rp = require 'reprise'
local raw = require 'spec.support.raw'
local run = require 'spec.support.run'

local nn = rp.nn

--- The same from matmul, softmax and dropout.
local function parts(q, k, v, o)
  local width = q.shape[#q.shape]
  local w = rp.scaled_masked_softmax(q:matmul(k:transpose(-2, -1)), {
    mask = o.mask, causal = o.is_causal, scale = o.scale or 1 / math.sqrt(width),
  })
  return rp.dropout(w, o.dropout_p or 0):matmul(v)
end

local function random(shape, dtype)
  return rp.randn(shape, {dtype = dtype}):run()
end

--- Values and gradients of f(q, k, v, o), as lists of numbers; the same draws
-- each time.
local function results(f, x, o, dy)
  rp.manual_seed(11)
  local y = f(x[1], x[2], x[3], o)
  local out = {raw.read(y.ptr)}
  for _, g in ipairs(rp.grad(y, x, dy)) do out[#out + 1] = raw.read(g.ptr) end
  return out
end

local tolerance = {f32 = 2e-5, f64 = 4e-14}

local function same_values(x, o, dy, dtype, what)
  local want = results(parts, x, o, dy)
  local got = results(rp.scaled_dot_product_attention, x, o, dy)
  for i = 1, #want do
    local problem = raw.difference(got[i], want[i], tolerance[dtype], 1)
    if problem then error(('%s, %s, %d: %s'):format(what, dtype, i, problem), 0) end
  end
end

-- batch, heads, queries, keys, width, width of the values.
local sizes = {
  {2, 3, 7, 8, 5, 4}, {1, 2, 1, 4, 5, 5}, {1, 1, 1, 1, 1, 1},
  {2, 2, 64, 64, 64, 64}, {1, 2, 130, 72, 33, 40}, {1, 1, 72, 200, 17, 3},
  {1, 2, 33, 68, 96, 65}, {1, 1, 300, 300, 8, 8},
}

describe('attention', function()
  setup(run.quiet)
  teardown(run.loud)

  for _, s in ipairs(sizes) do
    it('is the product of its parts: ' .. table.concat(s, ' '), function()
      for dtype in pairs(tolerance) do
        local b, h, tq, tk, d, e = unpack(s)
        local x = {random({b, h, tq, d}, dtype), random({b, h, tk, d}, dtype),
                   random({b, h, tk, e}, dtype)}
        local dy = random({b, h, tq, e}, dtype)
        local masks = {false, rp.rand(b, 1, tq, tk):gt(0.4), rp.rand(h, 1, tk):gt(0.5),
                       rp.rand(tq, 1):gt(0.5)}
        for i, mask in ipairs(masks) do
          for _, causal in ipairs {false, true} do
            for _, p in ipairs {0, 0.25} do
              -- Words are numbered as the op dropout does where rows are
              -- whole blocks of four.
              if p == 0 or tk % 4 == 0 then
                if mask then mask:run() end
                same_values(x, {mask = mask or nil, is_causal = causal,
                  dropout_p = p}, dy, dtype,
                  ('mask %d, causal %s, p %g'):format(i, tostring(causal), p))
              end
            end
          end
        end
      end
    end)
  end

  it('takes operands of any strides', function()
    for dtype in pairs(tolerance) do
      local whole = random({2, 70, 3, 2, 40}, dtype)
      local o = {is_causal = true, dropout_p = 0.25}
      local function at(i) return whole:select(3, i):transpose(2, 3) end
      local views = {at(1), at(2), at(3)}
      local copies = {}
      for i, view in ipairs(views) do copies[i] = view:contiguous():run() end
      local dy = random({2, 70, 2, 40}, dtype)
      local across = dy:transpose(2, 3)
      local want = results(rp.scaled_dot_product_attention, copies, o,
        across:contiguous():run())
      local got = results(rp.scaled_dot_product_attention, views, o, across)
      for i = 1, 4 do assert.is_nil(raw.bit_difference(got[i], want[i])) end
      -- And every other column, backwards along no dim but with steps.
      local wide = random({1, 2, 9, 12}, dtype)
      local stepped = wide:narrow(4, 1, 6, 2)
      local plain = stepped:contiguous():run()
      local y = rp.scaled_dot_product_attention(stepped, stepped, stepped)
      local z = rp.scaled_dot_product_attention(plain, plain, plain)
      assert.equal(z:bytes(), y:bytes())
    end
  end)

  it('is the same packed or apart, bit for bit', function()
    local whole = random({2, 70, 3, 2, 40}, 'f32')
    local mask = rp.rand(70, 70):gt(0.3):run()
    local dy = random({2, 70, 2, 40}, 'f32')
    for _, o in ipairs {{}, {is_causal = true, dropout_p = 0.25},
                        {mask = mask}} do
      rp.manual_seed(3)
      local y = rp.packed_attention(whole, o)
      local dx = rp.grad(y, {whole}, dy)[1]
      rp.manual_seed(3)
      local x = {}
      for i = 1, 3 do x[i] = whole:select(3, i):transpose(2, 3) end
      local z = rp.scaled_dot_product_attention(x[1], x[2], x[3], o)
      assert.equal(z:transpose(2, 3):contiguous():bytes(), y:bytes())
      for i, g in ipairs(rp.grad(z, x, dy:transpose(2, 3))) do
        assert.equal(g:transpose(2, 3):contiguous():bytes(),
          dx:select(3, i):contiguous():bytes())
      end
    end
  end)

  it('computes bf16 in f32 and rounds once', function()
    local function leaves(dtype, shapes)
      local list = {}
      for i, shape in ipairs(shapes) do
        -- Multiples of 1/64 below 2: bf16 holds them.
        local data = raw.fill(40 + i, shape, -1.5, 1.5)
        for k = 1, #data do data[k] = math.floor(data[k] * 64) / 64 end
        if i == 6 then -- lse
          dtype = 'f32'
          for k = 1, #data do data[k] = data[k] + 8 end
        end
        if dtype == 'bf16' then
          local wide = raw.leaf('f32', shape, data)
          list[i] = raw.record('cast', {wide}, {tonumber(raw.code.bf16)})
        else
          list[i] = raw.leaf(dtype, shape, data)
        end
      end
      return list
    end
    local function check(op, outputs, shapes, ints, reals)
      raw.C.rp_manual_seed(raw.ctx, 5)
      local wide = raw.record(op, leaves('f32', shapes), ints, reals)
      raw.C.rp_manual_seed(raw.ctx, 5)
      local narrow = raw.record(op, leaves('bf16', shapes), ints, reals)
      for k = 0, outputs - 1 do
        local want, got = wide, narrow
        if k > 0 then want, got = raw.output(wide, k), raw.output(narrow, k) end
        if select(2, raw.type(got)) == 'bf16' then
          want = raw.record('cast', {want}, {tonumber(raw.code.bf16)})
        end
        assert.equal(raw.bytes(want), raw.bytes(got), op .. ', output ' .. k)
      end
    end
    local q, k = {1, 2, 35, 7}, {1, 2, 70, 7}
    local y = {1, 35, 2, 7}
    check('attention', 2, {q, k, k}, {1}, {0.5, 0.25})
    check('attention_grad', 3, {y, q, k, k, y, {1, 2, 35}}, {1}, {0.5, 0.25})
    check('packed_attention', 2, {{2, 33, 3, 2, 16}}, {1}, {0.5, 0.25})
  end)

  it('is finite where nothing is attended to', function()
    local q, k = random({1, 1, 3, 4}, 'f32'), random({1, 1, 5, 4}, 'f32')
    local mask = rp.tensor({0, 1, 0}):reshape(3, 1):gt(0)
    local y = rp.scaled_dot_product_attention(q, k, k, {mask = mask})
    local dq = rp.grad((y * y):sum(), {q})[1]
    assert.same({0, 0, 0, 0}, y:totable()[1][1][1])
    assert.same({0, 0, 0, 0}, dq:totable()[1][1][3])
    assert.is_true(y:abs():max():item() > 0)
    local node = raw.record('attention', {q.ptr, k.ptr, k.ptr, mask.ptr}, {0}, {0.5, 0})
    local lse = raw.read(raw.output(node, 1))
    assert.equal(0, lse[1])
    assert.equal(0, lse[3])
  end)

  it('broadcasts heads, and takes fewer dims', function()
    local q, k = random({2, 3, 6, 4}, 'f64'), random({2, 1, 8, 4}, 'f64')
    local v = random({8, 5}, 'f64')
    local y = rp.scaled_dot_product_attention(q, k, v)
    assert.same({2, 3, 6, 5}, y.shape)
    local want = parts(q, k, v:reshape(1, 1, 8, 5), {})
    assert.is_nil(raw.difference(raw.read(y.ptr), raw.read(want.ptr), 4e-14, 1))
    local three = rp.scaled_dot_product_attention(q:select(1, 1), k:select(1, 1), v)
    assert.same({3, 6, 5}, three.shape)
    assert.equal(y:select(1, 1):contiguous():bytes(), three:contiguous():bytes())
    local two = rp.scaled_dot_product_attention(q:select(1, 1):select(1, 2),
      k:select(1, 1):select(1, 1), v)
    assert.same({6, 5}, two.shape)
    assert.equal(three:select(1, 2):contiguous():bytes(), two:contiguous():bytes())
  end)

  it('says what does not fit', function()
    local q, k = rp.zeros(1, 2, 3, 4), rp.zeros(1, 2, 5, 6)
    local attend = rp.scaled_dot_product_attention
    local function refused(text, f)
      local ok, message = pcall(f)
      assert.is_false(ok)
      assert.is_truthy(tostring(message):find(text, 1, true), tostring(message))
    end
    refused('needs (B,H,Tq,D)', function() attend(q, k, k) end)
    refused('dropout_p is in 0..1', function() attend(q, q, q, {dropout_p = 2}) end)
    refused('does not broadcast', function()
      attend(q, q, q, {mask = rp.zeros(7, 3):gt(0)})
    end)
    refused('needs (batch, length, 3, heads, width)', function()
      rp.packed_attention(q)
    end)
    refused('needs (B,T,3,H,D)', function()
      rp.packed_attention(rp.zeros(1, 2, 4, 2, 2))
    end)
  end)

  it('copies nothing between a projection and its gradient', function()
    local model = nn.MultiHeadAttention(48, 3, {causal = true, dropout = 0.1})
    local loss = (model(rp.randn(2, 20, 48)) ^ 2):sum()
    local seen = {}
    loss:plan {ckpt = function(graph)
      for _, node in ipairs(graph.nodes) do seen[node.op] = true end
      return {}
    end}
    assert.is_true(seen.packed_attention)
    for _, op in ipairs {'contiguous', 'cat', 'narrow_grad', 'pad',
                         'dropout'} do
      assert.is_nil(seen[op], op)
    end
  end)

  it('takes -inf in a mask of numbers for "does not attend"', function()
    -- A row of nothing else is zeros, and so are its gradients: PyTorch's too.
    for _, dtype in ipairs {'f32', 'f64'} do
      local x = {random({2, 2, 3, 4}, dtype), random({2, 2, 5, 4}, dtype),
                 random({2, 2, 5, 4}, dtype)}
      local attends = rp.tensor {{1, 0, 1, 1, 0}, {0, 0, 0, 0, 0}, {0, 1, 0, 0, 0}}
      local mask = rp.where(attends:gt(0), rp.zeros(3, 5), rp.full({3, 5}, -math.huge))
      local dy = random({2, 2, 3, 4}, dtype)
      local attend = rp.scaled_dot_product_attention
      local want = results(attend, x, {mask = attends:gt(0)}, dy)
      local got = results(attend, x, {mask = mask:to(dtype)}, dy)
      for i = 1, #want do
        assert.is_nil(raw.difference(got[i], want[i], tolerance[dtype], 1))
      end
      local unknown = attend(x[1], x[2], x[3], {mask = rp.full({5}, 0 / 0, {dtype = dtype})})
      assert.equal(1, unknown:ne(unknown):to('f32'):mean():item())
    end
  end)

  it('in bf16 goes through stored weights too', function()
    local function bf16(...) return rp.randn({...}, {dtype = 'bf16'}):run() end
    local x = {bf16(2, 2, 3, 8), bf16(2, 2, 5, 8), bf16(2, 2, 5, 8)}
    local dy = bf16(2, 2, 3, 8)
    local attend = rp.scaled_dot_product_attention
    local want = results(attend, x, {}, dy)
    for _, dtype in ipairs {'bf16', 'f32'} do
      local got = results(attend, x, {mask = rp.zeros(5, {dtype = dtype})}, dy)
      for i = 1, #want do -- a few roundings of 2^-9 each
        assert.is_nil(raw.difference(got[i], want[i], 0.05, 1))
      end
    end
    local y = rp.packed_attention(bf16(2, 3, 3, 2, 8), {mask = rp.zeros(3)})
    assert.equal('bf16', y.dtype)
  end)

  it('needs memory in proportion to the length', function()
    local w = nn.Parameter(rp.zeros(1))
    local function peak(length)
      local x = rp.zeros(1, length, 3, 6, 64) * w
      local y = rp.packed_attention(x, {is_causal = true, dropout_p = 0.1})
      return y:sum():plan().peak_bytes
    end
    local short, long = peak(1024), peak(8192)
    assert(long <= 8.1 * short, ('%d, then %d'):format(short, long))
    -- A head's weights alone would be 256 MiB.
    assert(long <= 192 * 2 ^ 20, tostring(long))
  end)
end)

describe("attention's dropout", function()
  setup(run.quiet)
  teardown(run.loud)

  --- keep / (n (1 - p)) for each weight: scores are 0, values the identity.
  local function weights(batch, heads, n, p)
    local q = rp.zeros(batch, heads, n, 4)
    local v = rp.arange(n):reshape(n, 1):eq(rp.arange(n):reshape(1, n)):to 'f32'
    local y = rp.scaled_dot_product_attention(q, q, v, {dropout_p = p})
    return y:contiguous():totable()
  end

  it('drops with probability p, and each weight by itself', function()
    rp.manual_seed(5)
    local n, p = 90, 0.3
    local w = weights(2, 2, n, p)
    local total, rows, columns, kept = 0, {}, {}, 1 / (n * (1 - p))
    for b = 1, 2 do
      for h = 1, 2 do
        for i = 1, n do
          local row = {}
          for j = 1, n do
            local x = w[b][h][i][j]
            assert(x == 0 or math.abs(x - kept) < 1e-6 * kept)
            row[j] = x == 0 and '0' or '1'
            columns[j] = (columns[j] or 0) + (x == 0 and 1 or 0)
            total = total + (x == 0 and 1 or 0)
          end
          local text = table.concat(row)
          assert.is_nil(rows[text], 'two rows are alike')
          rows[text] = true
        end
      end
    end
    local count = 4 * n * n
    -- Five standard deviations.
    assert(math.abs(total - p * count) < 5 * math.sqrt(count * p * (1 - p)))
    for j = 1, n do
      assert(math.abs(columns[j] - p * 4 * n) < 5 * math.sqrt(4 * n * p * (1 - p)))
    end
  end)

  it('is zero where p is 1, or as near as a word can tell', function()
    local q = random({1, 2, 9, 4}, 'f32')
    for _, p in ipairs {1, 1 - 1e-9} do
      local y = rp.scaled_dot_product_attention(q, q, q, {dropout_p = p})
      local dq = rp.grad(y:sum(), {q})[1]
      assert.equal(0, y:abs():max():item())
      assert.equal(0, dq:abs():max():item())
    end
  end)

  it('is drawn anew by each call, and again by a replay', function()
    local x = nn.Parameter(random({1, 20, 3, 2, 8}, 'f32'))
    local function gradient(ckpt)
      rp.manual_seed(9)
      x.grad = nil
      local y = rp.packed_attention(x, {is_causal = true, dropout_p = 0.5})
      local z = rp.packed_attention(x, {is_causal = true, dropout_p = 0.5})
      assert.not_equal(y:bytes(), z:bytes())
      local again = rp.checkpoint(function()
        return rp.packed_attention(x * 1, {dropout_p = 0.5}):tanh()
      end)
      again:sum():backward {ckpt = ckpt}
      return x.grad:bytes()
    end
    assert.equal(gradient 'none', gradient 'nodes=1')
  end)
end)
