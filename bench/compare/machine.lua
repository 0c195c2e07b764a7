--- The machine in a few words: what a figure depends on, and no name.

local machine = {}

local function text_of(path)
  local file = io.open(path)
  if not file then return '' end
  local text = file:read '*a'
  file:close()
  return text
end

local KNOWN = {'avx2', 'avx512f', 'avx512_bf16', 'amx_bf16', 'amx_tile'}

--- {cpu, cores, flags, memory_bytes}
function machine.describe()
  local cpu = text_of '/proc/cpuinfo'
  local flags, has = {}, {}
  for flag in (cpu:match 'flags%s*:([^\n]*)' or ''):gmatch '%S+' do
    has[flag] = true
  end
  for _, flag in ipairs(KNOWN) do
    if has[flag] then flags[#flags + 1] = flag end
  end
  local _, cores = cpu:gsub('processor%s*:', '')
  return {
    cpu = cpu:match 'model name%s*:%s*([^\n]*)' or 'unknown', cores = cores,
    flags = flags, memory_bytes = machine.memory 'MemTotal',
  }
end

--- Bytes of a line of /proc/meminfo; 0 where there is none.
function machine.memory(field)
  local kib = text_of('/proc/meminfo'):match(field .. ':%s+(%d+) kB')
  return kib and tonumber(kib) * 1024 or 0
end

--- The checkout's commit, '+' where files differ from it; nil without git.
function machine.commit(root)
  local pipe = io.popen(('git -C "%s" describe --always --dirty=+ '
    .. '--abbrev=10 2>/dev/null'):format(root))
  local line = pipe:read '*l'
  pipe:close()
  return line
end

return machine
