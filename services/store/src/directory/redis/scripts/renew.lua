-- KEYS: lease, life, members. ARGV: format, incarnation, record, beat, lease ms, new life.
-- Answers: {life, whether the lease was there as its node left it}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('HSET', KEYS[2], 'v', ARGV[1], 'id', ARGV[6], 'born', string.format('%.0f', now))
end
local before = redis.call('HGET', KEYS[1], 'beat')
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'rec', ARGV[3], 'beat', ARGV[4], 'heard', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('SADD', KEYS[3], ARGV[2])
local continuous = 0
if before and tonumber(before) + 1 >= tonumber(ARGV[4]) then continuous = 1 end
return {redis.call('HGET', KEYS[2], 'id'), continuous}
