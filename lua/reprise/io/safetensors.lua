--- Tables of named tensors in files of the safetensors format.

local ffi = require 'ffi'
local arguments = require 'reprise.ops.arguments'
local binding = require 'reprise.ffi'
local device = require 'reprise.device'
local failure = require 'reprise.failure'
local header = require 'reprise.io.header'
local tensor = require 'reprise.tensor'
local values = require 'reprise.values'

local C = binding.C

if not pcall(ffi.typeof, 'struct reprise_stdio') then
  ffi.cdef [[
    struct reprise_stdio { int declared; };
    size_t fread(void *to, size_t size, size_t n, void *file);
    size_t fwrite(const void *from, size_t size, size_t n, void *file);
    int fileno(void *file);
    int fsync(int descriptor);
    void *malloc(size_t size);
    void free(void *);
  ]]
end

local safetensors = {}

--- Bytes outside of Lua's heap, which may be small.
local function buffer(size)
  local bytes = ffi.C.malloc(math.max(size, 1))
  if bytes == nil then error(('no memory for a buffer of %.0f bytes'):format(size), 0) end
  return ffi.gc(ffi.cast('uint8_t *', bytes), ffi.C.free)
end

local function sorted_names(tensors)
  local names = {}
  for name, t in pairs(tensors) do
    if type(name) ~= 'string' or name == '__metadata__' then
      error(("'%s' is not a name that a tensor can have"):format(tostring(name)), 0)
    end
    if not tensor.is(t) then
      error(("'%s' is a %s, not a tensor"):format(name, type(t)), 0)
    end
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

local function write_all(file, tensors, metadata)
  local names, entries, at, largest = sorted_names(tensors), {}, 0, 0
  for i, name in ipairs(names) do
    local t = tensors[name]
    local size = t:numel() * values.element_bytes[t.dtype]
    entries[i] = {
      name = name, dtype = t.dtype, shape = t.shape, first = at, last = at + size,
    }
    at, largest = at + size, math.max(largest, size)
  end
  local bytes = buffer(largest)
  local function check(ok, reason)
    if not ok then error(reason or 'it cannot be written', 0) end
  end
  check(file:write(header.write(entries, metadata)))
  for i, name in ipairs(names) do
    local size = entries[i].last - entries[i].first
    if C.rp_tensor_read(tensors[name].ptr, bytes, size) ~= C.RP_OK then
      error(("'%s': %s"):format(name, ffi.string(C.rp_message(binding.ctx))), 0)
    end
    check(tonumber(ffi.C.fwrite(bytes, 1, size, file)) == size, 'the disk is full')
  end
  check(file:flush())
  -- Renamed only when it is on the disk: a crash leaves the older file.
  check(ffi.C.fsync(ffi.C.fileno(file)) == 0, 'it cannot be brought to the disk')
end

--- Writes a table of named tensors, run if need be. The file is written under
-- another name and renamed, so that what was there before is whole until the
-- new one is.
---@param path string
---@param tensors table<string, reprise.Tensor>
---@param metadata table<string, string>?
function safetensors.save(path, tensors, metadata)
  if type(path) ~= 'string' or type(tensors) ~= 'table' or tensor.is(tensors) then
    failure.raise('[save] rp.save(path, {name = tensor, ...})')
  end
  local temporary = path .. '.part'
  local file, reason = io.open(temporary, 'wb')
  if not file then failure.raise('[save] %s', reason) end
  local ok, problem = pcall(write_all, file, tensors, metadata)
  failure.drain()
  local closed = file:close()
  if ok and not closed then ok, problem = false, 'it cannot be closed' end
  if ok then ok, problem = os.rename(temporary, path) end
  if not ok then
    os.remove(temporary)
    failure.raise('[save] %s: %s', path, tostring(problem))
  end
end

local function read_all(file)
  local file_bytes = file:seek 'end'
  if not file_bytes then error('it is not a file of bytes', 0) end
  file:seek 'set'
  local n = header.length(file:read(8) or '', file_bytes)
  local entries, metadata = header.parse(file:read(n) or '', file_bytes - 8 - n)
  local largest = 0
  for _, entry in ipairs(entries) do
    largest = math.max(largest, entry.last - entry.first)
  end
  local bytes, tensors = buffer(largest), {}
  for _, entry in ipairs(entries) do
    local size = entry.last - entry.first
    if tonumber(ffi.C.fread(bytes, 1, size, file)) ~= size then
      error('it ends too early', 0)
    end
    local leaf = values.leaf(C.RP_INPUT, entry.dtype, entry.shape)
    if C.rp_leaf_write(leaf.ptr, bytes, size) ~= C.RP_OK then
      error(ffi.string(C.rp_message(binding.ctx)), 0)
    end
    tensors[entry.name] = leaf
  end
  return tensors, metadata
end

--- Reads a file of the safetensors format. The whole header is checked before
-- anything is allocated. Options: device, where they lie; the default one when
-- absent, wherever they were saved.
---@param path string
---@param options {device: string?}?
---@return table<string, reprise.Tensor> tensors
---@return table<string, string> metadata
safetensors.load = device.aware('load', function(path, options)
  if type(path) ~= 'string' then failure.raise('[load] rp.load(path)') end
  arguments.options(options, {device = true}, 'load')
  local file, reason = io.open(path, 'rb')
  if not file then failure.raise('[load] %s', reason) end
  local ok, tensors, metadata = pcall(read_all, file)
  file:close()
  if not ok then failure.raise('[load] %s: %s', path, tostring(tensors)) end
  return tensors, metadata
end)

return safetensors
