--- A small U-Net (Ronneberger et al., 2015): down by pooling, up by
-- upsampling, and each way up reads what the way down left at its size.

local rp = require 'reprise'
local nn = rp.nn

local Double = nn.module('Double', function(self, inputs, outputs)
  self.conv1 = nn.Conv2d(inputs, outputs, 3, {padding = 1, bias = false})
  self.norm1 = nn.BatchNorm2d(outputs)
  self.conv2 = nn.Conv2d(outputs, outputs, 3, {padding = 1, bias = false})
  self.norm2 = nn.BatchNorm2d(outputs)
end)

function Double:forward(x)
  x = rp.relu(self.norm1(self.conv1(x)))
  return rp.relu(self.norm2(self.conv2(x)))
end

---@class UNetConfig
---@field channels integer of an image
---@field classes integer a pixel
---@field width integer channels at full size; doubled at each level down
---@field levels integer times that the size is halved

local UNet = nn.module('UNet', function(self, config)
  local width, levels = config.width, config.levels
  self.down, self.up = {}, {}
  for i = 1, levels do
    local inputs = i == 1 and config.channels or width * 2 ^ (i - 2)
    self.down[i] = Double(inputs, width * 2 ^ (i - 1))
    self.up[i] = Double(width * 3 * 2 ^ (i - 1), width * 2 ^ (i - 1))
  end
  self.bottom = Double(width * 2 ^ (levels - 1), width * 2 ^ levels)
  self.pool, self.grow = nn.MaxPool2d(2), nn.Upsample {scale_factor = 2}
  self.head = nn.Conv2d(width, config.classes, 1)
end)

--- x (B, channels, H, W) -> logits (B, classes, H, W); 2^levels divides H
-- and W.
function UNet:forward(x)
  local skips = {}
  for i = 1, #self.down do
    skips[i] = self.down[i](x)
    x = self.pool(skips[i])
  end
  x = self.bottom(x)
  for i = #self.up, 1, -1 do
    x = self.up[i](rp.cat({self.grow(x), skips[i]}, 2))
  end
  return self.head(x)
end

return UNet
