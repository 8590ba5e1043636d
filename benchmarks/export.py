"""Size, agreement, bits per byte and decoding speed of several models in every export format.

The first model is the parent. Speeds are compared within a format only, by turns in one run, and stand beside the bytes
that are read for each token. A format whose package is missing, or that refuses a model, is reported and left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from minigpt.errors import MiniGPTError
from minigpt.exporting import EXPORTERS, ExportRequest, export
from minigpt.files import to_plain
from minigpt.models import bench, find
from minigpt.runtimes import RECORD, ExportRecord, read_record
from minigpt.transformer.arch import head_dim


def main() -> None:
    """Export, then time, then print one JSON line for each model and format."""
    options = parse()
    for kind, precision in format_pairs(options.formats):
        folders: list[Path] = []
        for name in options.models:
            target = options.output / f"{Path(name).name}-{kind}-{precision}"
            try:
                if not (target / RECORD).is_file():
                    export_model(name, kind, precision, target, options)
                folders.append(target)
            except MiniGPTError as error:
                append(options.results, {"model": name, "format": kind, "precision": precision, "refused": str(error)})
        if folders:
            work = bench.Workload(prompt=options.prompt, decode=options.decode, repeats=options.repeats)
            timed = bench.bench([str(folder) for folder in folders], device=options.device, workload=work)
            for folder, timing in zip(folders, timed.models, strict=True):
                first = read_record(folders[0])
                row = line(folder, read_record(folder), first, timing, timed)
                row["share_with_cache"] = row["decode_ratio"] * all_bytes(folder, work) / all_bytes(folders[0], work)
                append(options.results, row)


def export_model(name: str, kind: str, precision: str, target: Path, options: argparse.Namespace) -> None:
    """Export one model and verify the export."""
    request = ExportRequest(
        source=find.find_model(name),
        format=kind,
        precision=precision,
        output_dir=target,
        domain=options.domain,
        quality_bytes=options.quality_bytes,
        device=options.device,
    )
    export(request)


def line(
    folder: Path, record: ExportRecord, first: ExportRecord, timing: bench.Timing, timed: bench.Bench
) -> dict[str, Any]:
    """Put together the line of a model and format: the columns of the documentation's table and their sources."""
    reads = record.bytes_per_token / first.bytes_per_token
    speed = timing.ratios.get("decode", 1.0)
    return {
        "model": record.source.ref,
        "folder": folder.name,
        "format": record.format,
        "precision": record.precision,
        "bytes": record.bytes,
        "bytes_per_token": record.bytes_per_token,
        "checks": to_plain(record.checks),
        "greedy": to_plain(record.greedy),
        "quality": to_plain(record.quality),
        "quality_ratio": record.quality.ratio if record.quality else None,
        "prefill": timing.prefill,
        "decode": timing.decode,
        "load_seconds": timing.load_seconds,
        "peak_memory": timing.peak_memory,
        "decode_ratio": speed,
        "bytes_read_ratio": reads,
        "share_of_bandwidth_gain": speed * reads,
        "machine": timed.machine,
        "threads": timed.threads,
        "versions": dict(record.versions),
    }


def all_bytes(folder: Path, work: bench.Workload) -> float:
    """Count the bytes that a token reads halfway through decoding.

    These are the weights, and the keys and values of all tokens before it. llama.cpp caches in 16 bits, unless the
    weights have 32; the other runtimes cache in the precision that they compute in.
    """
    from transformers import AutoConfig

    record = read_record(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    halves = record.precision == "fp16" or (record.format == "gguf" and record.precision != "fp32")
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim(config)
    return record.bytes_per_token + (work.prompt + work.decode / 2) * numbers * (2 if halves else 4)


def format_pairs(names: str) -> list[tuple[str, str]]:
    """Split a list such as `onnx:int4,gguf` into pairs; a bare format means all of its precisions."""
    pairs = []
    for item in names.split(",") if names else [name for name, row in EXPORTERS.items() if row.runtime]:
        kind, _, precision = item.partition(":")
        pairs += [(kind, precision)] if precision else [(kind, name) for name in EXPORTERS[kind].precisions]
    return pairs


def append(results: Path, row: dict[str, Any]) -> None:
    """Append a line to the results and print it."""
    text = json.dumps(row)
    with results.open("a", encoding="utf-8") as stream:
        stream.write(text + "\n")
    print(text, flush=True)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help="the parent, then specialists: anything minigpt export takes")
    parser.add_argument("--domain", required=True, help="domain whose held-out text is measured")
    parser.add_argument("--formats", default="", help="e.g. onnx:int4,onnx-genai,gguf [all]")
    parser.add_argument("--output", type=Path, required=True, help="folder for the exports; finished ones are reused")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--quality-bytes", type=int, default=65536)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
