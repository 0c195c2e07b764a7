--- Binomial checkpointing: at any time S states are held, the first one among
-- them, and no schedule that holds S states replays fewer steps.
-- @param s  states held; the layers are the steps, the blocks where the model
--           has no layers
--
-- Source: Griewank & Walther, "Algorithm 799: revolve", 2000. With t(n, s)
-- replayed steps for n steps and s states,
--     t(1, s) = 0     t(n, 1) = n (n - 1) / 2
--     t(n, s) = min over i of  i + t(i, s) + t(n - i, s - 1)
-- As a tree: the state behind step i is kept, a segment over steps 1..i has a
-- tree of its own for s states, the rest has s - 1. The last step of each is in
-- no segment, so it is not replayed for itself.

local support = require 'reprise.ckpt.support'

local revolve = {}

--- C(a, b), or any number above `most` where that is less.
local function binomial(a, b, most)
  local c = 1
  for k = 1, b do
    c = c * (a - b + k) / k
    if c > most then return most + 1 end
  end
  return c
end

--- Least r with C(s + r, r) >= n: no step runs forward more than r times
-- besides its first.
local function repetitions(n, s)
  local r = 0
  while binomial(s + r, math.min(s, r), n) < n do r = r + 1 end
  return r
end

--- t(n, s): replayed steps for n steps and s states. Exact up to 2^53.
---@return number
function revolve.replays(n, s)
  if n <= 1 then return 0 end
  if s == 1 then return n * (n - 1) / 2 end
  local r = repetitions(n, s)
  -- C(s + r, r - 1) = C(s + r - 1, r - 1) (s + r) / (s + 1), the former < n.
  return r * n - binomial(s + r - 1, math.min(s, r - 1), n) * (s + r) / (s + 1)
end

--- The i of the recurrence, the least where several serve. i + t(i, s) and
-- t(n - i, s - 1) are convex in i, so the sum's least is found by halving.
---@return integer
function revolve.split(n, s)
  if s == 1 then return n - 1 end
  local function cost(i)
    return i + revolve.replays(i, s) + revolve.replays(n - i, s - 1)
  end
  local low, high = 1, n - 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if cost(middle + 1) >= cost(middle) then high = middle else low = middle + 1 end
  end
  return low
end

--- Segments for steps first..last with s states.
local function tree(steps, first, last, s)
  local segments = {}
  while first < last do
    local i = revolve.split(last - first + 1, s)
    segments[#segments + 1] = {
      first = steps[first].first, last = steps[first + i - 1].last,
      segments = tree(steps, first, first + i - 1, s),
    }
    first, s = first + i, math.max(s - 1, 1)
  end
  return segments
end

return setmetatable(revolve, {
  __call = function(_, s)
    s = support.count(s, 'S', 'revolve')
    return function(graph)
      local steps = #graph.layers > 0 and graph.layers or graph.blocks
      if #steps < 2 then
        error('the model has no two layers or blocks to step through: wrap each ' ..
          'step in rp.layer(name, fn), or use rp.scan', 0)
      end
      return tree(steps, 1, #steps, s)
    end
  end,
})
