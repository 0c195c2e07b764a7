--- A plain classifier: a first layer, hidden layers, a linear head.

local rp = require 'reprise'
local nn = rp.nn

local Hidden = nn.module('Hidden', function(self, inputs, width, dropout)
  self.linear = nn.Linear(inputs, width)
  self.relu, self.dropout = nn.ReLU(), nn.Dropout(dropout)
end)

function Hidden:forward(x)
  return self.dropout(self.relu(self.linear(x)))
end

---@class MLPConfig
---@field inputs integer
---@field width integer
---@field layers integer hidden layers after the first
---@field classes integer
---@field dropout number

local MLP = nn.module('MLP', function(self, config)
  -- One stack for strategies: `every=2` reprises stack.1, stack.3, ...
  self.stack = nn.Layers(config.layers + 1, function(i)
    return Hidden(i == 1 and config.inputs or config.width, config.width,
      config.dropout)
  end)
  self.head = nn.Linear(config.width, config.classes)
end)

--- x (B, inputs) -> logits (B, classes).
function MLP:forward(x)
  return self.head(self.stack(x))
end

return MLP
