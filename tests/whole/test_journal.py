"""Every line of a worker's journal is JSON, even what Celery, Python and others print themselves."""

import json

import pytest

from harness.stage import Urls
from tests.whole.warm import warm

LOUD = """
import os, runpy, signal, sys, threading, warnings
from celery.signals import worker_ready

@worker_ready.connect(weak=False)
def be_loud(**_):
    warnings.warn("mind this", UserWarning)
    print("one line\\nand another")
    thread = threading.Thread(target={}.__getitem__, args=("lost",))
    thread.start()
    thread.join()
    # Celery may not be told to end before it has begun to wait for messages.
    threading.Timer(2, os.kill, (os.getpid(), signal.SIGTERM)).start()

sys.argv = ["worker", "core"]
runpy.run_module("worker", run_name="__main__")
"""


@pytest.mark.far
def test_the_journal_output_of_a_worker_is_json(urls: Urls) -> None:
    good = {"LOCKBOX_WORKER_DATABASE_URL": urls.worker, "LOCKBOX_REDIS_URL": urls.redis}

    ended = warm().run(good, script=LOUD)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert all({"event", "level", "timestamp", "logger"} <= line.keys() for line in lines)
    printed = [line["text"] for line in lines if line["event"] == "process.printed"]
    assert {"one line", "and another"} <= set(printed)
    assert any(text.startswith("worker: Hitting Ctrl+C") for text in printed)
    assert any("UserWarning: mind this" in line["event"] for line in lines)
    (crashed,) = (line for line in lines if line["event"] == "process.crashed")
    assert "KeyError: 'lost'" in crashed["exception"]


@pytest.mark.far
def test_a_worker_refusing_to_start_says_so_in_json(urls: Urls) -> None:
    good = {"LOCKBOX_WORKER_DATABASE_URL": urls.worker, "LOCKBOX_REDIS_URL": urls.redis}
    refused = warm().run(good | {"LOCKBOX_CONNECTORS_DATABASE_URL": urls.worker}, module="worker", options=["core"])

    (line,) = [json.loads(line) for line in refused.stderr.splitlines()]
    assert refused.returncode == 1
    assert line["text"].startswith("lockbox: LOCKBOX_CONNECTORS_DATABASE_URL is for the connector worker alone")


@pytest.mark.far
def test_celery_keeps_its_banner_on_a_terminal(urls: Urls) -> None:
    good = {"LOCKBOX_WORKER_DATABASE_URL": urls.worker, "LOCKBOX_REDIS_URL": urls.redis}

    ended = warm().run(good | {"LOCKBOX_LOG_FORMAT": "console"}, script=LOUD)

    assert ended.returncode == 0, ended.stderr
    assert "[queues]" in ended.stdout
