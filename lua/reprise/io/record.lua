--- Small JSON files that one process writes and another reads. A file is
-- written under another name and renamed: a reader finds all of it, or none.
-- Errors are texts without a position.

local record = {}

--- Whether there is something to read.
---@param path string
---@return boolean
function record.exists(path)
  local file = io.open(path, 'rb')
  if file then file:close() end
  return file ~= nil
end

local function reason_of(problem)
  return (tostring(problem):gsub('^.*: ', ''))
end

--- Raises unless `path` can be written; writes nothing.
---@param path string
function record.check_writable(path)
  local temporary = path .. '.part'
  local file, problem = io.open(temporary, 'wb')
  if not file then error(('%s cannot be written: %s'):format(path, reason_of(problem)), 0) end
  file:close()
  os.remove(temporary)
end

---@param path string
---@param text string
function record.write(path, text)
  local temporary = path .. '.part'
  local file, problem = io.open(temporary, 'wb')
  local ok = file ~= nil
  if ok then ok, problem = file:write(text) end
  if file then
    local closed, reason = file:close()
    if not closed then ok, problem = false, reason end
  end
  if ok then ok, problem = os.rename(temporary, path) end
  if not ok then
    os.remove(temporary)
    error(('%s cannot be written: %s'):format(path, reason_of(problem)), 0)
  end
end

--- The object in a file.
---@param path string
---@return table
function record.read(path)
  local file, problem = io.open(path, 'rb')
  local text
  if file then
    text, problem = file:read '*a'
    file:close()
  end
  if not text then error(('%s cannot be read: %s'):format(path, reason_of(problem)), 0) end
  local ok, json = pcall(require, 'cjson.safe')
  if not ok then error('lua-cjson is missing (Debian: lua-cjson)', 0) end
  local object = json.decode(text)
  if type(object) ~= 'table' then error(('%s is damaged: it is no JSON'):format(path), 0) end
  return object
end

return record
