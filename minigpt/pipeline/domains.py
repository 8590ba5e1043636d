"""The domains of a build: which they are, and whether all of them can be built."""

from __future__ import annotations

from minigpt.domain.config import domain_names, load_domain, validate
from minigpt.errors import ConfigError
from minigpt.pipeline.options import BuildOptions


def domains_of(options: BuildOptions) -> tuple[str, ...]:
    """List the domains to build; `all` means every packaged one."""
    return domain_names() if "all" in options.domains else options.domains


def checked_domains(options: BuildOptions) -> tuple[str, ...]:
    """List the domains to build, and refuse several that cannot all be built before the first has cost an hour.

    Raises:
        ConfigError: two of them have one name, and so one folder, or one of them cannot be built here.
    """
    names = tuple(dict.fromkeys(domains_of(options)))
    origins: dict[str, str] = {}
    for name in names:
        domain = load_domain(name)
        if (other := origins.setdefault(domain.name, name)) != name:
            raise ConfigError(
                f"{other} and {name} both define a domain called {domain.name}, whose builds would share one folder. "
                "Change the name in one of them, or build them with an --output-dir of their own."
            )
        # The text of a single one is read at once, and says more of what is wrong.
        if len(names) > 1 and (problems := validate(domain)):
            raise ConfigError(f"{domain.name} cannot be built here: {problems[0]}")
    return names
