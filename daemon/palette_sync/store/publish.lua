-- One write to an instance: a version with documents that have no version, or such documents alone. All or nothing.
--
-- KEYS  head clusters credentials changes history work scopes issuers status epoch
-- ARGV  epoch, expected version, expected number of clusters and of credentials ("" = any), time, keys to empty first
--       (words separated by spaces), "version" or "unversioned";
--       for "version" next: schema, version, digest of records, digest of credentials, mac, number of clusters,
--       complete, uids unconfirmed, mac of the check, writer, length of changes, length of history, uids put, dropped and
--       rotated (JSON lists), former records ("" = none), their mac, edits of clusters, edits of credentials;
--       for "unversioned" next: "1" to move the time of the check or "0" to leave it, mac of the check;
--       always last: edits of work, scopes and issuers, status ("" = unchanged).
--       Edits are: the number of fields to set, then each with its value; the number of fields to delete, then each.
-- Reply {"OK", version} or {"FENCED", epoch in force} or {"CONFLICT", version in force} or {"WRONGTYPE", key}
--
-- Nothing is written before every check has passed, because Redis does not roll back a script that fails.

local head, clusters, credentials, changes, history = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local work, scopes, issuers, status, epoch = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]

local position = 0
local function take()
  position = position + 1
  return ARGV[position]
end

local function edit(key)
  for _ = 1, tonumber(take()) do
    local field = take()
    redis.call('HSET', key, field, take())
  end
  for _ = 1, tonumber(take()) do
    redis.call('HDEL', key, take())
  end
end

-- Append to a stream. If its last id is above this version, it contradicts the head and is started anew: readers see the
-- gap and read everything. Returns any other error, for example when the server has reached its maxmemory.
local function append(key, id, length, ...)
  local reply = redis.pcall('XADD', key, 'MAXLEN', '~', length, id, ...)
  if type(reply) ~= 'table' or not reply.err then
    return nil
  end
  if not string.find(reply.err, 'equal or smaller', 1, true) then
    return reply
  end
  redis.call('DEL', key)
  redis.call('XADD', key, id, ...)
  return nil
end

local writer_epoch, expected, count, credentials_count = take(), take(), tonumber(take()), tonumber(take())
local now, emptied, mode = take(), take(), take()

local kinds = {'hash', 'hash', 'hash', 'stream', 'stream', 'hash', 'hash', 'hash', 'string', 'string'}
for i, kind in ipairs(kinds) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= kind then
    return {'WRONGTYPE', KEYS[i]}
  end
end

local in_force = redis.call('GET', epoch) or '0'
if in_force ~= writer_epoch then
  return {'FENCED', in_force}
end

local current = redis.call('HGET', head, 'version') or ''
local function differs(key, number)
  return number and current ~= '' and redis.call('HLEN', key) ~= number
end
if current ~= expected or differs(clusters, count) or differs(credentials, credentials_count) then
  return {'CONFLICT', current}
end

local named = {clusters = clusters, credentials = credentials, work = work, scopes = scopes, issuers = issuers}
local function empty()
  for word in string.gmatch(emptied, '%a+') do
    redis.call('DEL', named[word])
  end
end

local version = expected
if mode == 'version' then
  if current == '' then
    redis.call('DEL', head, clusters, credentials, changes, history)
  end
  local schema, digest, credentials_digest, mac, clusters_after, complete, unconfirmed, checked_mac, writer
  schema, version, digest, credentials_digest, mac = take(), take(), take(), take(), take()
  clusters_after, complete, unconfirmed, checked_mac, writer = take(), take(), take(), take(), take()
  local changes_length, history_length = take(), take()
  local put, drop, rotated, was, was_mac = take(), take(), take(), take(), take()
  local id = version .. '-0'
  local failed = append(changes, id, changes_length, 'epoch', writer_epoch, 'digest', digest,
    'credentials_digest', credentials_digest, 'mac', mac, 'clusters', clusters_after, 'complete', complete,
    'unconfirmed', unconfirmed, 'at', now, 'put', put, 'drop', drop, 'rotated', rotated)
  if not failed and was ~= '' then
    failed = append(history, id, history_length, 'at', now, 'was', was, 'mac', was_mac)
  end
  if failed then
    return failed
  end
  empty()
  edit(clusters)
  edit(credentials)
  redis.call('HSET', head, 'schema', schema, 'epoch', writer_epoch, 'version', version, 'digest', digest,
    'credentials_digest', credentials_digest, 'mac', mac, 'clusters', clusters_after, 'complete', complete,
    'unconfirmed', unconfirmed, 'changed_at', now, 'checked_at', now, 'checked_mac', checked_mac, 'writer', writer)
else
  empty()
  local moves, checked_mac = take(), take()
  if moves == '1' and current ~= '' then
    redis.call('HSET', head, 'checked_at', now, 'checked_mac', checked_mac)
  end
end

edit(work)
edit(scopes)
edit(issuers)
local text = take()
if text ~= '' then
  redis.call('SET', status, text)
end
return {'OK', version}
