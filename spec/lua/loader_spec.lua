-- The batch loader: values, alternation of its two buffers, plans found again.

local rp = require 'reprise'

describe('data.loader', function()
  it('fills tensors batch by batch, and ends when fill says so', function()
    local batches = rp.data.loader({{2, 3, dtype = 'i32'}, {dtype = 'f64'}},
      function(x, y, step)
        if step > 3 then return false end
        for i = 0, 5 do x[i] = step * 10 + i end
        y[0] = step / 2
      end)
    local seen = {}
    for x, y in batches:each() do
      assert.equal('i32', x.dtype)
      seen[#seen + 1] = {x[2][3]:item(), y:item()}
    end
    assert.same({{15, 0.5}, {25, 1}, {35, 1.5}}, seen)
    assert.equal(3, batches.batches)
  end)

  it('keeps a batch until the call after the next', function()
    local batches = rp.data.loader({{1}}, function(x, step) x[0] = step end)
    local first = batches:next()
    local late = first * 10
    local second = batches:next()
    assert.equal(1, first:item())
    assert.equal(10, late:item())
    assert.equal(2, second:item())
    local older = second * 10
    batches:next()
    batches:next()
    local ok, message = pcall(older.item, older)
    assert.is_false(ok)
    assert.matches('older value', message)
  end)

  it('makes no new plan for a new batch', function()
    local w = rp.nn.Parameter(rp.ones(4))
    local opt = rp.optim.SGD({w}, {lr = 0.1})
    local batches = rp.data.loader({{4}}, function(x, step) x[0] = step end)
    local misses
    for step = 1, 6 do
      opt:minimize((batches:next() * w):sum())
      -- Two buffers have one plan: a leaf's role and place are its key.
      if step == 1 then misses = rp.memory().plan_misses end
    end
    assert.equal(misses, rp.memory().plan_misses)
  end)

  it('refuses what it cannot fill', function()
    local function refused(pattern, ...)
      local ok, message = pcall(rp.data.loader, ...)
      assert.is_false(ok)
      assert.matches(pattern, message)
    end
    refused('a list of shapes and a function', {})
    refused('field 1 is a number, not a shape', {3}, print)
    refused("no dtype 'u8'", {{1, dtype = 'u8'}}, print)
    refused('size 1 is a whole number of at least 0, not %-1', {{-1}}, print)
  end)
end)
