--- Learning rates by step.

local failure = require 'reprise.failure'

local schedule = {}

local function number(options, name, default, least)
  local x = options[name]
  if x == nil then x = default end
  if type(x) ~= 'number' or x < least or x ~= x then
    failure.raise('[warmup_cosine] %s is a number of at least %g, not %s', name,
      least, tostring(options[name]))
  end
  return x
end

--- Rises linearly to lr over `warmup` steps, then falls to min_lr along half
-- a cosine until `steps`, and stays there:
--   opt:set_lr(rate(step)), step from 1.
---@param options {lr: number, steps: integer, warmup: integer?, min_lr: number?}
---@return fun(step: integer): number
function schedule.warmup_cosine(options)
  local lr = number(options, 'lr', nil, 0)
  local steps = number(options, 'steps', nil, 1)
  local warmup = number(options, 'warmup', 0, 0)
  local min_lr = number(options, 'min_lr', 0, 0)
  return function(step)
    if step <= warmup then return lr * step / warmup end
    if step >= steps then return min_lr end
    local done = (step - warmup) / math.max(1, steps - warmup)
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * done))
  end
end

return schedule
