#!/usr/bin/env python3
"""Submits a task to a queue of `tradewind serve`, waits for its record, and prints its output.

    python3 client.py QUEUE KEY TASK      # run again with the same key, it is the same task
"""

import base64, json, os, sys, urllib.request

url = os.environ.get("TRADEWIND_URL", "http://127.0.0.1:5560")
queue, key, task = sys.argv[1:]
headers = {"Content-Type": "application/octet-stream", "Idempotency-Key": json.dumps(key)}
request = urllib.request.Request(f"{url}/v1/queues/{queue}/tasks", task.encode(), headers)
answer = json.load(urllib.request.urlopen(request))
while "position" not in answer:  # Then it is the record.
    answer = json.load(urllib.request.urlopen(f"{url}/v1/tasks/{answer['id']}?wait=30s"))
output = answer.get("output", "").encode() or base64.b64decode(answer.get("output_base64", ""))
sys.stdout.buffer.write(output)
sys.exit(answer["status"] != "ok")
