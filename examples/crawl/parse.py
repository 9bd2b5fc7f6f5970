#!/usr/bin/env python3
"""The stage that takes pages apart."""

import json

from handler import serve
from pages import Page


def parse(fetched):
    html, _, last = fetched.rpartition(b"\n")
    url, _, kind = last.decode().partition(" ")
    if kind.partition(";")[0] != "text/html":
        return None
    page = Page(url, html.decode(errors="replace"))
    return json.dumps(
        {"url": url, "title": page.title, "links": page.links, "text": page.text}
    )


serve(parse)
