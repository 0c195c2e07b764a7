--- Tables of named tensors against what is expected.

local failure = require 'reprise.failure'
local tensor = require 'reprise.tensor'

local state_dict = {}

local function sorted(set)
  local names = {}
  for name in pairs(set) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- Raises one error that lists every missing, unexpected and misshaped name.
---@param expected table<string, reprise.Tensor>
---@param given table<string, reprise.Tensor>
---@param where string  for the message
function state_dict.check(expected, given, where)
  if type(given) ~= 'table' or tensor.is(given) then
    failure.raise('[%s] a table of named tensors is wanted, not %s', where, type(given))
  end
  local problems = {}
  local function say(kind, list)
    if #list > 0 then
      problems[#problems + 1] = kind .. ': ' .. table.concat(list, ', ')
    end
  end
  local missing, unexpected, misshaped = {}, {}, {}
  for _, name in ipairs(sorted(expected)) do
    local value = given[name]
    if value == nil then
      missing[#missing + 1] = name
    elseif not tensor.is(value) then
      misshaped[#misshaped + 1] = ('%s is a %s, not a tensor'):format(name, type(value))
    elseif value.shape ~= expected[name].shape then
      misshaped[#misshaped + 1] = ('%s is %s, not %s'):format(name,
        tostring(value.shape), tostring(expected[name].shape))
    end
  end
  for _, name in ipairs(sorted(given)) do
    if expected[name] == nil then unexpected[#unexpected + 1] = tostring(name) end
  end
  say('missing', missing)
  say('unexpected', unexpected)
  say('misshaped', misshaped)
  if #problems > 0 then
    failure.raise('[%s] the state does not fit: %s', where, table.concat(problems, '; '))
  end
end

return state_dict
