--- The time-memory front of a C plan: the points that no other beats in both
-- peak and predicted time, least memory first. The core finds it (chain
-- dynamic programme, kept sets by minimum cut, the named strategies, local
-- search judged by exact layouts) without looking at any budget, so one front
-- answers every budget.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local candidates = require 'reprise.candidates'

local C, ctx = binding.C, binding.ctx

---@class reprise.FrontPoint
---@field peak_bytes integer  persistent + arena, exactly
---@field seconds number      of a step, predicted
---@field answer table       what a strategy returns to get this plan

---@class reprise.Front: reprise.FrontPoint[]
---@field none_bytes integer    the peak of `none`
---@field chain reprise.FrontChain
---@field left_out string[]     candidates that are no plans, each with the reason

---@class reprise.FrontChain how the blocks were solved
---@field n_blocks integer
---@field n_solved integer    less where neighbours were merged
---@field n_kinds integer     distinct ones
---@field slots integer       of the table
---@field lost_time number    by merging, a share of the step, estimated
---@field lost_memory number  a share of the least memory, estimated

--- Segments of a point as a strategy returns them: nested, positions from 1.
local function nested(point)
  local list, made = {}, {}
  for i = 0, point.n_segments - 1 do
    local from, keep = point.segments[i], {}
    for k = 0, from.n_keep - 1 do keep[k + 1] = from.keep[k] + 1 end
    made[i] = {
      first = from.first + 1, last = from.last + 1, keep = keep, segments = {},
    }
    local siblings = from.parent < 0 and list or made[from.parent].segments
    siblings[#siblings + 1] = made[i]
  end
  return list
end

--- What a strategy returns to get the point: segments, or an explicit list.
local function answer(point)
  if point.n_steps == 0 then return nested(point) end
  local program = {}
  for i = 0, point.n_steps - 1 do
    local step = point.steps[i] -- node, or -1 - node: freed
    program[i + 1] = step >= 0 and step + 1 or step
  end
  return {program = program}
end

--- The front of a counted C plan, whose graph it is; an error text without
-- position on failure.
---@return reprise.Front
return function(plan, graph)
  if not C.rp_plan_has_front(plan) then candidates.offer(plan, graph) end
  local n = C.rp_plan_front(plan)
  if n < 0 then error(ffi.string(C.rp_message(ctx)), 0) end
  local points, out = {}, ffi.new 'rp_front_point'
  points.none_bytes = tonumber(C.rp_plan_none_bytes(plan))
  for i = 0, n - 1 do
    if C.rp_plan_front_point(plan, i, out) ~= C.RP_OK then
      error(ffi.string(C.rp_message(ctx)), 0)
    end
    points[i + 1] = {
      peak_bytes = tonumber(out.peak_bytes), seconds = out.seconds,
      answer = answer(out),
    }
  end
  local chain = ffi.new 'rp_front_chain'
  C.rp_plan_front_chain(plan, chain)
  points.chain = {
    n_blocks = chain.n_blocks, n_solved = chain.n_solved,
    n_kinds = chain.n_kinds, slots = chain.slots,
    lost_time = chain.lost_time, lost_memory = chain.lost_memory,
  }
  points.left_out = {}
  local text = C.rp_plan_front_left_out(plan, 0)
  while text ~= nil do
    points.left_out[#points.left_out + 1] = ffi.string(text)
    text = C.rp_plan_front_left_out(plan, #points.left_out)
  end
  return points
end
