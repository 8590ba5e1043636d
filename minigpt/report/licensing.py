"""Licenses of a model's parent and texts in the form that the Hub's cards have them."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Names of licenses that the Hub accepts in a card's metadata; it refuses a card with any other
# (https://huggingface.co/docs/hub/repositories-licenses, and the list in
# https://github.com/huggingface/huggingface_hub/issues/4218).
_NAMES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma
"""
HUB_NAMES = frozenset(_NAMES.split())
# The Hub's names for a license that nobody stated, and for one that it has no name for.
UNKNOWN, OTHER = "unknown", "other"
# Names of licenses whose versions the Hub does not tell apart.
UNVERSIONED = {"odc-by-1.0": "odc-by", "odbl-1.0": "odbl", "pddl-1.0": "pddl", "cc0": "cc0-1.0"}
_REMARK = re.compile(r"\([^()]{0,400}\)")
_ADDRESS = re.compile(r"https?://[^\s,;()]{1,400}")


def license_metadata(parent: str | None, texts: Iterable[str]) -> dict[str, str | list[str]]:
    """Write the licenses of a parent and of the texts that were trained on as the metadata of a card.

    Where the Hub has a name for each, there is one name or a list of them. Otherwise the license is `other`, and its
    name joins all of them.

    Args:
        parent: License of the parent; None if nobody stated it.
        texts: Licenses of the texts, as their sources state them; one may hold several, with remarks in brackets.
    """
    stated = [part for license in (parent or UNKNOWN, *texts) for part in _parts(license)]
    names = dict.fromkeys(_slug(part) for part in stated)
    if all(name in HUB_NAMES or name == UNKNOWN for name in names):
        return {"license": list(names) if len(names) > 1 else next(iter(names))}
    joined: dict[str, str | list[str]] = {"license": OTHER, "license_name": "-and-".join(names)}
    links = list(dict.fromkeys(_ADDRESS.findall(" ".join(texts))))
    return joined | ({"license_link": links[0]} if len(links) == 1 else {})


def _parts(license: str) -> list[str]:
    """Split what a source states into single licenses, without remarks and addresses."""
    bare = _ADDRESS.sub("", _REMARK.sub("", license))
    return [part.strip() for part in re.split(r"[;,\n]", bare) if part.strip()] or [UNKNOWN]


def _slug(license: str) -> str:
    """Write the name of a license as the Hub does: small letters, digits, hyphens and dots."""
    name = re.sub(r"[^a-z0-9.+]+", "-", license.lower()).strip("-.") or UNKNOWN
    name = re.sub(r"-(?:only|or-later)$", "", name)
    name = UNVERSIONED.get(name, name)
    return name if name in HUB_NAMES else name.replace("+", "-").strip("-.") or UNKNOWN
