-- Norms that round what they make, add to it or rectify it, gradients of norms
-- that add what goes around them: to the bits of the ops one by one, inside
-- random chains.

local rp = require 'reprise'
local run = require 'spec.support.run'
local nn, both = rp.nn, run.fused_and_apart

local function ops_of(plan)
  local list = {}
  for _, node in ipairs(plan:graph().nodes) do list[#list + 1] = node.op end
  return ' ' .. table.concat(list, ' ') .. ' '
end

local function has(plan, op) return ops_of(plan):find(' ' .. op .. ' ', 1, true) ~= nil end

local state = 1
local function draw(n)
  state = (state * 1103515245 + 12345) % 2147483648
  return math.floor(state / 65536) % n + 1
end

local unary = {'tanh', 'sigmoid', 'relu', 'gelu', 'silu', 'square'}

local function chain(x, y)
  for _ = 1, draw(3) - 1 do
    local kind = draw(3)
    if kind == 1 then x = x[unary[draw(#unary)]](x)
    elseif kind == 2 then x = x + y
    else x = rp.dropout(x, 0.2) end
  end
  return x
end

--- A stack of norms in residual branches, elementwise ops around and in them.
local function stack(shape, dtype)
  local width = shape[#shape]
  local parameters = {}
  local function parameter(...)
    local p = nn.Parameter(rp.randn(..., {dtype = dtype}))
    parameters[#parameters + 1] = p
    return p
  end
  local x = parameter(shape)
  local y = rp.randn(shape, {dtype = dtype}):run()
  local h = x * 1
  for i = 1, 3 do
    h = rp.layer('layer' .. i, function(inner)
      inner = chain(inner, y)
      local z
      if draw(2) == 1 then
        z = rp.layer_norm(inner, parameter {width}, parameter {width})
      else
        z = rp.rms_norm(inner, parameter {width})
      end
      if dtype == 'f32' and draw(2) == 1 then
        local w = parameter {width, width}
        z = rp.linear(z:to 'bf16', w:to 'bf16'):to 'f32'
      else
        z = chain(z, y)
      end
      return inner + z
    end)(h)
  end
  return h:square():mean(), parameters
end

describe('what is behind a norm', function()
  setup(run.quiet)
  teardown(run.loud)

  for _, dtype in ipairs {'f32', 'f64'} do
    for s, shape in ipairs {{5, 16}, {3, 7, 33}, {6, 300}, {1, 1}} do
      it('has the bits it has alone, ' .. table.concat(shape, 'x') .. ' ' .. dtype, function()
        local rounds, adds = false, false
        for seed = 1, 3 do
          for _, spec in ipairs {'none', 'every=1', 'nodes=2', 'budget=min'} do
            local fused, apart = both(function()
              rp.manual_seed(seed)
              state = 100 * s + seed
              local loss, parameters = stack(shape, dtype)
              local plan = loss:plan {ckpt = spec}
              loss:backward {ckpt = spec}
              assert.equal(plan.peak_bytes, rp.last_plan():measured_peak())
              rounds = rounds or has(plan, 'layer_norm+cast') or has(plan, 'rms_norm+cast')
              adds = adds or has(plan, 'layer_norm_grad+add') or has(plan, 'rms_norm_grad+add')
              local list = {loss:item()}
              for i, p in ipairs(parameters) do list[i + 1] = p.grad:totable() end
              return list
            end)
            assert.same(apart, fused, spec)
          end
        end
        assert.is_true(adds)
        assert.equal(dtype == 'f32', rounds)
      end)
    end
  end

  for _, dtype in ipairs {'f32', 'f64'} do
    it('has the bits it has alone behind a batch_norm, ' .. dtype, function()
      local seen = {}
      for seed = 1, 6 do
        for _, spec in ipairs {'none', 'every=1', 'nodes=2', 'budget=min'} do
          local fused, apart = both(function()
            rp.manual_seed(seed)
            state = seed
            local parameters = {}
            local function parameter(...)
              local p = nn.Parameter(rp.randn(..., {dtype = dtype}))
              parameters[#parameters + 1] = p
              return p
            end
            local shape = seed % 4 == 0 and {37, 5} or {3, 5, 7, 9}
            local x = parameter(shape) * 0.5
            for i = 1, 3 do
              x = rp.layer('layer' .. i, function(inner)
                inner = inner:tanh()
                local y = rp.batch_norm(inner, nil, nil, parameter {5}, parameter {5}, true)
                if draw(3) > 1 then y = y + inner end
                if draw(3) > 1 then y = rp.relu(y) end
                return y
              end)(x)
            end
            local loss = x:square():mean()
            local plan = loss:plan {ckpt = spec}
            loss:backward {ckpt = spec}
            assert.equal(plan.peak_bytes, rp.last_plan():measured_peak())
            for op in ops_of(plan):gmatch '%S+' do seen[op] = true end
            local list = {loss:item()}
            for i, p in ipairs(parameters) do list[i + 1] = p.grad:totable() end
            return list
          end)
          assert.same(apart, fused, spec)
        end
      end
      for _, ending in ipairs {'', '+add', '+relu', '+add+relu'} do
        assert.is_true(seen['batch_norm_apply' .. ending], ending)
      end
    end)
  end

  local w, b = rp.ones(8):run(), rp.zeros(8):run()
  local function plan_of(fn)
    local t = fn()
    t:run()
    return rp.last_plan()
  end

  it('is one node, and nothing in between takes memory', function()
    local x = rp.randn(512, 8):run()
    local column = rp.randn(1, 8):to 'bf16':run()
    local fused, apart = both(function()
      return plan_of(function() return rp.linear(rp.layer_norm(x, w, b):to 'bf16', column) end)
    end)
    assert.is_true(has(fused, 'layer_norm+cast'))
    assert.is_true(has(apart, 'layer_norm'))
    assert.is_true(fused.live_bytes < apart.live_bytes)
  end)

  it('stays apart where others read the norm, at marks and layers, for other dtypes', function()
    local x = rp.randn(4, 8):run()
    local function apart(fn) return not has(plan_of(fn), 'layer_norm+cast') end
    assert.is_false(apart(function() return rp.layer_norm(x, w, b):to 'bf16' end))
    assert.is_true(apart(function()
      local y = rp.layer_norm(x, w, b)
      return y:to 'bf16':to 'f32' + y
    end))
    assert.is_true(apart(function() return rp.layer_norm(x, w, b):keep():to 'bf16' end))
    assert.is_true(apart(function()
      return rp.checkpoint(function() return rp.layer_norm(x, w, b) end):to 'bf16'
    end))
    assert.is_true(apart(function() return rp.layer_norm(x, w, b):to 'f64' end))
  end)
end)
