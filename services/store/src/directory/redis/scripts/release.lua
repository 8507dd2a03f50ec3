-- KEYS: machine. ARGV: format, holder, keep ms.
local stored = redis.call('HMGET', KEYS[1], 'v', 'holder')
if stored[1] and stored[1] ~= ARGV[1] then return redis.error_reply('FORMAT machine') end
if stored[2] == ARGV[2] then
  redis.call('HSET', KEYS[1], 'holder', '')
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 0
