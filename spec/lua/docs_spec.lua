-- What the documentation shows, runs: the guide's code from top to bottom, the
-- README's, and every example, each as a process of its own.

local function content(path)
  local file = assert(io.open(path))
  local text = file:read '*a'
  file:close()
  return text
end

local function runs(path, name)
  local out = os.tmpname()
  local code = os.execute(('OMP_NUM_THREADS=1 luajit %s > %s 2>&1'):format(path, out))
  local text = content(out)
  os.remove(out)
  assert.is_true(code == 0 or code == true, (name or path) .. ':\n' .. text)
  return text
end

local function runs_code(code, name)
  local path = os.tmpname()
  local file = assert(io.open(path, 'w'))
  file:write("package.path = './lua/?.lua;./lua/?/init.lua;' .. package.path\n",
    code)
  file:close()
  local text = runs(path, name)
  os.remove(path)
  return text
end

describe('the documentation', function()
  it('has a guide whose code runs, block after block', function()
    local blocks = {}
    for block in content('docs/guide.md'):gmatch '\n```lua\n(.-)```' do
      -- Each block may name its locals anew; those before stay visible.
      blocks[#blocks + 1] = block
    end
    assert.is_true(#blocks > 10)
    runs_code(table.concat(blocks, '\n'), 'docs/guide.md')
  end)

  it('has a README whose code runs', function()
    local code = content('README.md'):match "\n(    local rp = .-)\n\n%u"
    runs_code(code, 'README.md')
  end)

  it('links only to files that are there', function()
    for _, path in ipairs {'README.md', 'docs/guide.md',
        'docs/memory-model.md', 'docs/troubleshooting.md', 'docs/add-an-op.md',
        'docs/add-a-strategy.md', 'docs/add-a-backend.md'} do
      local folder = path:match '^(.*/)' or ''
      -- Code is no prose: t[1](x) is no link.
      local prose = content(path):gsub('\n```.-\n```', '')
      for link in prose:gmatch '%]%(([^)#]+)' do
        if not link:find '^http' then
          assert.is_truthy(io.open(folder .. link), path .. ': ' .. link)
        end
      end
    end
  end)
end)

describe('the example', function()
  for _, name in ipairs {'checkpoint_by_hand', 'checkpoint_sequential',
      'every_n', 'selective_attention', 'mixed_strategy',
      'gradient_accumulation', 'custom_gradient', 'own_strategy', 'heat',
      'unet'} do
    it(name .. ' runs', function()
      assert.is_true(#runs('examples/' .. name .. '.lua') > 0)
    end)
  end
end)
