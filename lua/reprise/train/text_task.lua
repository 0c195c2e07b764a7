--- Training a language model on text: batches, loss, held-out loss, sample.

local corpus = require 'reprise.data.corpus'
local generator = require 'reprise.data.generator'
local input = require 'reprise.train.input'
local text = require 'reprise.data.text'
local units = require 'reprise.report.units'

-- Batches of a held-out loss: enough that it says something, few enough that
-- it takes a small part of the time.
local HELD_OUT_BATCHES = 8
local TEMPERATURE = 0.6

local TextTask = {}
TextTask.__index = TextTask

local function load(options)
  if not options.data then
    return text.new(corpus.generate(), 'the built-in corpus')
  end
  local loaded, problem = text.load(options.data)
  if not loaded then
    error(('--data %s: %s'):format(options.data, problem), 0)
  end
  return loaded
end

--- The task; `Model` is examples/models/gpt.lua's or one with its methods.
---@param options reprise.TrainOptions
---@param Model function
---@return table task
function TextTask.new(options, Model)
  local source = load(options)
  local fits, problem = source:fits(options.seq)
  if not fits then error(problem, 0) end
  local vocabulary = options.vocabulary or #source.vocabulary
  local self = setmetatable({
    options = options, text = source, unit = 'tokens',
    items = options.batch * options.seq,
  }, TextTask)
  self.model = Model {vocabulary = vocabulary, seq = options.seq,
    layers = options.layers, heads = options.heads, width = options.width,
    dropout = options.dropout}
  self.tokens = input.new('tokens', 'i32', {options.batch, options.seq})
  self.targets = input.new('targets', 'i32', {options.batch, options.seq})
  self.draw = source:random_windows(options.batch, options.seq, options.seed)
  return self
end

--- What is trained, in a few words.
function TextTask:title()
  local o = self.options
  return ('%s · batch %d · sequence %d'):format(o.preset, o.batch, o.seq)
end

--- Where the text comes from and what it is like.
function TextTask:data_line()
  return ('%s: %s characters, %d different, the last tenth held out'):format(
    self.text.name, units.count(self.text.length), #self.text.vocabulary)
end

--- The loss of the present batch; records, nothing runs.
---@return reprise.Tensor
function TextTask:loss()
  return self.model:loss(self.tokens.tensor, self.targets.tensor)
end

local function commit(self)
  self.tokens:commit()
  self.targets:commit()
end

--- Puts the next training batch into the inputs.
function TextTask:next_batch()
  self.draw(self.tokens:array(), self.targets:array())
  commit(self)
end

--- The mean loss over windows of the held-out part.
---@return number
function TextTask:held_out_loss()
  local o, total = self.options, 0
  local batches, fill = self.text:held_out_windows(o.batch, o.seq,
    HELD_OUT_BATCHES)
  for i = 1, batches do
    fill(i, self.tokens:array(), self.targets:array())
    commit(self)
    total = total + self:loss():item()
  end
  return total / batches
end

-- One of `count` tokens with probability softmax(logits / temperature).
local function draw(logits, count, random)
  local most = -math.huge
  for i = 1, count do most = math.max(most, logits[i]) end
  local weights, sum = {}, 0
  for i = 1, count do
    weights[i] = math.exp((logits[i] - most) / TEMPERATURE)
    sum = sum + weights[i]
  end
  local u = random:unit() * sum
  for i = 1, count do
    u = u - weights[i]
    if u < 0 then return i - 1 end
  end
  return count - 1
end

-- A window of fixed length: one plan serves all tokens. What stands right of
-- the position is not attended to, so it need not be cleared.
local function slide(window, used, seq)
  if used < seq then return used end
  for k = 0, seq - 2 do window[k] = window[k + 1] end
  return seq - 1
end

--- Text that the model writes, after a line's end.
---@param length integer characters
---@param stopped fun(): boolean asked before each character
---@return string
function TextTask:sample(length, stopped)
  local seq, random = self.options.seq, generator.new(self.options.seed, 2)
  local window = input.new('window', 'i32', {1, seq})
  local position = input.new('position', 'i32', {1})
  local data, out = window:array(), {}
  data[0] = self.text.id[('\n'):byte()] or 0
  local used = 1
  while #out < length and not stopped() do
    position:array()[0] = used - 1
    position:commit()
    window:commit()
    local features = self.model:features(window.tensor)
    local logits = self.model:head(features:index_select(2, position.tensor))
    local row = logits:reshape(-1):totable()
    local token = draw(row, #self.text.vocabulary, random)
    out[#out + 1] = token
    used = slide(data, used, seq)
    data[used] = token
    used = used + 1
  end
  return self.text:decode(out)
end

return TextTask
