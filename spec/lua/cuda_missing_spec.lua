-- Where there is no GPU, or no library for one: what is missing is said, and
-- everything else works.

local ffi = require 'ffi'

ffi.C.setenv('RP_CUDA_LIBRARY', '/nonexistent/libreprise_cuda.so', 1)

local rp = require 'reprise'
local fails = require 'spec.support.fails'

describe('a machine without CUDA', function()
  it('says so, and why', function()
    local there, reason = rp.cuda.is_available()
    assert.is_false(there)
    assert.truthy(reason:find('libreprise_cuda.so', 1, true), reason)
    assert.equal(0, rp.cuda.device_count())
    fails(function() return rp.randn(2, {device = 'cuda'}) end, 'cuda', 'libreprise_cuda.so')
    fails(function() return rp.randn(2):to 'cuda' end, 'libreprise_cuda.so')
    fails(function() rp.set_default_device 'cuda' end, 'libreprise_cuda.so')
    fails(function() rp.cuda.synchronize() end, 'libreprise_cuda.so')
    assert.equal('cpu', rp.randn(2).device)
  end)

  it('names the part that is missing, whatever is asked', function()
    local path = io.open 'build-test/libreprise_cuda_emulated.so' and 'build-test/' or 'build/'
    if not io.open(path .. 'libreprise_cuda_emulated.so') then
      return pending 'skipped: the emulated CUDA device is not built (no CUDA toolkit here)'
    end
    for variable, part in pairs {RP_EMULATED_DRIVER = 'there is no NVIDIA driver',
                                 RP_EMULATED_DEVICES = 'no CUDA%-capable device'} do
      local pipe = assert(io.popen(([[%s=0 RP_CUDA_LIBRARY=%slibreprise_cuda_emulated.so luajit -e "
        package.path = 'lua/?.lua;lua/?/init.lua;' .. package.path
        local rp = require 'reprise'
        print(rp.cuda.device_count())
        print(select(2, rp.cuda.is_available()))
        for _, name in ipairs {'cuda', 'cuda:0', 'cuda:3'} do
          print(select(2, pcall(rp.randn, 2, {device = name})))
        end" 2>&1]]):format(variable, path)))
      local count = pipe:read '*l'
      local lines = {}
      for line in pipe:lines() do lines[#lines + 1] = line end
      pipe:close()
      assert.equal('0', count)
      assert.equal(4, #lines)
      for _, line in ipairs(lines) do assert.matches('%[device%] cuda: ' .. part, line) end
    end
  end)

  it('is an error of train.lua', function()
    local pipe = assert(io.popen('luajit train.lua --device cuda --steps 1 2>&1'))
    local text = pipe:read '*a'
    pipe:close()
    assert.truthy(text:find('^train.lua: .*libreprise_cuda.so'), text)
    assert.falsy(text:find 'traceback')
  end)
end)
