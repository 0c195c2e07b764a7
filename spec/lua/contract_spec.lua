-- The memory promises: the predicted peak is the accounted one to the byte;
-- the process holds what was accounted; nothing grows; verify lets no broken
-- program through; an allocation that fails leaves all as it was.

local ffi = require 'ffi'
local rp = require 'reprise'
local raw = require 'spec.support.raw'
local models = require 'spec.support.models'
local run = require 'spec.support.run'
local keep_nodes = require 'reprise.ckpt.nodes'
local failure = require 'reprise.failure'

local C, ctx = raw.C, raw.ctx

local function memory()
  local m = ffi.new 'rp_memory'
  C.rp_memory_stats(ctx, -1, m)
  return m
end

local function collect()
  collectgarbage() collectgarbage()
end

local function optimizer(made)
  return rp.optim.AdamW(made.parameters, {lr = 1e-2, weight_decay = 0.1})
end

describe('the memory contract', function()
  setup(run.quiet)
  teardown(run.loud)
  before_each(collect)

  for _, name in ipairs(models.names) do
    it('predicts the peak of ' .. name .. ' to the byte', function()
      local peaks = {}
      for _, dtype in ipairs {'f32', 'f64'} do
        local specs = run.model(name, dtype).specs
        table.insert(specs, 1, 'none')
        for _, spec in ipairs(specs) do
          collect()
          C.rp_arena_release(ctx)
          local made = run.model(name, dtype)
          local opt = optimizer(made)
          for step = 1, 4 do
            local loss = made.loss()
            local plan = opt:plan(loss, {ckpt = spec})
            opt:minimize(loss, {ckpt = spec})
            assert.equal(plan.peak_bytes, plan:measured_peak(),
              ('%s, %s, step %d'):format(spec, dtype, step))
            peaks[plan.peak_bytes] = true
          end
        end
      end
      local different = 0
      for _ in pairs(peaks) do different = different + 1 end
      assert(different >= 4, 'all strategies have the same peak')
    end)
  end

  it('predicts every other program too', function()
    local function check(what)
      local plan = rp.last_plan()
      assert.equal(plan.peak_bytes, plan:measured_peak(), what)
    end
    for _, name in ipairs(models.names) do
      local made = run.model(name)
      local opt = optimizer(made)
      for _, spec in ipairs {'none', 'ops', 'nodes=2'} do
        for round = 1, 3 do
          local what = ('%s, %s, %d: '):format(name, spec, round)
          made.loss():backward {ckpt = spec}
          check(what .. 'backward')
          -- Again: gradients are there already and are added to.
          local loss = made.loss()
          local other = loss * 2
          loss:backward {ckpt = spec, also = {other}}
          check(what .. 'accumulating backward')
          if round == 2 then
            opt:minimize(made.loss(), {ckpt = spec})
            check(what .. 'minimize over gradients')
          else
            opt:step()
            check(what .. 'step')
          end
          opt:zero_grad()
          rp.run(made.loss(), made.loss())
          check(what .. 'run')
          opt:clip_grad_norm(0.1 * round)
        end
      end
    end
  end)

  it('is the peak that rp.memory() saw, where nothing else is held', function()
    for _, spec in ipairs {'none', 'every=1', 'sqrt'} do
      collect()
      C.rp_arena_release(ctx)
      local before = tonumber(memory().storage_bytes)
      local made = run.model 'mlp'
      local opt = optimizer(made)
      opt:minimize(made.loss(), {ckpt = spec})
      collect()
      C.rp_arena_release(ctx)
      -- Now parameters and states are there, and a second step's peak is
      -- everything: nothing was allocated that the plan does not count.
      local loss = made.loss()
      local plan = opt:plan(loss, {ckpt = spec})
      C.rp_memory_reset_peak(ctx)
      opt:minimize(loss, {ckpt = spec})
      assert.equal(plan.peak_bytes,
        tonumber(memory().storage_peak_bytes) - before, spec)
    end
  end)

  it('never allocates before it plans', function()
    collect()
    C.rp_arena_release(ctx)
    local before = tonumber(memory().storage_bytes)
    local model = rp.nn.Sequential {rp.nn.Linear(100000, 5000), rp.nn.ReLU(),
                                    rp.nn.Linear(5000, 10)}
    local opt = rp.optim.Adam(model:parameters(), {lr = 1e-3})
    local loss = model(rp.zeros(2, 100000)):sum()
    local plan = opt:plan(loss)
    assert(plan.peak_bytes > 3 * 4 * 5e8, 'a plan of two billion bytes and more')
    assert(tonumber(memory().storage_bytes) - before < 4096)
  end)

  it('finds the plan again from the second identical step on', function()
    for _, name in ipairs(models.names) do
      local made = run.model(name)
      local opt = optimizer(made)
      for _, how in ipairs {'minimize', 'backward'} do
        local function train(lr)
          local loss = made.loss()
          opt:set_lr(lr)
          if how == 'minimize' then
            opt:minimize(loss, {ckpt = 'nodes=2'})
          else
            loss:backward {ckpt = 'nodes=2'}
            opt:step()
            opt:zero_grad()
          end
          return loss:item()
        end
        local misses, nodes, recipes
        for step = 1, 8 do
          train(1e-2 / step)
          collect()
          local m = memory()
          if step == 3 then
            misses, nodes = tonumber(m.plan_misses), tonumber(m.nodes)
            recipes = tonumber(m.recipe_bytes)
          elseif step > 3 then
            assert.equal(misses, tonumber(m.plan_misses), name .. ', ' .. how)
            assert.equal(nodes, tonumber(m.nodes), name .. ', ' .. how)
            assert.equal(recipes, tonumber(m.recipe_bytes), name .. ', ' .. how)
          end
        end
      end
    end
  end)
end)

describe('a byte budget', function()
  setup(run.quiet)
  teardown(run.loud)

  for _, name in ipairs(models.names) do
    it('is kept, and more of it never costs time: ' .. name, function()
      local made = run.model(name)
      local opt = optimizer(made)
      local function plan(ckpt) return opt:plan(made.loss(), {ckpt = ckpt}) end
      local most, least = plan('none').peak_bytes, plan('budget=min').peak_bytes
      assert(least <= most)
      local slowest = math.huge
      for k = 0, 16 do
        local budget = math.floor(least + (most - least) * k / 16)
        local found = plan {budget = budget}
        assert(found.peak_bytes <= budget,
          ('budget %d, peak %d'):format(budget, found.peak_bytes))
        assert(found.replay_seconds <= slowest, 'more bytes, more time')
        slowest = found.replay_seconds
      end
      assert(plan {budget = most}.step_seconds <= plan('none').step_seconds)
      -- The named strategies' plans are among those that a budget chooses from.
      for _, spec in ipairs(made.specs) do
        local named = plan(spec)
        assert(named.peak_bytes >= least, spec .. ' beats budget=min')
        local found = plan {budget = named.peak_bytes}
        assert(found.step_seconds <= named.step_seconds * (1 + 1e-12),
          spec .. ' beats a budget of its own peak')
      end
    end)
  end

  it('that cannot be met is refused before anything is allocated', function()
    collect()
    C.rp_arena_release(ctx)
    local made = run.model 'gpt'
    local opt = optimizer(made)
    local loss = made.loss()
    local least = opt:plan(loss, {ckpt = 'budget=min'}).peak_bytes
    local before = tonumber(memory().storage_bytes)
    local ok, message = pcall(function()
      opt:minimize(loss, {ckpt = {budget = least - 1}})
    end)
    assert(not ok and message:find('cannot be met', 1, true), message)
    assert(message:find(tostring(least), 1, true), message)
    assert.equal(before, tonumber(memory().storage_bytes))
    assert.equal(0, opt:step_count())
  end)
end)

describe('resident memory', function()
  -- A process of its own: what this one has touched stays with it.
  local function resident(spec)
    local here = debug.getinfo(1, 'S').source:match '^@(.*)spec/lua/' or './'
    local pipe = io.popen(("cd '%s' && luajit spec/support/resident.lua %s")
      :format(here == '' and '.' or here, spec))
    local text = pipe:read '*a'
    pipe:close()
    local predicted, grown = text:match 'predicted (%d+) grown (%d+)'
    assert(predicted, 'resident.lua said: ' .. text)
    return tonumber(predicted), tonumber(grown)
  end

  for _, spec in ipairs {'none', 'every=1'} do
    it('grows by what was predicted: ' .. spec, function()
      local predicted, grown = resident(spec)
      local limit = predicted * 1.05 + 16 * 2 ^ 20
      assert(grown <= limit, ('predicted %.1f MiB, grew by %.1f MiB')
        :format(predicted / 2 ^ 20, grown / 2 ^ 20))
      assert(grown >= 0.5 * predicted, 'the measurement saw nothing')
    end)
  end
end)

describe('what holds its memory', function()
  setup(run.quiet)
  teardown(run.loud)

  local function level()
    collect()
    local m = memory()
    return {storage = tonumber(m.storage_bytes), nodes = tonumber(m.nodes),
            recipes = tonumber(m.recipe_bytes)}
  end

  --- No more than before: what earlier tests left may have gone meanwhile.
  local function assert_held(before, recipe_slack)
    local after = level()
    for _, what in ipairs {'storage', 'nodes', 'recipes'} do
      local limit = before[what] + (what == 'recipes' and recipe_slack or 0)
      assert(after[what] <= limit, ('%s: %d before, %d after')
        :format(what, before[what], after[what]))
    end
  end

  it('10,000 tiny steps', function()
    local w = rp.nn.Parameter(rp.ones(4, 4))
    local x = rp.ones(2, 4)
    local opt = rp.optim.SGD({w}, {lr = 1e-6})
    local function steps(n)
      for _ = 1, n do opt:minimize((x:matmul(w)):sum()) end
    end
    steps(200)
    local before = level()
    steps(10000)
    assert_held(before)
  end)

  it('10,000 backward and step', function()
    local w = rp.nn.Parameter(rp.ones(4))
    local opt = rp.optim.SGD({w}, {lr = 1e-6})
    local function steps(n)
      for _ = 1, n do
        (w * w):sum():backward()
        opt:step()
        opt:zero_grad()
      end
    end
    steps(200)
    local before = level()
    steps(5000)
    assert_held(before)
  end)

  it('a loop that only records, once it lets go', function()
    local x = rp.ones(4)
    rp.run(x)
    local before = level()
    do
      local total = rp.zeros(4)
      for _ = 1, 20000 do total = total + x end
      assert(tonumber(memory().nodes) >= 20000)
      total = nil -- luacheck: ignore 331 311
    end
    assert_held(before)
  end)

  it('a loop that records and warns of it', function()
    local told = {}
    local old = failure.sink
    failure.sink = function(text) told[#told + 1] = text end
    local x = rp.ones(4)
    local total = rp.zeros(4)
    for _ = 1, 200000 do total = total + x end
    failure.drain()
    failure.sink = old
    assert(#told >= 1, 'no warning after 200,000 pending nodes')
    total = nil -- luacheck: ignore 331 311
    collect()
  end)

  it('an accumulated loss that is asked for now and then', function()
    local w = rp.nn.Parameter(rp.ones(4))
    local opt = rp.optim.SGD({w}, {lr = 1e-6})
    local function epoch(n)
      local total = 0
      for _ = 1, n do
        local loss = (w * w):sum()
        opt:minimize(loss)
        total = total + loss
      end
      return total:item()
    end
    epoch(300)
    local before = level()
    for _ = 1, 5 do epoch(300) end
    assert_held(before)
  end)

  it('a REPL-like session: values kept, printed, replaced', function()
    local env = {rp = rp}
    local function line(text)
      local chunk = assert(loadstring(text))
      setfenv(chunk, setmetatable(env, {__index = _G}))
      return chunk()
    end
    line 'w = rp.nn.Parameter(rp.ones(8, 8))'
    line 'opt = rp.optim.SGD({w}, {lr = 1e-6})'
    local function session()
      line 'x = rp.randn(4, 8)'
      line 'h = (x:matmul(w)):tanh()'
      line '_ = tostring(h)'
      line 'y = h:sum()'
      line '_ = y:item()'
      line 'y:backward()'
      line 'opt:step(); opt:zero_grad()'
      line 'z = h * 2'
      line 'ok = pcall(function() return z:item() end)'
    end
    for _ = 1, 50 do session() end
    local before = level()
    for _ = 1, 500 do session() end
    assert_held(before, 65536)
  end)

  it('recipes that can never run again', function()
    local w = rp.nn.Parameter(rp.ones(256, 256))
    local x = rp.ones(256, 256)
    rp.run(x, w)
    local opt = rp.optim.SGD({w}, {lr = 1e-6})
    opt:minimize(x:matmul(w):sum())
    local before = level()
    -- Held values that only stale recipes pin: h is run, y reads it and w.
    local h = (x * 3):run()
    local y = h:matmul(w):sum()
    h = nil -- luacheck: ignore 331 311
    collect()
    assert(level().storage >= before.storage + 256 * 256 * 4)
    opt:minimize(x:matmul(w):sum())
    assert(level().storage <= before.storage)
    assert.error(function() y:item() end)
  end)
end)

describe('verify', function()
  local kinds = {[0] = 'a dropped RUN', 'two swapped', 'a FREE moved up',
                 'an update before a replay', 'an effect run twice',
                 'two offsets that overlap'}
  local SEEDS = 100

  setup(run.quiet)
  teardown(run.loud)

  -- What is harmless is found by running the mutant on symbols (plan/mutate),
  -- independently of verify: the results and updates must come out the same.
  for kind = 0, 5 do
    it('rejects ' .. kinds[kind], function()
      local broken, rejections, total = 0, 0, 0
      local harmless = ffi.new 'bool[1]'
      for _, name in ipairs(models.names) do
        local made = run.model(name)
        local opt = optimizer(made)
        for _, spec in ipairs {'none', made.specs[1], 'sqrt', 'ops'} do
          local plan = opt:plan(made.loss(), {ckpt = spec})
          for seed = 1, SEEDS do
            harmless[0] = false
            local rejected = C.rp_plan_mutate(plan.ptr, kind, seed, harmless)
            assert(rejected or harmless[0],
              ('%s, %s: mutant %d of kind %d passed'):format(name, spec, seed, kind))
            total = total + 1
            if not harmless[0] then broken = broken + 1 end
            if rejected then rejections = rejections + 1 end
          end
        end
      end
      -- Many places of a program may change without harm (a FREE may come
      -- earlier, unrelated RUNs in another order), but were all of them
      -- harmless, the test would say nothing.
      assert(broken >= 0.1 * total and rejections >= 0.3 * total,
        ('of %d mutants %d broke something, %d were rejected')
        :format(total, broken, rejections))
    end)
  end

  it('still runs the plan that was mutated', function()
    local harmless = ffi.new 'bool[1]'
    local want = run.train('mlp', {steps = 3, how = 'minimize', ckpt = 'sqrt'})
    local made = run.model 'mlp'
    local opt = optimizer(made)
    local plan = opt:plan(made.loss(), {ckpt = 'sqrt'})
    for kind = 0, 5 do C.rp_plan_mutate(plan.ptr, kind, 3, harmless) end
    local got = run.train('mlp', {steps = 3, how = 'minimize', ckpt = 'sqrt'})
    run.same_bits(want, got, 'after mutation')
  end)
end)

describe('an allocation that fails', function()
  setup(run.quiet)
  teardown(function()
    run.loud()
    C.rp_memory_fail_at(ctx, 0)
  end)

  --- One first training step in a fresh state; returns the loss and the
  -- parameters after it. fail_at = k refuses the k-th request of the step;
  -- it is then tried again, up to its success.
  local function step(name, how, fail_at)
    C.rp_memory_fail_at(ctx, 0)
    local made = run.model(name)
    local opt = optimizer(made)
    C.rp_arena_release(ctx)
    collect()
    local message
    local before = tonumber(memory().requests)
    -- A strategy of its own is a plan of its own: planning is in the count.
    local every_other = keep_nodes(2)
    local function strategy(graph) return every_other(graph) end
    local function try()
      rp.manual_seed(3)
      opt:zero_grad()
      local loss = made.loss()
      if how == 'minimize' then
        opt:minimize(loss, {ckpt = strategy})
      else
        loss:backward {ckpt = strategy}
        opt:step()
      end
      return loss:item()
    end
    C.rp_memory_fail_at(ctx, fail_at or 0)
    local ok, loss = pcall(try)
    C.rp_memory_fail_at(ctx, 0)
    local requests = tonumber(memory().requests) - before
    if not ok then
      message = tostring(loss)
      loss = try()
    end
    return {losses = {loss}, gradients = {},
            parameters = run.numbers(made.parameters)}, requests, message
  end

  for _, how in ipairs {'minimize', 'backward'} do
    it('leaves a step that can be tried again: ' .. how, function()
      local want, requests = step('nested', how)
      assert(requests >= 20, 'a step asks for memory')
      local function left()
        collect()
        C.rp_arena_release(ctx)
        local m = memory()
        return tonumber(m.storage_bytes), tonumber(m.nodes)
      end
      local storage, nodes = left()
      local failed = 0
      for k = 1, requests do
        local got, _, message = step('nested', how, k)
        run.same_bits(want, got, 'request ' .. k)
        if message then
          failed = failed + 1
          assert(message:lower():find 'memory' or message:find 'bytes',
            ('request %d: unclear: %s'):format(k, message))
        end
      end
      local storage_after, nodes_after = left()
      assert(storage_after <= storage and nodes_after <= nodes,
        'a refusal left something behind')
      assert(failed >= requests / 2, ('only %d of %d refusals were reported')
        :format(failed, requests))
    end)
  end
end)
