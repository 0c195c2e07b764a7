-- What a device's memory is in use for, by its driver's account. The emulated
-- driver takes what spec/cuda/emulated/engine.h says: so many bytes for a context,
-- for each library's handle, each kernel's code, each node of a graph.

local rp = require 'reprise'
local emulated = require 'spec.support.emulated'
local fails = require 'spec.support.fails'
local line_with = require('spec.support.files').line_with
local nn, optim = rp.nn, rp.optim

local there, reason = emulated.there()
local MIB, KIB = 2^20, 2^10
local GRANULE = 2 * MIB

describe("a device's memory by its driver", function()
  if not there then
    pending(reason)
    return
  end

  setup(function() rp.set_default_device 'cuda' end)
  teardown(function() rp.set_default_device 'cpu' end)

  local function parts()
    local of = {}
    for _, part in ipairs(rp.cuda.memory_stats().fixed) do of[part.name] = part.bytes end
    return of
  end

  local function settled()
    collectgarbage()
    collectgarbage()
    return rp.cuda.memory_stats()
  end

  it('names the context and what each library takes when the device is opened', function()
    local of = parts()
    assert.equal(9 * MIB, of.context)
    assert.equal(2 * MIB, of.cuBLASLt)
    assert.equal(5 * MIB, of.cuDNN)
    assert.equal(512, of.queues)
  end)

  it('is what is accounted, in whole pages, but for libraries and context', function()
    local net = nn.Layers(4, function()
      return nn.Sequential {nn.Linear(512, 512), nn.GELU(), nn.LayerNorm(512), nn.Dropout(0.1)}
    end)
    local opt = optim.AdamW(net:parameters(), {lr = 0.01})
    local before, planned = parts(), nil
    for _ = 1, 5 do
      local y = net(rp.randn(64, 512))
      local loss = (y * y):mean()
      planned = opt:plan(loss).peak_bytes
      opt:minimize(loss)
      loss:item()
    end
    assert.equal(planned, rp.last_plan():measured_peak())
    local of = settled()
    local own = of.driver_bytes - of.fixed_bytes
    assert.equal(of.reserved_bytes, own)
    -- Two heaps of whole pages; the first grows by 8 MiB and keeps 32 at most.
    assert.truthy(own >= of.allocated_bytes, ('%d of %d'):format(own, of.allocated_bytes))
    assert.truthy(own <= of.allocated_bytes + 32 * MIB + 2 * GRANULE)
    local after = parts()
    assert.equal(before.context, after.context)
    -- Kernels and recordings came with the program, and are counted as such.
    assert.truthy(after.code > before.code and after.code % (64 * KIB) == 0)
    assert.truthy(after.graphs > before.graphs and after.graphs % KIB == 0)
  end)

  it('grows by no byte that is not a page while the same step runs on', function()
    local w = rp.randn(256, 256, {requires_grad = true})
    local opt = optim.SGD({w}, {lr = 0.01})
    local function step()
      local loss = rp.randn(8, 256):matmul(w):square():mean()
      opt:minimize(loss)
      return loss:item()
    end
    for _ = 1, 6 do step() end
    local before = settled()
    for _ = 1, 6 do step() end
    local after = settled()
    assert.equal(before.fixed_bytes, after.fixed_bytes)
    assert.equal(after.reserved_bytes, after.driver_bytes - after.fixed_bytes)
  end)

  it('has PyTorch\'s names, and reads as a text', function()
    local x = rp.zeros(3 * MIB / 4, {requires_grad = true}):run()
    assert.equal(rp.memory 'cuda'.bytes, rp.cuda.memory_allocated())
    assert.equal(rp.max_memory_allocated 'cuda', rp.cuda.max_memory_allocated 'cuda')
    assert.truthy(rp.cuda.memory_reserved() >= rp.cuda.memory_allocated())
    assert.equal(0, rp.cuda.memory_reserved() % GRANULE)
    rp.cuda.reset_peak_memory_stats()
    assert.equal(rp.cuda.memory_allocated(), rp.cuda.max_memory_allocated())
    local text = rp.cuda.memory_summary()
    assert.truthy(line_with(text, 'libraries and context', "in no plan's peak"))
    assert.truthy(line_with(text, 'context', '9.0 MiB'))
    assert.truthy(line_with(text, 'all, by the driver'))
    assert.truthy(x:is_held())
    fails(function() rp.cuda.memory_stats 'cuda:7' end, "no device 'cuda:7'")
    fails(function() rp.cuda.memory_stats 'cpu' end, 'memory_stats', "'cpu' is no CUDA device")
  end)

  it("has a line of its own in a plan's text", function()
    local w = rp.randn(4, 4, {requires_grad = true})
    assert.truthy(line_with(tostring(w:square():sum():plan()),
      'libraries and context', 'fixed, not in the peak', 'context 9.0 MiB'))
    rp.set_default_device 'cpu'
    local v = rp.randn(4, 4, {requires_grad = true})
    assert.falsy(tostring(v:square():sum():plan()):find('libraries', 1, true))
    rp.set_default_device 'cuda'
  end)

  it('tells what a program took there, and what to hand it over', function()
    local x = rp.randn(64, 64):run()
    local y = x:matmul(x):run()
    local plan = rp.last_plan()
    assert.truthy(plan:measured_seconds() > 0 and plan:launch_seconds() > 0)
    assert.equal('cuda', plan.device)
    assert.truthy(y:is_held())
  end)

  it('counts what the device has in use where NVML does not say', function()
    local pipe = assert(io.popen [[RP_EMULATED_NVML=0 luajit -e "
      package.path = 'lua/?.lua;lua/?/init.lua;' .. package.path
      local rp = require 'reprise'
      print(rp.cuda.memory_stats().fixed[1].bytes)"]])
    local text = pipe:read '*a'
    pipe:close()
    assert.equal(9 * MIB, tonumber(text))
  end)
end)
