--- Keep everything that backward reads.
return function()
  return function() return {} end
end
