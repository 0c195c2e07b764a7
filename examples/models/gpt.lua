--- GPT-2 (Radford et al., 2019): pre-norm blocks, learned positions, tanh
-- GELU, a final norm, and a head that is the token embedding again.

local rp = require 'reprise'
local nn = rp.nn

local MLP = nn.module('MLP', function(self, width, dropout)
  self.fc, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
  self.gelu = nn.GELU {approximate = 'tanh'}
  self.dropout = nn.Dropout(dropout)
end)

function MLP:forward(x)
  return self.dropout(self.out(self.gelu(self.fc(x))))
end

local Block = nn.module('Block', function(self, width, heads, dropout)
  self.norm1 = nn.LayerNorm(width)
  self.attention = nn.MultiHeadAttention(width, heads,
    {causal = true, dropout = dropout})
  self.dropout = nn.Dropout(dropout)
  self.norm2, self.mlp = nn.LayerNorm(width), MLP(width, dropout)
end)

function Block:forward(x)
  x = x + self.dropout(self.attention(self.norm1(x)))
  return x + self.mlp(self.norm2(x))
end

-- GPT-2's: normal with 0.02; what is added to the residual stream is smaller
-- with depth, so that the stream's variance does not grow with it.
local function initialize(model, layers)
  for path, part in model:named_modules() do
    if part.class_name == 'Linear' or part.class_name == 'Embedding' then
      local deviation = 0.02
      if path:match '%.out$' then deviation = 0.02 / math.sqrt(2 * layers) end
      part.weight = nn.Parameter(rp.randn(part.weight.shape) * deviation)
      if part.bias then part.bias = nn.Parameter(rp.zeros(part.bias.shape)) end
    end
  end
end

---@class GPTConfig
---@field vocabulary integer
---@field seq integer the most tokens in a sequence
---@field layers integer
---@field heads integer
---@field width integer
---@field dropout number of embeddings, attention weights, residual branches

local GPT = nn.module('GPT', function(self, config)
  self.tokens = nn.Embedding(config.vocabulary, config.width)
  self.positions = nn.Parameter(rp.randn(config.seq, config.width) * 0.02)
  self.dropout = nn.Dropout(config.dropout)
  self.blocks = nn.Layers(config.layers, function()
    return Block(config.width, config.heads, config.dropout)
  end)
  self.norm = nn.LayerNorm(config.width)
  initialize(self, config.layers)
end)

--- tokens (B, T) -> what the head reads (B, T, width).
function GPT:features(tokens)
  local positions = self.positions:narrow(1, 1, tokens.shape[2])
  local x = self.dropout(self.tokens(tokens) + positions)
  return self.norm(self.blocks(x))
end

--- features (..., width) -> logits (..., vocabulary).
function GPT:head(features)
  return rp.linear(features, self.tokens.weight)
end

--- tokens (B, T) -> logits (B, T, vocabulary).
function GPT:forward(tokens)
  return self:head(self:features(tokens))
end

--- tokens, targets (B, T) -> their mean cross entropy. The head is part of
-- the loss, so that logits for all tokens are never held at once.
function GPT:loss(tokens, targets)
  return self:within(function()
    return rp.linear_cross_entropy(self:features(tokens), self.tokens.weight,
      targets)
  end)
end

return GPT
