--- Gradients as recipes: they are recorded, nothing runs.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local device = require 'reprise.device'
local failure = require 'reprise.failure'
local tensor = require 'reprise.tensor'

local C, ctx = binding.C, binding.ctx
local own, pointer = tensor.own, tensor.pointer

local grad = {}

local function pointers(list, where)
  local array = ffi.new('rp_tensor *[?]', math.max(#list, 1))
  for i = 1, #list do array[i - 1] = pointer(list[i], where) end
  return array
end

--- Gradients of sum(y * d_y) with respect to each of xs; y is a scalar when
-- d_y is absent. A list gives a list, a single tensor a tensor. The results
-- are recorded and can be differentiated again.
---@param y reprise.Tensor
---@param xs reprise.Tensor|reprise.Tensor[]
---@param d_y reprise.Tensor?
---@return reprise.Tensor|reprise.Tensor[]
function grad.grad(y, xs, d_y)
  pointer(y, 'grad')
  local single = tensor.is(xs)
  local list = single and {xs} or xs
  if type(list) ~= 'table' then
    failure.raise('[grad] a list of tensors is wanted: rp.grad(y, {a, b})')
  end
  local n = #list
  local out = ffi.new('rp_tensor *[?]', math.max(n, 1))
  failure.check(C.rp_grad(y.ptr, d_y and pointer(d_y, 'grad') or nil,
    pointers(list, 'grad'), n, out))
  local result = {}
  for i = 1, n do result[i] = own(out[i - 1]) end
  if single then return result[1] end
  return result
end

--- A function of fn's arguments that returns fn's (scalar) value and its
-- gradient with respect to each floating tensor among the arguments, in
-- order: loss, d_w, d_b = rp.value_and_grad(fn)(w, b).
---@param fn fun(...): reprise.Tensor
---@return fun(...): reprise.Tensor, ...
function grad.value_and_grad(fn)
  return function(...)
    local xs = {}
    for i = 1, select('#', ...) do
      local x = select(i, ...)
      if tensor.is(x) and C.rp_tensor_type(x.ptr).dtype <= C.RP_BF16 then
        xs[#xs + 1] = x
      end
    end
    local value = fn(...)
    return value, unpack(grad.grad(value, xs))
  end
end

--- y = forward(x...) with a gradient of your own. backward is called once,
-- at record time, with (d_y..., y..., x...) and returns (d_x...), recorded
-- from them; nil where an x has no gradient. Returns a function to call in
-- place of forward.
---@param forward fun(...): reprise.Tensor, ...
---@param backward fun(...): reprise.Tensor?, ...
---@return fun(...): reprise.Tensor, ...
function grad.custom_vjp(forward, backward)
  if type(forward) ~= 'function' or type(backward) ~= 'function' then
    failure.raise('[custom_vjp] two functions are wanted: ' ..
      'rp.custom_vjp(forward, backward)')
  end
  return function(...)
    local xs, n_x = {...}, select('#', ...)
    for i = 1, n_x do pointer(xs[i], 'custom_vjp') end
    local ys = {forward(...)}
    if #ys == 0 then failure.raise('[custom_vjp] forward returned nothing') end
    local given, d_ys = {}, {}
    for i = 1, #ys do
      pointer(ys[i], 'custom_vjp forward')
      d_ys[i] = own(device.beside(ys[i], C.rp_leaf, ctx, C.RP_INPUT,
        C.rp_tensor_type(ys[i].ptr)))
      given[i] = d_ys[i]
    end
    for i = 1, #ys do given[#ys + i] = ys[i] end
    for i = 1, n_x do given[2 * #ys + i] = xs[i] end
    local d_xs = {backward(unpack(given, 1, 2 * #ys + n_x))}
    local d_x = ffi.new('rp_tensor *[?]', math.max(n_x, 1))
    for i = 1, n_x do
      d_x[i - 1] = d_xs[i] ~= nil and pointer(d_xs[i], 'custom_vjp backward') or nil
    end
    local y = own(C.rp_custom_vjp(ctx, pointers(ys, 'custom_vjp'),
      pointers(d_ys, 'custom_vjp'), #ys, pointers(xs, 'custom_vjp'), d_x, n_x))
    local results = {y}
    for i = 2, #ys do results[i] = own(C.rp_tensor_output(y.ptr, i - 1)) end
    return unpack(results, 1, #ys)
  end
end

return grad
