-- Delete a lease that is still the caller's.
-- KEYS lease   ARGV value   Reply 1 or 0
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
