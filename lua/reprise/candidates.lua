--- Plans that the named strategies make of a graph, for its time-memory front:
-- budget=min needs no more than they do, and a budget that one of them meets is
-- met at least as fast.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local ckpt = require 'reprise.ckpt'
local eviction = require 'reprise.eviction'
local revolve = require 'reprise.ckpt.revolve'
local rungs = require 'reprise.rungs'
local segments = require 'reprise.segments'
local support = require 'reprise.ckpt.support'

local C = binding.C

local candidates = {}

-- RUNs that the core may look at for them, over all programs and in one: so
-- planning a large model stays quick.
local RUNS, RUNS_OF_ONE = 2e5, 1e5
-- Nodes of a graph for which evictions are simulated.
local EVICTED_NODES = 400

--- 1, 2, 3, ..., most; in steps that grow where that is much.
local function counts(most)
  local list, n = {}, 1
  while n < most do
    list[#list + 1] = n
    n = n + (most > 40 and math.max(1, math.floor(n / 8)) or 1)
  end
  if most > 0 then list[#list + 1] = most end
  return list
end

--- The last parts of scopes, but for numbers.
local function parts(graph)
  local seen, list = {}, {}
  for _, scope in ipairs(support.scopes(graph)) do
    local part = scope:match '[^.]*$'
    if part:find '%D' and not seen[part] then
      seen[part] = true
      list[#list + 1] = part
    end
  end
  return list
end

--- Globs of what lists of modules hold (blocks.1, blocks.2, ...): all of them
-- together, then each list's.
local function lists(graph)
  local seen, list = {}, {}
  for _, scope in ipairs(support.scopes(graph)) do
    local name = scope:match '([^.]*)%.%d+$'
    if name and not seen[name] then
      seen[name] = true
      list[#list + 1] = ('*.%s.*'):format(name)
    end
  end
  if #list > 1 then table.insert(list, 1, table.concat(list, ',')) end
  return list
end

local function costly_ops(graph)
  local seen, list = {}, {}
  for i = 1, graph.n_forward do
    local node = graph.nodes[i]
    if node.costly and not seen[node.op] then
      seen[node.op] = true
      list[#list + 1] = node.op
    end
  end
  return list
end

--- Specs, those first that are used most.
---@return string[]
function candidates.specs(graph)
  local steps = #graph.layers > 0 and #graph.layers or #graph.blocks
  local families = {
    {'sqrt'}, {'ops'}, {'attention'}, {'every=%d', counts(#graph.layers)},
    {'uniform=%d', counts(#graph.layers)}, {'segments=%d', counts(#graph.layers)},
    {'revolve=%d', counts(steps)},
    {'nodes=%d', counts(graph.n_forward)}, {'ops=%s', costly_ops(graph)},
    {'scope=*.%s', parts(graph)}, {'scope=%s', lists(graph)},
  }
  local list, more, at = {}, true, 0
  while more do
    at, more = at + 1, false
    for _, family in ipairs(families) do
      local arguments = family[2] or {''}
      if arguments[at] then
        list[#list + 1] = family[1]:format(arguments[at])
        more = true
      end
    end
  end
  return list
end

--- RUNs of the program that a spec makes, about: few states held replay a long
-- chain very often.
local function runs_of(spec, graph)
  local states = tonumber(spec:match '^revolve=(%d+)$')
  local steps = #graph.layers > 0 and #graph.layers or #graph.blocks
  local replays = states and steps > 0 and revolve.replays(steps, states) / steps or 1
  return #graph.nodes + replays * graph.n_forward
end

local function check(status)
  if status ~= C.RP_OK then error(ffi.string(C.rp_message(binding.ctx)), 0) end
end

local function leave_out(plan, spec, reason)
  check(C.rp_plan_front_leave_out(plan, spec, tostring(reason)))
end

--- Tells the core of a strategy's answer; of one that is none, why.
local function offer(plan, graph, spec, answer)
  if answer.program ~= nil then
    local ok, steps, n = pcall(segments.program, answer.program, #graph.nodes)
    if not ok then return leave_out(plan, spec, steps) end
    return check(C.rp_plan_front_offer_program(plan, spec, steps, n))
  end
  local ok, flat = pcall(segments.flatten, answer, graph.n_forward)
  if not ok then return leave_out(plan, spec, flat) end
  return check(C.rp_plan_front_offer(plan, spec, flat.array, flat.n))
end

--- greedy's plans, where one takes a few milliseconds to simulate; greedy heeds
-- no marks, whose segments a front must keep.
local function offer_evictions(plan, graph)
  if #graph.nodes > EVICTED_NODES then return end
  for i = 1, graph.n_forward do
    if graph.nodes[i].mark ~= 0 then return end
  end
  local model = eviction.model(graph)
  local ladder = rungs.ladder(graph, model)
  for _, search in ipairs {rungs.points, rungs.between} do
    for _, point in ipairs(search(graph, model, ladder)) do
      offer(plan, graph, 'greedy', point.answer)
    end
  end
end

--- Tells the core of them, before it makes the front of a C plan. A strategy
-- that the model does not suit offers nothing.
function candidates.offer(plan, graph)
  local left = RUNS
  for _, spec in ipairs(candidates.specs(graph)) do
    local runs = runs_of(spec, graph)
    local affordable = runs <= math.min(left, RUNS_OF_ONE)
    local ok, answer = pcall(affordable and ckpt.parse(spec).apply or error, graph)
    if ok and (answer.program or #answer > 0) then
      left = left - runs
      offer(plan, graph, spec, answer)
    end
  end
  local ok, reason = pcall(offer_evictions, plan, graph)
  if not ok then
    -- Without memory there is no front; it can be asked for again.
    if C.rp_last_status(binding.ctx) == C.RP_NOMEM then error(reason, 0) end
    leave_out(plan, 'greedy', reason)
  end
end

return candidates
