"""Command `minigpt serve`."""

from __future__ import annotations

import sys

import click

from minigpt.cli.common import Session, examples, standard
from minigpt.cli.failures import INTERRUPTED


@click.command(
    epilog=examples(
        "minigpt serve runs/medical --beside parent",
        "minigpt serve runs/medical-gguf --port 8080",
        "MINIGPT_API_KEY=... minigpt serve medical --host 0.0.0.0",
        "curl http://127.0.0.1:8000/v1/models",
    )
)
@click.argument("model")
@click.option(
    "--beside",
    metavar="MODEL",
    multiple=True,
    help="Another model to serve and to show beside the first; `parent` is the parent of a build. Repeatable.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; others than this machine need a key."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 takes any that is free."
)
@click.option("--api-key", metavar="KEY", envvar="MINIGPT_API_KEY", help="Key that clients send; or MINIGPT_API_KEY.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=1024, show_default=True, help="Most new tokens of a request."
)
@click.option(
    "--max-body", type=click.IntRange(min=1), default=1_000_000, show_default=True, help="Most bytes of a request."
)
@click.option(
    "--waiting", type=click.IntRange(min=0), default=16, show_default=True, help="Most requests that wait in line."
)
@click.option(
    "--device", metavar="NAME", default="auto", show_default=True, help="Device: auto, cpu, cuda, cuda:1 or mps."
)
@standard
def serve(
    session: Session,
    *,
    model: str,
    beside: tuple[str, ...],
    host: str,
    port: int,
    api_key: str | None,
    max_tokens: int,
    max_body: int,
    waiting: int,
    device: str,
) -> None:
    """Serve MODEL over HTTP in OpenAI's form, with a chat page, until Ctrl-C.

    The server has /v1/models, /v1/completions and /v1/chat/completions, with streaming. One text is generated at a
    time; other requests wait in line. MODEL is anything that `minigpt generate` takes: a folder, a build, an export, a
    catalog id, a domain. The temperature of a request that names none is 0. Needs pip install 'minigpt[serve]'.
    """
    from minigpt.machine import pick_device
    from minigpt.serving import run
    from minigpt.serving.settings import Settings

    settings = Settings(host=host, api_key=api_key or None, max_tokens=max_tokens, max_body=max_body, waiting=waiting)
    settings.check()
    run.check_packages()
    with run.open_socket(host, port) as listener:
        engines = run.open_engines(model, beside, device=pick_device(device), reporter=session.reporter)
        url, names = run.url_of(listener, host), [engine.name for engine in engines]
        session.show({"url": url, "models": names}, lambda: f"{', '.join(names)} at {url} (Ctrl-C ends)")
        sys.stdout.flush()
        try:
            run.serve(engines, settings, listener, verbose=session.verbose)
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            sys.exit(INTERRUPTED)
