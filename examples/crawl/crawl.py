#!/usr/bin/env python3
"""Crawls a site: the links in the job's records are the job's next tasks.

    crawl.py TRADEWIND URL INDEX.json

Writes which pages of that site have a word: {"word": ["/page.html", ...], ...}.
"""

import json
import queue
import subprocess
import sys
import threading
from urllib.parse import urlsplit


class Job:
    """The pipeline, as a process that reads URLs and writes records."""

    def __init__(self, tradewind):
        command = [tradewind, "run", "--pipeline", "crawl.toml", "--no-progress"]
        command += ["--input", "-", "--output", "-", "--format", "jsonl", "--unordered"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.todo = queue.SimpleQueue()
        # A full pipe must not keep us from reading: on a thread of its own.
        threading.Thread(target=self._write, daemon=True).start()

    def _write(self):
        try:
            for url in iter(self.todo.get, None):
                print(url, file=self.process.stdin, flush=True)
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # Its exit code says more.

    def give(self, url):
        self.todo.put(url)

    def close(self):
        """There is nothing more to do."""
        self.todo.put(None)

    def records(self):
        return map(json.loads, self.process.stdout)


def crawl(job, start):
    """The records of all pages that can be reached, by URL."""
    urls, seen, records = [start], {start}, {}
    job.give(start)
    for record in job.records():
        records[urls[record["seq"]]] = record
        if record["status"] == "ok":
            record["page"] = json.loads(record["output"])
            for link in record["page"]["links"]:
                if link not in seen and urlsplit(link).netloc == urlsplit(start).netloc:
                    seen.add(link)
                    urls.append(link)
                    job.give(link)
        if len(records) == len(urls):
            job.close()
    if len(records) < len(urls):
        sys.exit(f"crawl.py: {len(urls)} URLs and {len(records)} records")
    return records


def main(tradewind, start, output):
    job = Job(tradewind)
    records = crawl(job, start)
    code = job.process.wait()
    if code not in (0, 1):
        sys.exit(f"crawl.py: the job ended with exit code {code}")
    index = {}
    for url, record in sorted(records.items()):
        path = urlsplit(url).path
        if record["status"] == "skipped":
            print(f"skipped in {record['stage']}: {path}")
        elif record["status"] != "ok":
            # What the command itself has said, if anything, says most.
            error = (record.get("stderr") or record["error"]).strip().splitlines()[-1]
            print(f"{record['status']} in {record['stage']}: {path}: {error}")
        else:
            for word in record["page"]["words"]:
                index.setdefault(word, []).append(path)
    with open(output, "w") as file:
        json.dump(index, file, indent=1, sort_keys=True)
    ok = sum(record["status"] == "ok" for record in records.values())
    print(f"{len(records)} URLs, {ok} pages, {len(index)} words")


if len(sys.argv) != 4:
    sys.exit(__doc__)
main(*sys.argv[1:])
