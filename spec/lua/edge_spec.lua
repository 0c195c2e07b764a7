-- Reductions run inside the group of elementwise ops that they alone read:
-- nothing of full size is written, and the bits are those of the ops one by
-- one, whatever the shape, the dims, the dtype and the number of threads.

local rp = require 'reprise'
local chains = require 'spec.support.chains'
local raw = require 'spec.support.raw'
local run = require 'spec.support.run'
local nn, both = rp.nn, run.fused_and_apart

local function ops_of(plan)
  local list = {}
  for _, node in ipairs(plan:graph().nodes) do list[#list + 1] = node.op end
  return table.concat(list, ' ')
end

local function plan_of(t)
  t:run()
  return rp.last_plan()
end

local function ops(t) return ops_of(plan_of(t)) end

--- All numbers of t to the last bit, NaN and -0 among them.
local function bits(t)
  local list = raw.read(t:run().ptr)
  for i, value in ipairs(list) do list[i] = ('%.17g'):format(value) end
  return table.concat(list, ' ')
end

local folds = {'sum', 'mean', 'max', 'min'}

--- The dims of a set of them, given as a number.
local function dims_of(rank, set)
  local dims = {}
  for d = 1, rank do
    if math.floor(set / 2 ^ (d - 1)) % 2 == 1 then dims[#dims + 1] = d end
  end
  return #dims == 1 and dims[1] or dims
end

--- fn makes a tensor: its bits fused and apart, on one thread and on three.
local function assert_same_bits(fn, message)
  local fused, apart = both(function() return bits(fn()) end)
  assert.same(apart, fused, message)
  local before = rp.get_num_threads()
  rp.set_num_threads(3)
  local ok, again = pcall(function() return bits(fn()) end)
  rp.set_num_threads(before)
  assert.is_true(ok, again)
  assert.same(apart, again, message)
end

describe('a reduction at the edge of a group', function()
  setup(run.quiet)
  teardown(run.loud)

  local shapes = {
    {7}, {9000}, {70001}, {0}, {5, 3}, {64, 129}, {300, 10}, {3000, 17}, {2, 5000}, {3, 4111},
    {40, 1500}, {0, 4}, {4, 0}, {1, 1}, {6, 1, 33}, {5, 40, 20}, {3, 1, 50, 33}, {4, 3, 7, 130},
  }
  for _, dtype in ipairs {'f32', 'f64', 'bf16'} do
    it('changes no bit of random chains, ' .. dtype, function()
      local joined, which = 0, 0
      for _, shape in ipairs(shapes) do
        local empty = false
        for _, n in ipairs(shape) do empty = empty or n == 0 end
        for set = 1, 2 ^ #shape - 1 do
          which = which + 1
          local function made()
            rp.manual_seed(which)
            chains.seed(which)
            local x = chains.of(chains.operands(shape, dtype), 1 + chains.draw(5))
            if dtype == 'bf16' then x = x:to 'f32' end
            local fold = folds[chains.draw(empty and 2 or 4)]
            return x[fold](x, dims_of(#shape, set), chains.draw(2) == 1)
          end
          local ends = ops(made()):match '[%+ ]([a-z]+)$'
          assert.is_truthy(ends)
          if ops(made()):find('%+' .. ends .. '$') then joined = joined + 1 end
          assert_same_bits(made, table.concat(shape, 'x') .. ' set ' .. set)
        end
      end
      assert.is_true(joined > which * 0.9)
    end)
  end
end)
