"""A Dask cluster on this machine and a job for it; prints how long all took, in seconds.

dask_job.py INPUT OUTPUT HOST echo|sleep FACTOR...    a worker of one thread for each FACTOR
"""

import sys
import time

from distributed import Client, LocalCluster, get_worker


def echo(task):
    return task


def sleep(task, factors):
    time.sleep(float(task) * factors[get_worker().name])
    return task


def main(source, target, host, what, *factors):
    with open(source) as lines:
        tasks = lines.read().splitlines()
    factors = [float(factor) for factor in factors]
    cluster = LocalCluster(
        n_workers=len(factors), threads_per_worker=1, host=host, dashboard_address=None
    )
    with cluster, Client(cluster) as client:
        client.wait_for_workers(len(factors))
        began = time.monotonic()
        # Without `pure`, equal tasks would be taken for one.
        if what == "echo":
            futures = client.map(echo, tasks, pure=False)
        else:
            futures = client.map(sleep, tasks, factors=factors, pure=False)
        outputs = client.gather(futures)
        with open(target, "w") as out:
            out.writelines(f"{output}\n" for output in outputs)
        print(time.monotonic() - began, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
