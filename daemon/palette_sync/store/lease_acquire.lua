-- Take the lease of an instance and a new epoch, unless another process holds the lease.
-- KEYS lease epoch head
-- ARGV value, ttl in ms, value of a lease that the caller held before ("" = none), epoch of the head if it is authentic
--      ("" = it is not), ms by which an epoch may be ahead
-- Reply {"OK", epoch, "1" if the epoch or the head's epoch was ignored} or {"HELD", first part of the value}
--
-- The epoch is the largest of the present one + 1, the published one + 1 and the server's time in ms, so that it never
-- repeats, even after the server lost its last writes. A number that is far ahead of the time and of the
-- epoch of an authentic head does not count: anybody could have written it, and nothing would be above it. Numbers below
-- 2^53 are exact in Lua.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] and held ~= ARGV[3] then
  return {'HELD', string.sub(held, 1, 1000)}
end
-- Anything but a whole number of at most 15 digits was written by another program and is ignored.
local function number_or_nil(text)
  local number = text and #text < 16 and string.match(text, '^%d+$') and tonumber(text)
  return number or nil
end
local old = number_or_nil(redis.call('GET', KEYS[2]))
if held == ARGV[1] and old then
  return {'OK', string.format('%.0f', old), '0'} -- a repeated attempt: the first answer was lost
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local head = redis.call('HGET', KEYS[3], 'epoch')
local published = number_or_nil(head)
local authentic = head == ARGV[4] and published or nil
local ignored = '0'
local function counts(number)
  if number and number > math.max(now, authentic or 0) + tonumber(ARGV[5]) then
    ignored = '1'
    return 0
  end
  return number or 0
end
local epoch = math.max(counts(old) + 1, counts(published) + 1, now)
local text = string.format('%.0f', epoch)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], text)
return {'OK', text, ignored}
