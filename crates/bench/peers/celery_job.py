"""A worker's tasks and the job that sends them, on Redis; prints how long all took, in seconds.

celery_job.py INPUT OUTPUT    with the broker's URL in BROKER
"""

import os
import sys
import time

from celery import Celery
from celery.result import ResultSet

app = Celery("celery_job", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
# A worker that has its next tasks already.
app.conf.worker_prefetch_multiplier = 64


@app.task
def echo(task):
    return task


def main(source, target):
    with open(source) as lines:
        tasks = lines.read().splitlines()
    while not app.control.ping(timeout=0.5):
        pass
    began = time.monotonic()
    results = ResultSet([echo.delay(task) for task in tasks])
    outputs = results.join_native(timeout=300)
    with open(target, "w") as out:
        out.writelines(f"{output}\n" for output in outputs)
    print(time.monotonic() - began)


if __name__ == "__main__":
    main(*sys.argv[1:])
