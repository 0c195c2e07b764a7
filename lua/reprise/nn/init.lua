--- Networks: modules and their parameters.

local activation = require 'reprise.nn.activation'
local attention = require 'reprise.nn.attention'
local containers = require 'reprise.nn.containers'
local image = require 'reprise.nn.image'
local linear = require 'reprise.nn.linear'
local module = require 'reprise.nn.module'
local norm = require 'reprise.nn.norm'
local walk = require 'reprise.nn.walk'

local nn = {
  module = module.class,
  Parameter = module.Parameter,
  Buffer = module.Buffer,
  is_module = walk.is_module,
}

for _, family in ipairs{activation, attention, containers, image, linear, norm} do
  for name, class in pairs(family) do nn[name] = class end
end

return nn
