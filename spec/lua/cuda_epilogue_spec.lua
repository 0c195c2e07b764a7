-- Products with GELU or its gradient in their epilogue, on 'cuda': where they
-- are, what they leave of memory and bits, and where they must not be. Runs on
-- the emulated device, where there is no GPU.

local rp = require 'reprise'
local binding = require 'reprise.ffi'
local emulated = require 'spec.support.emulated'
local raw = require 'spec.support.raw'
local run = require 'spec.support.run'
local nn, optim = rp.nn, rp.optim

local there, reason = emulated.there()

local function count(plan, op)
  local n = 0
  for _, node in ipairs(plan:graph().nodes) do
    if node.op == op then n = n + 1 end
  end
  return n
end

describe('a product with GELU in its epilogue', function()
  if not there then
    pending(reason)
    return
  end

  setup(run.quiet)
  teardown(run.loud)
  before_each(function() rp.set_default_device 'cuda' end)
  after_each(function()
    rp.set_default_device 'cpu'
    rp.detect_anomaly(false)
    rp.fusion(true)
  end)

  local LAYERS = 4

  --- Blocks of GPT-2's without attention. hidden: of 8n elements, or the
  -- library has no such epilogue.
  local function blocks(hidden, approximate, p)
    local Block = nn.module('Block', function(self)
      self.norm = nn.LayerNorm(16)
      self.fc, self.out = nn.Linear(16, hidden), nn.Linear(hidden, 16)
      self.gelu, self.dropout = nn.GELU {approximate = approximate or 'tanh'}, nn.Dropout(p or 0.1)
    end)
    function Block:forward(x)
      return x + self.dropout(self.out(self.gelu(self.fc(self.norm(x)))))
    end
    return nn.Layers(LAYERS, function() return Block() end)
  end

  local function loss_of(net, narrow, x)
    local function forward()
      local y = net(x or rp.randn(3, 5, 16))
      return y:to 'f32':square():mean()
    end
    if narrow then return rp.autocast('bf16', forward) end
    return forward()
  end

  -- The loss, then the bytes of all gradients and parameters after some steps.
  local function train(hidden, narrow, options)
    rp.manual_seed(3)
    local net = blocks(hidden)
    local parameters = net:parameters()
    local opt = optim.AdamW(parameters, {lr = 0.02})
    local out = {}
    for _ = 1, 2 do
      opt:zero_grad()
      local loss = loss_of(net, narrow)
      loss:backward(options)
      assert.equal(rp.last_plan().peak_bytes, rp.last_plan():measured_peak())
      out[#out + 1] = loss:item()
      for _, p in ipairs(parameters) do out[#out + 1] = p.grad:bytes() end
      opt:step()
    end
    for _, p in ipairs(parameters) do out[#out + 1] = p:bytes() end
    return out, rp.last_plan()
  end

  local function plan_of(net, narrow, options)
    return loss_of(net, narrow):plan(options)
  end

  it('is what a step in bf16 runs, forward and backward', function()
    local plan = plan_of(blocks(24), true)
    assert.equal(LAYERS, count(plan, 'linear+gelu_tanh'))
    assert.equal(LAYERS, count(plan, 'matmul+gelu_tanh_grad'))
    assert.equal(LAYERS, count(plan, 'gelu_tanh')) -- for the weights' gradients
    assert.equal(0, count(plan, 'gelu_tanh_grad'))
  end)

  for _, narrow in ipairs {false, true} do
    local name = narrow and 'bf16' or 'f32'

    for _, hidden in ipairs {24, 20} do
      it(('has the same bits under every strategy: %s, %d'):format(name, hidden), function()
        local kept = train(hidden, narrow, {ckpt = 'none'})
        for _, spec in ipairs {'every=1', 'every=2', 'uniform=2', 'sqrt', 'ops', 'revolve=2',
                               'nodes=2', 'budget=min'} do
          assert.same(kept, (train(hidden, narrow, {ckpt = spec})), spec)
        end
        -- Everything kept, what light values would be too.
        assert.same(kept, (train(hidden, narrow, {ckpt = function(graph)
          local keep = {}
          for i = 1, graph.n_forward do keep[i] = i end
          return {{first = 1, last = graph.n_forward, keep = keep}}
        end})))
      end)
    end
  end

  -- By erf there is no such op, and the values are the same otherwise.
  it('keeps no more than the two ops do', function()
    for _, spec in ipairs {'none', 'every=1', 'every=2', 'uniform=2'} do
      local joined = plan_of(blocks(64), true, {ckpt = spec})
      local apart = plan_of(blocks(64, 'none'), true, {ckpt = spec})
      assert.equal(LAYERS, count(joined, 'linear+gelu_tanh'))
      assert.equal(0, count(apart, 'linear+gelu_tanh'))
      assert.is_true(joined.live_bytes <= apart.live_bytes, spec)
    end
  end)

  -- Relative squared error of all gradients.
  local function error_of(want, got)
    local errors, squares = 0, 0
    for i, list in ipairs(want) do
      for k, x in ipairs(list) do
        errors, squares = errors + (x - got[i][k]) ^ 2, squares + x * x
      end
    end
    return errors / squares
  end

  local function gradients_on(device, hidden, narrow)
    rp.set_default_device 'cpu'
    rp.manual_seed(3)
    local net, x = blocks(hidden, 'tanh', 0), rp.randn(3, 5, 16):run()
    net:to(device)
    local loss = loss_of(net, narrow, x:to(device))
    loss:backward()
    local list = {}
    for i, p in ipairs(net:parameters()) do list[i] = raw.read(p.grad:to('cpu'):run().ptr) end
    return list, rp.last_plan()
  end

  for _, hidden in ipairs {24, 20} do
    it('has the gradients that the CPU has, ' .. hidden, function()
      for narrow, most in pairs {[false] = 1e-7, [true] = 1e-3} do
        local here = gradients_on('cpu', hidden, narrow)
        local there_too = gradients_on('cuda', hidden, narrow)
        assert.is_true(error_of(here, there_too) < most)
      end
    end)
  end

  it('is in no plan of the CPU, or of f32', function()
    for device, narrow in pairs {cpu = true, cuda = false} do
      rp.set_default_device(device)
      local plan = plan_of(blocks(24), narrow)
      assert.equal(0, count(plan, 'linear+gelu_tanh'))
      assert.equal(0, count(plan, 'matmul+gelu_tanh_grad'))
    end
  end)

  it('has one output where there is no backward pass', function()
    local net = blocks(20)
    rp.no_grad(function()
      return rp.autocast('bf16', function() return net(rp.randn(2, 16)) end)
    end):run()
    local plan = rp.last_plan()
    assert.equal(LAYERS, count(plan, 'linear+gelu_tanh'))
    assert.equal(0, count(plan, 'gelu_tanh'))
    for _, node in ipairs(plan:graph().nodes) do
      if node.op == 'linear+gelu_tanh' then assert.equal(256, node.bytes) end
    end
  end)

  --- x w, its GELU and what reads that, in a loss.
  local function one(behind, options)
    options = options or {}
    local fc, out = nn.Linear(16, 24), nn.Linear(24, 8)
    if options.frozen then fc:requires_grad_(false) end
    local x = rp.randn(6, 16)
    return rp.autocast('bf16', function()
      local y = options.marked and rp.checkpoint(function(t) return fc(t) end, x) or fc(x)
      return out(behind(rp.gelu(y, {approximate = 'tanh'}), y)):to('f32'):square():mean()
    end)
  end

  it('is read by backward itself, and kept, where that does not read what is before', function()
    local loss = one(function(h) return h end, {frozen = true})
    local plan = loss:plan()
    assert.equal(1, count(plan, 'linear+gelu_tanh'))
    assert.equal(0, count(plan, 'gelu_tanh'))
    assert.equal(0, count(plan, 'matmul+gelu_tanh_grad'))
    for _, node in ipairs(plan:graph().nodes) do
      if node.op == 'linear+gelu_tanh' then assert.equal(512, node.bytes) end
    end
  end)

  it('gives what is tapped, and what comes before to others', function()
    local tapped
    local loss = one(function(h, y)
      tapped = {h = h, y = y}
      return h
    end)
    loss:backward {also = {tapped.h, tapped.y}}
    assert.equal(1, count(rp.last_plan(), 'linear+gelu_tanh'))
    local h = raw.read(tapped.h:detach():to('cpu'):run().ptr)
    local y = raw.read(tapped.y:detach():to('cpu'):run().ptr)
    for i, v in ipairs(y) do
      local u = math.sqrt(2 / math.pi) * (v + 0.044715 * v ^ 3)
      assert.near(v / 2 * (1 + (1 - 2 / (math.exp(2 * u) + 1))), h[i], 1e-2 * (0.1 + math.abs(v)))
    end
  end)

  it('is not there, and nothing else, where any allocation is refused', function()
    local C, ctx = binding.C, binding.ctx
    local loss = one(function(h) return h end)
    local refused, recipes = 0
    for k = 1, 400 do
      C.rp_memory_fail_at(ctx, k)
      local ok, message = pcall(loss.plan, loss)
      C.rp_memory_fail_at(ctx, 0)
      if ok then break end
      refused = refused + 1
      assert.truthy(message:find 'out of memory', message)
      collectgarbage()
      collectgarbage()
      if k > 30 then -- what tables of the recorder grew by before stays
        recipes = recipes or rp.memory().recipe_bytes
        assert.is_true(rp.memory().recipe_bytes <= recipes)
      end
    end
    assert.truthy(refused > 60)
    assert.equal(1, count(loss:plan(), 'linear+gelu_tanh'))
  end)

  it('is not there across marks, under an elementwise reader, where it is off', function()
    local function joined(loss) return count(loss:plan(), 'linear+gelu_tanh') end
    assert.equal(1, joined(one(function(h) return h end)))
    assert.equal(0, joined(one(function(h) return h end, {marked = true})))
    assert.equal(0, joined(one(function(h) return h:keep() end)))
    assert.equal(0, joined(one(function(h) return h * 2 end)))
    rp.fusion(false)
    assert.equal(0, joined(one(function(h) return h end)))
    rp.fusion(true)
    rp.detect_anomaly(true)
    assert.equal(0, joined(one(function(h) return h end)))
  end)
end)
