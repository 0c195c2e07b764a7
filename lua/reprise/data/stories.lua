--- The stories of the built-in corpus: who is in them and what happens.
--
-- A plot is a function that chooses what the story is about, puts it into the
-- environment and returns paragraphs of sentence templates (see
-- reprise.data.corpus for how they are filled). What happens later follows
-- from what happened before: that is what there is to learn.

local stories = {plots = {}}

local function character(name, kind, gender)
  if gender == 'she' then
    return {name = name, kind = kind, he = 'she', him = 'her', his = 'her'}
  end
  return {name = name, kind = kind, he = 'he', him = 'him', his = 'his'}
end

local characters = {
  character('Mia', 'fox', 'she'), character('Anna', 'rabbit', 'she'),
  character('Ruby', 'squirrel', 'she'), character('Ella', 'goat', 'she'),
  character('Nora', 'owl', 'she'), character('Ida', 'hedgehog', 'she'),
  character('Lily', 'mouse', 'she'), character('Rosa', 'duck', 'she'),
  character('Tom', 'bear', 'he'), character('Ben', 'badger', 'he'),
  character('Sam', 'frog', 'he'), character('Max', 'dog', 'he'),
  character('Leo', 'cat', 'he'), character('Finn', 'otter', 'he'),
  character('Otto', 'mole', 'he'), character('Jack', 'crow', 'he'),
}

local places = {
  {at = 'in the forest', to = 'to the forest', food = 'mushrooms',
   under = 'under the old oak'},
  {at = 'by the river', to = 'to the river', food = 'fish',
   under = 'behind a wet stone'},
  {at = 'on the hill', to = 'up the hill', food = 'blueberries',
   under = 'between two rocks'},
  {at = 'in the garden', to = 'to the garden', food = 'carrots',
   under = 'under the apple tree'},
  {at = 'by the lake', to = 'to the lake', food = 'eggs',
   under = 'in the tall reeds'},
  {at = 'in the meadow', to = 'to the meadow', food = 'strawberries',
   under = 'in the long grass'},
}

local things = {'red kite', 'little drum', 'blue hat', 'silver bell',
  'yellow ball', 'green scarf', 'old map', 'wooden boat', 'small key',
  'golden ring'}

local numbers = {'one', 'two', 'three', 'four', 'five', 'six', 'seven',
  'eight', 'nine', 'ten'}

local function use_place(env, name, place)
  env[name], env['to_' .. name] = place.at, place.to
end

--- Two characters and a place: what every story has.
---@param random reprise.Generator
---@return table env
function stories.cast(random)
  local env = {}
  env.x, env.y = random:pick_two(characters)
  env.ground = random:pick(places)
  use_place(env, 'place', env.ground)
  env.day = random:pick {'sunny', 'cold', 'warm', 'windy', 'quiet', 'grey'}
  env.time = random:pick {'morning', 'afternoon', 'evening'}
  return env
end

local opening = '(One|On a) {day} {time}(,|) {x} the {x.kind} ' ..
  '(went|walked|ran) {to_place}.'

local endings = {
  '(That|And that) was a good day.',
  '{x} and {y} were good friends (from that day on|ever after).',
  '(Then|At last) they went home together.',
  'That night {x} slept well.',
  '{x} (smiled|sang) all the way home.',
}

local function plot(make)
  stories.plots[#stories.plots + 1] = make
end

-- How a thing is lost decides where it is found, and what is learned.
local losses = {
  {'(Then|Suddenly) a strong wind came and (took|blew) the {thing} away.',
   'They looked up, and there was the {thing} in a tall tree. ' ..
     '{y} (climbed up|shook the tree) and {x} caught it.',
   'From then on {x} held the {thing} tight when the wind blew.'},
  {'{X.he} was tired and fell asleep, and the {thing} rolled (down|away).',
   'They went down the path, and there was the {thing} in a ditch.',
   'From then on {x} never slept before {x.his} {thing} was safe.'},
  {'{X.he} ran so fast that the {thing} fell out of {x.his} bag.',
   'They walked back along the road, and there was the {thing} in the dust.',
   'From then on {x} walked slowly with {x.his} {thing}.'},
  {'{X.he} put the {thing} on a stone, went to drink, and forgot it.',
   'They went back to the water, and there was the {thing} on the stone.',
   'From then on {x} looked twice before {x.he} went home.'},
}

plot(function(env, random)
  local loss = random:pick(losses)
  env.thing = random:pick(things)
  local first, second = random:pick_two(places)
  env.under, env.second = first.under, second.under
  return {
    {opening, '{X.he} had {a thing} and played with it (all day|for a long ' ..
      'time|for an hour).', loss[1]},
    {'"Where is my {thing}?" (cried|said) {x}.',
     '{X.he} looked {under}, but it was not there.',
     random:chance(0.6) and '{X.he} looked {second}, but it was not there.'
       or '', '{x} was (very sad|sad|close to tears).'},
    {'Then {y} the {y.kind} came by. "Why are you (sad|so sad), {x}?" ' ..
      '{y.he} asked.', '"I (have lost|lost) my {thing}," said {x}. ' ..
      '"I will help you," said {y}.'},
    {loss[2], '"Thank you, {y}!" said {x}, and {x.he} was happy again.',
     random:chance(0.5) and loss[3] or random:pick(endings)},
  }
end)

local weathers = {
  {sky = 'dark clouds came, and it began to rain', state = 'wet',
   gift = 'a dry coat', drink = 'hot soup', over = 'the rain stopped'},
  {sky = 'the sky turned white, and it began to snow', state = 'cold',
   gift = 'a warm blanket', drink = 'hot tea', over = 'the snow stopped'},
  {sky = 'the sun burned, and it grew very hot', state = 'thirsty',
   gift = 'a big straw hat', drink = 'cool water', over = 'the sun went down'},
  {sky = 'fog came up, and nobody could see the path', state = 'lost',
   gift = 'a lantern', drink = 'warm milk', over = 'the fog was gone'},
}

plot(function(env, random)
  local weather = random:pick(weathers)
  for key, value in pairs(weather) do env[key] = value end
  env.food = env.ground.food
  return {
    {opening, '{X.he} wanted to find {food} for (dinner|supper).',
     'But (soon|then) {sky}.'},
    {'{x} was {state}. {X.he} saw a (small|little) house and knocked on ' ..
      'the door.', '{y} the {y.kind} opened it. "Come in, come in!" said {y}. ' ..
      '"You (are|look) {state}!"'},
    {'{y} gave {x.him} {gift} and {drink}, and they (talked|sang|laughed) ' ..
      'until {over}.', '"You are kind," said {x}. "Next time you must come ' ..
      'to my house."', random:pick(endings)},
  }
end)

local repairs = {
  {thing = 'cart', cause = 'hit a stone', part = 'wheel came off',
   tool = 'hammer', fix = 'put the wheel back on'},
  {thing = 'boat', cause = 'hit a rock', part = 'bottom had a hole',
   tool = 'board and nails', fix = 'closed the hole'},
  {thing = 'fence', cause = 'fell in the storm', part = 'gate was broken',
   tool = 'saw', fix = 'cut new wood for the gate'},
  {thing = 'kite', cause = 'flew into a tree', part = 'string was torn',
   tool = 'ball of string', fix = 'tied a new string to it'},
  {thing = 'clock', cause = 'fell off the wall', part = 'hands did not move',
   tool = 'tiny key', fix = 'wound it up again'},
}

plot(function(env, random)
  for key, value in pairs(random:pick(repairs)) do env[key] = value end
  return {
    {'{x} the {x.kind} (had|owned) {a thing} and (loved it|was proud of it).',
     'One {day} {time} the {thing} {cause}, and its {part}.',
     '"(Oh no|Oh dear)!" said {x}. "What (shall|can) I do now?"'},
    {'{x} asked {y} the {y.kind}. "(Wait|Let me see)," said {y}. ' ..
      '"I have {a tool} at home."',
     '{y} (ran|went) home and came back with the {tool}.',
     '(Together|Slowly and with care) they {fix}.'},
    {'"Now the {thing} is as good as new," said {y}.',
     '{x} (baked|made) a cake for {y}, because {y.he} had helped {x.him}.',
     random:pick(endings)},
  }
end)

plot(function(env, random)
  env.food = env.ground.food
  local shares = random:chance(0.6)
  local middle = shares and {
    '"(Sit down|Come), there is enough for two," said {x}.',
    '{x} gave half of the {food} to {y}.',
    'They ate until (they were full|nothing was left).',
  } or {
    '"No," said {x}. "The {food} are mine." And {x.he} ate them all alone.',
    '{y} went away hungry. {x} was full, but {x.he} was not happy.',
    'The next day {x} found more {food} and brought them to {y}. ' ..
      '"I am sorry," said {x}.',
  }
  return {
    {opening, '{X.he} (looked|searched) for a long time and found ' ..
      '(some|many|a basket of) {food}.'},
    {'{y} the {y.kind} saw it. "I have not eaten (today|since yesterday)," ' ..
      'said {y}. "(May|Can) I have some {food}?"', unpack(middle)},
    {shares and '"You are a true friend," said {y}.' or
      '"That is all right," said {y}, and they ate together.',
     random:pick(endings)},
  }
end)

local noises = {
  {sound = 'a scratching sound', source = 'a branch at the window',
   end_of = 'They cut the branch, and the sound was gone.'},
  {sound = 'a deep hoot', source = 'an old owl on the roof',
   end_of = 'The owl looked down and said good night.'},
  {sound = 'a long howl', source = 'the wind in the chimney',
   end_of = 'They closed the chimney, and it was quiet.'},
  {sound = 'a soft tapping', source = 'the rain in a bucket',
   end_of = 'They turned the bucket over, and it was quiet.'},
  {sound = 'little steps', source = 'a lost kitten',
   end_of = 'They gave the kitten milk, and it fell asleep.'},
}

plot(function(env, random)
  for key, value in pairs(random:pick(noises)) do env[key] = value end
  return {
    {'It was (night|a dark night|late), and {x} the {x.kind} was in bed.',
     '(Suddenly|Then) {x.he} heard {sound}.',
     '"(Who|What) is that?" {x.he} whispered. {X.he} was (very|so) afraid.'},
    {'{x} ran to {y} the {y.kind} and told {y.him} about it.',
     '"Let us go and look," said {y}, and {y.he} took a lantern.',
     'They (went|walked) through the dark, step by step.'},
    {'And what was it? It was only {source}!',
     '{x} and {y} laughed. {end_of}',
     '"When I know what it is, I am not afraid," said {x}.'},
  }
end)

local contests = {
  {game = 'a race around the lake', train = 'ran around the lake', win = 'was the fastest'},
  {game = 'a singing contest in the village', train = 'sang to the trees',
   win = 'sang the best'},
  {game = 'a jumping contest in the meadow', train = 'jumped over the brook',
   win = 'jumped the farthest'},
  {game = 'a swimming race in the river', train = 'swam across the pond',
   win = 'was the fastest'},
}

plot(function(env, random)
  for key, value in pairs(random:pick(contests)) do env[key] = value end
  env.days = random:pick {'three', 'five', 'seven'}
  return {
    {'(There was|The king held) {game}, and {x} the {x.kind} and {y} the {y.kind} ' ..
      'wanted to win.', '{x} (worked hard|practised) for {days} days. ' ..
      'Every {time} {x.he} {train}.',
     'But {y} (lay|sat) in the sun and said, "I will win (anyway|easily)."'},
    {'Then the day came. (Everyone|All the animals) came to see it.',
     '{x} {win}, and {x.he} won. {y} was last.'},
    {'"How did you do it?" asked {y}.',
     '"I {train} every {time}," said {x}. "(Come with me|Join me) tomorrow!"',
     'So {y} went with {x.him}, and (soon|before long) {y.he} was good too.'},
  }
end)

plot(function(env, random)
  local price = 3 + random:below(6)
  local has = 1 + random:below(price - 1)
  env.price, env.has = numbers[price], numbers[has]
  env.rest = numbers[price - has]
  env.coins = has == 1 and 'coin' or 'coins'
  env.more = price - has == 1 and 'coin' or 'coins'
  env.thing = random:pick(things)
  env.work = random:pick {'picked apples', 'carried water', 'cut wood',
    'washed the windows', 'swept the yard', 'fed the hens'}
  return {
    {'{x} the {x.kind} went to the market and saw {a thing}.',
     '"What does it cost?" asked {x}. "It costs {price} coins," said {y} ' ..
      'the {y.kind}.', 'But {x} had only {has} {coins}.'},
    {'"You need {rest} more," said {y}. "(Will|Can) you work for me?"',
     'So {x} {work} (all day|until evening|from morning to night), and {y} ' ..
      'gave {x.him} {rest} {more}.'},
    {'Now {x} had {price} coins. {X.he} (gave them to {y}|paid) and took the ' ..
      '{thing} home.', '{x} was (proud|happy), because {x.he} had worked for ' ..
      '(it|the {thing}).'},
  }
end)

local plants = {
  {seed = 'a small brown seed', plant = 'sunflower', use = 'gave its seeds ' ..
     'to the birds'},
  {seed = 'an orange seed', plant = 'pumpkin', use = 'made a big pot of soup'},
  {seed = 'a round white seed', plant = 'bean', use = 'cooked beans for all'},
  {seed = 'a tiny black seed', plant = 'poppy', use = 'put it in a vase'},
}

plot(function(env, random)
  for key, value in pairs(random:pick(plants)) do env[key] = value end
  return {
    {'{x} the {x.kind} found {seed} and put it into the ground.',
     'Every {time} {x.he} gave it water. (But nothing|Nothing) happened.',
     '"It will never grow," said {x}. "(Wait|Be patient)," said {y} the ' ..
      '{y.kind}. "It needs time, water and sun."'},
    {'After {days} days there was a (little|tiny) green leaf.',
     'The leaf grew and grew, and at last it was a {plant}.'},
    {'{x} and {y} {use}.', '"You were right," said {x}. "Good things need ' ..
      'time."'},
  }
end)

local letters = {
  {from = 'grandmother', news = 'I am ill, and nobody cooks for me',
   act = 'packed bread and soup and went to see her',
   result = 'Grandmother ate the soup and felt better'},
  {from = 'uncle', news = 'My roof is broken, and the rain comes in',
   act = 'took a ladder and went to help him',
   result = 'Soon the roof was whole, and uncle was dry'},
  {from = 'aunt', news = 'I have too many plums this year',
   act = 'took two baskets and went to see her',
   result = 'They picked all the plums, and aunt cooked jam'},
  {from = 'cousin', news = 'I have nobody to play with',
   act = 'took a ball and went to see him',
   result = 'They played until it was dark'},
}

plot(function(env, random)
  for key, value in pairs(random:pick(letters)) do env[key] = value end
  env.animal = random:pick {'pigeon', 'postman', 'sparrow'}
  return {
    {'One {day} {time} the {animal} brought {x} the {x.kind} a letter.',
     'It was from {x.his} {from}. "Dear {x}," it said, "{news}. Please come."'},
    {'{x} showed the letter to {y} the {y.kind}. "(We must|Let us) go ' ..
      '(now|today|at once)," said {y}.', 'So they {act}.',
     '(It was a long way|The way was long), and they walked for {days} hours.'},
    {'{result}.', '"(I am glad|How good) that you came," said {x.his} {from}.',
     random:pick(endings)},
  }
end)

local crossings = {
  {try = 'jump over the water', fail = 'it was too wide, and {x.he} fell in',
   way = 'laid a tree across the water', thing = 'bridge'},
  {try = 'walk through the water', fail = 'it was too deep',
   way = 'tied some logs together', thing = 'raft'},
  {try = 'swim', fail = 'the water was too fast',
   way = 'made a swing from a rope', thing = 'rope'},
}

plot(function(env, random)
  for key, value in pairs(random:pick(crossings)) do env[key] = value end
  return {
    {'{x} the {x.kind} wanted to visit {y} the {y.kind} on the other side ' ..
      'of the river.', 'But the old bridge was (gone|broken).'},
    {'First {x.he} tried to {try}, but {fail}.',
     '"(Wait|Stay there)!" (called|shouted) {y}. "I have (an idea|a plan)."',
     'They {way}. It took {days} hours.'},
    {'Then {x} came across on the {thing}. "(It holds|It works)!" ' ..
      '{x.he} shouted.', '(Now|From that day on) everyone uses the {thing} ' ..
      'of {x} and {y}.'},
  }
end)

plot(function(env, random)
  env.thing = random:pick(things)
  env.place_name = random:pick {'under the bed', 'behind the door',
    'in the kitchen', 'in the barn'}
  return {
    {'It was the birthday of {x} the {x.kind}, but nobody (said|spoke) a word ' ..
      'about it.', '"(Has everyone|Have they all) forgotten me?" thought {x}. ' ..
      '{X.he} was sad and went for a walk.'},
    {'While {x.he} was away, {y} the {y.kind} baked a (big|sweet) cake ' ..
      'and hid {place_name}.', 'When {x} came home, the house was dark and ' ..
      'quiet.'},
    {'"Surprise!" (cried|shouted) {y}. "Happy birthday, {x}!"',
     '{y} gave {x.him} {a thing}. "It is just what I wanted," said {x}.',
     'They ate the cake and (danced|sang) until midnight.'},
  }
end)

plot(function(env, random)
  local mine = random:chance(0.5)
  env.thing = random:pick(things)
  return {
    {'{x} the {x.kind} and {y} the {y.kind} found {a thing} {place}.',
     '"It is mine," said {x}. "I saw it first." "No, it is mine," said {y}.',
     'They (pulled and pulled|shouted and shouted), and both were angry.'},
    {mine and 'Then the {thing} broke.' or
      'Then an old turtle came and asked, "Why do you fight?"',
     mine and 'Now nobody had it, and they were (quiet|ashamed).' or
      '"One day for {x}, one day for {y}," said the turtle. "Is that not fair?"',
     mine and '"I am sorry," said {x}. "I am sorry too," said {y}.' or
      '"That is (fair|wise)," said {x} and {y}.'},
    {mine and 'They mended the {thing} with glue, and now it belongs to both.'
      or 'On the first day {x} had the {thing}, on the next day {y}.',
     random:pick(endings)},
  }
end)

-- Every plot may name a number of days.
local cast = stories.cast
function stories.cast(random)
  local env = cast(random)
  env.days = random:pick {'three', 'five', 'seven', 'ten'}
  return env
end

return stories
