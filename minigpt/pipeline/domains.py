"""The domains of a build: which they are, and whether all of them can be built."""

from __future__ import annotations

from minigpt.domain.config import domain_names, load_domain
from minigpt.errors import ConfigError, CorpusError
from minigpt.pipeline.options import BuildOptions
from minigpt.pipeline.read import local_paths


def domains_of(options: BuildOptions) -> tuple[str, ...]:
    """List the domains to build; `all` means every packaged one."""
    return domain_names() if "all" in options.domains else options.domains


def checked_domains(options: BuildOptions) -> tuple[str, ...]:
    """List the domains to build, and refuse those that cannot all be built before the first has cost an hour.

    Raises:
        ConfigError: two of them have one name, and so one folder.
        CorpusError: a text of one of them is not there.
    """
    names = domains_of(options)
    origins: dict[str, str] = {}
    for name in names:
        domain = load_domain(name)
        if (other := origins.setdefault(domain.name, name)) != name:
            raise ConfigError(
                f"{other} and {name} both define a domain called {domain.name}, whose builds would share one folder. "
                "Change the name in one of them, or build them with an --output-dir of their own."
            )
        for path in local_paths(domain):
            if not path.exists():
                raise CorpusError(f"No such file or folder: {path}. Check the path in the domain file.")
    return tuple(dict.fromkeys(names))
