"""The loop of a handler for `pipe = "json"`: a line in, a line out."""

import base64
import json
import sys


def serve(answer):
    """Answers each task (bytes) with what `answer` makes of it: a text, or None to skip it."""
    for line in sys.stdin:
        question = json.loads(line)
        if "task_base64" in question:
            task = base64.b64decode(question["task_base64"])
        else:
            task = question["task"].encode()
        try:
            output = answer(task)
            reply = {"skip": True} if output is None else {"output": output}
        except ValueError as error:
            reply = {"error": str(error)}
        print(json.dumps(reply), flush=True)
