--- Convolutions of a ResNet-18 for 32 x 32 images, one shape after another:
-- milliseconds of processor time on one thread, so that other work on the
-- machine counts little, of the forward pass and of both gradients.
--
--     luajit bench/convolutions.lua [--batch 32] [--repeats 12]

local measure = dofile(((arg[0]:match '^(.*/)') or './') .. 'measure.lua')
local rp = require 'reprise'

local o = measure.options {batch = 32, repeats = 12}
rp.set_num_threads(1)
rp.manual_seed(1)

-- in, out, size, stride, kernel
local shapes = {
  {3, 64, 32, 1, 3}, {64, 64, 32, 1, 3}, {128, 128, 16, 1, 3}, {256, 256, 8, 1, 3},
  {512, 512, 4, 1, 3}, {64, 128, 32, 2, 3}, {128, 256, 16, 2, 3}, {256, 512, 8, 2, 3},
  {64, 128, 32, 2, 1}, {128, 256, 16, 2, 1}, {256, 512, 8, 2, 1},
}

local function milliseconds(record)
  local times = {}
  for i = 1, o.repeats do
    local made = record()
    times[i] = measure.seconds(function() made:run() end, measure.processor)
  end
  return ('%.2f'):format(1e3 * measure.median(times))
end

local rows = {}
for _, shape in ipairs(shapes) do
  local inputs, outputs, size, stride, kernel = unpack(shape)
  local x = rp.nn.Parameter(rp.randn(o.batch, inputs, size, size))
  local w = rp.nn.Parameter(rp.randn(outputs, inputs, kernel, kernel))
  local dy = rp.randn(o.batch, outputs, size / stride, size / stride):run()
  local function forward()
    return rp.conv2d(x, w, nil, {padding = (kernel - 1) / 2, stride = stride})
  end
  local function gradient(of)
    return function() return rp.grad((forward() * dy):sum(), {of})[1] end
  end
  rows[#rows + 1] = {
    ('%d to %d, %d x %d, kernel %d, stride %d'):format(inputs, outputs, size, size,
      kernel, stride),
    milliseconds(forward), milliseconds(gradient(x)), milliseconds(gradient(w)),
  }
end
measure.print_table({'convolution, ms', 'forward', 'dx', 'dw'}, rows)
