--- The C library, declared from the text that it carries itself.
-- In a checkout the library is the one that `make` built beside this tree;
-- when installed it is found where Lua finds C modules.

local ffi = require 'ffi'

local ABI = 1

---@class reprise.binding
---@field C any          the library's functions and constants
---@field ctx any        the default context
---@field path string    the library's file
---@field root string    the folder of the Lua module, with a final '/'

local root = debug.getinfo(1, 'S').source:match '^@(.*[/\\])[^/\\]*$' or './'

local function exists(path)
  local file = io.open(path, 'rb')
  if file then file:close() end
  return file ~= nil
end

local function find_library()
  local built = root .. '../../build/libreprise.so'
  if exists(built) then return built end
  local installed = package.searchpath('reprise.libreprise', package.cpath)
  if installed then return installed end
  error('reprise is not built: there is no ' .. built ..
    ' and no reprise.libreprise on package.cpath; run "make" in the checkout', 0)
end

-- OpenMP's threads wait for each other by spinning, by default for
-- milliseconds; on a machine with other work that wait is spent in place of
-- the thread waited for. Short spins cost nothing when it is quiet. Read by
-- libgomp when it is loaded; what the user set stands.
if not os.getenv 'OMP_WAIT_POLICY' then
  ffi.cdef 'int setenv(const char *, const char *, int);'
  ffi.C.setenv('GOMP_SPINCOUNT', '2000', 0)
end

local path = find_library()
local C = ffi.load(path)

-- A second load of this module in one Lua state finds the types declared.
if not pcall(ffi.typeof, 'rp_plan_info') then
  ffi.cdef 'int rp_abi_version(void); const char *rp_cdef(void);'
  local version = C.rp_abi_version()
  if version ~= ABI then
    error(('%s has interface version %d, this module needs %d; run "make"')
      :format(path, version, ABI), 0)
  end
  ffi.cdef(ffi.string(C.rp_cdef()))
end

local ctx = C.rp_context_new()
if ctx == nil then error('reprise: no memory for a context', 0) end

---@type reprise.binding
return {C = C, ctx = ctx, path = path, root = root}
