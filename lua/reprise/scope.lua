--- Where nodes are recorded: scopes, layers, checkpointed segments.
--
-- The core has one present place. Every call here saves it, changes it and
-- puts it back, whatever happens inside.

local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'
local modes = require 'reprise.modes'
local tensor = require 'reprise.tensor'

local C, ctx = binding.C, binding.ctx

local scope = {}

--- The innermost module whose forward is running.
function scope.current()
  return modes.module
end

local function leave(place, module, ok, ...)
  C.rp_place_set(ctx, place)
  modes.module = module
  if ok then return ... end
  return failure.again((...))
end

local function entered(enter, argument, module, fn, ...)
  enter(argument)
  if module then modes.module = module end
  return fn(...)
end

--- fn(...) at the place that enter(argument) goes to; `module` becomes the
-- current one when given. Returns what fn returns.
function scope.call(enter, argument, module, fn, ...)
  if modes.may_yield() then
    return modes.apart(entered, enter, argument, module, fn, ...)
  end
  return leave(C.rp_place_get(ctx), modes.module,
    pcall(entered, enter, argument, module, fn, ...))
end

--- Whether x can be called, as functions and modules can.
local function is_callable(x)
  local meta = type(x) == 'table' and getmetatable(x)
  return type(x) == 'function' or type(meta) == 'table' and meta.__call ~= nil
end

--- Appends a name to the present scope.
function scope.enter(name)
  failure.check(C.rp_scope_enter(ctx, name))
end

local function enter_layer(name)
  failure.check(C.rp_scope_enter(ctx, name))
  failure.check(C.rp_layer_enter(ctx))
end

local function enter_segment()
  failure.check(C.rp_segment_enter(ctx))
end

--- A function that records what fn does as one layer, as an entry of
-- nn.Layers would be.
---@param name string  what the layer is called
---@param fn function
---@return function
function scope.layer(name, fn)
  if type(name) ~= 'string' or name == '' then
    failure.raise("[layer] a name is wanted first: rp.layer('stage1', fn)")
  end
  if not is_callable(fn) then
    failure.raise("[layer] a function to wrap comes second, rp.layer('%s', fn), not %s",
      name, type(fn))
  end
  return function(...) return scope.call(enter_layer, name, nil, fn, ...) end
end

--- step(... step(step(state, 1), 2) ..., n), each step a layer (scan.1,
-- scan.2, ...), so that strategies see time steps as they see a model's
-- layers.
---@param step fun(state: any, i: integer): any  one step forward; records
---@param state any    the first state: a tensor, or whatever step takes
---@param n integer    steps, at least 1
---@return any state   the last one
function scope.scan(step, state, n)
  if not is_callable(step) then
    failure.raise('[scan] the step comes first: rp.scan(step, state, n)')
  end
  if type(n) ~= 'number' or n ~= math.floor(n) or n < 1 then
    failure.raise('[scan] n is a whole number of at least 1, not %s', tostring(n))
  end
  for i = 1, n do
    state = scope.call(enter_layer, 'scan.' .. i, nil, step, state, i)
    if state == nil then
      failure.raise('[scan] step %d returned nothing, not the next state', i)
    end
  end
  return state
end

local accepted = {preserve_rng_state = true, use_reentrant = true}

--- Whether x is a table of PyTorch's options, which an exact replay needs
-- not.
local function is_options(x)
  if type(x) ~= 'table' or tensor.is(x) or next(x) == nil then return false end
  for key in pairs(x) do
    if not accepted[key] then return false end
  end
  return true
end

local function saves_nothing()
  if not scope.recording_gradients() then
    failure.notice_once('rp.checkpoint inside rp.no_grad saves nothing: no ' ..
      'value is kept for a backward there; call the function directly')
  elseif modes.module and modes.module.training == false then
    failure.notice_once('rp.checkpoint in a model in eval mode: if no ' ..
      'backward follows it saves nothing, and rp.no_grad is what saves ' ..
      'memory there; for training call model:train() first')
  end
end

--- fn(...), recorded as a segment: what is inside is dropped after the
-- forward pass and replayed when backward reads it. Any arguments and
-- results; nests. A replay draws the same random numbers, so PyTorch's
-- {preserve_rng_state = ...} as last argument changes nothing.
---@param fn function
---@return any ... what fn returns
function scope.checkpoint(fn, ...)
  if not is_callable(fn) then
    failure.raise('[checkpoint] the function comes first: rp.checkpoint(fn, x)')
  end
  saves_nothing()
  local n = select('#', ...)
  if n > 0 and is_options((select(n, ...))) then
    local list = {...}
    return scope.call(enter_segment, nil, nil, fn, unpack(list, 1, n - 1))
  end
  return scope.call(enter_segment, nil, nil, fn, ...)
end

local function chain(fns, first, last)
  local function step(i, ...)
    if i > last then return ... end
    return step(i + 1, fns[i](...))
  end
  return function(...) return step(first, ...) end
end

local function in_segments(fns, segments, ...)
  local size, extra = math.floor(#fns / segments), #fns % segments
  local first = 1
  local function step(k, ...)
    if k > segments then return ... end
    local last = first + size - 1 + (k <= extra and 1 or 0)
    local run = chain(fns, first, last)
    first = last + 1
    return step(k + 1, scope.checkpoint(run, ...))
  end
  return step(1, ...)
end

--- fns[n](...fns[2](fns[1](x...))), split into `segments` checkpointed
-- segments whose numbers of functions differ by at most one. fns is a list
-- or an nn.Sequential or nn.Layers.
---@param fns function[]|table
---@param segments integer
---@return any ... what the last function returns
function scope.checkpoint_sequential(fns, segments, ...)
  if type(fns) ~= 'table' or #fns == 0 then
    failure.raise('[checkpoint_sequential] a list of functions comes first')
  end
  for i = 1, #fns do
    if not is_callable(fns[i]) then
      failure.raise('[checkpoint_sequential] entry %d of the list is no function but a %s', i,
        type(fns[i]))
    end
  end
  if type(segments) ~= 'number' or segments ~= math.floor(segments) or
    segments < 1 or segments > #fns then
    failure.raise('[checkpoint_sequential] segments is a whole number in ' ..
      '1..%d, not %s', #fns, tostring(segments))
  end
  if fns.within then return fns:within(in_segments, fns, segments, ...) end
  return in_segments(fns, segments, ...)
end

--- Whether new nodes record gradients.
function scope.recording_gradients()
  return modes.recording
end

local function restore(before, ok, ...)
  modes.set_recording(before)
  if ok then return ... end
  return failure.again((...))
end

local function without(fn, ...)
  modes.set_recording(false)
  return fn(...)
end

--- fn(...) without recording gradients. Returns what fn returns.
---@param fn function
function scope.no_grad(fn, ...)
  if not is_callable(fn) then
    failure.raise('[no_grad] a function is wanted, rp.no_grad(fn), not %s', type(fn))
  end
  if modes.may_yield() then return modes.apart(without, fn, ...) end
  return restore(modes.recording, pcall(without, fn, ...))
end

local tapped = {}

--- Makes the value readable after the step under that name, without running
-- anything now: rp.tapped(name).
---@param name string
---@return reprise.Tensor self
function tensor.methods.tap(t, name)
  if type(name) ~= 'string' or name == '' then
    failure.raise("[tap] a name is wanted: x:tap 'hidden'")
  end
  C.rp_tensor_tap(t.ptr)
  tapped[name] = t
  local where = t.scope
  if where ~= '' then tapped[where .. '.' .. name] = t end
  return t
end

--- The tensor last tapped under that name; where several scopes use one
-- name, scope.name tells them apart.
---@param name string
---@return reprise.Tensor
function scope.tapped(name)
  local t = tapped[name]
  if t then return t end
  local names = {}
  for known in pairs(tapped) do names[#names + 1] = known end
  table.sort(names)
  return failure.raise("[tapped] nothing is tapped as '%s'; there is %s", name,
    #names > 0 and table.concat(names, ', ') or 'nothing yet')
end

return scope
