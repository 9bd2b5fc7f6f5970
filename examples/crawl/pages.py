"""What is in a page. Knows no network and nothing of Tradewind."""

import re
from html.parser import HTMLParser
from urllib.parse import urldefrag, urljoin

WORD = re.compile(r"[^\W\d_]{2,}")


class Page(HTMLParser):
    """A page's title, links and text."""

    def __init__(self, url, html):
        super().__init__()
        self.url, self.title, self.text = url, "", ""
        self.links = []
        self.inside = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        if tag in ("title", "script", "style"):
            self.inside.append(tag)
        target = dict(attributes).get("href") if tag == "a" else None
        if target:
            link = urldefrag(urljoin(self.url, target)).url
            if link.startswith(("http://", "https://")) and link not in self.links:
                self.links.append(link)

    def handle_endtag(self, tag):
        if tag in self.inside:
            self.inside.remove(tag)

    def handle_data(self, data):
        if "title" in self.inside:
            self.title += data
        elif not self.inside:
            self.text += data


def words(text):
    """The different words of a text, sorted."""
    return sorted(set(WORD.findall(text.lower())))
