-- A profile: written by one process, planned with by the next, of one model.

local cjson = require 'cjson'
local rp = require 'reprise'
local fails = require 'spec.support.fails'
local files = require 'spec.support.files'
local run = require 'spec.support.run'

local path

local content = files.content

local function write(text) files.write(path, text) end

-- A profile of the loss' step that says `nanoseconds(i, node)` of each node.
local function write_profile(loss, nanoseconds, options)
  local stopwatch = require 'reprise.stopwatch'
  local graph = loss:plan(options):graph()
  local nodes = {}
  for i, name in ipairs(stopwatch.signature_of(graph)) do
    nodes[i] = {node = name, nanoseconds = nanoseconds(i, graph.nodes[i])}
  end
  write(cjson.encode {reprise_profile = 1, steps = 5, threads = rp.get_num_threads(),
    nodes = nodes})
  return graph
end

describe('a profile', function()
  setup(run.quiet)
  teardown(run.loud)

  local made, opt, profile

  before_each(function()
    path = os.tmpname()
    os.remove(path)
    made = run.model 'gpt'
    opt = rp.optim.AdamW(made.parameters, {lr = 1e-3})
  end)

  after_each(function()
    if profile then profile:stop() end
    profile = nil
    os.remove(path)
  end)

  local function step(ckpt)
    opt:minimize(made.loss(), {ckpt = ckpt})
  end

  it('is measured over five steps behind the first, and written once', function()
    local before = opt:plan(made.loss()).step_seconds
    profile = rp.profile(path)
    assert.is_true(profile.measuring)
    for _ = 1, 5 do
      step 'every=1'
      assert.is_nil(io.open(path))
    end
    step 'every=2'
    assert.is_false(profile.measuring)
    assert.equal(5, profile.steps)
    local text = content(path)
    local object = cjson.decode(text)
    local graph = opt:plan(made.loss()):graph()
    assert.equal(#graph.nodes, #object.nodes)
    local total = 0
    for i, node in ipairs(object.nodes) do
      assert.equal(graph.nodes[i].effect and 'update' or graph.nodes[i].op,
        node.node:match '^%S+')
      assert.equal(graph.nodes[i].scope, node.scope)
      assert.is_true(node.nanoseconds >= 0)
      total = total + node.nanoseconds
    end
    assert.is_true(total > 0)
    -- What this process measured, it does not plan with.
    assert.equal(before, opt:plan(made.loss()).step_seconds)
    step 'none'
    assert.equal(text, content(path))
  end)

  it('gives nodes of one kind one time', function()
    profile = rp.profile(path)
    for _ = 1, 6 do step 'none' end
    local of_block = {}
    for _, node in ipairs(cjson.decode(content(path)).nodes) do
      local block, rest = node.scope:match '%.blocks%.(%d+)%.(.*)$'
      if rest == 'mlp.fc' then
        local key = node.node:match '^%S+ %S+ %S+'
        assert.equal(of_block[key] or node.nanoseconds, node.nanoseconds, block)
        of_block[key] = node.nanoseconds
      end
    end
    assert.is_truthy(next(of_block))
  end)

  it('is written with what there is when it is stopped', function()
    profile = rp.profile(path)
    step 'none'
    assert.equal(0, profile:stop().steps)
    assert.is_nil(io.open(path))
    profile = rp.profile(path)
    step 'none'
    step 'none'
    assert.equal(1, profile:stop().steps)
    assert.equal(1, cjson.decode(content(path)).steps)
  end)

  it('is what plans, the front and the graph are timed by', function()
    local loss = made.loss()
    local graph = write_profile(loss, function(i) return 1000 * i end)
    local analytic = loss:plan({ckpt = 'none'}).step_seconds
    profile = rp.profile(path)
    assert.is_false(profile.measuring)
    local plan = made.loss():plan {ckpt = 'none'}
    local total = 0
    for _, instruction in ipairs(plan:instructions()) do
      if instruction.run then total = total + instruction.run * 1e-6 end
    end
    assert.is_true(total >= #graph.nodes * (#graph.nodes + 1) / 2 * 1e-6)
    assert.is_true(math.abs(plan.step_seconds - total) < 1e-9)
    assert.is_true(math.abs(plan:graph().nodes[7].seconds - 7e-6) < 1e-15)
    local front = plan:front()
    assert.is_true(front[#front].seconds <= plan.step_seconds + 1e-12)
    local replayed = 0
    local again = made.loss():plan {ckpt = 'every=1'}
    for _, instruction in ipairs(again:instructions()) do
      if instruction.replay then replayed = replayed + instruction.run * 1e-6 end
    end
    assert.is_true(math.abs(again.replay_seconds - replayed) < 1e-9)
    profile:stop()
    assert.equal(analytic, made.loss():plan({ckpt = 'none'}).step_seconds)
  end)

  it('decides what a budget recomputes', function()
    local nn = rp.nn
    local net = nn.Layers(6, function()
      return nn.Sequential {nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh()}
    end)
    local function loss() return net(rp.ones(64, 32)):sum() end
    -- Layers that are replayed where one layer's ops are dear.
    local function replayed_where_dear(layer)
      write_profile(loss(), function(_, node) return node.layer == layer and 1e6 or 1e3 end)
      profile = rp.profile(path)
      local plan = loss():plan {ckpt = 'budget=75%'}
      local graph, layers = plan:graph(), {}
      for _, instruction in ipairs(plan:instructions()) do
        if instruction.replay then
          layers[graph.nodes[instruction.run].layer or 0] = true
        end
      end
      profile:stop()
      return layers
    end
    local second, fourth = replayed_where_dear(2), replayed_where_dear(4)
    assert.is_nil(second[2])
    assert.is_nil(fourth[4])
    assert.is_truthy(next(second))
    assert.is_truthy(second[4] or fourth[2])
  end)

  it('changes no bit, and no plan is mistaken for one without it', function()
    local function gradients(ckpt)
      for _, p in ipairs(made.parameters) do p.grad = nil end
      rp.manual_seed(3)
      made.loss():backward {ckpt = ckpt}
      return run.gradients(made.parameters)
    end
    local want = gradients 'none'
    write_profile(made.loss(), function(i) return i % 7 * 1000 end)
    profile = rp.profile(path)
    assert.same(want, gradients 'budget=90%')
    assert.same(want, gradients 'greedy=90%')
  end)

  it('of another model is refused with what differs', function()
    write_profile(run.model('mlp').loss(), function() return 1000 end)
    profile = rp.profile(path)
    fails(function() made.loss():backward() end, '[profile] ' .. path,
      'is a profile of another model or size: its node 1 is linear f32 8x16',
      "this one's is embedding f32", 'in gpt.tokens', 'a run will write')
    for _, p in ipairs(made.parameters) do assert.is_nil(p.grad) end
    -- Evaluation and updates alone are no steps that are planned with it.
    assert.is_number(made.loss():item())
  end)

  it('of a longer model is refused by its number of nodes', function()
    write_profile(made.loss(), function() return 1000 end)
    local object = cjson.decode(content(path))
    table.remove(object.nodes)
    write(cjson.encode(object))
    profile = rp.profile(path)
    fails(function() made.loss():plan() end, 'it has ' .. #object.nodes .. ' nodes',
      ('this one has %d'):format(#object.nodes + 1))
  end)

  it('that is damaged is refused', function()
    local function reading(text)
      write(text)
      return function() profile = rp.profile(path) end
    end
    fails(reading '', '[profile] ' .. path, 'damaged', 'no JSON')
    fails(reading '{"reprise_profile":1,"nodes":[', 'damaged', 'no JSON')
    fails(reading '[1, 2]', 'no profile of this version')
    fails(reading '{"reprise_profile":2}', 'no profile of this version')
    fails(reading '{"reprise_profile":1,"steps":5,"threads":1}', 'lists no nodes')
    fails(reading '{"reprise_profile":1,"steps":5,"threads":1,"nodes":[{"node":"x"}]}',
      'node 1', 'no nanoseconds')
    fails(reading ('{"reprise_profile":1,"steps":5,"threads":1,' ..
      '"nodes":[{"node":"x","nanoseconds":-1}]}'), 'node 1')
    fails(function() rp.profile() end, 'a file\'s name is wanted, not nil')
    fails(function() rp.profile '/' end, '/ cannot be read')
    fails(function() rp.profile(path .. '/none/x') end, 'cannot be written')
  end)

  it('is not taken beside a trace', function()
    local trace = rp.trace()
    fails(function() rp.profile(path) end, 'being taken already')
    trace:stop()
    profile = rp.profile(path)
    fails(function() rp.trace() end, 'a profile is being taken')
  end)
end)

describe('train.lua --profile', function()
  local TINY = 'luajit train.lua --layers 3 --heads 2 --seq 16 --batch 2 '

  local function train(arguments)
    local out = os.tmpname()
    local code = os.execute(('OMP_NUM_THREADS=1 %s %s > %s 2>&1'):format(TINY, arguments, out))
    local text = content(out)
    os.remove(out)
    return code == 0 or code == true, text
  end

  it('writes a profile, then plans with it', function()
    local file = os.tmpname()
    os.remove(file)
    finally(function() os.remove(file) end)
    local ok, text = train('--width 16 --plan --profile ' .. file)
    assert.is_false(ok)
    assert.equal(('train.lua: --profile %s: there is no such file; a training run writes it\n')
      :format(file), text)
    ok, text = train('--width 16 --steps 7 --profile ' .. file)
    assert.is_true(ok, text)
    assert.is_truthy(text:find(('profile of 5 steps written to %s: the next run plans with it')
      :format(file), 1, true), text)
    assert.is_truthy(text:find "a step's programs took [%d%.]+ %a+, predicted [%d%.]+ %a+\n")
    local total = 0
    for _, node in ipairs(cjson.decode(content(file)).nodes) do
      total = total + node.nanoseconds
    end
    ok, text = train('--width 16 --plan --json --profile ' .. file)
    assert.is_true(ok, text)
    -- Each op once, and some of the forward pass again.
    local predicted = cjson.decode(text).predicted_seconds
    assert.is_true(predicted > (total - 1) * 1e-9 and predicted < 2 * total * 1e-9)
    ok, text = train('--width 16 --compare none,budget=80% --profile ' .. file)
    assert.is_true(ok, text)
    assert.is_truthy(text:find 'the same bits under every strategy', text)
    ok, text = train('--width 32 --plan --profile ' .. file)
    assert.is_false(ok)
    assert.is_truthy(text:find(('train.lua: --profile %s is a profile of another model')
      :format(file), 1, true), text)
  end)
end)
