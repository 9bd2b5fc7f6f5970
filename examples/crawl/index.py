#!/usr/bin/env python3
"""The stage that finds the words of a page."""

import json

from handler import serve
from pages import words


def index(parsed):
    page = json.loads(parsed)
    text = page.pop("text")
    page["words"] = words(page["title"] + " " + text)
    return json.dumps(page)


serve(index)
