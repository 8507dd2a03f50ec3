-- KEYS: members, life. ARGV: format, lease key prefix, most members.
-- Answers: {life or false, {record, silent ms, ...}}. Members without a lease are forgotten.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
for _, incarnation in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local lease = redis.call('HMGET', ARGV[2] .. incarnation, 'v', 'rec', 'heard')
  if not lease[1] then
    redis.call('SREM', KEYS[1], incarnation)
  elseif lease[1] ~= ARGV[1] then
    return redis.error_reply('FORMAT lease')
  elseif #found < 2 * tonumber(ARGV[3]) then
    found[#found + 1] = lease[2]
    found[#found + 1] = now - tonumber(lease[3])
  end
end
return {redis.call('HGET', KEYS[2], 'id'), found}
