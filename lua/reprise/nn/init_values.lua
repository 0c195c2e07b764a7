--- First values of parameters, as recipes.

local ops = require 'reprise.ops'

local init_values = {}

--- Uniform in -bound..bound.
function init_values.uniform(sizes, bound, dtype)
  return ops.rand(sizes, {dtype = dtype}) * (2 * bound) - bound
end

--- Normal with mean 0.
function init_values.normal(sizes, deviation, dtype)
  return ops.randn(sizes, {dtype = dtype}) * deviation
end

function init_values.zeros(sizes, dtype)
  return ops.zeros(sizes, {dtype = dtype})
end

function init_values.ones(sizes, dtype)
  return ops.ones(sizes, {dtype = dtype})
end

return init_values
