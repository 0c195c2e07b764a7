--- Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019), PyTorch's
-- formulas and defaults. Adam adds weight decay to the gradient, AdamW takes
-- it from the parameter.

local failure = require 'reprise.failure'
local optimizer = require 'reprise.optim.optimizer'

local function numbers(group)
  local betas = group.betas
  if type(betas) ~= 'table' or #betas ~= 2 then
    failure.raise('[Adam] betas is a list of two numbers')
  end
  return {group.lr, betas[1], betas[2], group.eps, group.weight_decay}
end

local function adam(name, op, weight_decay)
  local defaults = {
    lr = 1e-3, betas = {0.9, 0.999}, eps = 1e-8, weight_decay = weight_decay,
  }
  --- Options: lr, betas, eps, weight_decay, clip_grad_norm.
  return function(params, options)
    return optimizer.new(name, op, params, options, defaults, numbers)
  end
end

return {Adam = adam('Adam', 'adam', 0), AdamW = adam('AdamW', 'adamw', 0.01)}
