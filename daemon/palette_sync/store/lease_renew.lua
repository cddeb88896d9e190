-- Renew a lease that is still the caller's. An expired lease is taken again if its epoch is still in force, because then
-- no other process held it in between.
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
