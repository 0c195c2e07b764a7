--- Optimizers and learning-rate schedules.

local adam = require 'reprise.optim.adam'
local schedule = require 'reprise.optim.schedule'

return {
  SGD = require 'reprise.optim.sgd',
  Adam = adam.Adam,
  AdamW = adam.AdamW,
  warmup_cosine = schedule.warmup_cosine,
}
