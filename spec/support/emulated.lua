--- The emulated CUDA device, for specs: the backend's own sources, run by the
-- host. emulated.there() is nil and the reason where it is not built.

local ffi = require 'ffi'

local emulated = {}

-- Declared by spec/support/environment.lua.
local function set(name, value) ffi.C.setenv(name, value, 1) end

--- Makes 'cuda' the emulated device in this process, before it is first named.
---@return boolean? there
---@return string? reason
function emulated.there()
  local path = 'build-test/libreprise_cuda_emulated.so'
  local file = io.open(path, 'rb') or io.open('build/libreprise_cuda_emulated.so', 'rb')
  if not file then
    return nil, 'skipped: the emulated CUDA device is not built (no CUDA toolkit here)'
  end
  file:close()
  if not io.open(path, 'rb') then path = 'build/libreprise_cuda_emulated.so' end
  set('RP_CUDA_LIBRARY', path)
  local rp = require 'reprise'
  local there, reason = rp.cuda.is_available()
  if not there then return nil, reason end
  return true
end

return emulated
