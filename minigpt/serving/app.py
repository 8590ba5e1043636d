"""The web application: OpenAI's completions, chat and models over the engines, and the chat page."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from minigpt.errors import ConfigError, MiniGPTError
from minigpt.parsing import load_json
from minigpt.serving.answers import Form, stream, whole
from minigpt.serving.engine import Engine, Job
from minigpt.serving.line import Line, Ticket
from minigpt.serving.page import chat_page, content_policy
from minigpt.serving.prompts import chat_jobs, completion_jobs
from minigpt.serving.schema import ChatRequest, CompletionRequest, RequestError, parse
from minigpt.serving.settings import LOCAL_NAMES, Settings

# Seconds between two looks at whether a client that waits for a whole answer is still there.
LOOK_SECONDS = 0.5

Handler = Callable[[Request], Awaitable[Response]]


class Server:
    """The state of the application: models, settings and the line of requests."""

    def __init__(self, engines: Sequence[Engine], settings: Settings) -> None:
        settings.check()
        self.engines = {engine.name: engine for engine in engines}
        if len(self.engines) < len(engines):
            raise ConfigError("Two models have one name, by which a client could only reach one; name them apart.")
        self.first, self.settings, self.line = engines[0], settings, Line(settings.waiting)
        self.page = chat_page(engines)
        self.policy = content_policy(self.page)

    async def health(self, _request: Request) -> Response:
        """Say that the server runs."""
        return JSONResponse({"status": "ok"})

    async def show_page(self, _request: Request) -> Response:
        """Send the chat page; it holds no secret, and asks for the key itself."""
        return HTMLResponse(self.page, headers={"Content-Security-Policy": self.policy})

    async def models(self, request: Request) -> Response:
        """List the models."""
        self._check_key(request)
        data = [model_object(name) for name in self.engines]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        """Describe one model."""
        self._check_key(request)
        return JSONResponse(model_object(self._engine(request.path_params["name"]).name))

    async def completions(self, request: Request) -> Response:
        """Continue texts."""
        form = parse(CompletionRequest, await self._read(request))
        engine = self._engine(form.model)
        jobs = await asyncio.to_thread(completion_jobs, engine, form, self.settings.max_tokens)
        return await self._respond(request, Form("text_completion", engine.name, form), engine, jobs)

    async def chat(self, request: Request) -> Response:
        """Answer a chat."""
        form = parse(ChatRequest, await self._read(request))
        engine = self._engine(form.model)
        jobs = await asyncio.to_thread(chat_jobs, engine, form, self.settings.max_tokens)
        return await self._respond(request, Form("chat.completion", engine.name, form), engine, jobs)

    async def _respond(self, request: Request, form: Form, engine: Engine, jobs: Sequence[Job]) -> Response:
        """Put the jobs into the line, and send what comes out."""
        ticket = self.line.enter(engine, jobs)
        if form.request.stream:
            return stream(form, ticket, jobs)
        async with giving_up(request, ticket):
            return JSONResponse(await whole(form, ticket, jobs))

    async def _read(self, request: Request) -> Any:
        """Read the JSON of a request that may be served.

        A page of another site can send JSON only if this server allows it, which it never does.

        Raises:
            RequestError: the key is wrong, or the body is too large or no JSON.
        """
        self._check_key(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RequestError("Send JSON, with Content-Type: application/json.", status=415)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self.settings.max_body:
                raise RequestError(f"The request is larger than {self.settings.max_body} bytes.", status=413)
        try:
            return load_json(bytes(body))
        except (ValueError, RecursionError):
            raise RequestError("The body is no JSON.") from None

    def _check_key(self, request: Request) -> None:
        """Refuse a request without the server's key.

        Raises:
            RequestError: the key is missing or wrong (401).
        """
        expected = self.settings.api_key
        if expected is None:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), expected.encode()):
            raise RequestError(
                "The API key is missing or wrong. Send Authorization: Bearer KEY.",
                status=401,
                kind="authentication_error",
                code="invalid_api_key",
            )

    def _engine(self, name: str | None) -> Engine:
        """Find the model of a request; without a name it is the first one.

        Raises:
            RequestError: there is no such model (404).
        """
        if name is None:
            return self.first
        if name not in self.engines:
            known = ", ".join(self.engines)
            raise RequestError(
                f"There is no model {name!r}. This server has: {known}.",
                status=404,
                param="model",
                code="model_not_found",
            )
        return self.engines[name]


def build_app(engines: Sequence[Engine], settings: Settings) -> Starlette:
    """Make the application.

    Args:
        engines: the models; the first one answers requests that name none.
        settings: limits and protection.

    Raises:
        ConfigError: the settings would let others in without a key, or two models have one name.
    """
    server = Server(engines, settings)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        server.line.close()

    # A page of another site can reach this machine by a name of its own (DNS rebinding); its Host header gives it away.
    hosts = LOCAL_NAMES if settings.is_local else ("*",)
    return Starlette(
        routes=[
            Route("/", server.show_page),
            Route("/health", server.health),
            Route("/v1/models", server.models),
            Route("/v1/models/{name:path}", server.model),
            Route("/v1/completions", server.completions, methods=["POST"]),
            Route("/v1/chat/completions", server.chat, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
        exception_handlers={
            RequestError: refuse,
            MiniGPTError: refuse_ours,
            HTTPException: refuse_http,
            ClientDisconnect: leave,
            Exception: fail,
        },
        lifespan=lifespan,
    )


def model_object(name: str) -> dict[str, Any]:
    """Describe a model as JSON data."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "minigpt"}


@asynccontextmanager
async def giving_up(request: Request, ticket: Ticket) -> AsyncIterator[None]:
    """Stop the work of a ticket when the client has gone away inside the block."""

    async def look() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(LOOK_SECONDS)
        ticket.gone.set()

    watcher = asyncio.create_task(look())
    try:
        yield
    finally:
        watcher.cancel()


async def refuse(_request: Request, error: Exception) -> Response:
    """Send a refusal."""
    assert isinstance(error, RequestError)
    return JSONResponse(error.body(), status_code=error.status)


async def refuse_ours(_request: Request, error: Exception) -> Response:
    """Send an error of this package, such as a prompt that a template cannot take, as a refusal."""
    return JSONResponse(RequestError(str(error)).body(), status_code=400)


async def refuse_http(_request: Request, error: Exception) -> Response:
    """Send an unknown path or a wrong method in the same form."""
    assert isinstance(error, HTTPException)
    return JSONResponse(RequestError(error.detail).body(), status_code=error.status_code, headers=error.headers)


async def leave(_request: Request, _error: Exception) -> Response:
    """End a request whose client went away while it was sending."""
    return Response(status_code=400)


async def fail(_request: Request, error: Exception) -> Response:
    """Send an unexpected failure without its inner details; the log has them."""
    message = f"The model failed ({type(error).__name__}). The server's log has the details."
    return JSONResponse(RequestError(message, kind="server_error").body(), status_code=500)
