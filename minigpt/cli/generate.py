"""Command `minigpt generate`."""

from __future__ import annotations

import sys

import click

from minigpt.cli.common import Session, examples, from_input, sampling, standard


@click.command(
    epilog=examples(
        'minigpt generate medical --prompt "Hypertension is"',
        'minigpt generate medical "Hypertension is"',
        'minigpt generate runs/medical --chat --prompt "What is tachycardia?"',
        'minigpt generate runs/medical --prompt "The patient" --temperature 0.8 --seed 7 --json',
        "echo 'The heart' | minigpt generate runs/medical --prompt -",
    )
)
@click.argument("model")
@click.argument("text", required=False)
@click.option("--prompt", metavar="TEXT|-", help="Text to continue; - reads it from standard input [TEXT].")
@click.option("--chat", is_flag=True, help="Treat the prompt as a question, in the model's chat template.")
@sampling(200)
@click.option(
    "--device", metavar="NAME", default="auto", show_default=True, help="Device: auto, cpu, cuda, cuda:1 or mps."
)
@standard
def generate(
    session: Session,
    *,
    model: str,
    text: str | None,
    prompt: str | None,
    chat: bool,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    device: str,
) -> None:
    """Try MODEL in the terminal. The text appears on stdout while it is generated.

    MODEL is a folder, a build folder, an export folder, a catalog id, a domain (its latest build), a Hub id, a GGUF
    file or a pypi: asset.
    """
    from minigpt.files import dumps
    from minigpt.models import find, generate
    from minigpt.report.text import clean

    if (text is None) == (prompt is None):
        raise click.UsageError('Give the text to continue once: --prompt "The heart", or behind MODEL.')
    given = prompt if text is None else text
    text = from_input(sys.stdin.read) if given == "-" else str(given)
    if not text.strip():
        raise click.UsageError("The prompt is empty.")
    generate.check_text(text)
    with session.reporter.stage(f"Loading {model}"):
        exported = find.export_folder(model)
        folder = exported or find.find_model(model, reporter=session.reporter).path
        network, tokenizer = generate.load(folder, device=device)
    sampling = generate.Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)

    def write(piece: str) -> None:
        if not session.json:
            click.echo(clean(piece) if sys.stdout.isatty() else piece, nl=False)

    if not chat:
        write(text)
    result = generate.generate(network, tokenizer, text, sampling=sampling, chat=chat, on_text=write)
    click.echo(dumps(result) if session.json else "", nl=not session.json)
    session.reporter.note(f"{result.tokens} tokens in {result.seconds:.1f} s")
    if result.cut is not None:
        session.reporter.note(f"The text ends where the model's window of {result.cut} tokens does, prompt included.")
