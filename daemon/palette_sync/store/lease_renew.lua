-- Renew a lease that is still ours. One that ran out is taken again while its epoch is in force: then nobody else had it.
-- KEYS lease epoch   ARGV value, ttl in ms, epoch   Reply 1 or 0
if redis.call('GET', KEYS[2]) ~= ARGV[3] then
  return 0
end
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
