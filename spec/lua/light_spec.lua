-- Light values: what a few cheap ops make again from what backward reads
-- anyway is kept by no strategy, and nothing else about a step changes.

local rp = require 'reprise'
local models = require 'spec.support.models'
local run = require 'spec.support.run'
local nn = rp.nn

local ROWS, WIDTH, LAYERS = 64, 128, 8
local VALUE = ROWS * WIDTH * 4

--- LAYERS times linear, relu, dropout; the loss is the mean.
local function dropped(probability)
  rp.manual_seed(3)
  local parts = {}
  for i = 1, LAYERS do
    parts[3 * i - 2], parts[3 * i - 1] = nn.Linear(WIDTH, WIDTH), nn.ReLU()
    parts[3 * i] = nn.Dropout(probability)
  end
  local model = nn.Sequential(parts)
  local x = rp.randn(ROWS, WIDTH):run()
  return model, function() return model(x):mean() end
end

--- A strategy that keeps every value of every node, light ones too.
local function keep_all(graph)
  local keep = {}
  for i = 1, graph.n_forward do keep[i] = i end
  return {{first = 1, last = graph.n_forward, keep = keep}}
end

local function most_kept(plan)
  local graph, most = plan:graph(), 0
  local alive = {}
  for i, instance in ipairs(plan:instances()) do
    local node = graph.nodes[instance.node]
    if instance.in_arena and not instance.workspace and not node.backward
      and not instance.replay then
      alive[i] = instance
    end
  end
  for at = 1, plan.n_instructions do
    local live = 0
    for _, instance in pairs(alive) do
      if instance.born <= at and at <= (instance.read_by or instance.born) then
        live = live + instance.size_bytes
      end
    end
    most = math.max(most, live)
  end
  return most
end

describe('light values', function()
  setup(run.quiet)
  teardown(run.loud)

  it('are not made by more instructions than they are worth', function()
    local before = rp.fusion(false)
    local p = nn.Parameter(rp.randn(8, 8))
    local function plan(length)
      local a = rp.randn({}):run()
      for _ = 1, length do a = a * 0.5 end
      return ((p + a) * p):sum():plan {ckpt = 'none'}
    end
    -- 4 bytes each, that backward does not read: they would all run again.
    local few, many = plan(0).n_replays, plan(20).n_replays
    rp.fusion(before)
    assert.same({1, 0}, {few, many})
  end)

  it('of linear, relu, dropout leave one value a layer, not two', function()
    local _, loss = dropped(0.25)
    local light = loss():plan {ckpt = 'none'}
    local all = loss():plan {ckpt = keep_all}
    -- relu's output for relu's backward; dropout's is drawn from it again. The
    -- last layer's is read by no product. At the end of the forward pass at
    -- most two more are on their way.
    assert.is_true(most_kept(light) >= LAYERS * VALUE)
    assert.is_true(most_kept(light) <= (LAYERS + 2) * VALUE + 256)
    assert.is_true(most_kept(all) >= (2 * LAYERS - 1) * VALUE)
    assert.equal(0, all.n_replays)
    assert.equal(LAYERS - 1, light.n_replays)
    for _, instruction in ipairs(light:instructions()) do
      assert.equal(instruction.replay, instruction.light)
      if instruction.replay then
        assert.equal('dropout', light:graph().nodes[instruction.run].op)
      end
    end
  end)

  it('change no bit of loss and gradients', function()
    for _, name in ipairs(models.names) do
      local function gradients(spec)
        local made = run.model(name, 'f32')
        local loss = made.loss()
        loss:backward {ckpt = spec}
        local list = {loss:item()}
        for _, p in ipairs(made.parameters) do
          if p.grad then list[#list + 1] = p.grad:totable() end
        end
        return list
      end
      assert.same(gradients(keep_all), gradients 'none', name)
    end
  end)

  it('stay where t:keep() or a segment says so', function()
    local w, x = nn.Parameter(rp.randn(64, 64)), rp.randn(64, 64):run()
    local function replays(mark, spec)
      local h = rp.matmul(x, w)
      local y = h:gelu()
      if mark then y:keep() end
      return rp.matmul(y, w):sum():plan({ckpt = spec}).n_replays
    end
    assert.equal(1, replays(false, 'none'))
    assert.equal(0, replays(true, 'none'))
    assert.equal(0, replays(false, keep_all))
  end)

  it('are made from kept values in a few cheap ops, or are none', function()
    local w, x = nn.Parameter(rp.randn(64, 64)), rp.randn(64, 64):run()
    local function replayed(n)
      local y = rp.matmul(x, w):gelu()
      -- Nothing in between is read by backward: a constant times y + 1.
      for _ = 1, n do y = y * 0.5 + 1 end
      local plan = rp.matmul(y, w):sum():plan {ckpt = 'none'}
      return plan.n_replays
    end
    -- Each op reads and writes the value: two bytes a byte; sixteen may be spent.
    local before = rp.fusion(false)
    assert.equal(7, replayed(3))
    assert.equal(0, replayed(4))
    rp.fusion(before)
    -- As two nodes, one of eight ops, they read and write it twice.
    assert.equal(2, replayed(4))
  end)

  it('of small size are kept: an instruction costs more', function()
    local w = nn.Parameter(rp.randn(4, 4))
    local y = rp.matmul(rp.ones(4, 4), w):gelu()
    assert.equal(0, rp.matmul(y, w):sum():plan({ckpt = 'none'}).n_replays)
  end)

  it('of a batch_norm are made from its statistics, which move once', function()
    rp.manual_seed(5)
    local norm = nn.BatchNorm2d(8)
    local conv1 = nn.Conv2d(3, 8, 3, {padding = 1, bias = false})
    local conv2 = nn.Conv2d(8, 8, 3, {padding = 1, bias = false})
    local x = rp.randn(4, 3, 8, 8):run()
    local function step(spec)
      norm.running_mean:copy_(rp.zeros(8))
      norm.running_var:copy_(rp.ones(8))
      local h = conv1(x)
      local loss = conv2(rp.relu(norm(h))):pow(2):mean()
      local plan = loss:plan {ckpt = spec}
      loss:backward {ckpt = spec}
      local out = {loss:item(), norm.running_mean:totable(), norm.running_var:totable(),
        conv1.weight.grad:totable(), norm.weight.grad:totable()}
      for _, p in ipairs {conv1.weight, conv2.weight, norm.weight, norm.bias} do p.grad = nil end
      return out, plan
    end
    local light, plan = step 'none'
    assert.same(step(keep_all), light)
    local ops = {}
    for _, instruction in ipairs(plan:instructions()) do
      if instruction.replay then ops[#ops + 1] = plan:graph().nodes[instruction.run].op end
    end
    assert.same({'batch_norm_apply+relu'}, ops)
    -- Forward alone runs batch_norm as one op, to the same bits.
    norm.running_mean:copy_(rp.zeros(8))
    norm.running_var:copy_(rp.ones(8))
    assert.equal(light[1], conv2(rp.relu(norm(conv1(x)))):pow(2):mean():item())
    assert.same(light[2], norm.running_mean:totable())
  end)
end)
