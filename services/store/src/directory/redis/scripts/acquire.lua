-- KEYS: machine, life. ARGV: format, asker, floor counter, floor incarnation, replacing or '', cause, lease key prefix,
-- settle ms, keep ms.
-- Answers: {'owned', counter, incarnation} | {'held', holder, counter, incarnation, link counter, link gateway}
--        | {'settling', ms}.
-- The rule is flydex_domain::placement::acquire. Epochs are compared by counter, then by incarnation.
local function above(c, i, than_c, than_i) return c > than_c or (c == than_c and i > than_i) end

local stored = redis.call('HMGET', KEYS[1], 'v', 'holder', 'ec', 'ei', 'lc', 'lg')
local asker, floor_c, floor_i = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local top_c, top_i = floor_c, floor_i
if stored[1] then
  if stored[1] ~= ARGV[1] then return redis.error_reply('FORMAT machine') end
  local holder, c, i = stored[2], tonumber(stored[3]), stored[4]
  if holder == asker and not above(floor_c, floor_i, c, i) then
    redis.call('PEXPIRE', KEYS[1], ARGV[9])
    return {'owned', stored[3], i}
  end
  if holder ~= '' and holder ~= asker and holder ~= ARGV[5] and redis.call('EXISTS', ARGV[7] .. holder) == 1 then
    return {'held', holder, stored[3], i, stored[5], stored[6]}
  end
  if above(c, i, top_c, top_i) then top_c, top_i = c, i end
elseif ARGV[6] == 'session' then
  local born = redis.call('HGET', KEYS[2], 'born')
  local time = redis.call('TIME')
  local age = 0
  if born then age = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(born) end
  if age < tonumber(ARGV[8]) then return {'settling', tonumber(ARGV[8]) - age} end
end
local counter = string.format('%.0f', top_c + 1)
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'holder', asker, 'ec', counter, 'ei', asker)
redis.call('PEXPIRE', KEYS[1], ARGV[9])
return {'owned', counter, asker}
