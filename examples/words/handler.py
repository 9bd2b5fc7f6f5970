#!/usr/bin/env python3
"""Describes documents, for `tradewind run --pipe json`: a line in, a line out, as long as it lasts.

It is started once for each slot, so what is loaded here is loaded once and not for each document.
"""

import base64
import json
import sys
import time

from documents import Licences, NotText, describe, read

began = time.monotonic()
licences = Licences()
# What a handler says on stderr goes to its worker's log.
took = time.monotonic() - began
print(f"{len(licences.vectors)} licences loaded in {took:.2f} s", file=sys.stderr)

for line in sys.stdin:
    question = json.loads(line)
    # A name need not be UTF-8, and a JSON text must be.
    if "task_base64" in question:
        path = base64.b64decode(question["task_base64"])
    else:
        path = question["task"]
    try:
        answer = {"output": json.dumps(describe(read(path), licences))}
    except NotText:
        answer = {"skip": True}
    except OSError as error:
        # This document's failure, and not the handler's, which goes on.
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
