--- A device that is lost: errors that say so, and what to do; never an abort.

local emulated = require 'spec.support.emulated'

local there, reason = emulated.there()

describe('a lost device', function()
  if not there then
    pending(reason)
    return
  end

  local folder = os.getenv('RP_CUDA_LIBRARY'):match '^(.*/)'

  local function lines_of(check)
    local pipe = assert(io.popen(('RP_CUDA_CHECK=%s luajit '
      .. 'spec/support/lost_device.lua %sspec/cuda/libreprise_emulated_device.so '
      .. '2>/dev/null; echo "status $?"'):format(check, folder)))
    local lines = {}
    for line in pipe:lines() do lines[#lines + 1] = line end
    pipe:close()
    return lines
  end

  it('says so at every later call, and the CPU goes on', function()
    local lines = lines_of '0'
    for i = 1, 3 do
      assert.truthy(lines[i]:find('the device is lost to this process', 1, true),
        lines[i])
      assert.truthy(lines[i]:find('RP_CUDA_CHECK=1', 1, true))
    end
    assert.equal('8', lines[4])
    assert.equal('status 0', lines[5])
  end)

  it('names the op that did it under RP_CUDA_CHECK=1', function()
    assert.falsy(lines_of '0'[1]:find('exp', 1, true))
    local line = lines_of '1'[1]
    assert.truthy(line:find('%[exp%].*launch failure'), line)
    -- What is done already is not asked for.
    assert.falsy(line:find('RP_CUDA_CHECK', 1, true), line)
  end)
end)
