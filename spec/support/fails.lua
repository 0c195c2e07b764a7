--- fails(fn, ...): fn must fail with a message that has each of the given plain
-- texts in it, however capitalised, that points into the file of the caller (or
-- here, where fn's tail call left no line of it) and shows nothing of the stack.
-- Returns the message.

return function(fn, ...)
  local ok, message = pcall(fn)
  assert(not ok, 'no error')
  assert(type(message) == 'string', 'the message is no text')
  for _, text in ipairs {...} do
    if not message:lower():find(text:lower(), 1, true) then
      error(('the message lacks "%s": %s'):format(text, message), 2)
    end
  end
  local file = debug.getinfo(2, 'S').short_src:match '[^/]*$':gsub('%p', '%%%0')
  if not (message:find(file .. ':%d+:') or message:find 'fails%.lua:%d+:') then
    error('the message does not point at the caller: ' .. message, 2)
  end
  assert(not message:find 'stack traceback' and not message:find '\n%s*%[C%]', message)
  return message
end
