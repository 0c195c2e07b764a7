--- What ran when, for how long, at how many live bytes: programs that run while
-- a trace is on, in the Chrome trace format (chrome://tracing, Perfetto).

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'
local json = require 'reprise.report.json'
local run = require 'reprise.run'
local timeline = require 'reprise.report.timeline'

local C, ctx = binding.C, binding.ctx

---@class reprise.TraceEvent
---@field name string        scope and op
---@field op string
---@field kind 'forward'|'replay'|'backward'|'update'
---@field program integer    which of the traced programs, from 1
---@field instruction integer 1-based, in its program
---@field start_ns integer   since the trace began
---@field seconds number
---@field live_bytes integer in the arena while it ran

---@class reprise.Trace
---@field private programs table[]
local Trace = {}
Trace.__index = Trace

local active

-- A program's stamps; names and bytes are worked out when they are read.
local function note(last)
  local n = ffi.new 'int32_t[1]'
  local stamps = C.rp_trace_stamps(ctx, n)
  if stamps == nil then return end
  local copy = ffi.new('int64_t[?]', 2 * n[0])
  ffi.copy(copy, stamps, 2 * n[0] * 8)
  local programs = active.programs
  programs[#programs + 1] = {last = last, stamps = copy}
end

--- Ends the trace; what it noted stays readable.
---@return reprise.Trace self
function Trace:stop()
  if active == self then
    active, run.on_executed = nil, nil
    failure.check(C.rp_trace_set(ctx, false))
  end
  return self
end

-- The timeline of each plan, made once.
local function timelines(programs)
  local made, list = {}, {}
  for i, program in ipairs(programs) do
    local key = tonumber(ffi.cast('intptr_t', program.last.plan))
    made[key] = made[key] or timeline.of(run.plan_of(program.last))
    list[i] = made[key]
  end
  return list
end

local function each(self, visit)
  local lines = timelines(self.programs)
  local first
  for p, program in ipairs(self.programs) do
    for k, r in ipairs(lines[p].runs) do
      local start = program.stamps[2 * (r.instruction - 1)]
      local stop = program.stamps[2 * r.instruction - 1]
      first = first or start
      visit(p, k, r, lines[p], tonumber(start - first), tonumber(stop - first))
    end
  end
end

--- What ran, in order.
---@return reprise.TraceEvent[]
function Trace:events()
  local list = {}
  each(self, function(p, _, r, _, start, stop)
    list[#list + 1] = {
      name = r.name, op = r.op, kind = r.kind, program = p,
      instruction = r.instruction, start_ns = start,
      seconds = (stop - start) * 1e-9, live_bytes = r.live_bytes,
    }
  end)
  return list
end

-- A row of its own for each kind, so that recomputations stand out.
local rows = {forward = 1, replay = 2, backward = 3, update = 4}
local names = {'forward', 'recomputed', 'backward', 'update'}
local colours = {forward = 'thread_state_running', replay = 'terrible',
  backward = 'thread_state_iowait', update = 'good'}

local function bytes_of(line, k)
  local list = {{'persistent', line.persistent_bytes}}
  for _, kind in ipairs(timeline.kinds) do
    list[#list + 1] = {kind, line.live[kind][k]}
  end
  return {object = list}
end

--- The trace as JSON: an event a RUN on its kind's row, and a counter of bytes
--- by kind.
---@return string
function Trace:json()
  local parts = {}
  for i, name in ipairs(names) do
    parts[i] = json.object {{'name', 'thread_name'}, {'ph', 'M'}, {'pid', 1},
      {'tid', i}, {'args', {object = {{'name', name}}}}}
  end
  each(self, function(p, k, r, line, start, stop)
    parts[#parts + 1] = json.object {
      {'name', r.name}, {'cat', r.kind}, {'ph', 'X'}, {'ts', start / 1000},
      {'dur', (stop - start) / 1000}, {'pid', 1}, {'tid', rows[r.kind]},
      {'cname', colours[r.kind]}, {'args', {object = {
        {'op', r.op}, {'program', p}, {'instruction', r.instruction},
        {'live_bytes', r.live_bytes}, {'recomputed', r.kind == 'replay'},
      }}},
    }
    parts[#parts + 1] = json.object {{'name', 'memory'}, {'ph', 'C'},
      {'ts', start / 1000}, {'pid', 1}, {'args', bytes_of(line, k)}}
  end)
  return '{"displayTimeUnit":"ms","traceEvents":[\n'
    .. table.concat(parts, ',\n') .. '\n]}\n'
end

--- Ends the trace and writes it; an error names the file.
---@param path string
---@return reprise.Trace self
function Trace:save(path)
  self:stop()
  local file, problem = io.open(path, 'w')
  if not file then failure.raise('[trace] %s', problem) end
  file:write(self:json())
  file:close()
  return self
end

--- rp.trace() notes every program of rp.run, backward, minimize and step from
--- now on, until trace:stop() or trace:save(path); rp.trace(fn) those that fn
--- runs. What it costs is two readings of the clock an instruction.
---@param fn? fun()
---@return reprise.Trace
return function(fn)
  if active then
    failure.raise '[trace] a trace is on already; stop it first: trace:stop()'
  end
  if run.on_executed then
    failure.raise '[trace] a profile is being taken; stop it first: profile:stop()'
  end
  failure.check(C.rp_trace_set(ctx, true))
  local self = setmetatable({programs = {}}, Trace)
  active, run.on_executed = self, note
  if fn then
    local ok, reason = pcall(fn)
    self:stop()
    if not ok then error(reason, 0) end
  end
  return self
end
