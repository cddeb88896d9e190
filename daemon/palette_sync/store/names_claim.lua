-- Claim names whose claim is still what the caller read.
-- KEYS names   ARGV for each name: the name, the claim that was read ("" = none), the new claim ("" = release it)
-- Reply for each name: 1 = done, 0 = somebody else was faster
local done = {}
for i = 1, #ARGV, 3 do
  local name, before, after = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if (redis.call('HGET', KEYS[1], name) or '') ~= before then
    done[#done + 1] = 0
  elseif after == '' then
    redis.call('HDEL', KEYS[1], name)
    done[#done + 1] = 1
  else
    redis.call('HSET', KEYS[1], name, after)
    done[#done + 1] = 1
  end
end
return done
