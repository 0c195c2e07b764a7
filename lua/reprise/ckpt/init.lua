--- Strategies: what to keep. A spec is a string ('every=2', './mine.lua'), a
-- table ({every = 2}) or a function from graph to segments.
--
-- One file here adds a strategy: it returns a function from the argument to
-- the strategy. The list below only orders them for help and messages.

local edit_distance = require 'reprise.edit_distance'
local failure = require 'reprise.failure'
local load_file = require 'reprise.ckpt.file'

---@class reprise.Strategy
---@field text string       as the user wrote it
---@field name string       its file's name, or 'function', or the path
---@field identity string   part of a plan's key
---@field apply fun(graph: table): table
---@field chooses boolean?  looks for segments itself

local ckpt = {}

--- What there is: name, usage, one line of help.
ckpt.list = {
  {'none', 'none', 'keep what backward reads, but for cheap values'},
  {'every', 'every=N', 'layers 1, 1+N, 1+2N, ... are each a segment'},
  {'uniform', 'uniform=N', 'segments of N consecutive layers'},
  {'segments', 'segments=K', 'K segments of equal size'},
  {'nodes', 'nodes=N', 'one node in N is kept, whatever the layers'},
  {'sqrt', 'sqrt', 'boundaries so that kept + restored bytes is least'},
  {'attention', 'attention', 'only attention scopes are segments'},
  {'scope', 'scope=GLOB,...', 'every scope that matches is a segment'},
  {'blocks', 'blocks=a..b,c..d', 'named, consecutive layers form a segment'},
  {'revolve', 'revolve=S', 'binomial: S states held, fewest replays, nested'},
  {'budget', 'budget=SIZE', 'the fastest whose exact peak fits: 2GiB, 40%, min'},
  {'greedy', 'greedy=SIZE', 'evict what is cheap, large and stale (DTR)'},
  {'ops', 'ops[=LIST]', 'keep the outputs of costly ops, replay the cheap ones'},
}

--- Those that look for segments themselves: where one saves nothing, that is
-- not for the user to know.
local chooses = {nodes = true, sqrt = true, ops = true, budget = true,
  greedy = true, revolve = true}

--- Names without an argument.
local bare = {none = true, sqrt = true, attention = true}

--- The names of all strategies, in the order of help.
---@return string[]
function ckpt.names()
  local names = {}
  for i, row in ipairs(ckpt.list) do names[i] = row[1] end
  return names
end

local function unknown(name, argument)
  local nearest, least = nil, math.huge
  for _, known in ipairs(ckpt.names()) do
    local d = edit_distance(name, known)
    if d < least then nearest, least = known, d end
  end
  local hint = ''
  if least <= math.max(2, math.floor(#name / 2)) and least < #nearest then
    local text = nearest
    if not bare[nearest] and argument ~= nil then text = text .. '=' .. tostring(argument) end
    hint = ('; did you mean %s?'):format(text)
  end
  return ("no strategy '%s'%s  (%s, or ./FILE.lua)"):format(name, hint,
    table.concat(ckpt.names(), ', '))
end

local function is_path(text)
  return text:find '/' ~= nil or text:find '%.lua$' ~= nil or text:find '%.lua=' ~= nil
end

local function from_file(text)
  local path, argument = text:match '^(.-%.lua)=(.*)$'
  path = path or text
  local strategy, content = load_file(path, argument)
  return {
    text = text, name = path, identity = 'file ' .. text .. '\n' .. content,
    apply = strategy,
  }
end

local function argument_text(argument)
  if type(argument) ~= 'table' then return tostring(argument) end
  local parts = {}
  for i, entry in ipairs(argument) do
    parts[i] = type(entry) == 'table' and '{' .. argument_text(entry) .. '}' or tostring(entry)
  end
  return table.concat(parts, ',')
end

local function by_name(name, argument)
  local module = 'reprise.ckpt.' .. name
  if not name:find '^%l[%w_]*$' or name == 'init' or name == 'support' or
    name == 'file' or not package.searchpath(module, package.path) then
    error(unknown(name, argument), 0)
  end
  if bare[name] and argument ~= nil and argument ~= true then
    error(("%s takes no argument, and got '%s'"):format(name, argument_text(argument)), 0)
  end
  if argument == true then argument = nil end
  local text = argument == nil and name or name .. '=' .. argument_text(argument)
  return {
    text = text, name = name, identity = text, apply = require(module)(argument),
    chooses = chooses[name] or false,
  }
end

local function_ids, next_id = setmetatable({}, {__mode = 'k'}), 0

local function from_function(fn)
  if not function_ids[fn] then
    next_id = next_id + 1
    function_ids[fn] = next_id
  end
  return {
    text = 'function', name = 'function',
    identity = 'function#' .. function_ids[fn], apply = fn,
  }
end

local function understood(spec)
  local kind = type(spec)
  if kind == 'function' then return from_function(spec) end
  if kind == 'string' then
    local text = spec:match '^%s*(.-)%s*$'
    if text == '' then error('the spec is empty; ' .. unknown('', nil), 0) end
    if is_path(text) then return from_file(text) end
    local name, argument = text:match '^([^=]*)=(.*)$'
    return by_name(name or text, argument)
  end
  if kind == 'table' then
    if spec.apply and spec.identity then return spec end
    local name, argument = next(spec)
    if type(name) == 'string' and next(spec, name) == nil then
      return by_name(name, argument)
    end
    local keys = {}
    for key in pairs(spec) do keys[#keys + 1] = tostring(key) end
    table.sort(keys)
    error(('a table names one strategy, as {every = 2}; this one has %s'):format(
      #keys > 0 and table.concat(keys, ', ') or 'nothing'), 0)
  end
  return error(('a spec is a string, a table or a function, not %s'):format(kind), 0)
end

local function spec_text(spec)
  if type(spec) == 'string' then return spec end
  if type(spec) == 'table' and type(next(spec)) == 'string' and
    next(spec, (next(spec))) == nil then
    local name, argument = next(spec)
    return name .. '=' .. argument_text(argument)
  end
  return type(spec)
end

local current
local known = {}

--- Understands a spec.
---@param spec any
---@return reprise.Strategy? strategy
---@return string? reason  why not, without a position
function ckpt.parse(spec)
  if spec ~= nil and known[spec] then return known[spec] end
  local ok, result = pcall(understood, spec)
  if ok then
    -- Files are read again: they may have changed.
    if type(spec) == 'string' and not is_path(spec) then known[spec] = result end
    return result
  end
  return nil, tostring(result)
end

-- Arguments that are lists; a file's may be.
local function takes_list(spec)
  local name = spec:match '^([^=]*)='
  return name and (name == 'scope' or name == 'blocks' or name == 'ops' or
    name:find '[/.]')
end

--- The specs of a text as --compare takes it, separated by commas. Behind an
-- argument that is a list, a comma in front of what is no strategy's name belongs
-- to it: 'none,scope=*.mlp,*.attention' are two.
---@param text string
---@return string[]
function ckpt.split(text)
  local names, list = {}, {}
  for _, name in ipairs(ckpt.names()) do names[name] = true end
  for part in text:gmatch '[^,]+' do
    local name = part:match '^%s*([^=]*)'
    if #list == 0 or names[name] or name:find '^%.?%.?/' or
        not takes_list(list[#list]) then
      list[#list + 1] = part:match '^%s*(.-)%s*$'
    else
      list[#list] = list[#list] .. ',' .. part
    end
  end
  return list
end

--- The strategy of a spec, the default one when nil; an error at the caller's
-- line when there is none.
---@return reprise.Strategy
function ckpt.resolve(spec)
  if spec == nil then return current end
  local strategy, reason = ckpt.parse(spec)
  if not strategy then failure.raise('[ckpt] %s: %s', spec_text(spec), reason) end
  return strategy
end

current = ckpt.resolve 'none'

--- The text of the default strategy.
---@return string
function ckpt.default()
  return current.text
end

--- rp.ckpt(spec) sets the default strategy and returns its text; rp.ckpt()
-- only returns it.
return setmetatable(ckpt, {
  __call = function(_, spec)
    if spec ~= nil then current = ckpt.resolve(spec) end
    return current.text
  end,
})
