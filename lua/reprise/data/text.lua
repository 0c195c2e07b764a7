--- Text as tokens: one token a character (a byte), the vocabulary from the
-- text itself, its last tenth held out.

local ffi = require 'ffi'
local generator = require 'reprise.data.generator'

---@class reprise.Text
---@field vocabulary string[] the characters, by token + 1, in byte order
---@field tokens ffi.cdata* int32_t[length], 0-based ids
---@field length integer
---@field train_length integer tokens before the held-out part
---@field name string what messages call it
local Text = {}
Text.__index = Text

local text = {}

--- A text in memory.
---@param content string not empty
---@param name? string what messages call it
---@return reprise.Text
function text.new(content, name)
  if #content == 0 then error((name or 'the text') .. ' is empty', 2) end
  local seen, vocabulary, id = {}, {}, {}
  for i = 1, #content do seen[content:byte(i)] = true end
  for byte = 0, 255 do
    if seen[byte] then
      id[byte] = #vocabulary
      vocabulary[#vocabulary + 1] = string.char(byte)
    end
  end
  local tokens = ffi.new('int32_t[?]', #content)
  for i = 1, #content do tokens[i - 1] = id[content:byte(i)] end
  return setmetatable({
    vocabulary = vocabulary, id = id, tokens = tokens, length = #content,
    train_length = #content - math.floor(#content / 10),
    name = name or 'the text',
  }, Text)
end

--- A text from a file.
---@param path string
---@return reprise.Text? text nil: the file cannot be read or is empty
---@return string? problem why
function text.load(path)
  local file, problem = io.open(path, 'rb')
  if not file then
    -- "path: reason": the caller says the path.
    return nil, (problem:gsub('^.*: ', ''))
  end
  local content, why = file:read '*a'
  file:close()
  if not content then return nil, (why or 'cannot be read') end
  if #content == 0 then return nil, 'the file is empty' end
  return text.new(content, path)
end

--- Whether windows of seq tokens (and the one after) fit into both parts.
---@param seq integer
---@return boolean fits
---@return string? problem what would be right
function Text:fits(seq)
  local held_out = self.length - self.train_length
  if held_out > seq then return true end
  local least = 10 * (seq + 1)
  local longest = held_out - 1
  return false, ('a sequence of %d needs a text of at least %d characters '
    .. '(the last tenth is held out); %s has %d%s'):format(seq, least,
    self.name, self.length, longest >= 1
      and (': use --seq %d or less'):format(longest) or '')
end

-- Copies window `start` (0-based) into row `row` of inputs and targets.
local function copy_window(self, start, seq, row, inputs, targets)
  local size = ffi.sizeof 'int32_t' * seq
  ffi.copy(inputs + row * seq, self.tokens + start, size)
  ffi.copy(targets + row * seq, self.tokens + start + 1, size)
end

--- A function that fills `inputs` and `targets` (int32_t[batch * seq]; targets
--- are one token on) with random windows of the training part.
---@param batch integer
---@param seq integer
---@param seed integer
---@return fun(inputs: ffi.cdata*, targets: ffi.cdata*)
function Text:random_windows(batch, seq, seed)
  local random = generator.new(seed, 1)
  local starts = self.train_length - seq
  return function(inputs, targets)
    for row = 0, batch - 1 do
      copy_window(self, random:below(starts), seq, row, inputs, targets)
    end
  end
end

--- Batches of windows spread evenly over the held-out part, the same on every
--- call: their number (at most `most`) and a function that fills the i-th.
---@param batch integer
---@param seq integer
---@param most integer
---@return integer batches at least 1
---@return fun(i: integer, inputs: ffi.cdata*, targets: ffi.cdata*)
function Text:held_out_windows(batch, seq, most)
  local room = self.length - self.train_length - seq
  local whole = math.floor((room - 1) / seq) + 1
  local batches = math.max(1, math.min(most, math.floor(whole / batch)))
  local rows = batches * batch
  return batches, function(i, inputs, targets)
    for row = 0, batch - 1 do
      local k = (i - 1) * batch + row
      local start = rows == 1 and 0 or math.floor(k * (room - 1) / (rows - 1))
      copy_window(self, self.train_length + start, seq, row, inputs, targets)
    end
  end
end

--- Tokens of a string; nil and the character that the vocabulary lacks.
---@param s string
---@return integer[]? tokens
---@return string? missing
function Text:encode(s)
  local out = {}
  for i = 1, #s do
    local id = self.id[s:byte(i)]
    if not id then return nil, s:sub(i, i) end
    out[i] = id
  end
  return out
end

--- The string of a list of tokens; a token beyond the vocabulary becomes `?`.
---@param tokens integer[]
---@return string
function Text:decode(tokens)
  local out = {}
  for i, token in ipairs(tokens) do
    out[i] = self.vocabulary[token + 1] or '?'
  end
  return table.concat(out)
end

return text
