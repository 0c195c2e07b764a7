--- Which values to evict, when, for a step to run within a limit: dynamic tensor
-- rematerialization, simulated ahead of time.
--
-- Source: Kirisame et al., "Dynamic Tensor Rematerialization", 2021. Nodes run
-- in order; where the outputs of the next one do not fit, the value goes whose
--     (seconds + seconds of its evicted neighbours) / (bytes * staleness)
-- is least. Evicted neighbours: the evicted values that would run again before
-- it, and those for which it would run again, each through evicted ones alone.
-- Staleness: simulated seconds since it was made or read. What has no reader to
-- come goes at once; what no node can ask for again is no neighbour.

local eviction = {}

local ALIGN = 64
-- Runs over nodes; a limit that needs more counts as one that cannot be met.
local MOST_RUNS = 10
-- Of values just made or read, the cheapest for its bytes is the stalest.
local FRESH_SECONDS = 1e-15

local function aligned(bytes)
  return math.ceil(bytes / ALIGN) * ALIGN
end

--- What a simulation reads, made once a graph. Effects are no steps: each runs
-- when all it reads is made and no node has its leaves to read any more.
---@class reprise.EvictionModel
---@field order integer[]      nodes that are no effects
---@field parents integer[][]  distinct, by node
---@field children integer[][] likewise, effects among them
---@field effects integer[][]  by node: those that run right behind it
---@field least_bytes integer  of the node that needs most
---@param graph reprise.Graph
---@return reprise.EvictionModel
function eviction.model(graph)
  local nodes = graph.nodes
  local m = {nodes = nodes, n_forward = graph.n_forward, order = {}, parents = {},
    children = {}, effects = {}, marked = {}, least_bytes = 0}
  local leaf_read = {}
  for i, node in ipairs(nodes) do
    m.children[i], m.effects[i] = {}, {}
    local parents, met = {}, {}
    for _, input in ipairs(node.inputs) do
      if input > 0 and not met[input] then
        met[input] = true
        parents[#parents + 1] = input
        table.insert(m.children[input], i)
      elseif input < 0 and not node.effect then
        leaf_read[input] = i
      end
    end
    m.parents[i] = parents
    if not node.effect then
      m.order[#m.order + 1] = i
      local bytes = node.bytes + aligned(node.workspace_bytes)
      for _, p in ipairs(parents) do bytes = bytes + nodes[p].bytes end
      m.least_bytes = math.max(m.least_bytes, bytes)
    end
  end
  for i, node in ipairs(nodes) do
    if node.effect then
      local behind = m.order[1]
      for _, input in ipairs(node.inputs) do
        behind = math.max(behind, input > 0 and input or leaf_read[input] or 0)
      end
      table.insert(m.effects[behind], i)
    elseif node.mark ~= 0 and i <= graph.n_forward then
      local inside = true
      for _, child in ipairs(m.children[i]) do
        if child <= graph.n_forward and nodes[child].mark ~= node.mark then inside = false end
      end
      if inside then m.marked[#m.marked + 1] = i end
    end
  end
  return m
end

---@class reprise.EvictionRun
---@field steps integer[]  the program
---@field used integer     live bytes
---@field most integer     their high-water mark, workspaces included
local Run = {}
Run.__index = Run

local function new_run(m, limit)
  local self = setmetatable({
    m = m, limit = limit, steps = {}, used = 0, most = 0, clock = 0, runs = 0,
    resident = {}, ran = {}, last = {}, locks = {}, cost = {}, seen = {}, visit = 0,
    pinned = {},    -- never goes: asked for, or an effect still has to read it
    readers = {},   -- nodes that read it and have not run yet
    open = {},      -- children that may still ask for it
    over = {},      -- nothing can ask for it again
    closed = {},    -- its parents' open no longer counts it
    pool = {}, place = {}, -- resident values that may go, and where each is
  }, Run)
  for i, node in ipairs(m.nodes) do
    self.readers[i], self.open[i] = #m.children[i], #m.children[i]
    self.locks[i] = 0
    self.pinned[i] = node.kept and 1 or 0
    for _, child in ipairs(m.children[i]) do
      if m.nodes[child].effect then self.pinned[i] = self.pinned[i] + 1 end
    end
  end
  return self
end

--- Calls visit for every evicted value that i is linked to through evicted
-- ones alone, along `links` (parents or children), and at_end for the resident
-- ones where the way ends.
local function walk(self, i, links, visit, at_end)
  self.visit = self.visit + 1
  local seen, stamp, stack, n = self.seen, self.visit, {i}, 1
  while n > 0 do
    local at = stack[n]
    n = n - 1
    for _, other in ipairs(links[at]) do
      if seen[other] ~= stamp and self.ran[other] and not self.over[other] then
        seen[other] = stamp
        if self.resident[other] then
          if at_end then at_end(other) end
        else
          if visit then visit(other) end
          n = n + 1
          stack[n] = other
        end
      end
    end
  end
end

--- Forgets the cost of what has i as a neighbour or might.
local function forget(self, i)
  local function clear(other) self.cost[other] = nil end
  clear(i)
  walk(self, i, self.m.parents, nil, clear)
  walk(self, i, self.m.children, nil, clear)
end

--- Seconds of i and of its evicted neighbours.
local function cost_of(self, i)
  local nodes, sum = self.m.nodes, self.m.nodes[i].seconds
  local function add(other) sum = sum + nodes[other].seconds end
  walk(self, i, self.m.parents, add)
  walk(self, i, self.m.children, add)
  self.cost[i] = sum
  return sum
end

local function leave_pool(self, i)
  local at, pool = self.place[i], self.pool
  if not at then return end
  local other = pool[#pool]
  pool[at], self.place[other] = other, at
  pool[#pool], self.place[i] = nil, nil
end

local function enter_pool(self, i)
  if self.place[i] or self.pinned[i] > 0 or not self.resident[i] then return end
  self.pool[#self.pool + 1] = i
  self.place[i] = #self.pool
end

local function drop(self, i)
  leave_pool(self, i)
  self.resident[i] = nil
  self.used = self.used - self.m.nodes[i].bytes
  self.steps[#self.steps + 1] = -i
  if self.over[i] then self.cost[i] = nil else forget(self, i) end
end

--- Lets i go when nothing that has not run yet reads it.
local function drop_if_read(self, i)
  if self.resident[i] and self.readers[i] == 0 and self.locks[i] == 0 and
    self.pinned[i] == 0 then
    drop(self, i)
  end
end

--- Notes that i asks for its inputs no more: it can never be asked for again,
-- or stays for good.
local function close(self, i)
  local stack = {i}
  while #stack > 0 do
    local at = table.remove(stack)
    self.closed[at] = true
    for _, p in ipairs(self.m.parents[at]) do
      self.open[p] = self.open[p] - 1
      if self.open[p] == 0 and self.ran[p] then
        if not self.resident[p] then forget(self, p) end
        self.over[p] = true
        if not self.closed[p] then stack[#stack + 1] = p end
      end
    end
  end
end

--- Evicts until `bytes` more fit; false when nothing is left to go.
local function make_room(self, bytes)
  local nodes, pool, cost, last = self.m.nodes, self.pool, self.cost, self.last
  while self.used + bytes > self.limit do
    local best, least = nil, math.huge
    for k = 1, #pool do
      local i = pool[k]
      if self.locks[i] == 0 then
        local score = (cost[i] or cost_of(self, i)) /
          (nodes[i].bytes * (self.clock - last[i] + FRESH_SECONDS))
        if score < least or score == least and (not best or i < best) then
          best, least = i, score
        end
      end
    end
    if not best then return false end
    drop(self, best)
  end
  return true
end

--- Runs one node whose inputs are there.
local function run_node(self, i)
  local node = self.m.nodes[i]
  local workspace = aligned(node.workspace_bytes)
  if not make_room(self, node.bytes + workspace) then return false end
  self.used = self.used + node.bytes
  self.most = math.max(self.most, self.used + workspace)
  self.clock, self.runs = self.clock + node.seconds, self.runs + 1
  self.steps[#self.steps + 1] = i
  local again = self.ran[i]
  self.resident[i], self.ran[i], self.last[i] = true, true, self.clock
  if again then forget(self, i) end
  enter_pool(self, i)
  for _, p in ipairs(self.m.parents[i]) do
    self.last[p], self.locks[p] = self.clock, self.locks[p] - 1
  end
  return true
end

--- The nodes that have to run again before node i, in order.
local function missing_of(self, i)
  local list = {}
  walk(self, i, self.m.parents, function(other) list[#list + 1] = other end)
  table.sort(list)
  return list
end

--- One of a node's readers has run for the first time.
local function has_read(self, i)
  for _, p in ipairs(self.m.parents[i]) do
    self.readers[p] = self.readers[p] - 1
    if self.m.nodes[i].effect then
      self.pinned[p] = self.pinned[p] - 1
      enter_pool(self, p)
    end
    drop_if_read(self, p)
  end
end

--- Node i for the first time, behind what it misses.
local function advance(self, i)
  local m = self.m
  local list = missing_of(self, i)
  list[#list + 1] = i
  for _, at in ipairs(list) do
    for _, p in ipairs(m.parents[at]) do self.locks[p] = self.locks[p] + 1 end
  end
  for k, at in ipairs(list) do
    if not run_node(self, at) then return false end
    if k < #list then
      for _, p in ipairs(m.parents[at]) do drop_if_read(self, p) end
    end
  end
  has_read(self, i)
  for _, effect in ipairs(m.effects[i]) do
    has_read(self, effect)
    close(self, effect)
  end
  if self.open[i] == 0 then self.over[i] = true end
  if (self.over[i] or m.nodes[i].kept) and not self.closed[i] then close(self, i) end
  drop_if_read(self, i)
  return true
end

--- The program under a limit of live bytes, or nil where that cannot be met.
---@param m reprise.EvictionModel
---@param limit number
---@return integer[]? steps
---@return integer most  live bytes at the fullest
function eviction.simulate(m, limit)
  local self = new_run(m, limit)
  local most_runs = MOST_RUNS * #m.order
  for _, i in ipairs(m.order) do
    if not advance(self, i) or self.runs > most_runs then return nil, self.most end
    if i == m.n_forward then
      -- What rp.checkpoint marked is dropped after the forward pass.
      for _, at in ipairs(m.marked) do
        if self.place[at] then drop(self, at) end
      end
    end
  end
  return self.steps, self.most
end

return eviction
