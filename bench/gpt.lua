--- A training step of gpt-10m, ours and PyTorch eager's in turn: seconds and
-- live bytes above parameters, optimizer state and inputs.
--
--     PYTHON=python3 luajit bench/gpt.lua [--rounds 7] [--ckpt none,every=2]
--         [--dtype bf16]

local measure = dofile(((arg[0]:match '^(.*/)') or './') .. 'measure.lua')
local rp = require 'reprise'
local GPT = require 'examples.models.gpt'

local MIB = 2 ^ 20

local o = measure.options {
  rounds = 7, threads = 2, layers = 6, heads = 6, width = 384, seq = 256,
  batch = 8, vocabulary = 65, dropout = 0.1, dtype = 'f32',
  ckpt = 'none,every=2,every=1,attention', memory_only = 'no',
}

rp.set_num_threads(o.threads)
rp.autocast(o.dtype == 'bf16' and 'bf16')
local peer = measure.peer(o.threads)

--- Our side: a model, its optimizer and a step.
local function ours(spec)
  rp.manual_seed(1)
  local model = GPT {
    vocabulary = o.vocabulary, seq = o.seq, layers = o.layers,
    heads = o.heads, width = o.width, dropout = o.dropout,
  }
  local matrices, vectors = {}, {}
  for _, p in ipairs(model:parameters()) do
    table.insert(#p.shape >= 2 and matrices or vectors, p)
  end
  local opt = rp.optim.AdamW({
    {params = matrices, weight_decay = 0.1},
    {params = vectors, weight_decay = 0},
  }, {lr = 1e-3, betas = {0.9, 0.95}})
  local ids = rp.randint(0, o.vocabulary, {o.batch, o.seq}, {dtype = 'i32'})
  local labels = rp.randint(0, o.vocabulary, {o.batch, o.seq}, {dtype = 'i32'})
  rp.run(ids, labels)
  ids, labels = ids:detach(), labels:detach()
  local function record()
    return model:loss(ids, labels)
  end
  local function step()
    local loss = record()
    opt:minimize(loss, {ckpt = spec})
    return loss:item()
  end
  return {record = record, step = step, plan = function()
    return opt:plan(record(), {ckpt = spec})
  end}
end

local function mib(bytes) return ('%.1f'):format(bytes / MIB) end

local head = {'ckpt', 'ours s', 'peer s', 'ratio', 'ours MiB', 'peer MiB',
              'ratio'}
local rows = {}
for spec in o.ckpt:gmatch '[^,]+' do
  collectgarbage() collectgarbage()
  local side = ours(spec)
  local plan = side.plan()
  local roles = plan.role_bytes
  local live = plan.peak_bytes - roles.parameter - roles.optimizer - roles.input
  local other = {name = spec, ckpt = spec}
  for _, k in ipairs {'vocabulary', 'seq', 'layers', 'heads', 'width', 'batch',
                      'dropout', 'dtype'} do
    other[k] = o[k]
  end
  local peer_live
  if peer then
    peer:ask('gpt', other)
    peer_live = peer:ask('memory', spec).live_bytes
  end
  local mine, theirs = {}, {}
  if o.memory_only == 'no' then
    side.step()
    if peer then peer:ask('step', spec) end
    for round = 1, o.rounds do
      mine[round] = measure.seconds(side.step)
      if peer then theirs[round] = peer:ask('step', spec).seconds end
    end
  end
  if peer then peer:ask('drop', spec) end
  local a, b = measure.median(mine), peer and measure.median(theirs)
  rows[#rows + 1] = {
    spec, ('%.3f'):format(a), b and ('%.3f'):format(b),
    b and ('%.2f'):format(a / b), mib(live), peer and mib(peer_live),
    peer and ('%.2f'):format(live / peer_live),
  }
end

print(('gpt: %d layers, %d heads, %d wide, batch %d, sequence %d, dropout %g, '
  .. '%s, AdamW, %d threads; medians of %d rounds')
  :format(o.layers, o.heads, o.width, o.batch, o.seq, o.dropout, o.dtype,
    o.threads, o.rounds))
measure.print_table(head, rows)
if peer then peer:close() end
