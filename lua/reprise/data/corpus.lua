--- The built-in corpus: simple stories, generated, the same for a seed.
--
-- What there is to learn from it, from easy to hard: words; spelling after
-- quotes and full stops; the grammar of short English sentences; that a name
-- brings its pronoun; that a place brings what is found there; that a thing
-- lost at the start is found at the end, in a way that fits how it was lost;
-- that five coins less three leaves two.
--
-- The stories themselves are in reprise.data.stories: templates of sentences,
-- in which `{key}` is a slot and `(a|b|c)` a choice. This file fills them.

local generator = require 'reprise.data.generator'
local stories = require 'reprise.data.stories'

local corpus = {}

local function capital(text)
  return (text:gsub('^"?%l', string.upper))
end

-- {x} {x.he} {X.he}: a character's name, a pronoun, the same with a capital;
-- {thing} {a thing} {things}: a noun, with its article, in the plural.
local function slot(env, key)
  local who, what = key:match '^(%a)%.(%a+)$'
  if who then
    local value = env[who:lower()][what]
    return who:match '%u' and capital(value) or value
  end
  local noun = key:match '^a (.+)$'
  if noun then
    local value = slot(env, noun)
    return (value:match '^[aeiou]' and 'an ' or 'a ') .. value
  end
  local value = env[key]
  if type(value) == 'table' then value = value.name end
  return value or error('no value for {' .. key .. '}')
end

--- Fills one template: innermost choices first, then slots.
---@param template string
---@param env table slot values
---@param random reprise.Generator
---@return string sentence with a capital
function corpus.fill(template, env, random)
  local count
  repeat
    template, count = template:gsub('%(([^()]*)%)', function(choices)
      local list = {}
      for choice in (choices .. '|'):gmatch '([^|]*)|' do
        list[#list + 1] = choice
      end
      return random:pick(list)
    end)
  until count == 0
  -- Twice: a slot's value may hold slots itself.
  for _ = 1, 2 do
    template = template:gsub('{([^}]+)}', function(key)
      return slot(env, key)
    end)
  end
  return capital(template)
end

--- One story: a few paragraphs, ending in an empty line.
---@param random reprise.Generator
---@return string
function corpus.story(random)
  local plot = random:pick(stories.plots)
  local env = stories.cast(random)
  local paragraphs = {}
  for _, paragraph in ipairs(plot(env, random)) do
    local sentences = {}
    for _, template in ipairs(paragraph) do
      -- An empty template is a sentence that this story leaves out.
      if template ~= '' then
        sentences[#sentences + 1] = corpus.fill(template, env, random)
      end
    end
    paragraphs[#paragraphs + 1] = table.concat(sentences, ' ')
  end
  return table.concat(paragraphs, '\n') .. '\n\n'
end

--- The corpus: whole stories, at least `size_bytes` of them.
---@param seed? integer default 1
---@param size_bytes? integer default 1,000,000
---@return string
function corpus.generate(seed, size_bytes)
  local random = generator.new(seed or 1)
  local list, total = {}, 0
  while total < (size_bytes or 1000000) do
    local story = corpus.story(random)
    list[#list + 1], total = story, total + #story
  end
  return table.concat(list)
end

return corpus
