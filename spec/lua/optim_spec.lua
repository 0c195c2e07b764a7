-- Optimizers against their formulas, by hand in doubles; groups, schedules,
-- state. PyTorch's own numbers are in training_spec.

local rp = require 'reprise'
local nn, optim = rp.nn, rp.optim

local function parameter(list)
  return nn.Parameter(rp.tensor(list, {dtype = 'f64'}))
end

local function refused(pattern, fn)
  local ok, message = pcall(fn)
  assert.is_false(ok)
  assert.matches(pattern, message)
end

--- Three steps on sum(c * p^2) / 2, whose gradient is c * p.
local function steps(p, opt, how)
  local c = rp.tensor({1, 3}, {dtype = 'f64'})
  for _ = 1, 3 do
    local loss = (c * p ^ 2):sum() / 2
    if how == 'minimize' then
      opt:minimize(loss)
    else
      loss:backward()
      opt:step()
      opt:zero_grad()
    end
  end
  return p:totable()
end

local function by_hand(update)
  local result = {}
  for i, c in ipairs{1, 3} do
    local x, state = ({0.5, -2})[i], {}
    for t = 1, 3 do x = update(x, c * x, state, t) end
    result[i] = x
  end
  return result
end

local function adam(o)
  return by_hand(function(x, g, s, t)
    if o.decoupled then x = x - o.lr * o.wd * x else g = g + o.wd * x end
    s.m = 0.9 * (s.m or 0) + 0.1 * g
    s.v = 0.999 * (s.v or 0) + 0.001 * g * g
    return x - o.lr * (s.m / (1 - 0.9 ^ t)) / (math.sqrt(s.v / (1 - 0.999 ^ t)) + 1e-8)
  end)
end

describe('an optimizer', function()
  local cases = {
    SGD = {{lr = 0.1, weight_decay = 0.2}, by_hand(function(x, g)
      return x - 0.1 * (g + 0.2 * x)
    end)},
    ['SGD with momentum'] = {{lr = 0.1, momentum = 0.9, dampening = 0.5},
      by_hand(function(x, g, s)
        s.m = s.m and 0.9 * s.m + 0.5 * g or g
        return x - 0.1 * s.m
      end)},
    ['SGD of Nesterov'] = {{lr = 0.1, momentum = 0.9, nesterov = true},
      by_hand(function(x, g, s)
        s.m = s.m and 0.9 * s.m + g or g
        return x - 0.1 * (g + 0.9 * s.m)
      end)},
    Adam = {{lr = 0.1, weight_decay = 0.2}, adam{lr = 0.1, wd = 0.2}},
    AdamW = {{lr = 0.1}, adam{lr = 0.1, wd = 0.01, decoupled = true}},
  }

  for name, case in pairs(cases) do
    for _, how in ipairs{'minimize', 'step'} do
      it('follows its formula: ' .. name .. ', ' .. how, function()
        local p = parameter{0.5, -2}
        local make = optim[name:match '^%a+']
        local got = steps(p, make({p}, case[1]), how)
        for i, x in ipairs(case[2]) do assert.near(x, got[i], 1e-14) end
      end)
    end
  end

  it('has groups with numbers of their own, which may be changed', function()
    local a, b = parameter{1}, parameter{1}
    local opt = optim.SGD({{params = {a}, lr = 0.5}, {params = {b}}}, {lr = 0.25})
    opt:minimize((a + b):sum())
    assert.equal(0.5, a:item())
    assert.equal(0.75, b:item())
    opt.param_groups[2].lr = 0
    opt:minimize((a + b):sum())
    assert.equal(0, a:item())
    assert.equal(0.75, b:item())
    opt:set_lr(0.125)
    opt:minimize((a + b):sum())
    assert.equal(-0.125, a:item())
    assert.equal(0.625, b:item())
    assert.equal(3, opt:step_count())
  end)

  it('adds what backward left before, and leaves frozen parameters alone', function()
    local a, b = parameter{1}, parameter{1}
    b.requires_grad = false
    local opt = optim.SGD({a, b}, {lr = 1})
    ;(a * 2 + b):sum():backward()
    opt:minimize((a * 3 + b):sum())
    assert.equal(1 - 5, a:item())
    assert.equal(1, b:item())
  end)

  it('updates what only an earlier backward reached, as step does', function()
    -- By hand: the gradients are (2, 3), clipped to norm 1 (2, 3) / sqrt(13).
    for _, clip in ipairs {0, 1} do
      for _, detached in ipairs {false, true} do
        local a, b = parameter{1}, parameter{1}
        local opt = optim.SGD({a, b}, {lr = 1, clip_grad_norm = clip})
        ;(a * 2):sum():backward()
        local loss = b * 3
        if detached then loss = loss + a:detach() end
        opt:minimize(loss:sum(), {if_finite = true})
        local norm = clip == 0 and 1 or math.sqrt(13)
        assert.near(1 - 2 / norm, a:item(), 1e-6)
        assert.near(1 - 3 / norm, b:item(), 1e-6)
        assert.is_nil(a.grad)
        assert.equal(rp.last_plan().peak_bytes, rp.last_plan():measured_peak())
      end
    end
  end)

  it('clips by the global norm', function()
    local a, b = parameter{0}, parameter{0}
    -- Gradients 3 and 4 have norm 5; clipped to 1 they are 0.6 and 0.8, but
    -- for PyTorch's 1e-6 in max_norm / (norm + 1e-6).
    local opt = optim.SGD({a, b}, {lr = 1, clip_grad_norm = 1})
    opt:minimize((a * 3 + b * 4):sum())
    assert.near(-0.6, a:item(), 1e-6)
    assert.near(-0.8, b:item(), 1e-6)
    opt:clip_grad_norm(nil)
    opt:minimize((a * 3 + b * 4):sum())
    assert.near(-3.6, a:item(), 1e-6)
    refused('a norm of at least 0', function() opt:clip_grad_norm(-1) end)
  end)

  it('delivers other values of the step', function()
    local p = parameter{2}
    local loss = (p ^ 2):sum()
    local double, triple = p * 2, p * 3
    optim.SGD({p}, {lr = 1}):minimize(loss, {also = {double, triple}})
    assert.equal(4, loss:item())
    assert.equal(4, double:item())
    assert.equal(6, triple:item())
    assert.equal(-2, p:item())
  end)

  it('plans without running', function()
    local p = parameter{2}
    local opt = optim.AdamW({p})
    local plan = opt:plan((p ^ 2):sum())
    assert.is_true(plan.peak_bytes > 0)
    assert.equal(plan.peak_bytes, plan.persistent_bytes + plan.arena_bytes)
    assert.equal(0, opt:step_count())
    assert.equal(2, p:item())
  end)

  it('saves and restores its state', function()
    local function train(p, opt, n)
      for _ = 1, n do opt:minimize((p ^ 4):sum()) end
    end
    local p = parameter{1, 2}
    local opt = optim.Adam({p}, {lr = 0.1})
    train(p, opt, 2)
    local state, weights = opt:state_dict(), p:totable()
    local kept = {}
    for name, t in pairs(state) do kept[name] = rp.tensor(t:totable(), {dtype = t.dtype}) end
    assert.same({0.1, 0.9, 0.999, 1e-8, 0}, kept['group.1']:totable())
    train(p, opt, 3)
    local q = parameter(weights)
    local other = optim.Adam({q}, {lr = 0.1})
    other:load_state_dict(kept)
    assert.equal(2, other:step_count())
    train(q, other, 3)
    assert.equal(p:bytes(), q:bytes())
    refused('%[Adam%] the state does not fit: missing: group.1, state.1.1, state.1.2',
      function() other:load_state_dict{step = rp.tensor(1)} end)
  end)

  it('says what it is', function()
    assert.equal('AdamW(1 parameter, betas = {0.9, 0.999}, eps = 1e-08, lr = 0.5, ' ..
      'weight_decay = 0.01)', tostring(optim.AdamW({parameter{1}}, {lr = 0.5})))
  end)

  it('refuses what cannot be', function()
    local p = parameter{1}
    refused("%[AdamW%] no option 'lrr'; there are betas, eps, lr, weight_decay, clip_grad_norm",
      function() optim.AdamW({p}, {lrr = 1}) end)
    refused("%[SGD%] no option 'beta'", function() optim.SGD{{params = {p}, beta = 1}} end)
    refused('%[Adam%] no parameters: model:parameters%(%)', function() optim.Adam{} end)
    refused('given twice', function() optim.SGD{p, p} end)
    refused('a leaf of a floating dtype', function() optim.SGD{p * 2} end)
    refused('%[SGD%] lr is a number, not x', function() optim.SGD({p}, {lr = 'x'}) end)
    refused('nesterov wants a momentum', function() optim.SGD({p}, {nesterov = true}) end)
    refused('a learning rate of at least 0', function() optim.SGD({p}):set_lr(-1) end)
    refused("%[minimize%] no option 'chkpt'; there are also, ckpt",
      function() optim.SGD({p}):minimize(p:sum(), {chkpt = 'none'}) end)
  end)
end)

describe('warmup_cosine', function()
  it('rises linearly and falls along half a cosine', function()
    local rate = optim.warmup_cosine{lr = 1, warmup = 10, steps = 110, min_lr = 0.1}
    assert.near(0.1, rate(1), 1e-15)
    assert.near(1, rate(10), 1e-15)
    assert.near(0.55, rate(60), 1e-15)
    assert.near(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)), rate(35), 1e-15)
    assert.near(0.1, rate(110), 1e-15)
    assert.equal(0.1, rate(1000))
  end)

  it('needs its numbers', function()
    refused('%[warmup_cosine%] steps is a number of at least 1, not nil',
      function() optim.warmup_cosine{lr = 1} end)
  end)
end)
