--- The user's own strategy: a Lua file that returns a function from graph to
-- segments; ./mine.lua=ARGUMENT when it returns, like the files here, a
-- function from an argument to such a function.

--- Reads the file; returns its content and what it returned, or raises the
-- reason with the line.
local function load_file(path)
  local file, reason = io.open(path, 'rb')
  -- The path is in front of the message already.
  if not file then error((reason:gsub('^.*: ', '')), 0) end
  local content = file:read '*a'
  file:close()
  if not content then error(path .. ' cannot be read', 0) end
  local chunk, syntax = loadstring(content, '@' .. path)
  if not chunk then error(syntax, 0) end
  local result = chunk()
  if type(result) ~= 'function' then
    error(('%s returned %s, not a strategy: its last line should be ' ..
      '"return function(graph) ... end"'):format(path,
      result == nil and 'nothing' or 'a ' .. type(result)), 0)
  end
  return content, result
end

--- The strategy of a file and the file's content.
---@param path string
---@param argument string?
return function(path, argument)
  local content, strategy = load_file(path)
  if argument ~= nil then
    strategy = strategy(argument)
    if type(strategy) ~= 'function' then
      error(('%s was given the argument %s and returned a %s, not a strategy')
        :format(path, argument, type(strategy)), 0)
    end
  end
  return strategy, content
end
