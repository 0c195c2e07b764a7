--- What all optimizers are: parameters in groups, each with the numbers of
-- its update op, read whenever a step runs.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'
local run = require 'reprise.run'
local tensor = require 'reprise.tensor'
local values = require 'reprise.values'

local C, ctx = binding.C, binding.ctx

---@class reprise.Optimizer
---@field param_groups table[]  each {params, lr, ...}; numbers may be changed
local Optimizer = {}
Optimizer.__index = Optimizer

local optimizer = {}

local function is_group(entry)
  return type(entry) == 'table' and not tensor.is(entry) and entry.params ~= nil
end

--- The arguments as groups: a list of parameters is one group.
local function groups_of(params, where)
  if tensor.is(params) then params = {params} end
  if type(params) ~= 'table' then
    failure.raise('[%s] a list of parameters is wanted, not %s', where, type(params))
  end
  if is_group(params) then params = {params} end
  local groups = {}
  if #params > 0 and is_group(params[1]) then
    for i, group in ipairs(params) do
      if not is_group(group) then
        failure.raise('[%s] entry %d is no {params = ...} group like the others', where, i)
      end
      groups[i] = group
    end
  else
    groups[1] = {params = params}
  end
  return groups
end

local function parameters(list, where)
  if tensor.is(list) then list = {list} end
  if type(list) ~= 'table' or #list == 0 then
    failure.raise('[%s] no parameters: model:parameters() gives a list of them', where)
  end
  local array = ffi.new('rp_tensor *[?]', #list)
  for i, p in ipairs(list) do array[i - 1] = tensor.pointer(p, where) end
  return list, array
end

--- An optimizer.
---@param name string      for messages
---@param op string        the update op
---@param params table     parameters, or groups of them
---@param options table?
---@param defaults table   every option and its default
---@param numbers fun(group: table): number[]  the op's numbers for a group
---@return reprise.Optimizer
function optimizer.new(name, op, params, options, defaults, numbers)
  options = options or {}
  local function check(group, extra)
    for key in pairs(group) do
      if defaults[key] == nil and key ~= extra and key ~= 'clip_grad_norm' then
        local known = {}
        for option in pairs(defaults) do known[#known + 1] = option end
        table.sort(known)
        failure.raise("[%s] no option '%s'; there are %s, clip_grad_norm", name,
          tostring(key), table.concat(known, ', '))
      end
    end
  end
  check(options)
  local update = C.rp_op_find(op)
  local ptr = C.rp_optimizer_new(ctx, update)
  if ptr == nil then failure.from_core() end
  local self = setmetatable({
    ptr = ffi.gc(ptr, C.rp_optimizer_free), name = name, numbers = numbers,
    defaults = defaults, param_groups = {},
  }, Optimizer)
  for i, given in ipairs(groups_of(params, name)) do
    check(given, 'params')
    local group = {}
    for key, default in pairs(defaults) do
      group[key] = default
      if options[key] ~= nil then group[key] = options[key] end
      if given[key] ~= nil then group[key] = given[key] end
    end
    local list, array = parameters(given.params, name)
    group.params = list
    if C.rp_optimizer_add_group(self.ptr, array, #list) < 0 then failure.from_core() end
    self.param_groups[i] = group
  end
  self:numbers_of_groups()
  if options.clip_grad_norm then self:clip_grad_norm(options.clip_grad_norm) end
  return self
end

--- `AdamW(8 parameters, lr = 0.001, ...)`; of several groups, the first's numbers.
function Optimizer:__tostring()
  local group, n, words = self.param_groups[1], 0, {}
  for _, one in ipairs(self.param_groups) do n = n + #one.params end
  for key in pairs(self.defaults) do
    local value = group[key]
    words[#words + 1] = ('%s = %s'):format(key, type(value) == 'table'
      and ('{%s}'):format(table.concat(value, ', ')) or tostring(value))
  end
  table.sort(words)
  table.insert(words, 1, ('%d parameter%s'):format(n, n == 1 and '' or 's'))
  return ('%s(%s)'):format(self.name, table.concat(words, ', '))
end

--- The groups' numbers as the update op lists them.
---@return number[][]
function Optimizer:numbers_of_groups()
  local all = {}
  for i, group in ipairs(self.param_groups) do
    for key, default in pairs(self.defaults) do
      if type(default) == 'number' and type(group[key]) ~= 'number' then
        failure.raise('[%s] %s is a number, not %s', self.name, key,
          tostring(group[key]))
      end
    end
    all[i] = self.numbers(group)
    for _, x in ipairs(all[i]) do
      if type(x) ~= 'number' then
        failure.raise('[%s] a number of group %d is a %s', self.name, i, type(x))
      end
    end
  end
  return all
end

--- Hands the groups' numbers to the core; they may have been changed. Plans
-- do not depend on them.
function Optimizer:sync()
  for i, list in ipairs(self:numbers_of_groups()) do
    local array = ffi.new('double[?]', #list, list)
    failure.check(C.rp_optimizer_set(self.ptr, i - 1, array, #list))
  end
end

--- Forward, backward and update as one program, in which a gradient is freed
-- as soon as its parameter is updated. What .grad holds from earlier backward
-- calls is added first. Afterwards the loss and `also` are held.
--
-- With if_finite nothing is written and no step counted when the loss or a
-- gradient is a NaN or infinite: parameters, states and running statistics
-- stay as they are (.grad is used up all the same), and loss:inspect replays
-- what led to it. Gradients then live until all are known: the plan shows
-- what that costs.
---@param loss reprise.Tensor  a scalar
---@param options table?       ckpt (a spec), also (tensors), if_finite
---@return reprise.Tensor loss
---@return boolean updated     false where if_finite has left all as it was
function Optimizer:minimize(loss, options)
  self:sync()
  local before = self:step_count()
  run.execute(run.prepare(C.RP_MINIMIZE, loss, options, self.ptr, 'minimize'))
  return loss, self:step_count() > before
end

--- The plan of minimize with the same arguments; nothing runs.
---@return reprise.Plan
function Optimizer:plan(loss, options)
  return run.look(run.prepare(C.RP_MINIMIZE, loss, options, self.ptr, 'plan'))
end

--- Updates the parameters from the gradients that backward left in .grad.
function Optimizer:step()
  self:sync()
  run.execute(run.prepare(C.RP_STEP, nil, {ckpt = 'none'}, self.ptr, 'step'))
end

--- Drops the gradients in .grad.
function Optimizer:zero_grad()
  for _, group in ipairs(self.param_groups) do
    for _, p in ipairs(group.params) do p.grad = nil end
  end
end

--- Scales all gradients of a step so that their global 2-norm is at most
-- max_norm; nil or 0 switches it off. Gradients then live until the norm is
-- known: the plan shows what that costs.
---@param max_norm number?
function Optimizer:clip_grad_norm(max_norm)
  max_norm = max_norm or 0
  if type(max_norm) ~= 'number' or max_norm < 0 or max_norm ~= max_norm then
    failure.raise('[clip_grad_norm] a norm of at least 0 is wanted, not %s',
      tostring(max_norm))
  end
  C.rp_optimizer_set_clip(self.ptr, max_norm)
end

--- Sets the learning rate of all groups, for the steps from now on.
---@param lr number
function Optimizer:set_lr(lr)
  if type(lr) ~= 'number' or lr < 0 or lr ~= lr then
    failure.raise('[set_lr] a learning rate of at least 0 is wanted, not %s', tostring(lr))
  end
  for _, group in ipairs(self.param_groups) do group.lr = lr end
end

--- The parameters of all groups, in the core's order.
---@return reprise.Tensor[]
function Optimizer:parameters()
  local list = {}
  for _, group in ipairs(self.param_groups) do
    for _, p in ipairs(group.params) do list[#list + 1] = p end
  end
  return list
end

--- How many steps have run.
---@return integer
function Optimizer:step_count()
  return tonumber(C.rp_optimizer_step_count(self.ptr))
end

--- All that a later step depends on, as a flat table of tensors that rp.save
-- takes: 'step', 'group.G' (its numbers) and 'state.I.K'.
---@return table<string, reprise.Tensor>
function Optimizer:state_dict()
  local dict = {step = values.tensor(self:step_count(), {dtype = 'f64'})}
  for g, group in ipairs(self.param_groups) do
    dict['group.' .. g] = values.tensor(self.numbers(group), {dtype = 'f64'})
  end
  for i = 1, C.rp_optimizer_size(self.ptr) do
    for k = 1, C.rp_optimizer_states(self.ptr) do
      dict[('state.%d.%d'):format(i, k)] =
        tensor.borrow(C.rp_optimizer_state(self.ptr, i - 1, k - 1))
    end
  end
  return dict
end

--- Restores what state_dict gave for an optimizer of the same kind over the
-- same parameters. The groups' numbers stay those of this optimizer. Missing,
-- unexpected and misshaped entries are listed in one error; nothing has
-- changed then.
---@param dict table<string, reprise.Tensor>
function Optimizer:load_state_dict(dict)
  local match = require 'reprise.state_dict'
  local own = self:state_dict()
  match.check(own, dict, self.name)
  for name, target in pairs(own) do
    if name:find '^state%.' then target:copy_(dict[name]) end
  end
  C.rp_optimizer_set_step_count(self.ptr, dict.step:item())
end

return optimizer
