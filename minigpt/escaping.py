"""Escaping of text that others wrote, before it is shown: control sequences for terminals, markup for Markdown."""

from __future__ import annotations

import re

# Control characters (C0 without tab and line end, DEL, C1), marks that turn the direction of text, and surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Characters of JSON text that some terminals obey, though JSON allows them.
_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Characters with a meaning inside a line of Markdown; an underscore inside a word has none.
_MARKDOWN = re.compile(r"[\\`*\[\]]|(?<![^\W_])_|_(?![^\W_])")
# Beginning of HTML, of a comment, or of an address in angle brackets.
_HTML = re.compile(r"<(?=[A-Za-z/!?])")


def printable(text: str) -> str:
    """Replace every character that could steer a terminal by `�`; tabs and line ends stay."""
    return _CONTROL.sub("�", text)


def json_printable(text: str) -> str:
    """Write characters of a JSON document that could steer a terminal as JSON escapes; the document means the same."""
    return _JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def valid(text: str) -> str:
    """Replace lone surrogates by `�`, so that text can be written as UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def one_line(text: str) -> str:
    """Write text as one line without control characters, which cannot begin a block of its own."""
    return printable(re.sub(r"\s+", " ", text)).strip()


def markdown_sentence(text: str) -> str:
    """Write a sentence of ours, which may quote others, as one line of Markdown.

    Its code spans and emphasis stay; a link, an image or HTML cannot begin in it.
    """
    spans = one_line(text).split("`")
    if len(spans) % 2 == 0:  # a backquote without its partner
        return markdown(text)
    spans[::2] = [_HTML.sub("&lt;", span).replace("](", "]\\(").replace("![", "!\\[") for span in spans[::2]]
    return "`".join(spans)


def markdown(text: str) -> str:
    """Write text as one line of Markdown in which every character stands for itself: no markup, links or HTML."""
    escaped = _HTML.sub("&lt;", _MARKDOWN.sub(r"\\\g<0>", one_line(text).replace("&", "&amp;")).replace("~", "&#126;"))
    # A bare address would become a link by itself.
    escaped = re.sub(r"(?i)\b(https?|ftp|javascript|data):", r"\1&#58;", escaped)
    return re.sub(r"^(\d*)([-+#.)])", r"\1\\\2", escaped)


def markdown_cell(text: str) -> str:
    """Write text for a cell of a Markdown table, which it cannot leave."""
    return markdown(text).replace("|", "\\|")
