--- How many letters to change, add or remove to make word a into word b: for
-- "did you mean".
---@param a string
---@param b string
---@return integer
return function(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local change = a:byte(i) == b:byte(j) and 0 or 1
      diagonal, row[j] = row[j],
        math.min(row[j] + 1, row[j - 1] + 1, diagonal + change)
    end
  end
  return row[#b]
end
