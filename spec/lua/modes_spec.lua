-- What holds while a function runs (places, no_grad, autocast) holds for it
-- alone, whether it returns, raises or yields.

local rp = require 'reprise'
local fails = require 'spec.support.fails'
local nn = rp.nn

--- What would hold for a node recorded now.
local function present()
  local x = rp.ones(2, 2, {requires_grad = true})
  local y = x:matmul(x)
  return {scope = y.scope, dtype = y.dtype, grad = y.requires_grad}
end

local plain = {scope = '', dtype = 'f32', grad = true}

local function yielding(result)
  coroutine.yield(present())
  return result or present()
end

local scopes = {
  ['rp.autocast'] = {{scope = '', dtype = 'bf16', grad = true},
    function(fn) return rp.autocast('bf16', fn) end},
  ['rp.no_grad'] = {{scope = '', dtype = 'f32', grad = false},
    function(fn) return rp.no_grad(fn) end},
  ['rp.layer'] = {{scope = 'stage', dtype = 'f32', grad = true},
    function(fn) return rp.layer('stage', fn)() end},
  ['rp.checkpoint'] = {plain, function(fn) return rp.checkpoint(fn) end},
  ['a module'] = {{scope = 'net', dtype = 'f32', grad = true}, function(fn)
    local Net = nn.module 'Net'
    Net.forward = function() return fn() end
    return Net()()
  end},
  ['all of them'] = {{scope = 'a.b', dtype = 'bf16', grad = false}, function(fn)
    return rp.layer('a', function()
      return rp.autocast('bf16', function()
        return rp.layer('b', function() return rp.no_grad(fn) end)()
      end)
    end)()
  end},
}

describe('inside a coroutine', function()
  for name, case in pairs(scopes) do
    local inside, enter = case[1], case[2]

    it(name .. ' holds until it yields, and again when it goes on', function()
      local step = coroutine.wrap(function() return enter(yielding), present() end)
      assert.same(inside, step())
      assert.same(plain, present())
      local last, after = step()
      assert.same(inside, last)
      assert.same(plain, after)
      assert.same(plain, present())
    end)

    it(name .. ' is not there for another that runs in between', function()
      local one = coroutine.wrap(function() return enter(yielding) end)
      local other = coroutine.wrap(function()
        return rp.layer('other', function() return enter(yielding) end)()
      end)
      assert.same(inside, one())
      local scope = other().scope
      assert.equal('other', scope:match '^other')
      assert.same(inside, one())
      assert.same(plain, present())
      assert.equal(scope, other().scope)
      assert.same(plain, present())
    end)

    it(name .. ' takes up what holds outside when it ends', function()
      local step = coroutine.wrap(function() return enter(yielding), present() end)
      step()
      rp.no_grad(function()
        local last, after = step()
        assert.same(inside, last)
        assert.is_false(after.grad)
        assert.is_false(present().grad)
      end)
      assert.same(plain, present())
    end)

    it(name .. ' is left by an error', function()
      local seen
      local thread = coroutine.create(function()
        local ok = pcall(enter, function()
          coroutine.yield()
          error 'on purpose'
        end)
        seen = {ok, present()}
        enter(function() error 'again' end)
      end)
      assert(coroutine.resume(thread))
      assert.same(plain, present())
      local ok, message = coroutine.resume(thread)
      assert.is_false(ok)
      assert.matches('modes_spec.lua:%d+: again$', message)
      assert.same({false, plain}, seen)
      assert.same(plain, present())
    end)
  end

  it('arguments, yielded values and results pass through', function()
    local step = coroutine.wrap(function(...)
      return rp.no_grad(function(...)
        return rp.layer('l', function(...)
          return 'end', coroutine.yield('first', nil, ...)
        end)(...)
      end, ...)
    end)
    local function packed(...) return {n = select('#', ...), ...} end
    assert.same({n = 5, 'first', nil, 1, nil, nil}, packed(step(1, nil, nil)))
    assert.same({n = 4, 'end', nil, 2, nil}, packed(step(nil, 2, nil)))
  end)

  it('errors are at the user\'s line, in whatever the call was', function()
    local thread = coroutine.create(function()
      fails(function()
        return rp.no_grad(function() return (nn.Linear(2, 3)(rp.ones(4, 4))) end)
      end, 'modes_spec.lua', 'linear')
      return nn.Sequential {nn.Linear(2, 3)}(rp.ones(4, 4)), 1
    end)
    local ok, message = coroutine.resume(thread)
    assert.is_false(ok)
    assert.matches('modes_spec.lua:%d+: %[linear%]', message)
  end)
end)

describe('an error that forward catches', function()
  it('leaves the place where the call was', function()
    local Net = nn.module 'Net'
    Net.forward = function()
      pcall(rp.layer('inner', function()
        rp.autocast('bf16', function() error 'on purpose' end)
      end))
      return present()
    end
    assert.same({scope = 'net', dtype = 'f32', grad = true}, Net()())
  end)
end)
