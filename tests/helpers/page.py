# SPDX-License-Identifier: Apache-2.0
"""A page as a browser would read it."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """The elements of a page, each (tag, attributes), and the text in each element that is not empty."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.open = [], [], []
        self.source = path.read_bytes().decode("utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open, "all elements end"

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes)
        self.elements.append((tag, dict(attributes)))
        self.open += [tag] * (tag not in VOID)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag, attribute):
        return [values.get(attribute) for name, values in self.elements if name == tag]

    def text(self, tag):
        return [text for name, text in self.texts if name == tag]
