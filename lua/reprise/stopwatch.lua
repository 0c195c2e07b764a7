--- How long the nodes of one training step take: medians over a few steps,
-- pooled over nodes of one kind, so that equal layers cost the same.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'
local run = require 'reprise.run'

local C, ctx = binding.C, binding.ctx

---@class reprise.Stopwatch
---@field steps integer          measured so far
---@field graph reprise.Graph?   of what is measured
---@field private samples table
local Stopwatch = {}
Stopwatch.__index = Stopwatch

local active

--- What a plan is of, for comparing: a text a node. Whether a gradient is the
-- first in its leaf or is added to it makes no difference.
---@param graph reprise.Graph
---@return string[]
local function signature_of(graph)
  local list = {}
  for i, node in ipairs(graph.nodes) do
    list[i] = ('%s %s %s (%s)'):format(node.effect and 'update' or node.op, node.dtype,
      #node.shape == 0 and 'scalar' or table.concat(node.shape, 'x'),
      table.concat(node.inputs, ','))
  end
  return list
end

-- Nodes of one kind do the same work: op, shapes in and out, and the analytic
-- seconds, in which what leaves bring is counted.
local function kinds_of(graph)
  local kinds = {}
  for i, node in ipairs(graph.nodes) do
    local parts = {node.op, node.dtype, table.concat(node.shape, 'x'), node.bytes,
      node.workspace_bytes, ('%.17g %.17g'):format(node.seconds, node.flops)}
    for _, input in ipairs(node.inputs) do
      local source = graph.nodes[input]
      parts[#parts + 1] = source and source.dtype .. table.concat(source.shape, 'x') or 'leaf'
    end
    kinds[i] = table.concat(parts, ' ')
  end
  return kinds
end

-- The node of each instruction of a program that is to be measured, else false;
-- the first with a backward pass says which are.
local function nodes_of(self, last)
  local key = tonumber(ffi.cast('intptr_t', last.plan))
  if self.known[key] ~= nil then return self.known[key] end
  local plan = run.plan_of(last)
  local graph, ours = plan:graph(), false
  if graph.n_forward > 0 and graph.n_forward < #graph.nodes then
    local text = table.concat(signature_of(graph), '\n')
    if not self.text then
      self.text, self.graph, self.kinds = text, graph, kinds_of(graph)
    end
    ours = text == self.text and {}
  end
  for i, instruction in ipairs(ours and plan:instructions() or {}) do
    ours[i] = instruction.run or false
  end
  self.known[key] = ours
  self.held[#self.held + 1] = last.plan -- so that its address stays its own
  return ours
end

local function note(last)
  local self = active
  local n = ffi.new 'int32_t[1]'
  local stamps = C.rp_trace_stamps(ctx, n)
  local nodes = stamps ~= nil and nodes_of(self, last)
  if not nodes then return end
  self.programs = self.programs + 1
  if self.programs == 1 then
    return -- it found caches cold and memory untouched
  end
  self.steps = self.steps + 1
  for i, node in ipairs(nodes) do
    if node then
      local kind = self.kinds[node]
      local list = self.samples[kind] or {}
      self.samples[kind] = list
      list[#list + 1] = tonumber(stamps[2 * i - 1] - stamps[2 * i - 2]) * 1e-9
    end
  end
  if self.steps == self.wanted then
    self:stop()
    if self.on_done then self.on_done(self) end
  end
end

--- Ends the measuring; what was measured stays.
function Stopwatch:stop()
  if active ~= self then return end
  active, run.on_executed = nil, nil
  failure.check(C.rp_trace_set(ctx, false))
end

--- Seconds of each node of the graph.
---@return number[]
function Stopwatch:seconds()
  local medians, list = {}, {}
  for kind, samples in pairs(self.samples) do
    table.sort(samples)
    medians[kind] = samples[math.ceil(#samples / 2)]
  end
  for i, kind in ipairs(self.kinds) do list[i] = medians[kind] or 0 end
  return list
end

local stopwatch = {signature_of = signature_of}

--- Measures programs that run from now on, those of the first that has a
-- backward pass, the very first run left out, until `wanted` have been.
---@param wanted integer
---@param on_done fun(self: reprise.Stopwatch)?
---@return reprise.Stopwatch
function stopwatch.start(wanted, on_done)
  if run.on_executed then
    failure.raise '[profile] a trace or a profile is being taken already'
  end
  failure.check(C.rp_trace_set(ctx, true))
  active = setmetatable({wanted = wanted, on_done = on_done, steps = 0, programs = 0,
    samples = {}, known = {}, held = {}}, Stopwatch)
  run.on_executed = note
  return active
end

return stopwatch
