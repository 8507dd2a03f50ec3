-- KEYS: machine. ARGV: format, counter, incarnation, link counter or '', link gateway, keep ms.
-- Answers: {'kept'} | {'format'} | {'lost', holder, counter, incarnation, link counter, link gateway}.
-- The rule is flydex_domain::placement::reassert.
local stored = redis.call('HMGET', KEYS[1], 'v', 'holder', 'ec', 'ei', 'lc', 'lg')
local c, i = tonumber(ARGV[2]), ARGV[3]
if stored[1] then
  if stored[1] ~= ARGV[1] then return {'format'} end
  local stored_c = tonumber(stored[3])
  local another = (stored[2] or '') ~= '' and stored[2] ~= i
  if stored_c > c or (stored_c == c and stored[4] > i) or (another and ARGV[4] == '') then
    return {'lost', stored[2], stored[3], stored[4], stored[5], stored[6]}
  end
end
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'holder', i, 'ec', ARGV[2], 'ei', i)
if ARGV[4] ~= '' and tonumber(ARGV[4]) >= tonumber(stored[5] or '0') then
  redis.call('HSET', KEYS[1], 'lc', ARGV[4], 'lg', ARGV[5])
end
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return {'kept'}
