--- What the benchmarks share: a clock, medians, a table, and the peer.
--
-- The peer is a Python process with PyTorch (bench/peer.py), driven a line at
-- a time, so that its work and ours alternate in one run. PYTHON names the
-- interpreter, python3 when it is not set; without PyTorch there is no peer
-- and a benchmark prints our side alone.

local ffi = require 'ffi'

ffi.cdef [[
struct rp_bench_time { long seconds, nanoseconds; };
int rp_bench_clock(int clock, struct rp_bench_time *out)
  __asm__("clock_gettime");
void (*signal(int number, void (*handler)(int)))(int);
]]

local SIGPIPE, SIG_IGN = 13, 1

local measure = {}

local here = debug.getinfo(1, 'S').source:match '^@(.*/)[^/]*$' or './'
measure.root = here .. '../'
package.path = measure.root .. 'lua/?.lua;' .. measure.root ..
  'lua/?/init.lua;' .. measure.root .. '?.lua;' .. package.path

local now = ffi.new 'struct rp_bench_time'

local MONOTONIC, THREAD = 1, 3

local function read(clock)
  ffi.C.rp_bench_clock(clock, now)
  return tonumber(now.seconds) + tonumber(now.nanoseconds) * 1e-9
end

--- Seconds by the monotonic clock.
function measure.clock() return read(MONOTONIC) end

--- Seconds that this thread has had of a processor: for work on one thread,
-- where others use the machine too.
function measure.processor() return read(THREAD) end

--- Seconds that fn took, by the monotonic or the given clock.
function measure.seconds(fn, clock)
  clock = clock or measure.clock
  local start = clock()
  fn()
  return clock() - start
end

function measure.median(list)
  local sorted = {}
  for i, x in ipairs(list) do sorted[i] = x end
  table.sort(sorted)
  local n = #sorted
  if n == 0 then return 0 / 0 end
  return (sorted[math.floor((n + 1) / 2)] + sorted[math.floor(n / 2) + 1]) / 2
end

--- Median over `repeats` of the seconds of one call of fn, which is called
-- `inner` times in each.
function measure.each(fn, repeats, inner)
  local times = {}
  for r = 1, repeats do
    times[r] = measure.seconds(function()
      for _ = 1, inner do fn() end
    end) / inner
  end
  return measure.median(times)
end

--- Prints rows (lists of texts or numbers) under a head, columns aligned.
function measure.print_table(head, rows)
  local widths = {}
  local lines = {head}
  for _, row in ipairs(rows) do lines[#lines + 1] = row end
  for _, row in ipairs(lines) do
    for i = 1, #head do
      widths[i] = math.max(widths[i] or 0, #tostring(row[i] or '-'))
    end
  end
  for _, row in ipairs(lines) do
    local cells = {}
    for i = 1, #head do
      local format = i == 1 and '%-' or '%'
      cells[i] = (format .. widths[i] .. 's'):format(tostring(row[i] or '-'))
    end
    print(table.concat(cells, '  '))
  end
end

--- '--name value' pairs of the command line over defaults; numbers stay
-- numbers. An option whose default is false has no value: it makes it true.
function measure.options(defaults)
  local options = {}
  for k, v in pairs(defaults) do options[k] = v end
  local i = 1
  while arg[i] do
    local name = arg[i]:match '^%-%-([%w-]+)$'
    name = name and name:gsub('-', '_')
    local flag = name and defaults[name] == false
    if not name or defaults[name] == nil or not (flag or arg[i + 1]) then
      local known = {}
      for k, v in pairs(defaults) do
        known[#known + 1] = '--' .. k .. (v == false and '' or ' VALUE')
      end
      table.sort(known)
      io.stderr:write(('%s: %s: no such option; there are %s\n')
        :format(arg[0], arg[i], table.concat(known, ', ')))
      os.exit(1)
    end
    local value = flag or arg[i + 1]
    options[name] = type(defaults[name]) == 'number' and tonumber(value) or value
    i = i + (flag and 1 or 2)
  end
  return options
end

-- ---- processes --------------------------------------------------------------------

local Process = {}
Process.__index = Process

--- Sends one request and returns the answer as a table; what the other side
-- could not do is an error.
function Process:ask(verb, what)
  local json = require 'cjson'
  if type(what) == 'table' then what = json.encode(what) end
  self.input:write(verb, ' ', what or '', '\n')
  self.input:flush()
  local line = self.output:read '*l'
  if not line then error(self.name .. ' ended; see its message above', 0) end
  local answer = json.decode(line)
  if answer.error then error(answer.error, 0) end
  return answer
end

function Process:close()
  self.input:close()
  self.output:close()
end

--- Starts a command that answers a line of JSON for each line it is sent, and
-- waits for its first. Where that does not come: nil.
function measure.process(name, command)
  -- Writing to a process that has ended is an error there, not our end.
  ffi.C.signal(SIGPIPE, ffi.cast('void (*)(int)', SIG_IGN))
  local pipe = os.tmpname()
  os.remove(pipe)
  assert(os.execute('mkfifo ' .. pipe) == 0, 'mkfifo failed')
  local output = io.popen(('%s < %s'):format(command, pipe), 'r')
  -- 'e': a process started later must not hold this one's end open.
  local input = assert(io.open(pipe, 'we'))
  os.remove(pipe)
  local process = setmetatable({name = name, input = input, output = output},
    Process)
  local line = output:read '*l'
  if not line then process:close() return nil end
  process.hello = require('cjson').decode(line)
  return process
end

--- The interpreter that has a PyTorch, or nil and why there is none.
function measure.python()
  local python = os.getenv 'PYTHON' or 'python3'
  local probe = os.execute(python .. " -c 'import torch' 2>/dev/null")
  if probe == 0 or probe == true then return python end
  return nil, ('no PyTorch under %s: ours alone (PYTHON=... names another)')
    :format(python)
end

--- Starts the peer, or returns nil and says why there is none.
function measure.peer(threads)
  local python, reason = measure.python()
  if not python then
    print(reason)
    return nil
  end
  local peer = assert(measure.process('the peer', ('%s %sbench/peer.py %d')
    :format(python, measure.root, threads)), 'the peer did not start')
  print(('peer: PyTorch %s, %d threads'):format(peer.hello.torch,
    peer.hello.threads))
  return peer
end

return measure
