--- IDX files (the format of MNIST and Fashion-MNIST), plain or gzip, read
-- strictly: nothing is allocated before the header has been checked against
-- the file's size, and a byte too few or too many is an error.
--
-- Format: two zero bytes, a type code, the rank, the dims as big-endian
-- 32-bit numbers, the elements. http://yann.lecun.com/exdb/mnist

local ffi = require 'ffi'

ffi.cdef [[
  typedef struct gzFile_s *reprise_gz;
  reprise_gz gzopen(const char *path, const char *mode);
  int gzread(reprise_gz file, void *buffer, unsigned size);
  const char *gzerror(reprise_gz file, int *code);
  int gzclose(reprise_gz file);
]]

local idx = {}

local UNSIGNED_BYTE = 0x08
-- No stream of deflate holds more than 1032 bytes a byte.
local MOST_EXPANSION = 1032

local function zlib()
  for _, name in ipairs {'libz.so.1', 'z'} do
    local ok, library = pcall(ffi.load, name)
    if ok then return library end
  end
end

local Z -- loaded on first use, kept referenced

-- Reads exactly size bytes; false at the end of the file or on bad gzip data.
local function read_exactly(file, buffer, size)
  local done = 0
  while done < size do
    local n = Z.gzread(file, buffer + done, math.min(size - done, 2 ^ 24))
    if n <= 0 then return false end
    done = done + n
  end
  return true
end

local function big_endian(bytes, at)
  return ((bytes[at] * 256 + bytes[at + 1]) * 256 + bytes[at + 2]) * 256
    + bytes[at + 3]
end

local function damage(file)
  local code = ffi.new 'int[1]'
  local message = ffi.string(Z.gzerror(file, code))
  if code[0] ~= 0 then return 'is damaged (' .. message .. ')' end
  return 'ends too early'
end

-- dims and number of elements, or nil and what is wrong.
local function read_header(file, file_size)
  local head = ffi.new 'uint8_t[1020]'
  if not read_exactly(file, head, 4) then return nil, damage(file) end
  if head[0] ~= 0 or head[1] ~= 0 then
    return nil, 'is no IDX file (it does not begin with two zero bytes)'
  end
  if head[2] ~= UNSIGNED_BYTE then
    return nil, ('holds elements of type 0x%02x; only unsigned bytes (0x08) '
      .. 'are read'):format(head[2])
  end
  local rank = head[3]
  if rank < 1 then return nil, 'has rank 0' end
  if not read_exactly(file, head, 4 * rank) then return nil, damage(file) end
  local dims, count = {}, 1
  for i = 1, rank do
    dims[i] = big_endian(head, 4 * (i - 1))
    -- Doubles hold products up to 2^53; the limit below is far smaller, so
    -- the first product beyond it is still exact enough to be refused.
    count = count * dims[i]
    if count > file_size * MOST_EXPANSION then
      return nil, 'says ' .. table.concat(dims, 'x') ..
        '... elements, more than its size can hold'
    end
  end
  return dims, count
end

local function read_open(file, file_size)
  local dims, count = read_header(file, file_size)
  if not dims then return nil, count end
  local data = ffi.new('uint8_t[?]', math.max(count, 1))
  if not read_exactly(file, data, count) then return nil, damage(file) end
  local extra = Z.gzread(file, ffi.new 'uint8_t[1]', 1)
  if extra < 0 then return nil, damage(file) end
  if extra > 0 then return nil, 'has bytes after its last element' end
  return {dims = dims, count = count, data = data}
end

---@class reprise.IdxArray
---@field dims integer[]
---@field count integer
---@field data ffi.cdata* uint8_t[count]

--- Reads one file of unsigned bytes.
---@param path string plain or gzip
---@return reprise.IdxArray? array nil: it cannot be read or is malformed
---@return string? problem
function idx.read(path)
  local plain, why = io.open(path, 'rb')
  if not plain then return nil, why end
  local file_size = plain:seek 'end'
  plain:close()
  if not file_size or file_size == 0 then return nil, path .. ': is empty' end
  Z = Z or zlib()
  if not Z then return nil, path .. ': needs zlib, which is not installed' end
  local file = Z.gzopen(path, 'rb')
  if file == nil then return nil, path .. ': cannot be opened' end
  local array, problem = read_open(file, file_size)
  -- Closing notices a gzip file without its checksum.
  local closed = Z.gzclose(file)
  if not array then return nil, path .. ': ' .. problem end
  if closed ~= 0 then return nil, path .. ': ends too early' end
  return array
end

-- folder/name.gz or folder/name, whichever is there.
local function find(folder, name)
  for _, path in ipairs {folder .. '/' .. name .. '.gz',
                         folder .. '/' .. name} do
    local file = io.open(path, 'rb')
    if file then
      file:close()
      return path
    end
  end
  return nil, ('%s: no %s.gz in it'):format(folder, name)
end

local function read_pair(folder, prefix)
  local arrays = {}
  for _, part in ipairs {'images', 'labels'} do
    local rank = part == 'images' and 3 or 1
    local path, missing = find(folder, ('%s-%s-idx%d-ubyte'):format(prefix,
      part, rank))
    if not path then return nil, missing end
    local array, problem = idx.read(path)
    if not array then return nil, problem end
    if #array.dims ~= rank then
      return nil, ('%s: has rank %d, not %d'):format(path, #array.dims, rank)
    end
    arrays[part] = array
  end
  local images, labels = arrays.images, arrays.labels
  if images.dims[1] ~= labels.dims[1] then
    return nil, ('%s: %d %s images but %d labels'):format(folder,
      images.dims[1], prefix, labels.dims[1])
  end
  return {n = images.dims[1], pixels = images.dims[2] * images.dims[3],
          rows = images.dims[2], columns = images.dims[3],
          images = images.data, labels = labels.data}
end

--- Where Debian's package dataset-fashion-mnist puts the files.
idx.fashion_mnist_folder = '/usr/share/datasets/fashion-mnist'

---@class reprise.LabelledImages
---@field n integer
---@field pixels integer per image
---@field rows integer
---@field columns integer
---@field images ffi.cdata* uint8_t[n * pixels]
---@field labels ffi.cdata* uint8_t[n], 0-based classes

--- A folder of four MNIST-like files: train and t10k, images and labels.
---@param folder? string default: where Debian has Fashion-MNIST
---@return reprise.LabelledImages? train
---@return reprise.LabelledImages|string test or what is missing or malformed
function idx.load(folder)
  folder = folder or idx.fashion_mnist_folder
  local train, problem = read_pair(folder, 'train')
  if not train then return nil, problem end
  local test, why = read_pair(folder, 't10k')
  if not test then return nil, why end
  if train.rows ~= test.rows or train.columns ~= test.columns then
    return nil, ('%s: train has images of %d x %d pixels, t10k of %d x %d')
      :format(folder, train.rows, train.columns, test.rows, test.columns)
  end
  return train, test
end

return idx
