"""Are masks special to a domain? One-shot masks of several domains: their overlap, and their loss on each other's text.

No training takes place. Each domain's mask is found with calibration text of the domain alone, and once more with
other documents of the same kind (`again`), which says how much two samples differ. The parent under each mask then
reads held-out text of every domain. Ratios are to the parent under the mask of the text's own domain, paired over
documents. The overlap is the Jaccard index against that of independent masks with the same densities.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from itertools import combinations, product
from pathlib import Path
from typing import Any

import torch
from lottery import BITS, ratio
from reading import BATCH_TOKENS, WINDOW, Reader

from minigpt import assets
from minigpt.evaluation.run import text_bits
from minigpt.files import fingerprint, to_plain, write_json
from minigpt.machine import device_name
from minigpt.tickets.language import put, take
from minigpt.tickets.masks import Masks, Pattern, density, keep_best, magnitudes, prunable, weights_of
from minigpt.tickets.oneshot import ONE_SHOT, prune_in_one_shot
from minigpt.tickets.overlap import core_share, overlap
from minigpt.tickets.rounds import load_masks, masked, save_masks
from minigpt.transformer.calibration import calibration_batches


def mask_of(reader: Reader, part: int, criterion: str, remaining: float, pattern: str, tokens: int) -> Masks:
    """Find the mask of a domain in one shot.

    Args:
        reader: the domain's texts.
        part: 0 reads every other document of the calibration text, 1 those between.
        criterion: `magnitude`, which reads no text, or a key of `ONE_SHOT`.
        remaining: share of the matrices' weights that is left.
        pattern: `layer` or N:M.
        tokens: tokens of calibration text.
    """
    model = reader.model()
    if criterion == "magnitude":
        return keep_best(magnitudes(weights_of(model, prunable(model))), remaining, Pattern(pattern))
    documents = reader.corpora.domain.calibration[part::2]
    batches = calibration_batches(
        reader.tokenizer, documents, window=WINDOW, tokens=tokens, batch_tokens=min(tokens, BATCH_TOKENS)
    )
    masks = prune_in_one_shot(model, batches, criterion, remaining, Pattern(pattern))
    return {name: mask.cpu() for name, mask in masks.items()}


def measured(reader: Reader, model: Any, limit: int) -> dict[str, Any]:
    """Measure held-out text of a domain, document by document."""
    items = text_bits(model, reader.tokenizer, reader.part(reader.corpora.domain.heldout), batch_tokens=limit)
    return {BITS: sum(items.bits) / sum(items.bytes), **to_plain(items)}


def compare(readers: dict[str, Reader], masks: dict[str, Masks], batch_tokens: int) -> dict[str, Any]:
    """Let the parent under each mask read the text of each domain; return bits and ratios to the text's own mask."""
    first = next(iter(readers.values()))
    model = first.model()
    whole = take(model)
    lines: dict[str, dict[str, Any]] = {}
    for name in ("dense", *masks):
        put(model, whole if name == "dense" else masked(whole, masks[name]))
        lines[name] = {domain: measured(reader, model, batch_tokens) for domain, reader in readers.items()}
        print(name, {domain: round(row[BITS], 4) for domain, row in lines[name].items()}, flush=True)
    rows = {}
    for name in masks:
        for domain in readers:
            ours, own = ({"texts": {"heldout": lines[mask][domain]}} for mask in (name, domain))
            rows[f"{name} on {domain}"] = {"bits": lines[name][domain][BITS], "to_own": ratio(ours, own, "heldout")}
    return {"dense": {domain: row[BITS] for domain, row in lines["dense"].items()}, "masks": rows}


def overlaps(masks: dict[str, Masks]) -> dict[str, Any]:
    """Compare masks in pairs, and find the core that all domains share."""
    share, expected = core_share([mask for domain, mask in masks.items() if not domain.endswith(" again")])
    return {
        "densities": {domain: density(mask) for domain, mask in masks.items()},
        "pairs": {f"{a} {b}": asdict(overlap(masks[a], masks[b])) for a, b in combinations(masks, 2)},
        "core": share,
        "core_by_chance": expected,
    }


def main() -> None:
    """Find the masks that are missing, compare them, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of domain files")
    parser.add_argument("--domains", default="medical,law,finance")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of masks")
    parser.add_argument("--base", default=assets.DEFAULT_BASE)
    parser.add_argument("--criterion", choices=("magnitude", *ONE_SHOT), default="wanda")
    parser.add_argument("--pattern", default="layer", help="layer or N:M such as 2:4")
    parser.add_argument("--remaining", type=float, default=0.5, help="share of the matrices' weights that is left")
    parser.add_argument("--tokens", type=int, default=65536, help="of calibration text")
    parser.add_argument("--batch-tokens", type=int, default=16384, help="of a pass over held-out text")
    parser.add_argument("--limit", type=int, help="bytes of held-out text that is read [all]")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    names = options.domains.split(",")
    readers = {
        name: Reader(str(options.data / f"{name}.yaml"), options.base, options.device, options.limit) for name in names
    }
    masks: dict[str, Masks] = {}
    how = (options.criterion, options.remaining, options.pattern, options.tokens)
    for name, part in product(names, (0, 1)):
        path = options.work / f"{name}-{part}-{fingerprint(options.base, *how)}.safetensors"
        if not path.exists():
            save_masks(mask_of(readers[name], part, *how), path)
        label = f"{name} again" if part else name
        masks[label] = load_masks(path)
        print(label, f"{density(masks[label]):.3f} left", flush=True)
    settings = {name: getattr(options, name) for name in ("base", "criterion", "pattern", "remaining", "tokens")}
    result = {**settings, "limit": options.limit, "device": device_name(options.device), **overlaps(masks)}
    result |= compare(readers, masks, options.batch_tokens)
    write_json(options.json, result)
    print(json.dumps({key: result[key] for key in ("pairs", "core", "core_by_chance", "masks")}, indent=1))


if __name__ == "__main__":
    main()
