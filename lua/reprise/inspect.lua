--- loss:inspect: the values that a step went through, made again.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'
local run = require 'reprise.run'
local support = require 'reprise.ckpt.support'
local tensor = require 'reprise.tensor'

local C, ctx = binding.C, binding.ctx

--- The recipes that t comes from, in record order.
local function history(t)
  local n = C.rp_tensor_history(t.ptr, nil, 0)
  if n < 0 then
    failure.raise('[inspect] the leaves are no longer those of this step, so ' ..
      'its values cannot be made again: look before the update, or after one ' ..
      'that opt:minimize(loss, {if_finite = true}) left out. %s',
      (ffi.string(C.rp_message(ctx)):gsub('%%', '%%%%')))
  end
  local array = ffi.new('rp_tensor *[?]', math.max(n, 1))
  C.rp_tensor_history(t.ptr, array, n)
  local list = {}
  for i = 1, n do list[i] = tensor.borrow(array[i - 1]) end
  return list
end

local function name_of(t)
  local scope = t.scope
  return (scope ~= '' and scope .. '.' or '') .. tensor.op_name(t)
end

---@class reprise.Inspected
---@field name string    scope and op: 'gpt.blocks.3.mlp.gelu'
---@field value reprise.Tensor  held

--- Replays the values that t was made from whose name (scope.op) or scope
-- matches the glob: the same bits as in the step. After a step they are there
-- only while its leaves are: before an update, or when if_finite has left it
-- out. They are held afterwards, all at once.
---@param glob string  * stands for any characters, dots too
---@return reprise.Inspected[] in the order of the forward pass
function tensor.methods.inspect(t, glob)
  if type(glob) ~= 'string' or glob == '' then
    failure.raise("[inspect] names are wanted: loss:inspect 'gpt.blocks.3.*'")
  end
  local pattern = support.glob(glob)
  local found, values, names, seen = {}, {}, {}, {}
  for _, value in ipairs(history(t)) do
    local name = name_of(value)
    if name:find(pattern) or value.scope:find(pattern) then
      found[#found + 1] = {name = name, value = value}
      values[#values + 1] = value
    elseif not seen[name] then
      seen[name] = true
      names[#names + 1] = name
    end
  end
  if #found == 0 then
    failure.raise("[inspect] nothing here is called '%s'; there is %s", glob,
      support.some(names))
  end
  run.run(values)
  return found
end
