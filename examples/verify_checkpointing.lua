--- Trains twice through train.lua, each in a process of its own, with and
-- without checkpointing, and judges by the logs alone: how much the peak fell,
-- and whether every loss has the same bits.
--   luajit examples/verify_checkpointing.lua
--     [--ckpt SPEC] [--expect LO..HI] [--steps N] [options of train.lua]
-- Ends with 0 where the reduction is LO to HI percent (20..40) and no loss
-- differs, else with 1.

local folder = arg[0]:match '^(.*/)[^/]*$' or './'
local interpreter = arg[-1] or 'luajit'

local given = {ckpt = 'every=1', expect = '20..40', steps = '5'}
local others = {}
local i = 1
while arg[i] do
  local name, value = arg[i]:match '^%-%-(%w+)=?(.*)$'
  if name and given[name] then
    if value == '' then i, value = i + 1, arg[i + 1] end
    given[name] = value
  else
    others[#others + 1] = arg[i]
  end
  i = i + 1
end
local low, high = (given.expect or ''):match '^(%d+%.?%d*)%.%.(%d+%.?%d*)$'
if not low then
  io.stderr:write('verify_checkpointing.lua: --expect LO..HI wants percent, as '
    .. '--expect 20..40\n')
  os.exit(1)
end
low, high = tonumber(low), tonumber(high)

local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- One training; its log's losses, as they are written, and its peak.
local function train(spec)
  local log = os.tmpname()
  local words = {interpreter, quoted(folder .. '../train.lua'), '--ckpt',
    quoted(spec), '--steps', quoted(given.steps), '--log', quoted(log)}
  for _, word in ipairs(others) do words[#words + 1] = quoted(word) end
  local code = os.execute(table.concat(words, ' ') .. ' > /dev/null')
  if code ~= 0 and code ~= true then
    os.remove(log)
    os.exit(1)
  end
  local losses, peak = {}, 0
  for line in io.lines(log) do
    -- 17 digits: the same text is the same bits.
    losses[#losses + 1] = line:match '"loss":([^,}]*)'
    peak = math.max(peak, tonumber(line:match '"peak_bytes":(%d+)'))
  end
  os.remove(log)
  return losses, peak
end

local plain_losses, plain = train 'none'
local losses, checkpointed = train(given.ckpt)
local reduction = 100 * (1 - checkpointed / plain)
local different
for step = 1, math.max(#plain_losses, #losses) do
  if plain_losses[step] ~= losses[step] then different = different or step end
end

print(('none      peak %8.1f MiB'):format(plain / 2 ^ 20))
print(('%-9s peak %8.1f MiB'):format(given.ckpt, checkpointed / 2 ^ 20))
print(('reduction %.1f %%, expected %g to %g %%'):format(reduction, low, high))
print(different
  and ('losses differ, first at step %d: %s and %s'):format(different,
    tostring(plain_losses[different]), tostring(losses[different]))
  or ('losses: the same bits in all of %d steps'):format(#losses))
local passed = not different and #losses > 0 and reduction >= low
  and reduction <= high
print(passed and 'PASS' or 'FAIL')
os.exit(passed and 0 or 1)
