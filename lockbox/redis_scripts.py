"""The schedule's Lua scripts (a few milliseconds a call), their Redis client, and counts of Redis' contents."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.asyncio import Redis as LoopRedis
from redis.asyncio.retry import Retry as LoopRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

UNACKED = "unacked"
UNACKED_INDEX = "unacked_index"
LAST_WRITES = ("rdb_last_bgsave_status", "aof_last_write_status")
ARM = """
local index, leases = KEYS[1], KEYS[2]
local bell, name, only_missing, news, kind_count = ARGV[1], ARGV[2], ARGV[3] == '1', ARGV[4], tonumber(ARGV[5])
local first = 6 + kind_count
local clock = redis.call('TIME')
-- Rounded up: what is armed by a delay is never due early.
local now = clock[1] * 1000 + math.ceil(clock[2] / 1000)
local head = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
local earliest = math.huge
if head[2] and head[2] ~= 'inf' then earliest = tonumber(head[2]) end
local soonest = math.huge

local function held(id)
  for k = 6, first - 1 do
    local member = ARGV[k] .. ':' .. id
    if redis.call('ZSCORE', index, member) or redis.call('ZSCORE', leases, member) then return true end
  end
  return false
end

-- Ids that share a kind and a due time are one group: three calls, however many they are.
for at = first, #ARGV, 3 do
  local kind, score = ARGV[at], ARGV[at + 1]
  local due = tonumber(score)
  if string.sub(score, 1, 1) == '+' then due = now + tonumber(string.sub(score, 2)) end
  local leased, dropped, added = {}, {}, {}
  for id in string.gmatch(ARGV[at + 2], '%S+') do
    if not (only_missing and held(id)) then
      for k = 6, first - 1 do
        local member = ARGV[k] .. ':' .. id
        leased[#leased + 1] = member
        if due and ARGV[k] == kind then
          added[#added + 1] = string.format('%.0f', due)
          added[#added + 1] = member
        else
          dropped[#dropped + 1] = member
        end
      end
    end
  end
  if #leased > 0 then redis.call('ZREM', leases, unpack(leased)) end
  if #dropped > 0 then redis.call('ZREM', index, unpack(dropped)) end
  if #added > 0 then
    redis.call('ZADD', index, unpack(added))
    soonest = math.min(soonest, due)
  end
end
if news ~= '' then
  local told, ended = {}, {}
  for at = first, #ARGV, 3 do
    told[#told + 1] = ARGV[at + 2]
    -- What is due for nothing any more has ended.
    if ARGV[at + 1] == '' then ended[#ended + 1] = ARGV[at + 2] end
  end
  if #ended > 0 then redis.call('PUBLISH', news .. ':ends', table.concat(ended, ' ')) end
  redis.call('PUBLISH', news, table.concat(told, ' '))
end
if soonest < earliest then redis.call('PUBLISH', bell, name) end
return soonest < earliest and 1 or 0
"""
CLAIM = """
local index, leases = KEYS[1], KEYS[2]
local most, lease, budget, lead = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local first_busy, first_lease = tonumber(ARGV[5]), tonumber(ARGV[6])
local first_late, trickle, urgent = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if KEYS[3] then
  local head = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
  local is_late = head[2] and head[2] ~= 'inf' and now - tonumber(head[2]) > first_late
  local is_busy = redis.call('ZCOUNT', KEYS[4], now, now + first_lease) > first_busy
  if is_busy then most = 0 elseif is_late then most = trickle end
end
local taken, upto = {}, now + lead
if urgent > 0 then
  -- What goes before all others, by the years that its score lies back, waits for nobody's budget.
  budget, upto = budget + most, now - urgent
else
  taken = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, most)
end
local room = math.min(most - #taken, budget - redis.call('ZCARD', leases))
local held_back = room < most - #taken
if room > 0 then
  local due = redis.call('ZRANGEBYSCORE', index, '-inf', upto, 'LIMIT', 0, room)
  if #due > 0 then redis.call('ZREM', index, unpack(due)) end
  for _, member in ipairs(due) do taken[#taken + 1] = member end
end
for _, member in ipairs(taken) do
  redis.call('ZADD', leases, string.format('%.0f', now + lease), member)
end

local idle = 3600000
for key, early in pairs({[index] = lead, [leases] = 0}) do
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if head[2] and head[2] ~= 'inf' then idle = math.min(idle, math.max(0, tonumber(head[2]) - early - now)) end
end
if idle == 0 and held_back then idle = 10 end
if KEYS[3] and most <= trickle then idle = 50 end
local last = redis.call('ZRANGE', index, -1, -1)
return {taken, idle, last[1] or ''}
"""
MARK = """
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], 'inf', ARGV[2])
return 1
"""


class RedisUnavailable(Exception):  # noqa: N818 - a state of affairs that callers plan for
    """Nothing is lost: Postgres holds everything that Redis holds."""


@contextmanager
def redis_errors() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise RedisUnavailable(type(error).__name__) from error


@dataclass(frozen=True)
class QueueDepth:
    """Timers due in a time span, notifications (including leased ones), and unacknowledged Celery messages.

    `oldest_unacked_at` is when the oldest unacknowledged message was handed out, in seconds since 1970 by the clock
    of its worker; `now` is Redis' own clock.
    """

    clocks_in_span: int
    notifications: int
    unacked: int
    oldest_unacked_at: float | None
    now: float


def measure(client: "Redis", clock: str, notifications: tuple[str, str], span: tuple[float, float]) -> QueueDepth:
    """Count in one round trip, at a cost independent of the contents. Raises RedisError."""
    with client.pipeline(transaction=False) as pipe:
        pipe.zcount(clock, f"({span[0]:.0f}", f"{span[1]:.0f}")
        pipe.zcount(notifications[0], "-inf", "(+inf")
        pipe.zcard(notifications[1])
        pipe.hlen(UNACKED)
        pipe.zrange(UNACKED_INDEX, 0, 0, withscores=True)
        pipe.time()
        answers: list[Any] = pipe.execute()
    clocks, waiting, leased, unacked, oldest, (seconds, micros) = answers
    return QueueDepth(
        clocks_in_span=int(clocks),
        notifications=int(waiting) + int(leased),
        unacked=int(unacked),
        oldest_unacked_at=float(oldest[0][1]) if oldest else None,
        now=int(seconds) + int(micros) / 1_000_000,
    )


@dataclass(frozen=True)
class RedisFacts:
    """`is_kept` is whether Redis' data survives a restart; None where Redis does not tell.

    `now` is Redis' clock, in seconds since 1970.
    """

    policy: str
    used: int
    most: int
    is_replica: bool
    is_kept: bool | None
    is_written: bool
    now: float


def read_facts(url: str, *, timeout: float) -> RedisFacts:
    with redis_errors(), connect(url, timeout=timeout) as client:
        seconds, micros = client.time()
        memory: Any = client.info("memory")
        replication: Any = client.info("replication")
        persistence: Any = client.info("persistence")
        is_logged = bool(persistence.get("aof_enabled"))
        return RedisFacts(
            policy=str(memory.get("maxmemory_policy", "noeviction")),
            used=int(memory.get("used_memory", 0)),
            most=int(memory.get("maxmemory", 0)),
            is_replica=replication.get("role") != "master",
            is_kept=is_logged or _is_saved(client),
            is_written="err" not in {persistence.get(name) for name in LAST_WRITES},
            now=int(seconds) + int(micros) / 1_000_000,
        )


def _is_saved(client: "Redis") -> bool | None:
    try:
        found: Any = client.config_get("save")
    except RedisError:
        return None
    return bool(found.get("save"))


def connect(url: str, *, timeout: float) -> "Redis":
    """Return a client that tries each call once, for at most `timeout` seconds."""
    return Redis.from_url(
        url,
        protocol=2,
        # Sending the library's name would cost each connection two more calls.
        driver_info=None,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
    )


def connect_on_loop(url: str) -> "LoopRedis":
    """Return a client for an event loop. It sets no time limit: the caller limits each call."""
    return LoopRedis.from_url(
        url, protocol=2, driver_info=None, socket_keepalive=True, retry=LoopRetry(NoBackoff(), 0)
    )
