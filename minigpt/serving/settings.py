"""Settings of the server, and the rule that keeps it off the network unless it is told."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from minigpt.errors import ConfigError

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Limits and protection of the server.

    Attributes:
        host: address that the server listens on.
        api_key: key that every request to /v1 must bring; None means that none is needed.
        max_tokens: most tokens that one request may generate.
        max_body: most bytes of a request.
        waiting: most requests that wait while one is served.
    """

    host: str = "127.0.0.1"
    api_key: str | None = None
    max_tokens: int = 1024
    max_body: int = 1_000_000
    waiting: int = 16

    @property
    def is_local(self) -> bool:
        """True if only this machine can reach the server."""
        return is_loopback(self.host)

    def check(self) -> None:
        """Refuse to open the server to others without a key.

        Raises:
            ConfigError: the host is not this machine alone, and there is no key.
        """
        if not self.is_local and not self.api_key:
            raise ConfigError(
                f"--host {self.host} lets other machines in. Give a key with --api-key or MINIGPT_API_KEY, or leave "
                "--host out to serve this machine only."
            )


def is_loopback(host: str) -> bool:
    """Check whether an address is that of this machine alone; a name other than `localhost` may be any machine's."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
