-- A device that is too small, and what it says of its memory: the emulated one
-- with 192 MiB.

local ffi = require 'ffi'

ffi.C.setenv('RP_EMULATED_BYTES', tostring(192 * 2^20), 1)

local rp = require 'reprise'
local emulated = require 'spec.support.emulated'
local fails = require 'spec.support.fails'
local nn, optim = rp.nn, rp.optim

local there, reason = emulated.there()

describe('a device of 192 MiB', function()
  if not there then
    pending(reason)
    return
  end

  local before
  setup(function()
    rp.set_default_device 'cuda'
    before = rp.cuda.mem_get_info()
  end)
  teardown(function() rp.set_default_device 'cpu' end)

  it('refuses a step that it cannot hold before it runs, with the least that can be', function()
    local net = nn.Layers(12, function()
      return nn.Sequential {nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 256)}
    end)
    local opt = optim.AdamW(net:parameters(), {lr = 0.1})
    local y = net(rp.randn(16384, 256))
    local loss = (y * y):mean()
    local least = opt:plan(loss, {ckpt = 'budget=min'}).peak_bytes
    local message = fails(function() opt:minimize(loss) end, 'out of memory on cuda',
      'this step needs', 'under none', "budget=min")
    local text = ('%.1f MiB'):format(least / 2^20)
    assert.truthy(message:find(text, 1, true), message .. ' lacks ' .. text)
    assert.falsy(loss:is_held())
    -- And goes on with what it can hold.
    local small = net(rp.randn(2, 256))
    opt:minimize((small * small):mean())
  end)

  it('has its own figure for what is accounted, to a few granules and what is spare', function()
    local x = rp.zeros(20 * 2^20, {requires_grad = true}):run()
    rp.cuda.synchronize()
    local taken, accounted = before - rp.cuda.mem_get_info(), rp.memory 'cuda'.bytes
    assert.truthy(accounted >= 80 * 2^20)
    -- Two heaps end in a granule of 2 MiB each; 32 MiB may be kept for later.
    assert.truthy(taken >= accounted and taken <= accounted + 36 * 2^20,
      ('%d taken, %d accounted'):format(taken, accounted))
    assert.truthy(x:is_held())
  end)
end)
