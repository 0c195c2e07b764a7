--- Training a classifier on MNIST-like images: batches, loss, test loss.

local rp = require 'reprise'
local generator = require 'reprise.data.generator'
local idx = require 'reprise.data.idx'
local input = require 'reprise.train.input'

local CLASSES = 10
-- Mean and deviation of Fashion-MNIST's training pixels, as 0 .. 1.
local MEAN, DEVIATION = 0.2860, 0.3530
-- At most this many test images are seen at a loss, so that it takes a small
-- part of the time.
local MOST_TEST_IMAGES = {mlp = 10000, resnet = 1000}

local ImageTask = {}
ImageTask.__index = ImageTask

-- What the model is told, and an image as it takes it.
local function config_of(options, images)
  if options.model == 'mlp' then
    return {inputs = images.pixels, width = options.width, layers = options.layers,
      classes = CLASSES, dropout = options.dropout}, {images.pixels}
  end
  return {channels = 1, width = options.width, layers = options.layers,
    classes = CLASSES}, {1, images.rows, images.columns}
end

--- The task; `Model` is examples/models/mlp.lua's or resnet.lua's.
---@param options reprise.TrainOptions
---@param Model function
---@return table task
function ImageTask.new(options, Model)
  local train, test = idx.load(options.data)
  if not train then
    local hint = options.data and '' or ('; Fashion-MNIST is Debian\'s package '
      .. 'dataset-fashion-mnist (make deps), or give a folder with --data')
    error(tostring(test) .. hint, 0)
  end
  for _, part in ipairs {train, test} do
    if part.n < options.batch then
      error(('--batch %d: there are only %d images'):format(options.batch,
        part.n), 0)
    end
  end
  local self = setmetatable({
    options = options, train = train, test = test, unit = 'images',
    items = options.batch, random = generator.new(options.seed, 1),
    order = {}, next = math.huge,
  }, ImageTask)
  local config, image = config_of(options, train)
  self.model = Model(config)
  self.images = input.new('images', rp.get_default_dtype(),
    {options.batch, unpack(image)})
  self.labels = input.new('labels', 'i32', {options.batch})
  return self
end

--- What is trained, in a few words.
function ImageTask:title()
  return ('%s · batch %d'):format(self.options.model, self.options.batch)
end

--- Where the images come from.
function ImageTask:data_line()
  return ('%s: %d images to learn from, %d held out'):format(
    self.options.data or idx.fashion_mnist_folder, self.train.n, self.test.n)
end

--- The loss of the present batch; records, nothing runs.
---@return reprise.Tensor
function ImageTask:loss()
  return rp.cross_entropy(self.model(self.images.tensor), self.labels.tensor)
end

-- Image `which` (0-based) of a part into row `row` of the inputs.
local function copy(self, part, which, row)
  local pixels = part.pixels
  local from, to = part.images + which * pixels,
    self.images:array() + row * pixels
  for k = 0, pixels - 1 do to[k] = (from[k] / 255 - MEAN) / DEVIATION end
  self.labels:array()[row] = part.labels[which]
end

local function commit(self)
  self.images:commit()
  self.labels:commit()
end

-- A new order of the training images (Fisher and Yates).
local function shuffle(self)
  local order, random = self.order, self.random
  for i = 1, self.train.n do order[i] = order[i] or i - 1 end
  for i = self.train.n, 2, -1 do
    local j = random:below(i) + 1
    order[i], order[j] = order[j], order[i]
  end
  self.next = 1
end

--- Puts the next training batch into the inputs; the last images of an epoch
--- that fill no batch are left out, so that every batch has one shape.
function ImageTask:next_batch()
  local batch = self.options.batch
  if self.next + batch - 1 > self.train.n then shuffle(self) end
  for row = 0, batch - 1 do
    copy(self, self.train, self.order[self.next + row], row)
  end
  self.next = self.next + batch
  commit(self)
end

--- The mean loss over the test images.
---@return number
function ImageTask:held_out_loss()
  local batch, total = self.options.batch, 0
  local batches = math.floor(math.min(self.test.n,
    math.max(batch, MOST_TEST_IMAGES[self.options.model])) / batch)
  for i = 0, batches - 1 do
    for row = 0, batch - 1 do copy(self, self.test, i * batch + row, row) end
    commit(self)
    total = total + self:loss():item()
  end
  return total / batches
end

return ImageTask
