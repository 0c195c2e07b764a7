--- ResNet-18 for small images (He et al., 2016, "Deep residual learning for
-- image recognition"): as for CIFAR, the stem is one 3x3 convolution and
-- nothing is pooled before the end.

local rp = require 'reprise'
local nn = rp.nn

local function conv3x3(inputs, outputs, stride)
  return nn.Conv2d(inputs, outputs, 3, {stride = stride, padding = 1, bias = false})
end

local BasicBlock = nn.module('BasicBlock', function(self, inputs, outputs, stride)
  self.conv1 = conv3x3(inputs, outputs, stride)
  self.norm1 = nn.BatchNorm2d(outputs)
  self.conv2 = conv3x3(outputs, outputs, 1)
  self.norm2 = nn.BatchNorm2d(outputs)
  if stride ~= 1 or inputs ~= outputs then
    self.shortcut = nn.Sequential {
      nn.Conv2d(inputs, outputs, 1, {stride = stride, bias = false}),
      nn.BatchNorm2d(outputs),
    }
  end
end)

-- The shortcut comes first, so that backward, which goes the other way, makes
-- its gradient last and does not hold it beside the branch's.
function BasicBlock:forward(x)
  local shortcut = self.shortcut and self.shortcut(x) or x
  local h = rp.relu(self.norm1(self.conv1(x)))
  return rp.relu(self.norm2(self.conv2(h)) + shortcut)
end

---@class ResNetConfig
---@field channels integer of an image
---@field width integer channels of the first stage; doubled by each later one
---@field layers integer blocks, a multiple of the four stages; 8 is ResNet-18
---@field classes integer

local STAGES = 4

-- He et al., 2015: normal, so that a ReLU network's gradients keep their size.
local function initialize(model)
  for _, part in model:named_modules() do
    if part.class_name == 'Conv2d' then
      local sizes = part.weight.shape
      local fan_out = sizes[1] * sizes[3] * sizes[4]
      part.weight = nn.Parameter(rp.randn(sizes) * math.sqrt(2 / fan_out))
    end
  end
end

local ResNet = nn.module('ResNet', function(self, config)
  local width = config.width
  self.conv = conv3x3(config.channels, width, 1)
  self.norm = nn.BatchNorm2d(width)
  local each = config.layers / STAGES
  self.blocks = nn.Layers(config.layers, function(i)
    local stage = math.floor((i - 1) / each)
    local first = (i - 1) % each == 0 and stage > 0
    local outputs = width * 2 ^ stage
    return BasicBlock(first and outputs / 2 or outputs, outputs, first and 2 or 1)
  end)
  self.head = nn.Linear(width * 2 ^ (STAGES - 1), config.classes)
  initialize(self)
end)

--- x (B, channels, height, width) -> logits (B, classes).
function ResNet:forward(x)
  x = self.blocks(rp.relu(self.norm(self.conv(x))))
  return self.head(rp.flatten(rp.adaptive_avg_pool2d(x, 1), 2))
end

return ResNet
