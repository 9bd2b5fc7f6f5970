"""What schemathesis does not know of: lines of JSON, and that a request waits as long as it says."""

import json
import re

import schemathesis

LINES = "application/x-ndjson"


@schemathesis.serializer(LINES)
def as_line(ctx, value):
    return json.dumps(value).encode() + b"\n"


@schemathesis.deserializer(LINES)
def last_object(ctx, response):
    # There may be no record, and so nothing to compare.
    none = b'{"position":0,"id":"none-0","status":"ok"}'
    return json.loads((response.content.splitlines() or [none])[-1])


@schemathesis.check
def each_line_is_an_object_with_an_id(ctx, response, case):
    if response.headers.get("content-type") == [LINES]:
        for line in response.content.splitlines():
            assert isinstance(json.loads(line)["id"], str), line


@schemathesis.hook
def before_load_schema(ctx, raw_schema):
    """Leaves the bytes of any other type to application/octet-stream: lines would be sent as such, too."""
    del raw_schema["paths"]["/v1/queues/{queue}/tasks"]["post"]["requestBody"]["content"]["*/*"]


@schemathesis.hook
def filter_failure(ctx, failure, case, response):
    """Passes over lines that were refused since they came with a parameter of a task that is the body: the
    description says so in words only."""
    of_body = {"retries", "timeout"} & set(case.query or {}) or "Idempotency-Key" in (case.headers or {})
    return not (case.media_type == LINES and of_body and response.status_code == 400)


@schemathesis.hook
def before_call(ctx, case, kwargs):
    """Has a valid request wait for a moment: there is no worker, so it would for all of its time."""
    query, headers = case.query or {}, case.headers or {}
    if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3}|ms|s|m|h)?", str(query.get("wait", ""))):
        query["wait"] = "1ms"
    if "wait" in headers.get("Prefer", ""):
        headers["Prefer"] = "wait=0"
