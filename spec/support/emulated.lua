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

--- The hooks of spec/cuda/emulated/hooks.h, once it is there.
function emulated.hooks()
  if not emulated.library then
    local file = assert(io.open 'spec/cuda/emulated/hooks.h')
    ffi.cdef(file:read '*a':match '/%* ffi %*/(.*)/%* ffi end %*/')
    file:close()
    emulated.library = ffi.load(os.getenv 'RP_CUDA_LIBRARY')
  end
  return emulated.library
end

return emulated
