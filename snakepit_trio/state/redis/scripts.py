"""The scripts that the Redis server runs: each is atomic, and one round trip.

Keys of a store, behind its prefix. The prefix is in braces, so that all keys are in one slot of a cluster.

    key        type  content
    ---        ----  -------
    s:<id>     hash  a session: `b` birth, `v` version, `r` the version of the last removal of a part, `c` when it was
                     created, `t` its ttl as given, `m` its ttl in milliseconds or nothing, `u` its last use if it has
                     no ttl, `y` its bytes, `i` the id of the commit that created it, and its parts, as `.<key>`.
                     Expires by itself
    z:<id>     zset  the keys of its parts, by the version that wrote them. Expires by itself
    sizes      hash  what each session counts for, also of those that have expired and were not noticed yet
    order      zset  the ids of all sessions, by birth
    ends       zset  the ids of the sessions that expire, by a time that is never later than their end
    counts     hash  the sums over all sessions, and the last birth
    c:<id>     text  the outcome of a commit, for a while: a commit that comes again is not made again
    w:<id>     text  the host whose turn it is to change the session, because it has lost against others many times
    g, gsizes  hash  global programs, and what each counts for
    feed             the channel of notices: "<version> <session id>", where version 0 tells of the end

A birth is a time in microseconds, or one more than the last birth: it rises even after the data were lost.

A script gets the prefix as its only key. It gives an array, whose first element says what it is.
"""

from __future__ import annotations

import hashlib
from typing import Final

import attrs

_COMMON: Final = """
local p = KEYS[1]
local call, fmt = redis.call, string.format
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function text(number) return fmt('%.0f', number + 0) end -- no '-0'
local function count(name, by) call('HINCRBY', p .. 'counts', name, text(by)) end
local function counted(name) return tonumber(call('HGET', p .. 'counts', name) or '0') end
local function tell(version, id) call('PUBLISH', p .. 'feed', version .. ' ' .. id) end

-- The outcome of a commit that was made before. It is written anew, so that who waits for replicas waits for it.
local function remembered(commit, window)
  local made = call('GET', p .. 'c:' .. commit)
  if made then call('SET', p .. 'c:' .. commit, made, 'PX', window) end
  return made
end

-- Notes what the session counts for: four numbers, in the order in which the scripts get them.
local function resize(id, variables, programs, bytes, held)
  local old = call('HGET', p .. 'sizes', id)
  local a, b, c, d = 0, 0, 0, 0
  if old then a, b, c, d = string.match(old, '^(%d+) (%d+) (%d+) (%d+)$') end
  count('variables', variables - a); count('programs', programs - b)
  count('bytes', bytes - c); count('held', held - d)
end

-- Lets a script that removes sessions write down that it has. A server whose memory is full refuses writes that may
-- take memory, but not after the script has made another write.
local function make_way() call('DEL', p .. 'try:t') end

-- Removes all that is left of a session that has ended. Returns whether there was something.
local function remove(id, how)
  if call('HEXISTS', p .. 'sizes', id) == 0 then return false end
  make_way()
  resize(id, 0, 0, 0, 0)
  call('HDEL', p .. 'sizes', id)
  call('ZREM', p .. 'order', id)
  call('ZREM', p .. 'ends', id)
  call('DEL', p .. 's:' .. id, p .. 'z:' .. id)
  count(how, 1)
  tell('0', id)
  return true
end

-- Whether there is such a session. If it has expired, notes that.
local function is_there(id)
  if call('EXISTS', p .. 's:' .. id) == 1 then return true end
  remove(id, 'expired')
  return false
end

-- Removes sessions that have expired. Looks at some of those that may have; returns their ids, and how many are left.
local function expire(most)
  local gone = {}
  for _, id in ipairs(call('ZRANGEBYSCORE', p .. 'ends', '-inf', text(now), 'LIMIT', 0, most)) do
    local left = call('PTTL', p .. 's:' .. id)
    if left == -2 then
      remove(id, 'expired'); gone[#gone + 1] = id
    elseif left == -1 then
      call('ZREM', p .. 'ends', id)
    else
      make_way()
      call('ZADD', p .. 'ends', text(now + math.max(left, 1)), id)
    end
  end
  return gone, call('ZCOUNT', p .. 'ends', '-inf', text(now))
end

-- A use that follows another one within this time, in ms, is not noted: a read would wait for the disk each time.
-- The session ends that much later, so it never ends too early.
local function slack(ttl) return math.min(1000, math.floor(ttl / 1000)) end

local function use(id, ttl, is_change)
  local s = p .. 's:' .. id
  if ttl == '' then
    if is_change or now - call('HGET', s, 'u') >= 1000 then
      redis.pcall('HSET', s, 'u', text(now)) -- a server whose memory is full refuses, and may be read
    end
  elseif is_change or call('PTTL', s) < tonumber(ttl) then
    local finish = text(now + ttl + slack(ttl))
    call('PEXPIREAT', s, finish)
    call('PEXPIREAT', p .. 'z:' .. id, finish)
  end
end

local function last_use(id, ttl, noted)
  if ttl == '' then return noted end
  return text(now + call('PTTL', p .. 's:' .. id) - ttl - slack(ttl))
end

-- What is new in a session since a version of it: all, if the version is of another birth.
local function state(id, birth, version, is_use)
  local s = p .. 's:' .. id
  local found = call('HMGET', s, 'b', 'v', 'r', 'c', 't', 'm', 'u', 'y')
  local since, parts, keys = version, {}, false
  if found[1] ~= birth or version == '0' then
    since, parts, keys = '0', call('HGETALL', s), true
  elseif found[2] ~= version then
    for _, key in ipairs(call('ZRANGEBYSCORE', p .. 'z:' .. id, '(' .. version, '+inf')) do
      parts[#parts + 1] = '.' .. key
      parts[#parts + 1] = call('HGET', s, '.' .. key)
    end
    if tonumber(found[3]) > tonumber(version) then keys = call('ZRANGE', p .. 'z:' .. id, 0, -1) end
  end
  if is_use then use(id, found[6], false) end
  local used = is_use and text(now) or last_use(id, found[6], found[7])
  return {'state', text(now), found[1], found[2], since, found[4], used, found[5], found[8], parts, keys}
end

local function write(id, version, first, n)
  local s, z = p .. 's:' .. id, p .. 'z:' .. id
  for i = first, first + 2 * n - 2, 2 do
    call('HSET', s, '.' .. ARGV[i], ARGV[i + 1])
    call('ZADD', z, version, ARGV[i])
  end
end

-- Whether so many bytes more are too many, after the expired sessions have made room.
local function is_full(more, most)
  if more <= 0 or most == '' or counted('held') + more <= tonumber(most) then return false end
  local left
  repeat
    left = select(2, expire(100))
  until left == 0 or counted('held') + more <= tonumber(most)
  return counted('held') + more > tonumber(most)
end
"""

#: id, commit, ttl as given, ttl in ms, variables, programs, bytes, held, most sessions, most bytes, n, n keys and parts
_CREATE: Final = """
local id, s = ARGV[1], p .. 's:' .. ARGV[1]
if is_there(id) then
  local there = call('HMGET', s, 'i', 'b', 'c')
  if there[1] ~= ARGV[2] then return {'none', text(now)} end
  call('HSET', s, 'i', ARGV[2]) -- for who waits for replicas
  return {'created', text(now), there[2], there[3]}
end
if ARGV[9] ~= '' and call('ZCARD', p .. 'order') >= tonumber(ARGV[9]) then
  local left
  local there
  repeat
    left = select(2, expire(100))
    there = call('ZCARD', p .. 'order')
  until left == 0 or there < tonumber(ARGV[9])
  if there >= tonumber(ARGV[9]) then return {'sessions', text(now), there} end
end
if is_full(tonumber(ARGV[8]), ARGV[10]) then return {'bytes', text(now), text(counted('held')), ARGV[8]} end
local birth = text(math.max(counted('birth') + 1, clock[1] * 1000000 + clock[2]))
call('HSET', p .. 'counts', 'birth', birth)
call('HSET', s, 'b', birth, 'v', '1', 'r', '0', 'c', text(now), 't', ARGV[3], 'm', ARGV[4], 'u', text(now),
  'y', ARGV[7], 'i', ARGV[2])
write(id, '1', 12, tonumber(ARGV[11]))
use(id, ARGV[4], true)
resize(id, ARGV[5], ARGV[6], ARGV[7], ARGV[8])
call('HSET', p .. 'sizes', id, table.concat({ARGV[5], ARGV[6], ARGV[7], ARGV[8]}, ' '))
call('ZADD', p .. 'order', birth, id)
if ARGV[4] ~= '' then call('ZADD', p .. 'ends', text(now + ARGV[4]), id) end
count('created', 1)
tell('1', id)
return {'created', text(now), birth, text(now)}
"""

#: id, birth, version, whether it is a use
_FETCH: Final = """
if not is_there(ARGV[1]) then return {'none', text(now)} end
return state(ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1')
"""

#: id, commit, how long that is remembered in ms, birth, version, variables, programs, bytes, held, most bytes,
#: the host, how long it gets the turn in ms or nothing, n, n keys and parts, keys of removed parts
_COMMIT: Final = """
local id, s, z = ARGV[1], p .. 's:' .. ARGV[1], p .. 'z:' .. ARGV[1]
local made = remembered(ARGV[2], ARGV[3])
if made then return {'made', text(now), made} end
if not is_there(id) then return {'none', text(now)} end
local found = call('HMGET', s, 'b', 'v', 'm')
local claim = call('GET', p .. 'w:' .. id)
if found[1] ~= ARGV[4] or found[2] ~= ARGV[5] or (claim and claim ~= ARGV[11]) then
  if ARGV[12] ~= '' and not claim then redis.pcall('SET', p .. 'w:' .. id, ARGV[11], 'PX', ARGV[12]) end
  return state(id, ARGV[4], ARGV[5], true)
end
local old = string.match(call('HGET', p .. 'sizes', id) or '0', '(%d+)$')
local more = ARGV[9] - old
if is_full(more, ARGV[10]) then return {'bytes', text(now), text(counted('held')), text(more)} end
local version = text(found[2] + 1)
local n = tonumber(ARGV[13])
call('HSET', s, 'v', version, 'y', ARGV[8])
write(id, version, 14, n)
for i = 14 + 2 * n, #ARGV do
  call('HDEL', s, '.' .. ARGV[i])
  call('ZREM', z, ARGV[i])
  call('HSET', s, 'r', version)
end
use(id, found[3], true)
if claim then call('DEL', p .. 'w:' .. id) end
resize(id, ARGV[6], ARGV[7], ARGV[8], ARGV[9])
call('HSET', p .. 'sizes', id, table.concat({ARGV[6], ARGV[7], ARGV[8], ARGV[9]}, ' '))
call('SET', p .. 'c:' .. ARGV[2], version, 'PX', ARGV[3])
tell(version, id)
return {'made', text(now), version}
"""

#: id, commit, how long that is remembered in ms
_DELETE: Final = """
local made = remembered(ARGV[2], ARGV[3])
if made then return {'made', text(now), made} end
make_way()
local was_there = is_there(ARGV[1]) and remove(ARGV[1], 'deleted')
call('SET', p .. 'c:' .. ARGV[2], was_there and '1' or '0', 'PX', ARGV[3])
return {'made', text(now), was_there and '1' or '0'}
"""

_EXPIRE: Final = """
local gone, left = expire(200)
return {'expired', text(now), gone, left}
"""

#: a birth, how many ids. Gives the expired ones too, how many sessions may have expired that nobody has looked at, and
#: the birth up to which it lists; what was born after the given one, if nothing has expired.
_LIST: Final = """
local gone, left = expire(200)
if left > 0 then return {'expired', text(now), gone, left, ARGV[1], {}} end
local found = call('ZRANGEBYSCORE', p .. 'order', '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local last, ids = ARGV[1], {}
for i = 1, #found, 2 do ids[#ids + 1] = found[i]; last = text(found[i + 1]) end
return {'expired', text(now), gone, left, last, ids}
"""

_STATS: Final = """
local gone, left = expire(200)
return {'expired', text(now), gone, left, call('ZCARD', p .. 'order'), call('HLEN', p .. 'g'),
  call('HMGET', p .. 'counts', 'variables', 'programs', 'bytes', 'created', 'deleted', 'expired')}
"""

#: ids
_VERSIONS: Final = """
local found = {}
for i, id in ipairs(ARGV) do found[i] = call('HMGET', p .. 's:' .. id, 'b', 'v') end
return {'versions', text(now), found}
"""

#: id, program, size, most programs, most bytes
_PUT_PROGRAM: Final = """
local old = call('HGET', p .. 'gsizes', ARGV[1])
local there = call('HLEN', p .. 'g')
if not old and ARGV[4] ~= '' and there >= tonumber(ARGV[4]) then return {'programs', text(now), there} end
local more = ARGV[3] - (old or 0)
if is_full(more, ARGV[5]) then return {'bytes', text(now), text(counted('held')), text(more)} end
call('HSET', p .. 'g', ARGV[1], ARGV[2])
call('HSET', p .. 'gsizes', ARGV[1], ARGV[3])
count('held', more)
return {'made', text(now), '1'}
"""

#: id
_GET_PROGRAM: Final = """
local found = call('HGET', p .. 'g', ARGV[1])
if not found then return {'none', text(now)} end
return {'program', text(now), found}
"""

#: id, commit, how long that is remembered in ms
_DELETE_PROGRAM: Final = """
local made = remembered(ARGV[2], ARGV[3])
if made then return {'made', text(now), made} end
local was_there = call('HDEL', p .. 'g', ARGV[1])
count('held', -tonumber(call('HGET', p .. 'gsizes', ARGV[1]) or '0'))
call('HDEL', p .. 'gsizes', ARGV[1])
call('SET', p .. 'c:' .. ARGV[2], was_there, 'PX', ARGV[3])
return {'made', text(now), text(was_there)}
"""

#: the format of the keys, which this version of the project reads and writes. Tries all commands first, because a user
#: who lacks the right to one of them would have changes made by half.
_OPEN: Final = """
local h, z, t = p .. 'try:h', p .. 'try:z', p .. 'try:t'
for _, command in ipairs({
  {'HSET', h, 'a', '1'}, {'HINCRBY', h, 'a', '1'}, {'HGET', h, 'a'}, {'HMGET', h, 'a'}, {'HGETALL', h}, {'HLEN', h},
  {'HEXISTS', h, 'a'}, {'HDEL', h, 'a'}, {'ZADD', z, '1', 'a'}, {'ZRANGE', z, '0', '-1'}, {'ZCARD', z},
  {'ZRANGEBYSCORE', z, '0', '1'}, {'ZCOUNT', z, '0', '1'}, {'ZREM', z, 'a'}, {'SET', t, '1', 'PX', '1000'}, {'GET', t},
  {'PEXPIREAT', t, text(now + 1000)}, {'PTTL', t}, {'EXISTS', t}, {'DEL', h, z, t}, {'PUBLISH', p .. 'feed', 'try'},
}) do
  local found = redis.pcall(unpack(command))
  local problem = type(found) == 'table' and found.err
  if problem and (string.find(problem, 'NOPERM') or string.find(problem, "script can't")) then
    return redis.error_reply('NOPERM ' .. command[1])
  end
end
local there = call('HGET', p .. 'counts', 'format')
if not there then call('HSET', p .. 'counts', 'format', ARGV[1]) end
return {'format', text(now), there or ARGV[1]}
"""


@attrs.frozen
class Script:
    """A script, and the name by which the server knows it."""

    text: bytes
    sha: bytes


def _script(text: str) -> Script:
    made = (_COMMON + text).encode()
    return Script(made, hashlib.sha1(made, usedforsecurity=False).hexdigest().encode())


SCRIPTS: Final = {
    "create": _script(_CREATE),
    "fetch": _script(_FETCH),
    "commit": _script(_COMMIT),
    "delete": _script(_DELETE),
    "expire": _script(_EXPIRE),
    "list": _script(_LIST),
    "stats": _script(_STATS),
    "versions": _script(_VERSIONS),
    "put_program": _script(_PUT_PROGRAM),
    "get_program": _script(_GET_PROGRAM),
    "delete_program": _script(_DELETE_PROGRAM),
    "open": _script(_OPEN),
}
