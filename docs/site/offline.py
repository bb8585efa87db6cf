"""Refuses to build a page that would load something from another machine: the pages are read without a network too."""

import re

from mkdocs.exceptions import PluginError

ELSEWHERE = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=[\"']?((?:https?:)?//[^\"' >]+)")


def on_post_page(output, page, **_):
    """Look at a page as it is written."""
    found = ELSEWHERE.findall(output)
    if found:
        raise PluginError(f"{page.file.src_uri} loads from elsewhere: {', '.join(found)}")
