-- Amounts and segments that make no sense: what is wrong, and what would be
-- right, at the user's line. Other mistakes are bad_input_spec's.

local rp = require 'reprise'
local ckpt = require 'reprise.ckpt'
local fails = require 'spec.support.fails'
local run = require 'spec.support.run'
local nn = rp.nn

describe('a strategy', function()
  setup(run.quiet)
  teardown(run.loud)

  local net = nn.Layers(3, function() return nn.Sequential {nn.Linear(4, 4), nn.Tanh()} end)

  before_each(function()
    for _, p in ipairs(net:parameters()) do p.grad = nil end
  end)

  local function under(spec)
    return function() net(rp.ones(2, 4)):sum():backward {ckpt = spec} end
  end

  local function untouched()
    for _, p in ipairs(net:parameters()) do assert.is_nil(p.grad) end
  end

  local amounts = {
    ['budget=abc'] = {'abc', 'budget=2GiB', 'budget=40%', 'budget=min'},
    ['budget=-1'] = {'-1', 'budget=2GiB'},
    ['budget=0'] = {'0', 'budget=2GiB'},
    ['budget=0%'] = {'0%', 'above 0 %', 'at most 100 %'},
    ['budget=400%'] = {'400%', 'at most 100 %'},
    ['budget=-5%'] = {'-5%', 'budget=40%'},
    ['budget=1.2.3GiB'] = {'1.2.3GiB', 'budget=2GiB'},
    ['budget=3parsecs'] = {'3parsecs', 'budget=2GiB'},
    ['budget=nan'] = {'nan', 'budget=2GiB'},
    ['budget='] = {'missing', 'budget=2GiB'},
    ['budget'] = {'missing', 'budget=2GiB'},
    ['budget=1'] = {'cannot be met', 'the least for this model is', 'bytes'},
    ['greedy=abc'] = {'abc', 'greedy=2GiB', 'greedy=40%', 'greedy=min'},
    ['greedy=-1'] = {'-1', 'greedy=2GiB'},
    ['greedy=0'] = {'0', 'greedy=2GiB'},
    ['greedy=0%'] = {'0%', 'above 0 %', 'at most 100 %'},
    ['greedy=400%'] = {'400%', 'at most 100 %'},
    ['greedy=3parsecs'] = {'3parsecs', 'greedy=2GiB'},
    ['greedy='] = {'missing', 'greedy=2GiB'},
    ['greedy'] = {'missing', 'greedy=2GiB'},
    ['greedy=1'] = {'cannot be met', 'the least for greedy is', 'bytes'},
    ['revolve=0'] = {'revolve', 'at least 1', '0'},
    ['revolve=-3'] = {'revolve', 'at least 1', '-3'},
    ['revolve=two'] = {'revolve', 'two'},
    ['revolve'] = {'missing', 'revolve='},
    ['every=0'] = {'at least 1', '0'},
  }
  for spec, wanted in pairs(amounts) do
    it('of ' .. spec .. ' is refused', function()
      fails(under(spec), '[ckpt] ' .. spec, unpack(wanted))
      untouched()
    end)
  end

  it('takes amounts in words and as numbers', function()
    for _, spec in ipairs {'budget=1GiB', 'budget=100%', 'budget=min', 'budget=1e9',
        {budget = 2^30}} do
      under(spec)()
      assert.truthy(net:parameters()[1].grad)
    end
  end)

  it('tells the least budget, which works; one byte less does not', function()
    local _, message = pcall(under 'budget=1')
    local least = tonumber(message:match '%((%d+) bytes%), of which')
    assert(least, message)
    local plan = net(rp.ones(2, 4)):sum():plan {ckpt = {budget = least}}
    assert.equal(least, plan.peak_bytes)
    fails(under {budget = least - 1}, 'cannot be met', tostring(least))
    untouched()
  end)

  it('among a budget\'s candidates is left out, and the plan says so', function()
    local candidates = require 'reprise.candidates'
    local specs, parse = candidates.specs, ckpt.parse
    local whole = {apply = function(graph) return {{1, graph.n_forward}} end}
    local offered = {
      whole = whole,
      twice = {apply = function() return {{1, 3}, {2, 4}} end},
      late = {apply = function() return {program = {3}} end},
      nowhere = {apply = function() return {program = {1, 'two'}} end},
      short = {apply = function() return {program = {1}} end},
    }
    local function planned(names)
      -- A strategy of its own is a plan of its own.
      local budget = ckpt.resolve 'budget=min'
      candidates.specs = function() return names end
      ckpt.parse = function(spec) return offered[spec] or parse(spec) end
      local ok, plan = pcall(function()
        return net(rp.ones(2, 4)):sum():plan {ckpt = function(graph)
          return budget.apply(graph)
        end}
      end)
      candidates.specs, ckpt.parse = specs, parse
      assert(ok, plan)
      return plan
    end
    local want = planned {'whole'}
    assert.same({}, want:front().left_out)
    local plan = planned {'twice', 'late', 'whole', 'nowhere', 'short'}
    assert.equal(want.peak_bytes, plan.peak_bytes)
    local text = table.concat(plan:front().left_out, '\n')
    for _, wanted in ipairs {'twice: segments[1], 1..3, and segments[2], 2..4, overlap',
        'late: ', 'nowhere: program[2] is a string (two)',
        'short: the program never runs node 2'} do
      assert(text:find(wanted, 1, true), text)
    end
    assert.is_nil(text:find('whole', 1, true))
    assert(tostring(plan):find('no candidate of a budget: twice', 1, true), tostring(plan))
  end)

  local answers = {
    ['overlapping segments'] = {{{1, 3}, {3, 5}}, 'segments[1], 1..3', 'segments[2], 3..5',
      'overlap'},
    ['one segment twice'] = {{{1, 3}, {1, 3}}, 'overlap'},
    ['overlapping ones inside'] = {{{1, 6, segments = {{1, 3}, {2, 4}}}},
      'segments[1].segments[1]', 'overlap'},
    ['one that leaves its parent'] = {{{1, 3, segments = {{2, 4}}}}, 'not inside its parent 1..3'},
    ['nodes that are not consecutive'] = {{{1, 3, 5}}, 'segments[1] lists 3 positions',
      'consecutive', '{first, last}'},
    ['a segment from back to front'] = {{{4, 2}}, 'comes before first'},
    ['one that ends in the backward pass'] = {{{1, 9}}, 'segments[1].last is 9', '1..8'},
    ['half a position'] = {{{1, 2.5}}, 'a number (2.5)'},
    ['a list with a hole'] = {{[1] = {1, 2}, [3] = {3, 4}}, 'segments'},
  }
  for what, answer in pairs(answers) do
    it('that returns ' .. what .. ' is refused', function()
      fails(under(function() return answer[1] end), unpack(answer, 2))
      untouched()
    end)
  end
end)
