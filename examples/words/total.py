#!/usr/bin/env python3
"""Sums up what is known of all documents.

    total.py RECORDS.jsonl              what Tradewind's records say
    total.py --without-tradewind NAMES  the same from the files themselves, one after another;
                                        names end with NULs
"""

import hashlib
import json
import sys
from collections import Counter

from documents import Licences, NotText, describe, read


def from_records(path):
    """What is known of each document, in the order of the input; None where it is not text."""
    with open(path) as records:
        for seq, line in enumerate(records):
            record = json.loads(line)
            if record["seq"] != seq:
                sys.exit(f"total.py: record {record['seq']} stands where {seq} should")
            if record["status"] not in ("ok", "skipped"):
                sys.exit(f"total.py: document {seq} is {record['status']}: {record['error']}")
            yield json.loads(record["output"]) if record["status"] == "ok" else None


def from_files(path):
    licences = Licences()
    with open(path, "rb") as names:
        for name in names.read().split(b"\0")[:-1]:
            try:
                yield describe(read(name), licences)
            except NotText:
                yield None


def main(documents):
    texts = others = 0
    words, licences, digest = Counter(), Counter(), hashlib.sha256()
    for document in documents:
        digest.update(json.dumps(document, sort_keys=True).encode())
        if document is None:
            others += 1
            continue
        texts += 1
        words.update(document["words"])
        if document["likeness"] >= 0.5:
            licences[document["licence"]] += 1
    print(f"{texts} documents, {others} files that are no text")
    print(f"{sum(words.values())} words, {len(words)} different ones; the commonest:")
    for word, count in sorted(words.items(), key=lambda item: (-item[1], item[0]))[:8]:
        print(f"{count:8} {word}")
    print("documents that are much like a licence:")
    for licence, count in sorted(licences.items()):
        print(f"{count:8} {licence}")
    print(f"digest of all, in order: {digest.hexdigest()[:16]}")


if len(sys.argv) == 3 and sys.argv[1] == "--without-tradewind":
    main(from_files(sys.argv[2]))
elif len(sys.argv) == 2:
    main(from_records(sys.argv[1]))
else:
    sys.exit(__doc__)
