--- What each kernel of the CUDA backend takes of a multiprocessor, from its
-- machine code: nothing runs, no GPU is needed, `cuobjdump` of the toolkit is.
--
--     luajit spec/cuda/resources.lua [LIBRARY] [--cuobjdump PATH] [-v]
--
-- LIBRARY (build/libreprise_cuda.so) may also be an object or a .cubin. It is
-- wrong, and said, where a kernel
--   - does not say how many threads it is launched with, or has registers for
--     fewer: a device refuses such a launch, and the emulated one cannot know;
--   - has more than 48 KiB of static shared memory;
--   - spills, or has its arrays in local memory: but for those in `spills`.
-- -v lists them all, with the blocks that fit into a multiprocessor by
-- registers and threads.

local library, tool, verbose = 'build/libreprise_cuda.so', 'cuobjdump', false
do
  local i = 1
  while arg[i] do
    if arg[i] == '-v' then verbose = true
    elseif arg[i] == '--cuobjdump' then i = i + 1; tool = arg[i]
    else library = arg[i] end
    i = i + 1
  end
end

local REGISTERS, THREADS, STATIC_SHARED = 65536, 2048, 48 * 1024

-- Bytes of a thread's stack, by the beginning of a kernel's name. sin and cos
-- of large angles and pow have tables and arrays there, f64 norms have too few
-- registers for a row of f64, and the rest are a few words outside of loops.
local spills = {
  ['map_%w+<.*sin_function'] = 40, ['map_%w+<.*cos_function'] = 40,
  ['map_packs<8, .*masked_fill'] = 8, ['map_packs<8, .*where'] = 8,
  ['grad_rows<double'] = 184, ['normalise<double'] = 56,
  ['matrix_forward<64, 4, 2, false>'] = 32,
  ['matrix_forward<32, 4, 1, true>'] = 8,
  ['matrix_keys<128, 4, 32, 32, false, false>'] = 8,
  ['matrix_queries<128, 8, 1, 32, true>'] = 32,
}

local function lines_of(command)
  local pipe = assert(io.popen(command .. ' 2>/dev/null'))
  return pipe:lines(), pipe
end

local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local file = io.open(library)
if not file then
  print(('skipped: there is no %s (make cuda)'):format(library))
  os.exit(0)
end
file:close()
local probe = io.popen('command -v ' .. quoted(tool))
local found = probe:read '*l'
probe:close()
if not found then
  print('skipped: there is no cuobjdump (--cuobjdump PATH)')
  os.exit(0)
end

--- kernels[arch .. ' ' .. mangled] = {arch, name, registers, stack, shared}
local kernels, order = {}, {}
local arch, name = '(cubin)'
for line in lines_of(quoted(tool) .. ' -res-usage ' .. quoted(library)) do
  arch = line:match 'arch = (sm_%d+)' or arch
  name = line:match '^%s*Function (%S+):' or name
  local registers, stack, shared, spilled =
    line:match 'REG:(%d+) STACK:(%d+) SHARED:(%d+) LOCAL:(%d+)'
  if registers and name then
    local kernel = {
      arch = arch, name = name, registers = tonumber(registers),
      stack = tonumber(stack) + tonumber(spilled), shared = tonumber(shared),
    }
    kernels[arch .. ' ' .. name] = kernel
    order[#order + 1] = kernel
    name = nil
  end
end

arch, name = '(cubin)', nil
local is_bound = false
for line in lines_of(quoted(tool) .. ' -elf ' .. quoted(library)) do
  arch = line:match 'arch = (sm_%d+)' or arch
  name = line:match '^%.nv%.info%.(%S+)' or name
  if is_bound then
    local x, y, z = line:match 'Value:%s*(%S+) (%S+) (%S+)'
    local kernel = x and kernels[arch .. ' ' .. tostring(name)]
    if kernel then
      kernel.threads = tonumber(x) * tonumber(y) * tonumber(z)
    end
    is_bound = not x
  end
  is_bound = is_bound or line:find('EIATTR_MAX_THREADS', 1, true) ~= nil
end

-- Names as in the source.
local listed = os.tmpname()
local out = assert(io.open(listed, 'w'))
for _, kernel in ipairs(order) do out:write(kernel.name, '\n') end
out:close()
local n = 0
for line in lines_of('c++filt -p < ' .. quoted(listed)) do
  n = n + 1
  order[n].name = line:gsub('rp::', ''):gsub('%(anonymous namespace%)::', '')
end
os.remove(listed)

local function allowed_stack(kernel)
  for pattern, bytes in pairs(spills) do
    local plain = pattern:gsub('%-', '%%-')
    if kernel.name:find('^' .. plain) then return bytes end
  end
  return 0
end

local wrong = 0
local function complain(kernel, text, ...)
  wrong = wrong + 1
  print(('not ok %s %s: ' .. text):format(kernel.arch, kernel.name, ...))
end

for _, kernel in ipairs(order) do
  local each = math.ceil(kernel.registers / 8) * 8
  local threads = kernel.threads
  if not threads then
    complain(kernel, 'it has no __launch_bounds__')
  elseif each * threads > REGISTERS then
    complain(kernel, '%d registers for %d threads', kernel.registers, threads)
  elseif verbose then
    local blocks = math.min(math.floor(REGISTERS / (each * threads)),
                            math.floor(THREADS / threads))
    print(('%s %4d registers %4d threads %2d blocks %5d B shared %3d B stack %s')
      :format(kernel.arch, kernel.registers, threads, blocks, kernel.shared,
              kernel.stack, kernel.name))
  end
  if kernel.shared > STATIC_SHARED then
    complain(kernel, '%d bytes of static shared memory', kernel.shared)
  end
  if kernel.stack > allowed_stack(kernel) then
    complain(kernel, '%d bytes of local memory', kernel.stack)
  end
end
print(('%d kernels, %d failures'):format(#order, wrong))
os.exit((wrong == 0 and #order > 0) and 0 or 1)
