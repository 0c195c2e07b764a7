-- How far the planner is from Checkmate's optimum, on the graphs of
-- bench/planner, whose proven bounds are there as golden files.

local run = require 'spec.support.run'
local gap = require 'bench.planner.gap'

setup(run.quiet)
teardown(run.loud)

describe('the planner', function()
  it('is within 2 % (median) and 10 % (worst) of the optimum #long', function()
    local rows = gap.rows 'golden'
    assert.is_true(#rows >= 30)
    local proven = gap.summary(rows, true)
    assert.is_true(proven.count >= 140)
    assert.equal(0, proven.unmet)
    assert.is_true(proven.median <= 0.02)
    assert.is_true(proven.worst <= 0.10)
  end)
end)
