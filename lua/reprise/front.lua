--- The time-memory front of a C plan: the points that no other beats in both
-- peak and predicted time, least memory first. The core finds it (chain
-- dynamic programme, kept sets by minimum cut, local search judged by exact
-- layouts) without looking at any budget, so one front answers every budget.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'

local C, ctx = binding.C, binding.ctx

---@class reprise.FrontPoint
---@field peak_bytes integer  persistent + arena, exactly
---@field seconds number      of a step, predicted
---@field answer table       what a strategy returns to get this plan

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
  for i = 0, point.n_steps - 1 do program[i + 1] = point.steps[i] + 1 end
  return {program = program}
end

--- The front of a counted C plan; an error text without position on failure.
-- `none_bytes` of it is the peak of `none`.
---@return reprise.FrontPoint[]
return function(plan)
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
  return points
end
