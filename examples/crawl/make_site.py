#!/usr/bin/env python3
"""Makes a site of Markdown files: a page for each section.

    make_site.py SITE FILE.md...

The first page has a link that leads nowhere, and links to the files themselves, which are no HTML.
"""

import html
import os
import re
import sys

PAGE = """<!DOCTYPE html>
<html><head><title>{title}</title><style>pre {{ white-space: pre-wrap }}</style></head>
<body><h1>{title}</h1>
<pre>{text}</pre>
{links}
</body></html>
"""


def write(path, title, text, links):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    lines = (f'<p><a href="{href}">{html.escape(name)}</a></p>' for href, name in links)
    page = PAGE.format(title=html.escape(title), text=html.escape(text), links="\n".join(lines))
    with open(path, "w") as file:
        file.write(page)


def main(site, sources):
    front = [("/moved.html", "A page that is not there"), ("https://example.org/", "Another site")]
    for source in sources:
        with open(source) as file:
            content = file.read()
        name = os.path.basename(source)
        folder = name.removesuffix(".md").lower()
        with open(os.path.join(site, name), "w") as file:
            file.write(content)
        front += [(f"{folder}/", name), (name, f"{name} itself")]
        # Text before the first heading, then headings and their texts in turn.
        before, *parts = re.split(r"^#+ (.*)$", content, flags=re.MULTILINE)
        sections = list(zip(parts[::2], parts[1::2]))
        # Only the first section is linked to from the contents: the rest is found page by page.
        write(f"{site}/{folder}/index.html", name, before, [("0.html#top", "Begin")])
        for number, (title, text) in enumerate(sections):
            links = [("./", "Contents"), ("../", "Front")]
            if number + 1 < len(sections):
                links += [(f"{number + 1}.html", sections[number + 1][0])]
            if 2 * number + 2 < len(sections):
                links += [(f"{2 * number + 2}.html", "Further on")]
            write(f"{site}/{folder}/{number}.html", title, text, links)
    write(f"{site}/index.html", "Front", "", front)


main(sys.argv[1], sys.argv[2:])
