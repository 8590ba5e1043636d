"""The chat probe of a build: whether the specialist still ends its answers where the parent does."""

from __future__ import annotations

from pathlib import Path

from minigpt import assets
from minigpt.files import file_sha256, fingerprint, read_json, write_json
from minigpt.models.chat_probe import PROMPTS, ChatProbe, probe_chat
from minigpt.pipeline.run import Run, load

VERSION = 1
UNTRIED = (
    "The chat template is the parent's, and was not tried: `--set evaluation.chat_tokens=48` counts answers that end."
)


def chat_note(run: Run, parent: assets.Parent, model: Path) -> list[str]:
    """Note how many answers of the specialist end, and of the parent, or that nobody tried; none without a template.

    Args:
        run: the build; the setting `evaluation.chat_tokens` limits the answers.
        parent: the untuned parent.
        model: folder of the specialist.
    """
    tokens = run.settings.evaluation.chat_tokens
    if not assets.load_tokenizer(model).chat_template:
        return []
    if not tokens:
        return [UNTRIED]

    def make(folder: Path) -> None:
        with run.reporter.stage("Probing the chat template"):
            probes = [
                probe_chat(load(run, path), assets.load_tokenizer(path), tokens=tokens) for path in (parent.path, model)
            ]
        write_json(folder / "probes.json", probes)

    weights = [file_sha256(path) for path in sorted(model.glob("*.safetensors"))]
    folder, _ = run.workspace.stage("chat", fingerprint(VERSION, parent.fingerprint, weights, tokens, PROMPTS), make)
    before, after = read_json(folder / "probes.json", tuple[ChatProbe, ...])
    return [chat_sentence(before, after, tokens)]


def chat_sentence(parent: ChatProbe, specialist: ChatProbe, tokens: int) -> str:
    """Write the note about the two probes.

    Args:
        parent: probe of the parent.
        specialist: probe of the specialist.
        tokens: longest answer.
    """
    line = (
        f"Chat: {specialist.ended} of {specialist.prompts} answers to plain prompts end within {tokens} tokens "
        f"(parent: {parent.ended} of {parent.prompts})."
    )
    if 2 * specialist.ended < parent.ended:
        line += " The model was not trained for chat: its chat template is the parent's, and answers may not end."
    return line
