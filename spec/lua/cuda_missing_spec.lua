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

  it('is an error of train.lua', function()
    local pipe = assert(io.popen('luajit train.lua --device cuda --steps 1 2>&1'))
    local text = pipe:read '*a'
    pipe:close()
    assert.truthy(text:find('^train.lua: .*libreprise_cuda.so'), text)
    assert.falsy(text:find 'traceback')
  end)
end)
