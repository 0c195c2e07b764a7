--- Recomputes the layers that keep most for backward, largest first, until
-- half of what all layers keep is saved.
return function(graph)
  local layers, total = {}, 0
  for i, layer in ipairs(graph.layers) do
    layers[i] = layer
    total = total + layer.saved_bytes
  end
  table.sort(layers, function(a, b)
    if a.saved_bytes ~= b.saved_bytes then
      return a.saved_bytes > b.saved_bytes
    end
    return a.first < b.first
  end)
  local segments, saved = {}, 0
  for _, layer in ipairs(layers) do
    if saved >= total / 2 then break end
    segments[#segments + 1] = layer
    saved = saved + layer.saved_bytes
  end
  table.sort(segments, function(a, b) return a.first < b.first end)
  return segments
end
