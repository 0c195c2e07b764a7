--- Files as a whole and lines of texts, for specs.

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

--- The first line of a text that has all the given plain texts in it, or nil.
---@return string?
function files.line_with(text, ...)
  for line in text:gmatch '[^\n]+' do
    local all = true
    for _, part in ipairs {...} do all = all and line:find(part, 1, true) end
    if all then return line end
  end
end

return files
