-- Planning under a budget when memory is refused, and many steps of changing
-- programs: nothing is lost, nothing is left.

local rp = require 'reprise'
local binding = require 'reprise.ffi'
local ckpt = require 'reprise.ckpt'
local run = require 'spec.support.run'

local C, ctx = binding.C, binding.ctx

-- Compiled traces may hold a model of an earlier round.
local function collect()
  jit.flush()
  collectgarbage() collectgarbage()
end

describe('a refused allocation', function()
  -- Planning a front asks thousands of times; of the requests this many,
  -- spread over all of them, are refused in turn. (spec/core/plan_test.c refuses
  -- each request of a smaller front.) All of them, some 8,600, take two minutes
  -- of processor time: #long.
  local SAMPLES = 150

  setup(run.quiet)
  teardown(function()
    run.loud()
    C.rp_memory_fail_at(ctx, 0)
    rp.verify_replay(false)
  end)

  --- One step from the same start, planned anew under the spec; fail_at = k
  -- refuses the kth request of it.
  local function step(spec, options, fail_at)
    local made = run.model 'nested'
    local opt = rp.optim.AdamW(made.parameters, {lr = 0.05})
    local given = ckpt.resolve(spec)
    -- A strategy of its own is a plan of its own.
    local function strategy(graph) return given.apply(graph) end
    C.rp_arena_release(ctx)
    collect()
    local before = rp.memory().requests
    local function try()
      rp.manual_seed(3)
      local loss = made.loss()
      opt:minimize(loss, {ckpt = strategy, if_finite = options.if_finite})
      return loss:item()
    end
    rp.verify_replay(options.verify or false)
    C.rp_memory_fail_at(ctx, fail_at or 0)
    local ok, loss = pcall(try)
    C.rp_memory_fail_at(ctx, 0)
    local requests = rp.memory().requests - before
    local message = not ok and tostring(loss) or nil
    if message then
      assert.equal(0, opt:step_count())
      loss = try()
    end
    rp.verify_replay(false)
    return {losses = {loss}, gradients = {}, parameters = run.numbers(made.parameters)},
      requests, message
  end

  local cases = {
    ['under a budget'] = {'budget=min', {}},
    ['of a guarded, verified step'] = {'ops', {if_finite = true, verify = true}},
  }

  --- Refuses every request of a case in turn, or so many of them.
  local function refuse(case, samples)
    local spec, options = case[1], case[2]
    local want, requests = step(spec, options)
    local function left()
      collect()
      C.rp_arena_release(ctx)
      local m = rp.memory()
      return m.bytes, m.nodes
    end
    local storage, nodes = left()
    local stride = math.max(1, math.floor(requests / (samples or requests)))
    local failed, tried = 0, 0
    for k = 1, requests, stride do
      local got, _, message = step(spec, options, k)
      run.same_bits(want, got, 'request ' .. k)
      tried = tried + 1
      if message then
        failed = failed + 1
        assert(message:find 'memory' or message:find 'bytes',
          ('request %d: unclear: %s'):format(k, message))
      end
    end
    local storage_after, nodes_after = left()
    assert(storage_after <= storage and nodes_after <= nodes,
      ('a refusal left something behind: %d bytes and %d nodes, before %d and %d')
      :format(storage_after, nodes_after, storage, nodes))
    assert(failed >= tried / 2, ('only %d of %d refusals were reported')
      :format(failed, tried))
  end

  for name, case in pairs(cases) do
    it('leaves a step that can be tried again: ' .. name, function()
      refuse(case, SAMPLES)
    end)

    it('anywhere leaves a step that can be tried again, ' .. name .. ' #long', function()
      refuse(case)
    end)
  end
end)

describe('1,000 steps of changing shapes and strategies', function()
  it('grow nothing', function()
    local pipe = io.popen 'OMP_NUM_THREADS=1 luajit spec/support/growth.lua 2>&1'
    local text = pipe:read '*a'
    pipe:close()
    local levels = {}
    for line in text:gmatch '[^\n]+' do
      local storage, recipes, nodes, resident = line:match '^(%d+)%s+(%d+)%s+(%d+)%s+(%d+)$'
      if storage then
        levels[#levels + 1] = {tonumber(storage), tonumber(recipes), tonumber(nodes),
          tonumber(resident)}
      end
    end
    assert.equal(2, #levels, text)
    local before, after = levels[1], levels[2]
    assert.equal(before[1], after[1], 'storage bytes')
    assert.equal(before[3], after[3], 'nodes')
    -- The plans kept are not the same ones: a few are larger than others.
    assert(after[2] <= 1.1 * before[2], ('recipes: %d, then %d'):format(before[2], after[2]))
    -- The allocator's own: far less than 1,000 steps would hold of anything.
    assert(after[4] - before[4] <= 2 * 2^20, ('resident: %d, then %d')
      :format(before[4], after[4]))
  end)
end)
