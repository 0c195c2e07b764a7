--- Modules: a constructor, a forward, and what a walk of the table finds.
--
-- Calling an instance enters its scope (the attribute that its parent has it
-- under) and runs forward.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local device = require 'reprise.device'
local failure = require 'reprise.failure'
local scope = require 'reprise.scope'
local state = require 'reprise.state_dict'
local tensor = require 'reprise.tensor'
local walk = require 'reprise.nn.walk'

local C, ctx = binding.C, binding.ctx

---@class reprise.Module
---@field training boolean  false after eval()
local Module = {}

local module = {}

-- Modules that are layers (entries of nn.Layers) and entries of nn.Sequential.
local layers = setmetatable({}, {__mode = 'k'})
local entries = setmetatable({}, {__mode = 'k'})
-- Roots whose leaves have been given names.
local labelled = setmetatable({}, {__mode = 'k'})

--- Marks a module as an entry of nn.Layers.
function module.mark_layer(entry) layers[entry] = true end

--- Marks a module as an entry of nn.Sequential.
function module.mark_entry(entry) entries[entry] = true end

--- Names a leaf by its path; a longer path, from further out, says more.
local function label(leaf, path)
  local present = ffi.string(C.rp_leaf_name(leaf.ptr))
  if #path > #present then failure.check(C.rp_leaf_set_name(leaf.ptr, path)) end
end

local function label_all(root, prefix)
  if labelled[root] then return end
  labelled[root] = true
  local names, list = walk.leaves(root, C.RP_PARAMETER, C.RP_BUFFER)
  for i, leaf in ipairs(list) do label(leaf, (prefix or '') .. names[i]) end
end

local function enter(self)
  local parent = scope.current()
  local name = parent and walk.path(parent, self)
  if not parent then label_all(self) end
  if not name then
    name = self._name or self.class_name:lower()
    -- Called inside a module that does not have it: messages still name it.
    if parent then label_all(self, name .. '.') end
  end
  scope.enter(name)
  if layers[self] then failure.check(C.rp_layer_enter(ctx)) end
  if entries[self] then failure.check(C.rp_entry_enter(ctx)) end
end

local function call(self, ...)
  local forward = self.forward
  if not forward then
    failure.raise("[nn] module '%s' has no forward: write function %s:forward(x) ... end",
      self.class_name, self.class_name)
  end
  return scope.call(enter, self, self, forward, self, ...)
end

local function indented(text)
  return (text:gsub('\n', '\n  '))
end

-- Modules that are being printed: one that is inside itself prints as dots.
local printing = {}

local function text_of(self)
  if printing[self] then return self.class_name .. '(...)' end
  printing[self] = true
  local lines = {}
  local names, list = walk.modules(self)
  for i = 2, #list do
    -- Direct children: those that no other module lies between.
    local direct = true
    for j = 2, i - 1 do
      local outer = names[j] .. '.'
      if names[i]:sub(1, #outer) == outer then direct = false end
    end
    if direct then
      lines[#lines + 1] = ('  (%s): %s'):format(names[i], indented(tostring(list[i])))
    end
  end
  printing[self] = nil
  local head = self.class_name .. '(' .. (self.describe and self:describe() or '')
  if #lines == 0 then return head .. ')' end
  return head .. '\n' .. table.concat(lines, '\n') .. '\n)'
end

--- A class of modules. The constructor gets the new instance and the
-- arguments; `function Class:forward(...)` is defined on what this returns:
--   local MLP = nn.module('MLP', function(self, width) self.fc = ... end)
---@param name string
---@param constructor fun(self: table, ...)?
---@return table class  call it to make an instance
function module.class(name, constructor)
  if type(name) ~= 'string' then
    failure.raise("[nn.module] the class's name comes first, not %s", type(name))
  end
  local class = {class_name = name, __call = call, __tostring = text_of}
  class.__index = class
  walk.classes[class] = true
  return setmetatable(class, {
    __index = Module,
    __call = function(_, ...)
      local self = setmetatable({training = true}, class)
      if constructor then constructor(self, ...) end
      return self
    end,
    __tostring = function() return 'nn.module ' .. name end,
  })
end

--- fn(...) inside this module's scope.
function Module:within(fn, ...)
  return scope.call(enter, self, self, fn, ...)
end

--- Names the module: at the top, and in lists in place of its number.
---@param name string
---@return table self
function Module:named(name)
  if type(name) ~= 'string' or name == '' or name:find '[^%w_%-]' then
    failure.raise("[named] a name is made of letters, digits, _ and -, not '%s'",
      tostring(name))
  end
  self._name = name
  return self
end

--- Sets training mode for the module and all inside: dropout drops.
---@param on boolean?  true when absent
---@return table self
function Module:train(on)
  local _, list = walk.modules(self)
  for _, inner in ipairs(list) do inner.training = on ~= false end
  return self
end

--- Sets evaluation mode: train(false).
---@return table self
function Module:eval()
  return self:train(false)
end

--- Parameters, in walk order, each once.
---@return reprise.Tensor[]
function Module:parameters()
  label_all(self)
  local _, list = walk.leaves(self, C.RP_PARAMETER)
  return list
end

local function iterator(names, list)
  local i = 0
  return function()
    i = i + 1
    return names[i], list[i]
  end
end

--- for name, parameter in model:named_parameters() do ... end
function Module:named_parameters()
  label_all(self)
  return iterator(walk.leaves(self, C.RP_PARAMETER))
end

--- Buffers: saved, not trained.
---@return reprise.Tensor[]
function Module:buffers()
  local _, list = walk.leaves(self, C.RP_BUFFER)
  return list
end

--- for name, buffer in model:named_buffers() do ... end
function Module:named_buffers()
  return iterator(walk.leaves(self, C.RP_BUFFER))
end

--- for path, module in model:named_modules() do ... end; the first is the
-- model itself, with path ''.
function Module:named_modules()
  return iterator(walk.modules(self))
end

--- fn(module) for every module inside, then for this one.
---@param fn fun(module: table)
---@return table self
function Module:apply(fn)
  local _, list = walk.modules(self)
  for i = #list, 1, -1 do fn(list[i]) end
  return self
end

--- Parameters and buffers by name, not copied.
---@return table<string, reprise.Tensor>
function Module:state_dict()
  label_all(self)
  local dict = {}
  local names, list = walk.leaves(self, C.RP_PARAMETER, C.RP_BUFFER)
  for i, leaf in ipairs(list) do dict[names[i]] = leaf end
  return dict
end

--- Sets all parameters and buffers from tensors by name, cast to their
-- dtypes. Missing, unexpected and misshaped names are listed in one error,
-- and nothing has changed then.
---@param dict table<string, reprise.Tensor>
---@return table self
function Module:load_state_dict(dict)
  local own = self:state_dict()
  state.check(own, dict, 'load_state_dict')
  for name, leaf in pairs(own) do leaf:copy_(dict[name]) end
  return self
end

--- Moves all parameters and buffers, with their gradients, to a device.
---@param name string  'cpu', 'cuda', 'cuda:1'
---@return table self
function Module:to(name)
  local slot = device.slot(name, 'to')
  local _, list = walk.leaves(self, C.RP_PARAMETER, C.RP_BUFFER)
  for _, leaf in ipairs(list) do failure.check(C.rp_leaf_to(leaf.ptr, slot)) end
  return self
end

--- to'cuda'.
function Module:cuda() return self:to 'cuda' end

--- to'cpu'.
function Module:cpu() return self:to 'cpu' end

--- Drops all gradients in .grad.
function Module:zero_grad()
  for _, p in ipairs(self:parameters()) do p.grad = nil end
end

--- Freezes (false) or trains (true) all parameters.
---@param on boolean?  true when absent
---@return table self
function Module:requires_grad_(on)
  for _, p in ipairs(self:parameters()) do p.requires_grad = on ~= false end
  return self
end

local function leaf_from(role, recipe, where)
  local ptr = tensor.pointer(recipe, where)
  return tensor.own(C.rp_leaf_from(role, ptr))
end

--- A leaf to be trained whose first value is the recipe's: nothing runs and
-- nothing is allocated until it is needed.
---@param recipe reprise.Tensor
---@param requires_grad boolean?  true when absent
---@return reprise.Tensor
function module.Parameter(recipe, requires_grad)
  local leaf = leaf_from(C.RP_PARAMETER, recipe, 'nn.Parameter')
  leaf.requires_grad = requires_grad ~= false
  return leaf
end

--- A leaf that is saved with the model and not trained.
---@param recipe reprise.Tensor
---@return reprise.Tensor
function module.Buffer(recipe)
  return leaf_from(C.RP_BUFFER, recipe, 'nn.Buffer')
end

return module
