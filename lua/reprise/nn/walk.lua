--- Finding what is in a module: its table is walked, numbers first, then
-- names sorted (pairs has no order), through plain lists and tables too;
-- cycles and what is shared are seen once, under the first path.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'
local tensor = require 'reprise.tensor'

local C = binding.C

local walk = {}

--- Classes made by nn.module.
walk.classes = setmetatable({}, {__mode = 'k'})

--- Whether x is a module.
function walk.is_module(x)
  return type(x) == 'table' and walk.classes[getmetatable(x)] == true
end

local function before(a, b)
  local number_a, number_b = type(a) == 'number', type(b) == 'number'
  if number_a ~= number_b then return number_a end
  return a < b
end

local function sorted_keys(t)
  local keys = {}
  for key, value in next, t do
    local kind = type(key)
    if type(value) == 'table' and (kind == 'number' or kind == 'string') then
      keys[#keys + 1] = key
    end
  end
  table.sort(keys, before)
  return keys
end

--- An identity for tensors: handles differ, what they are handles on does not.
local function identity(t)
  return tonumber(ffi.cast('intptr_t', t.ptr))
end

local function part_of(key, value)
  if type(key) == 'number' and walk.is_module(value) and value._name then
    return value._name
  end
  return tostring(key)
end

--- Calls visit(path, value) for every tensor and module inside root, root
-- itself first with path ''. Raises when two entries have one path.
---@param root table
---@param visit fun(path: string, value: any)
function walk.each(root, visit)
  local seen, paths = {}, {}
  local function enter(value, path)
    local key = tensor.is(value) and identity(value) or value
    if seen[key] then return end
    seen[key] = true
    local is_module = walk.is_module(value)
    if tensor.is(value) or is_module then
      if paths[path] then
        failure.raise("[nn] two entries are both called '%s': give one another " ..
          'name with :named', path)
      end
      paths[path] = true
      visit(path, value)
    end
    if tensor.is(value) or (getmetatable(value) ~= nil and not is_module) then return end
    for _, name in ipairs(sorted_keys(value)) do
      local inner = value[name]
      local part = part_of(name, inner)
      enter(inner, path == '' and part or path .. '.' .. part)
    end
  end
  enter(root, '')
end

--- Leaves of a role inside root, in walk order: names and tensors.
---@return string[] names
---@return reprise.Tensor[] tensors
function walk.leaves(root, ...)
  local roles, names, list = {}, {}, {}
  for i = 1, select('#', ...) do roles[tonumber((select(i, ...)))] = true end
  walk.each(root, function(path, value)
    if tensor.is(value) and C.rp_tensor_is_leaf(value.ptr) and
      roles[tonumber(C.rp_leaf_role(value.ptr))] then
      names[#names + 1], list[#list + 1] = path, value
    end
  end)
  return names, list
end

--- Modules inside root, root first: paths and modules.
---@return string[] names
---@return table[] modules
function walk.modules(root)
  local names, list = {}, {}
  walk.each(root, function(path, value)
    if walk.is_module(value) then
      names[#names + 1], list[#list + 1] = path, value
    end
  end)
  return names, list
end

-- Paths of the modules inside a module, by module; weak in both.
local known = setmetatable({}, {__mode = 'k'})

--- The path from a module to one inside of it, or nil.
---@return string?
function walk.path(parent, child)
  local paths = known[parent]
  if not paths or paths[child] == nil then
    paths = setmetatable({}, {__mode = 'k'})
    local names, list = walk.modules(parent)
    for i = 2, #list do paths[list[i]] = names[i] end
    -- Not inside: known too, so that the next call does not walk again.
    paths[child] = paths[child] or false
    known[parent] = paths
  end
  return paths[child] or nil
end

return walk
