"""A worker's pool keeps watching its children, whatever the event loop reports about them."""

import subprocess
import sys

import pytest

# Forks, so it has a process of its own. It prints what it finds, one word a line.
POOL = """
import os, signal, sys, time
from kombu.asynchronous import Hub, set_event_loop
from worker.prefork import PreforkPool

hub = Hub()
set_event_loop(hub)
hub.poller
pool = PreforkPool.Pool(2, threads=False, max_restarts=100)
pool.register_with_event_loop(hub)
loop = hub.create_loop()

def until(happened):
    end = time.monotonic() + 20
    while not happened() and time.monotonic() < end:
        next(loop)
    return happened()

try:
    child = pool._pool[0]
    callback, arguments = hub.readers[child._sentinel_poll]
    callback(*arguments)
    print("watched" if child._sentinel_poll in hub.readers else "forgotten", flush=True)
    # As when the broker is back after a lost connection.
    pool.register_with_event_loop(hub)
    print("registered", flush=True)
    os.kill(child.pid, signal.SIGKILL)
    until(lambda: child not in pool._pool)
    print("replaced" if child not in pool._pool and len(pool._pool) == 2 else "missing", flush=True)
finally:
    pool.terminate()
"""


@pytest.mark.far
def test_a_live_pool_child_stays_watched_after_a_stale_event_and_a_lost_connection() -> None:
    asked = subprocess.run([sys.executable, "-c", POOL], capture_output=True, text=True, timeout=60, check=False)

    assert asked.stdout.split() == ["watched", "registered", "replaced"], asked.stderr
