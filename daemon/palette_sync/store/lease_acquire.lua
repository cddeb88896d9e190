-- Take the lease of an instance and a new epoch, unless another process holds the lease.
-- KEYS lease epoch head
-- ARGV value, ttl in ms, value of a lease that the caller held before ("" = none)
-- Reply {"OK", epoch} or {"HELD", value}
--
-- The epoch is the largest of the present one + 1, the published one + 1 and the server's time in ms, so that it never
-- repeats, even after the server lost its last writes. Numbers below 2^53 are exact in Lua.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] and held ~= ARGV[3] then
  return {'HELD', held}
end
-- Anything but a whole number below 2^53 was written by another program and is ignored.
local function number_or_nil(text)
  local number = text and string.match(text, '^%d+$') and #text < 16 and tonumber(text)
  return number or nil
end
local old = number_or_nil(redis.call('GET', KEYS[2]))
if held == ARGV[1] and old then
  return {'OK', string.format('%.0f', old)} -- a repeated attempt: the first answer was lost
end
local time = redis.call('TIME')
local published = number_or_nil(redis.call('HGET', KEYS[3], 'epoch'))
local epoch = math.max(
  (old or 0) + 1,
  (published or 0) + 1,
  tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
)
local text = string.format('%.0f', epoch)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], text)
return {'OK', text}
