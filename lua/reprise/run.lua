--- Everything that runs: rp.run, backward, and what optimizers ask for. A
-- request is planned (or its plan found again), the strategy asked where the
-- plan is new, and the program run.

local ffi = require 'ffi'
local arguments = require 'reprise.ops.arguments'
local binding = require 'reprise.ffi'
local ckpt = require 'reprise.ckpt'
local collect = require 'reprise.pressure'
local failure = require 'reprise.failure'
local graph_of = require 'reprise.graph'
local plans = require 'reprise.plan'
local segments = require 'reprise.segments'
local tensor = require 'reprise.tensor'
local units = require 'reprise.report.units'

local C, ctx = binding.C, binding.ctx
local pointer = tensor.pointer

local run = {}

--- The profile that steps are planned with, or nil (reprise.profile sets it).
---@type reprise.Profile?
run.profile = nil

local known = {ckpt = true, also = true, wrt = true, inputs = true}
local known_of_step = {ckpt = true, also = true, if_finite = true}

local function array_of(list, where)
  local array = ffi.new('rp_tensor *[?]', math.max(#list, 1))
  for i = 1, #list do array[i - 1] = pointer(list[i], where) end
  return array
end

local function listed(x, where)
  if x == nil then return {} end
  if tensor.is(x) then return {x} end
  if type(x) ~= 'table' then
    failure.raise('[%s] a tensor or a list of tensors is wanted, not %s', where, type(x))
  end
  return x
end

--- The strategy's answer, set in the plan. Raises texts without position.
local function apply(plan, strategy)
  local graph = graph_of(plan)
  if not graph then error(ffi.string(C.rp_message(ctx)), 0) end
  local answer = strategy.apply(graph)
  if type(answer) == 'function' then
    error(('it returned a function, not segments: does it want an argument, %s=ARGUMENT?')
      :format(strategy.text), 0)
  end
  if type(answer) ~= 'table' then
    local info = debug.getinfo(strategy.apply, 'S')
    error(('%s:%d: the strategy returned %s, not a list of segments'):format(
      info.short_src, info.linedefined,
      answer == nil and 'nothing' or 'a ' .. type(answer)), 0)
  end
  local status
  if answer.program ~= nil then
    local steps, n = segments.program(answer.program, #graph.nodes)
    status = C.rp_plan_set_program(plan, steps, n)
  else
    local flat = segments.flatten(answer, graph.n_forward)
    status = C.rp_plan_set_segments(plan, flat.array, flat.n)
  end
  if status ~= C.RP_OK then error(ffi.string(C.rp_message(ctx)), 0) end
  return graph
end

local function tell_useless(plan, strategy, graph)
  -- The front's segments have been judged by their exact peaks already.
  if strategy.name == 'budget' then return end
  local list = plans.new(plan, strategy.text):segments()
  local text = segments.useless(graph, list, strategy.chooses)
  if text then failure.notice_once('under ' .. strategy.text .. ', ' .. text) end
end

--- Gives a new plan its segments and finishes it.
local function complete(plan, strategy)
  if run.profile then
    local ok, reason = pcall(run.profile.apply, run.profile, plan)
    if not ok then failure.raise('[profile] %s', tostring(reason)) end
  end
  local ok, graph = pcall(apply, plan, strategy)
  if not ok then
    failure.raise('[ckpt] %s: %s', strategy.text, tostring(graph))
  end
  local status = C.rp_plan_finish(plan)
  if status ~= C.RP_OK then
    failure.raise('[ckpt] %s: %s', strategy.text, ffi.string(C.rp_message(ctx)))
  end
  tell_useless(plan, strategy, graph)
end

---@class reprise.Prepared
---@field plan any        the C plan, counted
---@field request any     the C request
---@field strategy reprise.Strategy

--- Plans a request: found again by its key, or made.
---@param action any      RP_RUN, RP_BACKWARD, RP_MINIMIZE or RP_STEP
---@param loss reprise.Tensor?
---@param options table?  ckpt, also, wrt; of a step if_finite in place of wrt
---@param optimizer any?  the C optimizer
---@param where string    the function's name, for messages
---@return reprise.Prepared
function run.prepare(action, loss, options, optimizer, where)
  options = arguments.options(options,
    action == C.RP_MINIMIZE and known_of_step or known, where)
  local strategy = ckpt.resolve(options.ckpt)
  local request = ffi.new 'rp_request'
  local also = listed(options.also, where)
  -- What the request points to is held here.
  local prepared = {
    request = request, strategy = strategy, loss = loss, also = also,
    targets = array_of(also, where),
  }
  request.action = action
  if loss ~= nil then request.loss = pointer(loss, where) end
  request.targets, request.n_targets = prepared.targets, #also
  local wrt = options.wrt or options.inputs
  if wrt ~= nil then
    prepared.leaves = listed(wrt, where)
    prepared.wrt = array_of(prepared.leaves, where)
    request.wrt, request.n_wrt = prepared.wrt, #prepared.leaves
  end
  request.optimizer, request.if_finite = optimizer, options.if_finite and true or false
  prepared.identity = strategy.identity .. (run.profile and run.profile.identity or '')
  request.strategy = prepared.identity
  collect()
  local plan = C.rp_plan_prepare(ctx, request)
  if plan == nil then
    failure.drain()
    failure.from_core()
  end
  prepared.plan = ffi.gc(plan, C.rp_plan_release)
  if not C.rp_plan_is_ready(plan) then complete(prepared.plan, strategy) end
  return prepared
end

local last

-- A step of fewer bytes did not fail for what checkpointing can change.
local WORTH_A_HINT = 64 * 2^20

--- Raises that memory was refused, with what the step needs and the least that
-- a budget can make of it.
local function refuse_memory(prepared)
  local reason = ffi.string(C.rp_message(ctx))
  local plan = plans.new(prepared.plan, prepared.strategy.text)
  local has_backward = prepared.request.action == C.RP_BACKWARD or
    prepared.request.action == C.RP_MINIMIZE
  if not has_backward or plan.peak_bytes < WORTH_A_HINT then failure.raise('%s', reason) end
  local ok, front = pcall(plan.front, plan)
  if not ok then failure.raise('%s', reason) end
  failure.raise("%s. This step needs %s under %s; the least that a budget can make of it " ..
    "is %s: {ckpt = 'budget=min'}", reason, units.bytes(plan.peak_bytes),
    prepared.strategy.text, units.bytes(front[1].peak_bytes))
end

--- Runs what was prepared.
---@param prepared reprise.Prepared
function run.execute(prepared)
  last = {plan = prepared.plan, text = prepared.strategy.text}
  local status = C.rp_plan_run(prepared.plan, prepared.request)
  failure.drain()
  if status == C.RP_NOMEM then refuse_memory(prepared) end
  failure.check(status)
  if run.on_executed then run.on_executed(last) end
end

--- The Lua plan of what was prepared; nothing has run.
---@return reprise.Plan
function run.look(prepared)
  failure.drain()
  return plans.new(prepared.plan, prepared.strategy.text)
end

--- The plan of what ran last, or nil.
---@return reprise.Plan?
function run.last_plan()
  return last and run.plan_of(last)
end

--- The Lua plan of what `on_executed`, a function to be set, is called with
-- after each program.
---@return reprise.Plan
function run.plan_of(executed)
  return plans.new(executed.plan, executed.text)
end

--- Runs the tensors in one program; afterwards all are held.
---@param ... reprise.Tensor
---@return reprise.Tensor ... the same
function run.run(...)
  local list = {...}
  if #list == 1 and type(list[1]) == 'table' and not tensor.is(list[1]) then
    list = list[1]
  end
  run.execute(run.prepare(C.RP_RUN, nil, {also = list, ckpt = 'none'}, nil, 'run'))
  return ...
end

--- Runs the tensor; afterwards it is held.
---@return reprise.Tensor self
function tensor.methods.run(t)
  return (run.run(t))
end

--- Runs the forward and the backward pass of a scalar; gradients are added
-- to .grad of every trainable leaf that it reaches. Options: ckpt (a spec),
-- also (tensors to deliver too), wrt (only these leaves).
---@param options table?
function tensor.methods.backward(t, options)
  run.execute(run.prepare(C.RP_BACKWARD, t, options, nil, 'backward'))
end

--- The plan of t:backward(options); nothing runs.
---@param options table?
---@return reprise.Plan
function tensor.methods.plan(t, options)
  return run.look(run.prepare(C.RP_BACKWARD, t, options, nil, 'plan'))
end

return run
