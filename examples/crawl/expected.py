#!/usr/bin/env python3
"""The index that a crawl should come to, from the files of the site alone.

    expected.py SITE INDEX.json
"""

import json
import os
import sys
from urllib.parse import urlsplit

from pages import Page, words

HOST = "http://site"


def main(site, output):
    todo, index = ["/"], {}
    for path in todo:  # which grows meanwhile
        file = site + path + ("index.html" if path.endswith("/") else "")
        if not file.endswith(".html") or not os.path.exists(file):
            continue
        with open(file) as html:
            page = Page(HOST + path, html.read())
        for word in words(page.title + " " + page.text):
            index.setdefault(word, []).append(path)
        for link in page.links:
            if link.startswith(HOST + "/") and urlsplit(link).path not in todo:
                todo.append(urlsplit(link).path)
    index = {word: sorted(paths) for word, paths in index.items()}
    with open(output, "w") as file:
        json.dump(index, file, indent=1, sort_keys=True)


main(*sys.argv[1:])
