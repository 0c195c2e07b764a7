--- Labels beside the points of a picture.

local labels = {}

local LINE = 13.5 -- from one label's base line to that of the next below

--- Where labels go: each call gives the y of one that wants to stand at `y`,
--- moved down as long as it would lie on one before.
---@return fun(x: number, width: number, y: number): number
function labels.below_each_other()
  local placed = {}
  return function(x, width, y)
    local free
    repeat
      free = true
      for _, other in ipairs(placed) do
        if math.abs(other.y - y) < 13 and x < other.to and other.from < x + width then
          y, free = other.y + LINE, false
        end
      end
    until free
    placed[#placed + 1] = {from = x, to = x + width, y = y}
    return y
  end
end

return labels
