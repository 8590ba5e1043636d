"""Domain definitions: what a domain's YAML file may say, read strictly and with errors that name the mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from minigpt.domain.checks import dataclass_at, name_problems, place, ref_problems
from minigpt.errors import ConfigError, UnknownName, did_you_mean

__all__ = [
    "DomainConfig",
    "QuestionsConfig",
    "SourceConfig",
    "domain_names",
    "load_domain",
    "resolved_yaml",
    "validate",
    "with_online",
]

STRICT: Mapping[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """One source of text: exactly one of `reader` (with `ref`), `file` or `hub`.

    `columns` maps `text`, `source` and `license` to the names used by the data; a dotted name walks into nested
    fields. A `split` other than `auto` is honored as it is: such text is never moved to another split. An `online`
    source waits for :func:`with_online`; `control` marks text of the control domain. `limit` keeps the first documents.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    reader: str | None = None
    ref: str | None = None
    file: str | None = None
    hub: str | None = None
    revision: str | None = None
    subset: str | None = None
    hub_split: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    split: Literal["auto", "train", "heldout", "dev"] = "auto"
    license: str = "unknown"
    citation: str = ""
    online: bool = False
    control: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        check_origin(self, known={"text", "source", "license"})


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionsConfig:
    """One set of multiple-choice questions: made by a `reader` from its data, or read from `file` or `hub`.

    `columns` maps `question`, `choices` (one list, or a list of columns), `labels`, `answer`, `source`, `subject` and
    `license`; `template` builds the question from several columns, e.g. "{context} {question}"; `choices` gives fixed
    options such as yes/no/maybe. `answer` may be an index counted from `answer_base`, a letter, a label, or the text
    of the right choice. `limit` keeps a seeded sample; for derived questions it holds for seen and unseen ones each.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    reader: str | None = None
    ref: str | None = None
    file: str | None = None
    hub: str | None = None
    revision: str | None = None
    subset: str | None = None
    hub_split: str | None = None
    columns: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    template: str = ""
    choices: tuple[str, ...] = ()
    answer_base: int = 0
    role: Literal["dev", "test"] = "test"
    license: str = "unknown"
    citation: str = ""
    note: str = ""
    online: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        check_origin(self, known={"question", "choices", "labels", "answer", "source", "subject", "license"})

    @property
    def derived(self) -> bool:
        """Whether the questions are made from data by a reader of ours."""
        return self.reader is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainConfig:
    """A domain: where its text and questions come from and how to tell its text from other text.

    `seeds` are sentences that say what the domain is about (relevance filter); `prompts` are shown in the report's
    sample; `general` names the control domain, by name or by a path beside this file; `control` marks a domain that
    is itself such a control and is left out of `--domain all`. `overlap` is the share of 8-word runs in common with a
    held-out passage from which text is not trained on: lower it where documents are worded alike. `root` is the folder
    of the file.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    corpus: tuple[SourceConfig, ...]
    title: str = ""
    synonyms: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()
    questions: tuple[QuestionsConfig, ...] = ()
    prompts: tuple[str, ...] = ()
    general: str = "general"
    control: bool = False
    overlap: float = 0.5
    root: Path = field(default=Path(), compare=False)

    def __post_init__(self) -> None:
        if not self.corpus:
            raise ValueError("corpus is empty; name at least one source of text")
        if not 0 < self.overlap <= 1:
            raise ValueError("overlap is a share above 0 and at most 1")
        for kind, items in (("corpus", self.corpus), ("questions", self.questions)):
            names = [item.name for item in items]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"two {kind} entries are called {twice[0]!r}; give each its own name")


def check_origin(config: SourceConfig | QuestionsConfig, *, known: set[str]) -> None:
    """Refuse a source that names no origin or several, or options that its origin does not have.

    Raises:
        ValueError: with the reason; pydantic adds the place in the file.
    """
    given = [key for key in ("reader", "file", "hub") if getattr(config, key) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise ValueError(f"{config.name!r} needs exactly one of reader, file or hub (found {found})")
    if (config.ref is None) == (config.reader is not None):
        raise ValueError(f"{config.name!r}: a reader needs a ref, and only a reader has one")
    stray = [key for key in ("revision", "subset", "hub_split") if getattr(config, key) is not None]
    if stray and config.hub is None:
        raise ValueError(f"{config.name!r}: {stray[0]} is only for Hub data sets")
    for key in config.columns:
        if key not in known:
            raise ValueError(f"{config.name!r}: columns has no {key!r}.{did_you_mean(key, known)}")
    if config.limit is not None and config.limit < 1:
        raise ValueError(f"{config.name!r}: limit must be at least 1")


def packaged_folder() -> Path:
    """Where the domain files that come with minigpt lie: inside the package when installed, else in the checkout."""
    here = Path(__file__).resolve().parents[1]
    installed = here / "_domains"
    return installed if installed.is_dir() else here.parent / "domains"


def domain_files() -> dict[str, Path]:
    """Domain name to file. A file in `./domains` wins over a packaged one of the same name."""
    found: dict[str, Path] = {}
    for folder in (packaged_folder(), Path("domains")):
        for path in sorted(folder.glob("*.yaml")):
            found[path.stem] = path.resolve()
    return found


def domain_names(*, controls: bool = False) -> tuple[str, ...]:
    """The domains that can be built by name; control domains only if `controls`."""
    kept = []
    for name, path in sorted(domain_files().items()):
        if controls or not is_control(path):
            kept.append(name)
    return tuple(kept)


def is_control(path: Path) -> bool:
    """Whether a domain file says `control: true`; a file that cannot be read does not."""
    try:
        return bool(read_yaml(path).get("control", False))
    except ConfigError:
        return False


def load_domain(name_or_path: str) -> DomainConfig:
    """Read a domain by path, by name (`./domains` first, then the packaged ones) or by synonym.

    A build folder counts as the path of its `domain.yaml`.

    Raises:
        UnknownName: no such domain; suggests the nearest.
        ConfigError: the file cannot be used; says where and why.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix in {".yaml", ".yml"}:
        return read_domain(path)
    if (path / "domain.yaml").is_file():
        return read_domain(path / "domain.yaml")
    files = domain_files()
    key = name_or_path.strip().casefold()
    if key in files:
        return read_domain(files[key])
    for candidate in files.values():
        if key in synonyms_of(candidate):
            return read_domain(candidate)
    raise UnknownName("domain", name_or_path, files)


def synonyms_of(path: Path) -> set[str]:
    """The other names of a domain file, in lower case; a broken file has none."""
    try:
        names = read_yaml(path).get("synonyms") or ()
    except ConfigError:
        return set()
    return {str(name).casefold() for name in names} if isinstance(names, list) else set()


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: no such file, not YAML, or not a mapping.
    """
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"No such domain file: {path}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f"{path}, line {line + 1}" if line is not None else str(path)
        reason = getattr(error, "problem", None) or error
        raise ConfigError(f"{where}: not readable as YAML ({reason}). Check indentation, colons and quotes.") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: a domain file is a mapping such as `name: medical`; see `minigpt domains new`.")
    return value


def read_domain(path: Path) -> DomainConfig:
    """Read one domain file strictly and make its file paths absolute."""
    from pydantic import TypeAdapter, ValidationError

    values = read_yaml(path)
    if "root" in values:
        raise ConfigError(f"{path}: unknown key 'root'. Paths are relative to the file that names them.")
    try:
        domain = TypeAdapter(DomainConfig).validate_python(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, DomainConfig)}") from None
    return anchored(domain, path.resolve().parent)


def anchored(domain: DomainConfig, root: Path) -> DomainConfig:
    """`domain` with file paths made absolute against `root`, so that a saved copy reads the same files."""

    def absolute(name: str) -> str:
        return str((root / Path(name).expanduser()).resolve())

    corpus = tuple(replace(item, file=absolute(item.file)) if item.file else item for item in domain.corpus)
    questions = tuple(replace(item, file=absolute(item.file)) if item.file else item for item in domain.questions)
    general = absolute(domain.general) if domain.general.endswith((".yaml", ".yml")) else domain.general
    return replace(domain, corpus=corpus, questions=questions, general=general, root=root)


def explain(error: Any, kind: type) -> str:
    """The first problem of a pydantic error as one sentence that names the place and, for a typo, the likely key."""
    first = error.errors()[0]
    location = [part for part in first["loc"] if not (isinstance(part, str) and "[" in part)]
    where = place(location)
    if first["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        owner = dataclass_at(kind, location[:-1])
        known = [item.name for item in fields(owner) if item.name != "root"] if owner else []
        inside = place(location[:-1])
        return (
            f"unknown key {location[-1]!r}{f' in {inside}' if inside else ''}.{did_you_mean(str(location[-1]), known)}"
        )
    if first["type"] in {"missing", "missing_argument"}:
        return f"{where} is missing."
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{where}: {reason}." if where else f"{reason}."


def problems(domain: DomainConfig) -> Iterator[str]:
    """What stops a well-formed domain from being built here: name, files, readers, packaged data, control."""
    import importlib.util

    controls = {path.stem for path in packaged_folder().glob("*.yaml") if is_control(path)}
    yield from name_problems(domain.name, control=domain.control, controls=controls)
    items: list[SourceConfig | QuestionsConfig] = [*domain.corpus, *domain.questions]
    for item in items:
        yield from (f"{item.name}: {problem}" for problem in ref_problems(item.ref or ""))
        if item.file and not Path(item.file).exists():
            yield f"{item.name}: no such file or folder: {item.file}."
        if item.reader and not any(
            importlib.util.find_spec(f"{package}.{item.reader}")
            for package in ("minigpt._corpora", "corpora")
            if importlib.util.find_spec(package)
        ):
            yield f"{item.name}: no reader called {item.reader!r} in corpora/."
    try:
        if not domain.control:
            load_domain(domain.general)
    except (ConfigError, UnknownName) as error:
        yield f"general: {error}"


def with_online(domain: DomainConfig) -> DomainConfig:
    """`domain` with its `online` sources turned on: they are then read like the others, and must be reachable."""
    corpus = tuple(replace(item, online=False) for item in domain.corpus)
    questions = tuple(replace(item, online=False) for item in domain.questions)
    return replace(domain, corpus=corpus, questions=questions)


def validate(domain: DomainConfig) -> tuple[str, ...]:
    """All problems of :func:`problems`; empty when the domain can be built."""
    return tuple(problems(domain))


def domain_of(name: str, *, online: bool = False) -> DomainConfig:
    """The domain, with its Hub data sets if they are wanted."""
    domain = load_domain(name)
    return with_online(domain) if online else domain


def resolved_yaml(domain: DomainConfig) -> str:
    """YAML that :func:`load_domain` reads back to an equal domain from any folder: written beside every build."""
    import yaml

    def trimmed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: trimmed(item) for key, item in value.items() if item not in (None, (), {}, "")}
        if isinstance(value, (list, tuple)):
            return [trimmed(item) for item in value]
        return value

    values = asdict(domain)
    del values["root"]
    body = yaml.safe_dump(trimmed(values), sort_keys=False, allow_unicode=True, width=100)
    return f"# minigpt build --domain ./domain.yaml\n{body}"
