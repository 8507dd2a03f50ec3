-- KEYS: machine. ARGV: format, holder, link counter, gateway, greatest jump, keep ms.
-- Answers: {'newest'} | {'superseded', counter} | {'absurd'} | {'not_held'}.
-- The rule is flydex_domain::placement::set_link.
local stored = redis.call('HMGET', KEYS[1], 'v', 'holder', 'lc')
if stored[1] and stored[1] ~= ARGV[1] then return redis.error_reply('FORMAT machine') end
if stored[2] ~= ARGV[2] then return {'not_held'} end
if stored[3] then
  local counter, before = tonumber(ARGV[3]), tonumber(stored[3])
  if counter < before then return {'superseded', stored[3]} end
  if counter - before > tonumber(ARGV[5]) then return {'absurd'} end
end
redis.call('HSET', KEYS[1], 'lc', ARGV[3], 'lg', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return {'newest'}
