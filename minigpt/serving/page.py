"""The chat page: one file without outside resources, which a browser may only run as it was shipped."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from minigpt.serving.engine import Engine

TEMPLATE = Path(__file__).with_name("chat.html")
MODELS = "{{MODELS}}"


def chat_page(engines: Sequence[Engine]) -> str:
    """Return the page for these models, with their names as data in it."""
    models = [{"id": engine.name, "chat": engine.has_template} for engine in engines]
    # `<` could end the script element that the data stands in.
    data = json.dumps(models).replace("<", "\\u003c")
    return TEMPLATE.read_text("utf-8").replace(MODELS, data)


def content_policy(page: str) -> str:
    """Return the Content-Security-Policy of a page: its own script and style by hash, and requests to this server."""
    scripts = " ".join(_hash(text) for text in re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL))
    styles = " ".join(_hash(text) for text in re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL))
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )


def _hash(text: str) -> str:
    """Return the hash by which a policy names an inline element."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
