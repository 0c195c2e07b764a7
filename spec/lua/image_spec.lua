-- Functions and layers for images: what the op tables (golden, gradcheck,
-- identity) do not say.

local rp = require 'reprise'
local raw = require 'spec.support.raw'
local run = require 'spec.support.run'

local nn = rp.nn

local function values(seed, shape, lo, hi, dtype)
  return rp.tensor(raw.fill(seed, shape, lo, hi), {dtype = dtype}):reshape(shape)
end

local function numbers(t) return raw.read(t.ptr) end

local function near(want, got, tolerance)
  assert.equal(#want, #got)
  for i = 1, #want do
    local off = math.abs(want[i] - got[i])
    if off ~= off or off > tolerance * (1 + math.abs(want[i])) then
      error(('element %d: %.9g, not %.9g'):format(i, got[i], want[i]), 2)
    end
  end
end

describe('a convolution too large to be rearranged at once', function()
  -- f32 in slices of the batch (1) and parts of the channels (2), both (3),
  -- groups, Winograd's in slices (5), parts (6) and both (7), against f64,
  -- which does neither. Sums of up to 2304 products
  -- of numbers below 1: a relative 1e-4 is 100 times their rounding.
  for number, one in ipairs {
    {x = {6, 20, 48, 48}, w = {24, 20, 3, 3}, padding = 1},
    {x = {4, 256, 8, 8}, w = {192, 256, 3, 3}, padding = 2, dilation = 2},
    {x = {6, 192, 20, 20}, w = {256, 192, 3, 3}, padding = 1, stride = 2},
    {x = {6, 64, 48, 20}, w = {96, 16, 3, 3}, padding = {1, 0}, groups = 4},
    {x = {7, 64, 20, 28}, w = {96, 64, 3, 3}, padding = 1},
    {x = {4, 256, 8, 8}, w = {192, 256, 3, 3}, padding = 1},
    {x = {12, 256, 20, 8}, w = {96, 256, 3, 3}, padding = {0, 1}},
  } do
    it('has the values of f64 and the gradients, ' .. number, function()
      local results = {}
      for _, dtype in ipairs {'f64', 'f32'} do
        local x = nn.Parameter(values(1, one.x, -1, 1, dtype))
        local w = nn.Parameter(values(2, one.w, -1, 1, dtype))
        local b = nn.Parameter(values(3, {one.w[1]}, -1, 1, dtype))
        local y = rp.conv2d(x, w, b, {padding = one.padding, stride = one.stride or 1,
          groups = one.groups or 1, dilation = one.dilation or 1})
        local dy = values(4, y.shape, -1, 1, dtype)
        local d = rp.grad((y * dy):sum(), {x, w, b})
        results[#results + 1] = {numbers(y), numbers(d[1]), numbers(d[2]), numbers(d[3])}
      end
      for k = 1, 4 do
        -- Against the size of the sums, not of what is left of them.
        local greatest = 0
        for _, v in ipairs(results[1][k]) do greatest = math.max(greatest, math.abs(v)) end
        for i, v in ipairs(results[1][k]) do
          if math.abs(results[2][k][i] - v) > 1e-5 * greatest then
            error(('result %d, element %d: %g, not %g'):format(k, i, results[2][k][i], v))
          end
        end
      end
    end)
  end
end)

describe('rp.conv2d', function()
  it('takes options by position, by name and as pairs', function()
    local x, w = values(1, {2, 4, 7, 8}), values(2, {6, 2, 3, 3})
    local want = numbers(rp.conv2d(x, w, nil, {2, 1}, {1, 2}, {1, 2}, 2))
    assert.same(want, numbers(rp.conv2d(x, w, nil,
      {stride = {2, 1}, padding = {1, 2}, dilation = {1, 2}, groups = 2})))
    assert.same({2, 6, 4, 8}, rp.conv2d(x, w, nil, {2, 1}, {1, 2}, {1, 2}, 2).shape)
    assert.same({2, 6, 4, 4}, x:conv2d(w, nil, 2, 1, 1, 2).shape)
    assert.same({2, 6, 7, 8}, x:conv2d(w, nil, {padding = 'same', groups = 2}).shape)
    assert.same({2, 6, 5, 6}, x:conv2d(w, nil, {padding = 'valid', groups = 2}).shape)
  end)

  it('counts a window\'s elements when all are 1', function()
    local y = rp.conv2d(rp.ones(1, 1, 3, 3), rp.ones(1, 1, 3, 3), nil, {padding = 1})
    assert.same({4, 6, 4, 6, 9, 6, 4, 6, 4}, numbers(y))
  end)

  it('takes one image, strided operands and an empty batch', function()
    local x, w = values(1, {3, 5, 6}), values(2, {2, 3, 3, 3})
    local one = rp.conv2d(x, w)
    assert.same({2, 3, 4}, one.shape)
    assert.same(numbers(rp.conv2d(x:unsqueeze(1), w)), numbers(one))
    local turned = values(1, {2, 6, 5, 3}):permute(1, 4, 3, 2)
    assert.same(numbers(rp.conv2d(turned:contiguous(), w)), numbers(rp.conv2d(turned, w)))
    assert.same({0, 2, 3, 4}, rp.conv2d(rp.zeros(0, 3, 5, 6), w):run().shape)
    local p = nn.Parameter(w)
    local dw = rp.grad(rp.conv2d(rp.zeros(0, 3, 5, 6), p):sum(), {p})[1]
    assert.equal(0, dw:abs():sum():item())
  end)

  it('says what does not fit', function()
    local x, w = rp.ones(2, 4, 5, 5), rp.ones(6, 4, 3, 3)
    local function refuses(pattern, ...)
      local ok, problem = pcall(rp.conv2d, ...)
      assert(not ok, 'it was accepted')
      assert.matches(pattern, tostring(problem))
    end
    refuses('x has 4 channels, the weight takes 3', x, rp.ones(6, 3, 3, 3))
    refuses('needs a bias %(6%)', x, w, rp.ones(5))
    refuses('smaller than the kernel', x, rp.ones(6, 4, 7, 3))
    refuses('stride is a whole number of at least 1', x, w, nil, 0)
    refuses('3 groups do not divide', x, w, nil, {groups = 3})
    refuses("no option 'pading'", x, w, nil, {pading = 1})
    refuses('f32 and f64 differ', x, w:to 'f64')
    refuses('needs x %(batch, channels, height, width%)', rp.ones(4, 5), w)
  end)
end)

describe('pooling and resizing', function()
  it('take PyTorch\'s options', function()
    local x = values(1, {2, 3, 7, 9})
    assert.same({2, 3, 3, 4}, x:max_pool2d(2).shape)
    assert.same({2, 3, 4, 5}, x:max_pool2d(2, {ceil_mode = true}).shape)
    assert.same({2, 3, 4, 5}, x:max_pool2d(3, 2, 1).shape)
    assert.same({2, 3, 7, 9}, x:avg_pool2d(3, {stride = 1, padding = 1}).shape)
    assert.same({2, 3, 1, 1}, x:adaptive_avg_pool2d(1).shape)
    assert.same({2, 3, 14, 27}, x:interpolate({scale_factor = {2, 3}}).shape)
    assert.same({2, 3, 5, 6}, x:interpolate({size = {5, 6}, mode = 'nearest'}).shape)
    local ones = rp.ones(1, 1, 3, 3)
    assert.near(4 / 9, ones:avg_pool2d(3, 1, 1)[1][1][1][1]:item(), 1e-7)
    assert.equal(1, ones:avg_pool2d(3, {stride = 1, padding = 1,
      count_include_pad = false})[1][1][1][1]:item())
    assert.equal(2, ones:avg_pool2d(2, {divisor_override = 2})[1][1][1][1]:item())
  end)

  it('say what does not fit', function()
    local x = rp.ones(1, 1, 3, 3)
    assert.error_matches(function() return x:max_pool2d(4) end,
      'smaller than a window of 4')
    assert.error_matches(function() return x:max_pool2d(2, 2, 2) end,
      'padding is from 0 to half of the kernel')
    assert.error_matches(function() return x:interpolate {mode = 'bilinear', size = 2} end,
      "no mode 'bilinear'; there is nearest")
    assert.error_matches(function() return x:interpolate {} end, 'one of size and scale')
    assert.error_matches(function() return rp.ones(3):max_pool2d(2) end,
      'needs %(..., height, width%)')
  end)
end)

describe('layers for images', function()
  it('have PyTorch\'s parameters and first values', function()
    local model = nn.Sequential {
      nn.Conv2d(3, 8, {3, 5}, {padding = {1, 2}}), nn.BatchNorm2d(8), nn.ReLU(),
      nn.MaxPool2d(2), nn.Conv2d(8, 4, 3, {groups = 2, bias = false}),
      nn.GroupNorm(2, 4), nn.AvgPool2d(2, {stride = 1}), nn.Upsample {scale_factor = 2},
      nn.AdaptiveAvgPool2d {2, 3}, nn.Flatten(), nn.Linear(24, 5),
    }
    local names = {}
    for name, t in model:named_parameters() do
      names[#names + 1] = name .. ' ' .. table.concat(t.shape, 'x')
    end
    table.sort(names)
    assert.same({'1.bias 8', '1.weight 8x3x3x5', '11.bias 5', '11.weight 5x24',
      '2.bias 8', '2.weight 8', '5.weight 4x4x3x3', '6.bias 4', '6.weight 4'}, names)
    assert.equal(2, #model:buffers())
    assert.same({4, 5}, model(values(1, {4, 3, 12, 14})).shape)
    -- Uniform below 1 / sqrt(3 * 3 * 5), and 360 of them come near it.
    local bound, greatest = 1 / math.sqrt(45), model[1].weight:abs():max():item()
    assert(greatest <= bound and greatest > 0.95 * bound, tostring(greatest))
    assert.matches('Conv2d%(3, 8, kernel=3x5, stride=1, padding=1x2%)', tostring(model))
    assert.error_matches(function() return nn.Conv2d(3, 8, 3, {groups = 2}) end,
      '2 groups do not divide 3 and 8 channels')
    assert.error_matches(function() return nn.BatchNorm2d(3)(rp.ones(2, 4, 5, 5)) end,
      'x is %(batch, 3, height, width%)')
    assert.error_matches(function() return nn.BatchNorm2d(3)(rp.ones(1, 3, 1, 1)) end,
      'fewer than two values a channel have no variance')
  end)
end)

-- ---- running statistics -------------------------------------------------------------

local CHANNELS, MOMENTUM, EPS = 3, 0.25, 1e-3

--- PyTorch's formula, in f64, over data:(N, C, S): mean, biased and unbiased
-- variance of each channel.
local function statistics(data, images, run_length)
  local mean, biased, unbiased = {}, {}, {}
  local n = images * run_length
  for c = 1, CHANNELS do
    local sum, square = 0, 0
    local function each(visit)
      for i = 0, images - 1 do
        for k = 1, run_length do visit(data[(i * CHANNELS + c - 1) * run_length + k]) end
      end
    end
    each(function(v) sum = sum + v end)
    mean[c] = sum / n
    each(function(v) square = square + (v - mean[c]) ^ 2 end)
    biased[c], unbiased[c] = square / n, square / (n - 1)
  end
  return mean, biased, unbiased
end

--- What the running statistics are after batches with these statistics.
local function expected(batches)
  local mean, var = {0, 0, 0}, {1, 1, 1}
  for _, b in ipairs(batches) do
    for c = 1, CHANNELS do
      mean[c] = (1 - MOMENTUM) * mean[c] + MOMENTUM * b.mean[c]
      var[c] = (1 - MOMENTUM) * var[c] + MOMENTUM * b.unbiased[c]
    end
  end
  return mean, var
end

--- A model with the norm in its first of three layers, and one batch a seed.
local function setup_norm()
  rp.manual_seed(3)
  local norm = nn.BatchNorm2d(CHANNELS, {momentum = MOMENTUM, eps = EPS, dtype = 'f64'})
  local conv = nn.Conv2d(CHANNELS, CHANNELS, 3, {padding = 1, dtype = 'f64'})
  local model = nn.Layers {
    nn.Sequential {norm, nn.Tanh()}, nn.Sequential {conv, nn.Tanh()},
    nn.Sequential {nn.Conv2d(CHANNELS, 2, 1, {dtype = 'f64'})},
  }
  local function batch(seed)
    local data = raw.fill(seed, {2, CHANNELS, 4, 5}, -1, 3)
    local mean, biased, unbiased = statistics(data, 2, 20)
    return {x = rp.tensor(data, {dtype = 'f64'}):reshape(2, CHANNELS, 4, 5),
            data = data, mean = mean, biased = biased, unbiased = unbiased}
  end
  return model, norm, batch
end

local function check(norm, batches)
  local mean, var = expected(batches)
  near(mean, numbers(norm.running_mean), 1e-13)
  near(var, numbers(norm.running_var), 1e-13)
end

describe('running statistics', function()
  setup(run.quiet)
  teardown(run.loud)

  for _, spec in ipairs {'none', 'every=1', 'every=2', 'sqrt', 'nodes=1', 'nodes=3',
                         'ops', 'scope=*', 'segments=1', 'uniform=2', 'budget=min'} do
    it('move once a step under ' .. spec, function()
      local model, norm, batch = setup_norm()
      local opt = rp.optim.SGD(model:parameters(), {lr = 0.1})
      local seen = {}
      for step = 1, 4 do
        local b = batch(step)
        seen[step] = b
        local loss = model(b.x):square():mean()
        if step % 2 == 0 then
          opt:minimize(loss, {ckpt = spec})
        else
          loss:backward {ckpt = spec}
          opt:step()
          opt:zero_grad()
        end
        check(norm, seen)
      end
    end)

    it('move once whatever was evaluated before, under ' .. spec, function()
      local model, norm, batch = setup_norm()
      local opt = rp.optim.SGD(model:parameters(), {lr = 0.1})
      local b = batch(1)
      local h = norm(b.x)
      check(norm, {})
      local y = model[3](model[2](rp.tanh(h)))
      h:sum():item() -- runs h without keeping it
      check(norm, {b})
      local loss = y:square():mean()
      loss:item()
      check(norm, {b})
      loss:backward {ckpt = spec}
      loss:backward {ckpt = spec}
      opt:minimize(y:mean(), {ckpt = spec})
      check(norm, {b})
    end)
  end

  it('move by a forward alone, once however often it is read', function()
    local _, norm, batch = setup_norm()
    local b, c = batch(1), batch(2)
    local y = norm(b.x)
    check(norm, {})
    y:run()
    y:sum():item()
    check(norm, {b})
    rp.no_grad(function() norm(c.x):run() end)
    check(norm, {b, c})
  end)

  it('move once a call where a norm is called twice', function()
    local _, norm, batch = setup_norm()
    local b, c = batch(1), batch(2)
    local loss = (norm(b.x) * norm(c.x)):sum()
    loss:backward()
    check(norm, {b, c})
    norm.running_mean:copy_(rp.zeros(3, {dtype = 'f64'}))
    norm.running_var:copy_(rp.ones(3, {dtype = 'f64'}))
    loss = (norm(b.x) + norm(b.x)):sum()
    loss:backward {ckpt = 'nodes=1'}
    check(norm, {b, b})
  end)

  it('stay in eval mode and make the values there', function()
    local _, norm, batch = setup_norm()
    local b, c = batch(1), batch(2)
    norm(b.x):run()
    norm:eval()
    local mean, var = expected {b}
    local got, want = numbers(norm(c.x)), {}
    for i, v in ipairs(c.data) do
      local k = math.floor((i - 1) / 20) % CHANNELS + 1
      want[i] = (v - mean[k]) / math.sqrt(var[k] + EPS)
    end
    near(want, got, 1e-12)
    check(norm, {b})
    norm:train()
    norm(c.x):run()
    check(norm, {b, c})
  end)

  it('do not bind the values that were recorded before they moved', function()
    local _, norm, batch = setup_norm()
    local b, c = batch(1), batch(2)
    local y, z = norm(b.x), norm(c.x)
    y:run()
    z:run()
    for i, v in ipairs(numbers(z)) do
      local k = math.floor((i - 1) / 20) % CHANNELS + 1
      assert.near((c.data[i] - c.mean[k]) / math.sqrt(c.biased[k] + EPS), v, 1e-12)
    end
    check(norm, {b, c})
  end)

  it('are absent without track_running_stats, and saved with the model', function()
    local norm = nn.BatchNorm2d(3, {track_running_stats = false})
    assert.equal(0, #norm:buffers())
    local x = values(1, {2, 3, 4, 4})
    local trained = numbers(norm(x))
    assert.same(trained, numbers(norm:eval()(x)))
    local a, b = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    a(x):run()
    b:load_state_dict(a:state_dict())
    assert.same(numbers(a.running_var), numbers(b.running_var))
    assert.not_same({1, 1, 1}, numbers(b.running_var))
  end)
end)

describe('a ResNet-18 on 32 images of 32 x 32', function()
  it('needs less than PyTorch by far', function()
    local model = require 'examples.models.resnet' {channels = 3, width = 64,
      layers = 8, classes = 10}
    local opt = rp.optim.SGD(model:parameters(), {lr = 0.1, momentum = 0.9})
    local x, y = rp.zeros(32, 3, 32, 32), rp.zeros({32}, {dtype = 'i32'})
    local loss = rp.cross_entropy(model(x), y)
    -- Live MiB above parameters and states, measured with PyTorch 2: 172, 129
    -- with every second block checkpointed, 114 with each. Without recomputing
    -- anything what backward reads is 141 already.
    for spec, most in pairs {none = 0.92 * 172, ['every=2'] = 0.82 * 129,
                             ['every=1'] = 0.6 * 114, ops = 0.75 * 172} do
      local plan = opt:plan(loss, {ckpt = spec})
      local above = plan.arena_bytes / 2 ^ 20
      assert(above < most, ('%s: %.1f MiB'):format(spec, above))
    end
  end)
end)
