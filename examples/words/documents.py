"""What is to be known of a document. Knows nothing of Tradewind."""

import gzip
import math
import os
import re
import zlib
from collections import Counter

WORD = re.compile(r"[^\W\d_]{2,}")
BUCKETS = 1 << 14


class NotText(Exception):
    """The file has something else in it than text."""


def read(path):
    """The text of a file, which may be gzipped. Raises NotText or OSError."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        if os.fsencode(path).endswith(b".gz"):
            content = gzip.decompress(content)
        text = content.decode()
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError):
        raise NotText from None
    if "\0" in text:
        raise NotText
    return text


def words(text):
    return WORD.findall(text.lower())


def embed(words):
    """A text as a unit vector: its words and pairs of words, each hashed to a dimension."""
    vector = Counter()
    for words_or_pairs in (words, map(" ".join, zip(words, words[1:]))):
        for text, count in Counter(words_or_pairs).items():
            vector[zlib.crc32(text.encode()) % BUCKETS] += 1 + math.log(count)
    length = math.sqrt(sum(x * x for x in vector.values())) or 1.0
    return {bucket: x / length for bucket, x in vector.items()}


class Licences:
    """The model: the full texts of common licences, embedded. Takes a while to load."""

    def __init__(self, folder="/usr/share/common-licenses"):
        self.vectors = {}
        if not os.path.isdir(folder):
            return
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            # GPL is a link to GPL-3.
            if os.path.isfile(path) and not os.path.islink(path):
                self.vectors[name] = embed(words(read(path)))

    def nearest(self, vector):
        """The name of the licence that is most like it, and the cosine between them."""
        best = (None, 0.0)
        for name, other in self.vectors.items():
            cosine = sum(x * other.get(bucket, 0.0) for bucket, x in vector.items())
            if cosine > best[1]:
                best = (name, cosine)
        return best


def describe(text, licences):
    """What is to be known of it: its words, counted, and the licence that it is most like."""
    found = words(text)
    licence, cosine = licences.nearest(embed(found))
    return {"words": Counter(found), "licence": licence, "likeness": round(cosine, 6)}
