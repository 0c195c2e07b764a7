-- Programs on 'cuda': what they promise is what they promise on the CPU. Runs on
-- the emulated device, where there is no GPU: the backend's own sources.

local rp = require 'reprise'
local binding = require 'reprise.ffi'
local emulated = require 'spec.support.emulated'
local fails = require 'spec.support.fails'
local nn, optim = rp.nn, rp.optim
local C, ctx = binding.C, binding.ctx

local there, reason = emulated.there()

describe('a program on cuda', function()
  if not there then
    pending(reason)
    return
  end

  -- What fn makes lies there.
  local function on(name, fn, ...)
    rp.set_default_device(name)
    local result = {pcall(fn, ...)}
    rp.set_default_device 'cpu'
    assert(result[1], result[2])
    return unpack(result, 2)
  end

  after_each(function()
    rp.set_default_device 'cpu'
    rp.cuda.graphs(true)
    rp.detect_anomaly(false)
    rp.verify_replay(false)
    C.rp_memory_fail_at(ctx, 0)
  end)

  local function mlp()
    return nn.Layers(4, function()
      return nn.Sequential {nn.LayerNorm(12), nn.Linear(12, 24), nn.GELU(),
        nn.Dropout(0.2), nn.Linear(24, 12)}
    end)
  end

  local function image_model()
    return nn.Sequential {nn.Conv2d(2, 4, 3, {padding = 1}), nn.BatchNorm2d(4), nn.ReLU(),
      nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 4 * 4, 12)}
  end

  local shapes = {[mlp] = {6, 12}, [image_model] = {3, 2, 8, 8}}

  -- Losses of some steps, all gradients of the last and the parameters.
  local function train(make, name, options)
    options = options or {}
    return on(name, function()
      rp.manual_seed(5)
      local net = make()
      local opt = optim.AdamW(net:parameters(), {lr = 0.02, clip_grad_norm = options.clip})
      local out = {losses = {}, bytes = {}}
      for step = 1, options.steps or 5 do
        local x = rp.randn(shapes[make])
        local y = net(x)
        local loss = (y * y):mean()
        if options.how == 'minimize' then
          opt:minimize(loss, {ckpt = options.ckpt or 'none'})
        else
          opt:zero_grad()
          loss:backward {ckpt = options.ckpt or 'none'}
          local plan = rp.last_plan()
          assert.equal(plan.peak_bytes, plan:measured_peak())
          for _, p in ipairs(net:parameters()) do
            if step == (options.steps or 5) then out.bytes[#out.bytes + 1] = p.grad:bytes() end
          end
          opt:step()
        end
        local plan = rp.last_plan()
        assert.equal(plan.peak_bytes, plan:measured_peak())
        out.losses[step] = loss:item()
      end
      for _, p in ipairs(net:parameters()) do
        assert.equal(rp.get_default_device(), p.device)
        out.bytes[#out.bytes + 1] = p:bytes()
      end
      return out
    end)
  end

  for name, make in pairs {mlp = mlp, ['an image model'] = image_model} do
    it(('trains %s as the CPU does'):format(name), function()
      for _, how in ipairs {'backward', 'minimize'} do
        local here = train(make, 'cpu', {how = how})
        local gpu = train(make, 'cuda', {how = how})
        for step, loss in ipairs(here.losses) do
          assert.near(loss, gpu.losses[step], 2e-5 * (1 + math.abs(loss)))
        end
      end
    end)

    it(('has the same bits under every strategy: %s'):format(name), function()
      local kept = train(make, 'cuda')
      local specs = make == mlp and {'every=1', 'every=2', 'sqrt', 'ops', 'revolve=2', 'nodes=2',
        'budget=min'} or {'nodes=2', 'ops', 'budget=min'}
      for _, spec in ipairs(specs) do
        local other = train(make, 'cuda', {ckpt = spec})
        assert.same(kept.losses, other.losses)
        assert.same(kept.bytes, other.bytes, spec)
      end
    end)

    it(('has the same bits recorded or not: %s'):format(name), function()
      local recorded = train(make, 'cuda', {how = 'minimize', clip = 0.1, steps = 6})
      rp.cuda.graphs(false)
      local eager = train(make, 'cuda', {how = 'minimize', clip = 0.1, steps = 6})
      assert.same(eager.losses, recorded.losses)
      assert.same(eager.bytes, recorded.bytes)
    end)
  end

  -- dy is the same bf16 on both, so sums in f32 agree as such sums do: a
  -- rounding to bf16 would be off by 2^-9.
  it('sums the gradients of a bf16 convolution in f32', function()
    local function gradients(name)
      return on(name, function()
        rp.manual_seed(11)
        local x = nn.Parameter(rp.randn(5, 3, 9, 7))
        local w = nn.Parameter(rp.randn(6, 3, 3, 3))
        local c = rp.randn(5, 6, 5, 4)
        local y = rp.autocast('bf16', function()
          return rp.conv2d(x, w, nil, {stride = 2, padding = 1})
        end)
        assert.equal('bf16', y.dtype)
        local list = {}
        for i, g in ipairs(rp.grad((y:to 'f32' * c):sum(), {w, x})) do
          assert.equal('f32', g.dtype)
          list[i] = g:reshape(g:numel()):totable()
        end
        return list
      end)
    end
    local here, gpu = gradients 'cpu', gradients 'cuda'
    for i, list in ipairs(here) do
      for k, v in ipairs(list) do assert.near(v, gpu[i][k], 1e-5 * (1 + math.abs(v))) end
    end
  end)

  it('has the same bits under every strategy: bf16 convolutions', function()
    local function gradients(ckpt)
      return on('cuda', function()
        rp.manual_seed(5)
        local net = nn.Sequential {nn.Conv2d(2, 4, 3, {padding = 1}), nn.BatchNorm2d(4),
          nn.ReLU(), nn.Conv2d(4, 6, 3, {stride = 2}), nn.GELU(), nn.Conv2d(6, 4, 1)}
        local x = rp.randn(3, 2, 9, 9)
        local y = rp.autocast('bf16', function() return net(x) end)
        y:to('f32'):square():mean():backward {ckpt = ckpt}
        local plan = rp.last_plan()
        assert.equal(plan.peak_bytes, plan:measured_peak())
        local list = {}
        for i, p in ipairs(net:parameters()) do list[i] = p.grad:bytes() end
        return list
      end)
    end
    local kept = gradients 'none'
    for _, spec in ipairs {'nodes=2', 'ops', 'budget=min'} do
      assert.same(kept, gradients(spec), spec)
    end
  end)

  it('is recorded once and then follows its batches, numbers and draws', function()
    local function run(name)
      return on(name, function()
        rp.manual_seed(3)
        local w = nn.Parameter(rp.ones(6))
        local opt = optim.SGD({w}, {lr = 0.1})
        local batches = rp.data.loader({{4, 6}}, function(x, step)
          for i = 0, 23 do x[i] = (i * step) % 7 end
        end)
        local list = {}
        for step = 1, 9 do
          opt:set_lr(0.1 / step)
          local loss = (rp.dropout(batches:next() * w, 0.3) * (0.5 * step)):mean()
          opt:minimize(loss)
          list[step] = loss:item()
        end
        for _, v in ipairs(w:totable()) do list[#list + 1] = v end
        return list
      end)
    end
    local here, gpu = run 'cpu', run 'cuda'
    for i, v in ipairs(here) do assert.near(v, gpu[i], 1e-5 * (1 + math.abs(v))) end
    assert.not_equal(gpu[1], gpu[2])
  end)

  it('reads a loss that a later step has passed', function()
    on('cuda', function()
      local w = nn.Parameter(rp.ones(3))
      local opt = optim.SGD({w}, {lr = 1})
      local losses = {}
      for step = 1, 4 do
        losses[step] = (w * 2):sum()
        opt:minimize(losses[step])
      end
      assert.same({6, -6, -18, -30}, {losses[1]:item(), losses[2]:item(), losses[3]:item(),
        losses[4]:item()})
    end)
  end)

  it('reads a small parameter as it is after each step', function()
    on('cuda', function()
      local w = nn.Parameter(rp.tensor {1, 2, 3})
      local small = nn.Parameter(rp.ones(2))
      local opt = optim.SGD({w, small}, {lr = 0.5})
      for step = 1, 4 do
        opt:minimize(w:sum() + small:sum())
        assert.same({1 - step / 2, 2 - step / 2, 3 - step / 2}, w:totable())
        assert.same({1 - step / 2, 1 - step / 2}, small:totable())
      end
    end)
  end)

  it('moves tensors of every dtype there and back, views as they look', function()
    for dtype, list in pairs {f32 = {1.5, -2}, f64 = {1e300, 0.1}, bf16 = {1.5, -2},
        i32 = {7, -2147483648}, i64 = {2^40, -1}, bool = {true, false}} do
      local x = rp.tensor(list, {dtype = dtype})
      local gpu = x:to 'cuda'
      assert.equal('cuda', gpu.device)
      assert.equal('cpu', gpu:to 'cpu'.device)
      assert.equal(x:bytes(), gpu:to 'cpu':bytes())
      assert.equal(gpu, gpu:to 'cuda')
    end
    local m = rp.tensor {{1, 2, 3}, {4, 5, 6}}
    assert.same({{1, 4}, {2, 5}, {3, 6}}, m:to 'cuda':transpose(1, 2):totable())
    assert.same({{1, 4}, {2, 5}, {3, 6}}, m:transpose(1, 2):to 'cuda':totable())
    assert.same({5, 6}, m:to 'cuda'[2]:narrow(1, 2, 2):totable())
    assert.same({}, rp.zeros(0):to 'cuda':totable())
  end)

  it('moves a model in the middle of training, optimizer and all', function()
    local function run(move)
      rp.manual_seed(9)
      local net = nn.Sequential {nn.Linear(5, 5), nn.Tanh()}
      local opt = optim.AdamW(net:parameters(), {lr = 0.1})
      local data = rp.randn(3, 5):run()
      for step = 1, 6 do
        if move and step == 4 then
          net:to 'cuda'
          data = data:to 'cuda'
        end
        local y = net(data)
        opt:minimize((y * y):sum())
      end
      return net
    end
    local here, there_ = run(false), run(true)
    for i, p in ipairs(here:parameters()) do
      local q = there_:parameters()[i]
      assert.equal('cuda', q.device)
      for k, v in ipairs(p:reshape(-1):totable()) do
        assert.near(v, q:reshape(-1):totable()[k], 1e-5)
      end
    end
  end)

  it('is refused where its inputs lie apart, and nothing has changed', function()
    local a, b = rp.tensor {1, 2}, rp.tensor({3, 4}, {device = 'cuda'})
    fails(function() return a + b end, '[add]', 'cpu', 'cuda', "x:to'cuda'")
    fails(function() rp.run(a * 2, b * 2) end, 'one device', 'cpu', 'cuda')
    assert.same({2, 4}, (a * 2):totable())
    assert.same({6, 8}, (b * 2):totable())
    -- Numbers, and zeros and ones, which are views of one, go anywhere.
    assert.same({4, 5}, (b + rp.ones(2)):totable())
    local w = nn.Parameter(rp.ones(2))
    fails(function() return (w * 2):to 'cuda' end, 'no gradient', 'detach')
    fails(function() return rp.randn(2, {device = 'tpu'}) end, "no device 'tpu'", 'cuda')
    fails(function() return rp.randn(2, {device = 'cuda:7'}) end, "no device 'cuda:7'")
    assert.equal('cpu', rp.get_default_device())
  end)

  it('looks at indices before it runs, and names the op of a computed one', function()
    on('cuda', function()
      local table_ = nn.Parameter(rp.randn(5, 3))
      local before = table_:bytes()
      local opt = optim.SGD({table_}, {lr = 1})
      local bad = rp.tensor({1, 5}, {dtype = 'i64'})
      fails(function() opt:minimize(rp.embedding(table_, bad):sum()) end,
        'index 5', 'valid 0..4')
      assert.equal(before, table_:bytes())
      local computed = rp.tensor({1, 6}, {dtype = 'i64'}) + 1
      fails(function() opt:minimize(rp.embedding(table_, computed):sum()) end,
        '[embedding]', '7', 'valid 0..4')
      assert.equal(before, table_:bytes())
      assert.same({2}, rp.embedding(table_, rp.tensor({1, 4}, {dtype = 'i64'})):sum(2).shape)
      -- One that was computed before, and is held there.
      local held = (rp.tensor({1, 3}, {dtype = 'i64'}) + 1):run()
      assert.same(table_[3]:totable(), rp.embedding(table_, held)[1]:totable())
      held = (rp.tensor({1, 6}, {dtype = 'i64'}) + 1):run()
      fails(function() opt:minimize(rp.embedding(table_, held):sum()) end,
        '[embedding]', 'index 7', 'valid 0..4')
      assert.equal(before, table_:bytes())
    end)
  end)

  it('stops at a NaN and verifies replays there too', function()
    on('cuda', function()
      local w = nn.Parameter(rp.tensor {-1, 4})
      local opt = optim.SGD({w}, {lr = 1})
      rp.detect_anomaly(true)
      local before = w:bytes()
      fails(function() opt:minimize(w:sqrt():sum()) end, 'sqrt', 'NaN', 'element 1')
      assert.equal(before, w:bytes())
      rp.detect_anomaly(false)
      rp.verify_replay(true)
      local x = nn.Parameter(rp.tensor {1, 4})
      rp.checkpoint(function() return (x:exp() * x):tanh() end):sum():backward()
    end)
  end)

  it('keeps parameters where a guarded loss is not finite', function()
    on('cuda', function()
      local w = nn.Parameter(rp.tensor {1, 2})
      local opt = optim.AdamW({w}, {lr = 0.1})
      local before = w:bytes()
      opt:minimize((w / 0):sum(), {if_finite = true})
      assert.equal(before, w:bytes())
      opt:minimize((w * w):sum(), {if_finite = true})
      assert.not_equal(before, w:bytes())
    end)
  end)

  it('leaves everything as it was when any allocation is refused', function()
    on('cuda', function()
      rp.manual_seed(1)
      local net = nn.Sequential {nn.Linear(6, 6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 1)}
      local opt = optim.AdamW(net:parameters(), {lr = 0.1})
      local x = rp.randn(4, 6):run()
      for _, p in ipairs(net:parameters()) do p:run() end
      local function parameters()
        local list = {}
        for i, p in ipairs(net:parameters()) do list[i] = p:bytes() end
        return table.concat(list)
      end
      local before, refused = parameters(), 0
      for k = 1, 400 do
        C.rp_memory_fail_at(ctx, k)
        local ok, message = pcall(function() opt:minimize(net(x):sum()) end)
        C.rp_memory_fail_at(ctx, 0)
        if ok then break end
        refused = refused + 1
        assert.truthy(message:find 'out of memory', message)
        assert.equal(before, parameters())
      end
      assert.truthy(refused > 20)
      assert.not_equal(before, parameters())
    end)
  end)

  it('makes dense what is but a number, and its gradient, where the rest lies', function()
    assert.equal('cpu', rp.get_default_device())
    local x = rp.ones(4, 3)
    local w = rp.randn(3, 2, {device = 'cuda', requires_grad = true})
    -- The factors of w's gradient are both numbers.
    x:matmul(w):sum():backward()
    assert.equal('cuda', w.grad.device)
    assert.same({{4, 4}, {4, 4}, {4, 4}}, w.grad:totable())
    local net = nn.Linear(3, 2):to 'cuda'
    net(x):sum():backward()
    assert.same({{4, 4, 4}, {4, 4, 4}}, net.weight.grad:totable())
  end)

  it('loads what was saved to where it is asked for', function()
    local path = os.tmpname()
    local x = rp.randn(3, 2, {device = 'cuda'})
    rp.save(path, {x = x})
    local here, there_ = rp.load(path).x, rp.load(path, {device = 'cuda'}).x
    assert.equal('cpu', here.device)
    assert.equal('cuda', there_.device)
    assert.same(x:totable(), here:totable())
    assert.same(x:totable(), there_:totable())
    fails(function() rp.load(path, {divice = 'cuda'}) end, 'load', "no option 'divice'")
    fails(function() rp.load(path, {device = 'cuda:9'}) end, "no device 'cuda:9'")
    os.remove(path)
  end)

  it('accounts what lies there apart from what lies here', function()
    -- What earlier specs let go must not go in between.
    collectgarbage()
    collectgarbage()
    local here, gpu = rp.memory 'cpu'.bytes, rp.memory 'cuda'.bytes
    local x = rp.randn(1000, {device = 'cuda'}):run()
    assert.equal(here, rp.memory 'cpu'.bytes)
    assert.truthy(rp.memory 'cuda'.bytes >= gpu + 4000)
    assert.equal('cuda', x.device)
    local free, total = rp.cuda.mem_get_info()
    assert.truthy(free > 0 and free <= total)
  end)
end)
