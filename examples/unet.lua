--- Segmentation with a U-Net: every pixel of a noisy picture says whether it
-- lies in a disc. The skips join far-apart parts, so no value is all that the
-- rest of the network reads; plans work op by op all the same.
dofile((arg[0]:match '^(.*/)[^/]*$' or './') .. 'setup.lua')

local rp = require 'reprise'
local UNet = require 'examples.models.unet'

local BATCH, SIZE, STEPS = 8, 32, 60

rp.manual_seed(1)
local model = UNet {channels = 1, classes = 2, width = 8, levels = 3}
local opt = rp.optim.AdamW(model:parameters(), {lr = 1e-2})

-- A disc somewhere, seen through noise.
local function draw(pictures, inside)
  for b = 0, BATCH - 1 do
    local x, y, r = math.random(8, 24), math.random(8, 24), math.random(4, 9)
    for i = 0, SIZE * SIZE - 1 do
      local dx, dy = i % SIZE - x, math.floor(i / SIZE) - y
      local at = b * SIZE * SIZE + i
      inside[at] = dx * dx + dy * dy <= r * r and 1 or 0
      pictures[at] = inside[at] + 2 * (math.random() - 0.5)
    end
  end
end

math.randomseed(1)
local batches = rp.data.loader({
  {BATCH, 1, SIZE, SIZE}, {BATCH * SIZE * SIZE, dtype = 'i32'},
}, draw)

local function loss_of(pictures, inside)
  local logits = model(pictures):permute(1, 3, 4, 2):reshape(-1, 2)
  return rp.cross_entropy(logits, inside), logits
end

local pictures, inside = batches:next()
for _, spec in ipairs {'none', 'ops', 'sqrt', 'budget=80%', 'budget=min'} do
  local plan = opt:plan(loss_of(pictures, inside), {ckpt = spec})
  print(('%-11s peak %4.1f MiB, recomputes %2.0f %% of the forward'):format(spec,
    plan.peak_bytes / 2 ^ 20, 100 * plan.replay_seconds / plan.forward_seconds))
end

for step = 1, STEPS do
  local loss, logits = loss_of(pictures, inside)
  opt:minimize(loss, {ckpt = 'budget=80%', also = {logits}})
  if step % 20 == 0 then
    local right = logits:argmax(-1):to('i32'):eq(inside):to('f32'):mean()
    print(('step %d  loss %.3f  pixels right %.1f %%'):format(step, loss:item(),
      100 * right:item()))
  end
  pictures, inside = batches:next()
end
