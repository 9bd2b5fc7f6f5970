"""A worker's tasks and the programs that send them, on Redis; prints how long all took, in seconds.

celery_job.py echo INPUT OUTPUT    sends a task a line, and writes the results
celery_job.py submit INPUT         sends a task a line
celery_job.py roundtrips COUNT     sends a task when the one before has its result; prints a time each

The broker's URL is in BROKER.
"""

import os
import sys
import time

from celery import Celery, group
from celery.result import ResultSet

app = Celery("celery_job", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
# A worker that has its next tasks already.
app.conf.worker_prefetch_multiplier = 64

WARMUP = 20


@app.task
def echo(task):
    return task


def tasks_of(source):
    with open(source) as lines:
        return lines.read().splitlines()


def wait_for_worker():
    while not app.control.ping(timeout=0.5):
        pass


def run_echo(source, target):
    tasks = tasks_of(source)
    wait_for_worker()
    began = time.monotonic()
    results = ResultSet([echo.delay(task) for task in tasks])
    outputs = results.join_native(timeout=300)
    with open(target, "w") as out:
        out.writelines(f"{output}\n" for output in outputs)
    print(time.monotonic() - began)


def run_submit(source):
    tasks = tasks_of(source)
    # The connection is up before.
    echo.delay("")
    began = time.monotonic()
    group(echo.s(task) for task in tasks).apply_async()
    print(time.monotonic() - began)


def run_roundtrips(count):
    wait_for_worker()
    for number in range(WARMUP + int(count)):
        began = time.monotonic()
        output = echo.delay("0123456789abcdef").get(timeout=300)
        took = time.monotonic() - began
        assert output == "0123456789abcdef"
        if number >= WARMUP:
            print(took)


if __name__ == "__main__":
    what, *args = sys.argv[1:]
    {"echo": run_echo, "submit": run_submit, "roundtrips": run_roundtrips}[what](*args)
