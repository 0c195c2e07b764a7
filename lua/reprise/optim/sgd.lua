--- Stochastic gradient descent, PyTorch's formulas: g += weight_decay * p;
-- with momentum m = momentum * m + (1 - dampening) * g (m = g at first) and
-- g = g + momentum * m (nesterov) or m; p -= lr * g.

local failure = require 'reprise.failure'
local optimizer = require 'reprise.optim.optimizer'

local defaults = {
  lr = 1e-3, momentum = 0, dampening = 0, weight_decay = 0, nesterov = false,
}

local function plain(group)
  return {group.lr, group.weight_decay}
end

local function with_momentum(group)
  return {
    group.lr, group.momentum, group.dampening, group.weight_decay,
    group.nesterov and 1 or 0,
  }
end

local function any(params, options, name)
  if options and options[name] and options[name] ~= 0 then return true end
  for _, group in ipairs(params) do
    if type(group) == 'table' and rawget(group, 'params') and group[name] and
      group[name] ~= 0 then
      return true
    end
  end
  return false
end

--- Options: lr (1e-3), momentum, dampening, weight_decay, nesterov,
-- clip_grad_norm; lr and the others may differ by group.
---@param params table  parameters, or groups {params = ..., lr = ...}
---@param options table?
---@return reprise.Optimizer
return function(params, options)
  if any(params, options, 'momentum') then
    return optimizer.new('SGD', 'sgd_momentum', params, options, defaults, with_momentum)
  end
  if any(params, options, 'nesterov') then
    failure.raise('[SGD] nesterov wants a momentum above 0')
  end
  return optimizer.new('SGD', 'sgd', params, options, defaults, plain)
end
