"""A conversation with one model, whose oldest turns are dropped when they no longer fit into its window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from minigpt.errors import ConfigError
from minigpt.models.generate import Sampling
from minigpt.serving.engine import Answer, Engine, Interrupted, Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of a conversation: `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


class Dialog:
    """The turns so far, and the rules by which the model answers.

    Attributes:
        turns: the turns without the system's.
        dropped: number of turns that no longer fit into the window.
    """

    def __init__(self, engine: Engine, sampling: Sampling, *, system: str | None = None) -> None:
        self._engine, self._sampling = engine, sampling
        self._system = [Turn(role="system", content=system)] if system else []
        self.turns: list[Turn] = []
        self.dropped = 0
        if not engine.has_template:
            raise ConfigError(
                f"{engine.name} has no chat template: it continues text and knows no turns. Use `minigpt generate`."
            )

    def reset(self) -> None:
        """Forget all turns but the system's."""
        self.turns, self.dropped = [], 0

    def ask(self, text: str, on_text: Callable[[str], None]) -> Answer | None:
        """Answer a turn of the user, and remember both turns.

        An interrupt (Ctrl-C) ends the answer; what has been said so far is remembered, and None is returned.

        Args:
            text: the user's turn.
            on_text: receives each piece of the answer.

        Raises:
            ConfigError: the turn alone does not fit into the model's window.
            AssetError: the chat template cannot be used.
        """
        turns = [*self.turns, Turn(role="user", content=text)]
        turns, tokens, room = self._fitting(turns)
        pieces: list[str] = []

        def show(piece: str) -> None:
            pieces.append(piece)
            on_text(piece)

        sampling = replace(self._sampling, max_new_tokens=room)
        try:
            answer = self._engine.answer(Job(tokens=tokens, sampling=sampling), show)
        except (KeyboardInterrupt, Interrupted):
            answer = None
        self.dropped += len(self.turns) + 1 - len(turns)
        self.turns = [*turns, Turn(role="assistant", content="".join(pieces))]
        return answer

    def _fitting(self, turns: list[Turn]) -> tuple[list[Turn], tuple[int, ...], int]:
        """Drop the oldest question and answer until the rest leaves room for an answer.

        Returns:
            The turns that are left, their tokens, and the number of tokens that may follow.
        """
        wanted = self._sampling.max_new_tokens
        while True:
            everything = [*self._system, *turns]
            tokens = self._engine.encode_chat([{"role": turn.role, "content": turn.content} for turn in everything])
            room = self._engine.room(len(tokens))
            if room is None or room >= wanted:
                return turns, tokens, wanted
            if len(turns) == 1:
                break
            turns = turns[2:]
        if not room:
            raise ConfigError(
                f"{len(tokens)} tokens do not fit into the model's window of {self._engine.window}; write less."
            )
        return turns, tokens, room
