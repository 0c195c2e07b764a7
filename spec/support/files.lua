--- Files as a whole, for specs.

local files = {}

---@return string
function files.content(name)
  local file = assert(io.open(name))
  local text = file:read '*a'
  file:close()
  return text
end

function files.write(name, text)
  local file = assert(io.open(name, 'w'))
  file:write(text)
  file:close()
end

return files
