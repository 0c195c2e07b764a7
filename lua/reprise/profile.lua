--- A profile of a model: seconds of each node of its training step, written by
-- one run and planned with by the next. What a process measures is never acted
-- on by that process, so the same files give the same plan.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'
local graph_of = require 'reprise.graph'
local json = require 'reprise.report.json'
local record = require 'reprise.io.record'
local run = require 'reprise.run'
local stopwatch = require 'reprise.stopwatch'

local C, ctx = binding.C, binding.ctx

local FORMAT = 1
-- Steps whose medians are written, behind one that is not counted.
local STEPS = 5

---@class reprise.Profile
---@field path string
---@field measuring boolean   it is being made; else it is planned with
---@field steps integer       that its medians are of
local Profile = {}
Profile.__index = Profile

local profile = {}

-- Files read so far: part of the key of plans made with one.
local reads = 0

local function number_of(x)
  return type(x) == 'number' and x >= 0 and x < math.huge
end

local function parse(path)
  local object = record.read(path)
  local function damaged(what)
    error(('%s is damaged: %s; without it the next run measures anew'):format(path, what), 0)
  end
  if object.reprise_profile ~= FORMAT then
    error(('%s is no profile of this version: it lacks "reprise_profile":%d'):format(path,
      FORMAT), 0)
  end
  if type(object.nodes) ~= 'table' or #object.nodes == 0 then damaged 'it lists no nodes' end
  local self = {path = path, measuring = false, steps = object.steps, threads = object.threads,
    signature = {}, seconds = {}}
  if not (number_of(self.steps) and number_of(self.threads)) then
    damaged 'it does not say how many steps and threads it is of'
  end
  for i, node in ipairs(object.nodes) do
    if type(node) ~= 'table' or type(node.node) ~= 'string' or not number_of(node.nanoseconds) then
      damaged(('node %d has no name or no nanoseconds'):format(i))
    end
    self.signature[i], self.seconds[i] = node.node, node.nanoseconds * 1e-9
  end
  reads = reads + 1
  self.identity = '\nprofile ' .. reads
  return setmetatable(self, Profile)
end

-- Raises what differs, if anything.
local function compare(self, graph)
  local here = stopwatch.signature_of(graph)
  for i = 1, math.min(#here, #self.signature) do
    if here[i] ~= self.signature[i] then
      local scope = graph.nodes[i].scope
      error(('%s is a profile of another model or size: its node %d is %s, this one\'s is %s%s; ' ..
        'name a file that is not there, and a run will write this one\'s'):format(self.path, i,
        self.signature[i], here[i], scope ~= '' and ', in ' .. scope or ''), 0)
    end
  end
  if #here ~= #self.signature then
    error(('%s is a profile of another model or size: it has %d nodes, this one has %d; name ' ..
      'a file that is not there, and a run will write this one\'s'):format(self.path,
      #self.signature, #here), 0)
  end
end

--- Gives a C plan, before its strategy is asked, the profile's seconds.
function Profile:apply(plan)
  local graph = graph_of(plan)
  if not graph then error(ffi.string(C.rp_message(ctx)), 0) end
  compare(self, graph)
  local n = #self.seconds
  local array = ffi.new('double[?]', n)
  for i, seconds in ipairs(self.seconds) do array[i - 1] = seconds end
  if C.rp_plan_set_seconds(plan, array, n) ~= C.RP_OK then
    error(ffi.string(C.rp_message(ctx)), 0)
  end
  local threads = C.rp_num_threads(ctx)
  if threads ~= self.threads then
    failure.notice_once(('%s was measured with %d threads, this process has %d: plans are ' ..
      'made with its seconds all the same'):format(self.path, self.threads, threads))
  end
end

local function text_of(watch)
  local lines, seconds = {}, watch:seconds()
  for i, name in ipairs(stopwatch.signature_of(watch.graph)) do
    lines[i] = json.object {{'node', name}, {'scope', watch.graph.nodes[i].scope},
      {'nanoseconds', math.floor(seconds[i] * 1e9 + 0.5)}}
  end
  return ('{"reprise_profile":%d,"steps":%d,"threads":%d,"nodes":[\n%s\n]}\n'):format(FORMAT,
    watch.steps, C.rp_num_threads(ctx), table.concat(lines, ',\n'))
end

--- Ends it: plans made from now on take the analytic model's seconds; one that
-- is being made is written with the steps that it has, if any.
---@return reprise.Profile self
function Profile:stop()
  if run.profile == self then run.profile = nil end
  if not self.measuring then return self end
  self.measuring = false
  self.watch:stop()
  self.steps = self.watch.steps
  if self.steps > 0 then
    local ok, reason = pcall(record.write, self.path, text_of(self.watch))
    if not ok then failure.raise('[profile] %s', reason) end
  end
  return self
end

local function measure(path)
  record.check_writable(path)
  local self = setmetatable({path = path, measuring = true, steps = 0}, Profile)
  self.watch = stopwatch.start(STEPS, function()
    local ok, reason = pcall(self.stop, self)
    if not ok then failure.sink(tostring(reason)) end
  end)
  run.profile = nil
  return self
end

local function open(path)
  if record.exists(path) then
    local self = parse(path)
    run.profile = self
    return self
  end
  return measure(path)
end

--- rp.profile(path): where the file is there, steps are planned with its
-- seconds from now on, and one that it is not of is refused. Where it is not,
-- the next steps are measured (the first is not counted) and the file is
-- written after five of them, or at profile:stop().
---@param path string
---@return reprise.Profile
return setmetatable(profile, {
  __call = function(_, path)
    if type(path) ~= 'string' or path == '' then
      failure.raise('[profile] a file\'s name is wanted, not %s', tostring(path))
    end
    local ok, self = pcall(open, path)
    if not ok then failure.raise('[profile] %s', (tostring(self):gsub('^%[profile%] ', ''))) end
    return self
  end,
})
