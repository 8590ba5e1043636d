"""Each width method against its formula written out on what the projections really saw, in several families."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from minigpt.methods import METHODS, resolve
from minigpt.methods.material import Material, PaperForm, gather
from minigpt.methods.mini_gpts import rare_tokens
from minigpt.methods.ranking import rank
from minigpt.transformer import stats
from minigpt.transformer.arch import parameters_of, shape_of
from tests.support.archsuite import logits, model_of, random_batch, some_plan
from tests.support.reading import pieces, read

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma")
LAYER, NEURON, GROUP = 2, 5, 1
MLP, ATTENTION = f"model.layers.{LAYER}.mlp.", f"model.layers.{LAYER}.self_attn."


def llama_with_biases() -> Any:
    """A llama whose projections have biases, not zero."""
    from transformers import AutoModelForCausalLM

    from tests.support.tiny import tiny_config

    config = tiny_config("llama")
    config.attention_bias = config.mlp_bias = True
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model


def model_for(family: str) -> Any:
    return llama_with_biases() if family == "llama+biases" else model_of(family)


def material(model: Any, *, general: Any = None, **options: Any) -> Material:
    if general is not None:
        options["general_statistics"] = stats.collect(model, general)
    return gather(model, [random_batch()], **options)


def scored(method: str, model: Any, **options: Any) -> Any:
    scores = rank(METHODS[method], material(model, **options))
    assert scores is not None
    return scores


def paper_form(method: str, model: Any, target: int, **options: Any) -> PaperForm:
    reference = METHODS[method].paper_form
    assert reference is not None
    form: PaperForm = resolve(reference)(material(model, **options), target)
    return form


def weight(model: Any, name: str) -> Tensor:
    found: Tensor = model.get_submodule(name).weight.detach()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_wanda(family: str) -> None:
    """Sum over the outputs i and the unit's inputs j of |W_ij| times the norm of x_j."""
    model = model_of(family)
    seen, found = read(model, random_batch()), scored("wanda", model)
    inputs, down = seen[f"{MLP}down_proj"][0], weight(model, f"{MLP}down_proj")
    tokens = len(inputs)
    expected = sum(abs(float(w)) for w in down[:, NEURON]) * math.sqrt(float(inputs[:, NEURON] @ inputs[:, NEURON]))
    assert float(found.ffn[LAYER, NEURON]) == pytest.approx(expected / math.sqrt(tokens), rel=1e-4)
    inputs, output = seen[f"{ATTENTION}o_proj"][0], weight(model, f"{ATTENTION}o_proj")
    group = sum(float(output[:, j].abs().sum() * inputs[:, j].norm()) for j in range(16, 32))
    assert float(found.kv_groups[LAYER, GROUP]) == pytest.approx(group / math.sqrt(tokens), rel=1e-4)


def written_out_flap(model: Any, layer: int) -> tuple[Tensor, Tensor]:
    """WIFV of a layer: standardized neurons, and groups as means of standardized squared column metrics."""
    seen, prefix = read(model, random_batch()), f"model.layers.{layer}."

    def metric(name: str) -> Tensor:
        inputs, columns = seen[prefix + name][0], weight(model, prefix + name)
        return inputs.var(0, unbiased=False) * (columns**2).sum(0)

    neurons, columns = metric("mlp.down_proj"), metric("self_attn.o_proj") ** 2
    neurons, columns = ((x - x.mean()) / x.std() for x in (neurons, columns))
    return neurons, torch.stack([columns[:16].mean(), columns[16:].mean()])


@pytest.mark.parametrize("family", FAMILIES)
def test_flap(family: str) -> None:
    model = model_of(family)
    found = scored("flap", model)
    for layer in range(4):
        neurons, groups = written_out_flap(model, layer)
        torch.testing.assert_close(found.ffn[layer], neurons, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.kv_groups[layer], groups, rtol=1e-3, atol=1e-4)


def with_means(model: Any, stays: dict[str, Tensor]) -> Tensor:
    """Logits when the inputs that do not stay are held at their mean over the calibration text."""
    seen, handles = read(model, random_batch()), []
    for name, stay in stays.items():
        mean = seen[name][0].mean(0)

        def hold(_module: Any, args: Any, stay: Tensor = stay, mean: Tensor = mean) -> tuple[Tensor]:
            return (torch.where(stay, args[0], mean),)

        handles.append(model.get_submodule(name).register_forward_pre_hook(hold))
    found = logits(model, random_batch(seed=3).input_ids)
    for handle in handles:
        handle.remove()
    return found


def inputs_kept(plan: Any, *, attention: bool, ffn: bool) -> dict[str, Tensor]:
    stays = {}
    for layer, neurons, groups in zip(plan.layers, plan.ffn, plan.kv_groups, strict=True):
        stay = torch.zeros(64, dtype=torch.bool)
        stay[list(neurons)] = True
        columns = torch.tensor([j // 16 in groups for j in range(32)])
        stays |= {f"model.layers.{layer}.mlp.down_proj": stay} if ffn else {}
        stays |= {f"model.layers.{layer}.self_attn.o_proj": columns} if attention else {}
    return stays


@pytest.mark.parametrize("family", ["llama", "llama+biases", "qwen3", "smollm3"])
def test_flap_s_biases_hold_what_was_removed_at_its_mean(family: str, tmp_path: Path) -> None:
    """The cut model computes what the dense one does with removed inputs frozen at their means, and loads plainly."""
    from transformers import AutoModelForCausalLM

    from minigpt.methods.flap import compensated, with_biases
    from minigpt.transformer.arch import unit_costs

    model = model_for(family)
    plan = some_plan(model, layers=(0, 1, 2, 3))
    size = unit_costs(with_biases(model.config))
    stays = inputs_kept(plan, attention=True, ffn=family != "qwen3")
    dense = deepcopy(model)
    if family == "qwen3":
        with torch.no_grad():
            for layer, neurons in zip(dense.model.layers, plan.ffn, strict=True):
                layer.mlp.down_proj.weight[:, sorted(set(range(64)) - set(neurons))] = 0
        means = {name: read(model, random_batch())[name][0].mean(0) for name in stays}
        for name, stay in stays.items():
            module = dense.get_submodule(name)
            module.bias = torch.nn.Parameter(module.weight.detach() @ (means[name] * ~stay))
            module.weight.data[:, ~stay] = 0
        expected = logits(dense, random_batch(seed=3).input_ids)
    else:
        expected = with_means(dense, stays)
    cut = compensated(material(model), plan)
    torch.testing.assert_close(logits(cut, random_batch(seed=3).input_ids), expected, rtol=1e-3, atol=1e-3)
    assert sum(parameter.numel() for parameter in cut.parameters()) == size.total(shape_of(cut))
    cut.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(loaded, random_batch().input_ids), logits(cut, random_batch().input_ids))


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_flap_adds_no_bias_where_the_family_has_none(family: str) -> None:
    from minigpt.methods.flap import compensated

    model = model_of(family)
    names = {name for name, _ in model.named_parameters()}
    cut = compensated(material(model), some_plan(model, layers=(0, 1, 2, 3)))
    assert {name for name, _ in cut.named_parameters()} == names


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma"])
def test_flap_paper_form(family: str) -> None:
    """One ranking over all layers, cheapest first by score; masked inputs are held at their means."""
    model = model_of(family)
    scores = [written_out_flap(model, layer) for layer in range(4)]
    ranked = sorted(
        [
            (float(value), 1, layer, unit, 96)
            for layer, (found, _) in enumerate(scores)
            for unit, value in enumerate(found)
        ]
        + [(float(x), 0, layer, unit, 1536) for layer, (_, both) in enumerate(scores) for unit, x in enumerate(both)]
    )
    before, gone, removed = parameters_of(model), set(), 0
    while removed < 6000:
        _, kind, layer, unit, size = ranked.pop(0)
        gone.add((kind, layer, unit))
        removed += size
    stays = {}
    for layer in range(4):
        stays[f"model.layers.{layer}.mlp.down_proj"] = torch.tensor([(1, layer, j) not in gone for j in range(64)])
        columns = torch.tensor([(0, layer, j // 16) not in gone for j in range(32)])
        stays[f"model.layers.{layer}.self_attn.o_proj"] = columns
    expected = with_means(deepcopy(model), stays)
    found = paper_form("flap", model, before - 6000)
    torch.testing.assert_close(logits(found.model, random_batch(seed=3).input_ids), expected, rtol=1e-3, atol=1e-3)
    biases = 8 * 32
    assert found.parameters == before - removed + biases
    assert sum(found.kept["ffn"]) == 256 - sum(kind for kind, _, _ in gone)


def gradients(model: Any) -> dict[str, Tensor]:
    """Gradient of the mean loss over the pieces read one by one."""
    model = deepcopy(model)
    total, count = torch.zeros(()), 0
    for ids in pieces(random_batch()):
        out = model(input_ids=ids, use_cache=False).logits[0, :-1]
        total = total + cross_entropy(out, ids[0, 1:], reduction="sum")
        count += len(out)
    (total / count).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("family", [*FAMILIES, "gemma2"])
def test_llm_pruner(family: str) -> None:
    """|g w| summed over everything that goes with a neuron or a group; nothing is left on the model."""
    model = model_of(family)
    grads = gradients(model)
    found = scored("llm-pruner", model)

    def owned(name: str, rows: Any, columns: Any = slice(None)) -> float:
        return float((grads[f"{name}.weight"] * weight(model, name)).abs()[rows, columns].sum())

    neuron = owned(f"{MLP}gate_proj", NEURON) + owned(f"{MLP}up_proj", NEURON)
    neuron += owned(f"{MLP}down_proj", slice(None), NEURON)
    assert float(found.ffn[LAYER, NEURON]) == pytest.approx(neuron, rel=2e-3)
    half, quarter = slice(16, 32), slice(8, 16)
    group = owned(f"{ATTENTION}q_proj", half) + owned(f"{ATTENTION}o_proj", slice(None), half)
    group += owned(f"{ATTENTION}k_proj", quarter) + owned(f"{ATTENTION}v_proj", quarter)
    assert float(found.kv_groups[LAYER, GROUP]) == pytest.approx(group, rel=2e-3)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma"])
def test_llm_pruner_paper_form_spares_the_ends(family: str) -> None:
    """2,496 parameters off layers 1 and 2 of 4: less than half of a layer, so no group; 26 neurons of 96."""
    model = model_of(family)
    before, scores = parameters_of(model), scored("llm-pruner", model)
    found = paper_form("llm-pruner", model, before - 2 * (1536 + 10 * 96))
    assert found.kept == {"ffn": (64, 38, 38, 64), "kv_groups": (2, 2, 2, 2)}
    zeroed = weight(model, "model.layers.1.mlp.down_proj").abs().sum(0) == 0
    assert set(zeroed.nonzero().squeeze(1).tolist()) == set(scores.ffn[1].argsort()[:26].tolist())
    assert found.parameters == before - 2 * 26 * 96


def magnitudes(model: Any) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """A_in, min(A_out, U_out) and A_out by module name, from the paper."""
    found = {}
    for name, (inputs, outputs) in read(model, random_batch()).items():
        bias = getattr(model.get_submodule(name), "bias", None)
        plain = outputs.abs().mean(0)
        free = plain if bias is None else (outputs - bias.detach()).abs().mean(0)
        found[name] = (inputs.abs().mean(0), torch.minimum(plain, free), plain)
    return found


@pytest.mark.parametrize("family", ["llama", "llama+biases", "qwen2", "gemma"])
def test_mini_gpt_ranks_units_by_the_threshold_that_touches_them(family: str) -> None:
    model = model_for(family)
    means, found = magnitudes(model), scored("mini-gpt", model)
    places = [means[f"{MLP}{name}"][1][NEURON] for name in ("gate_proj", "up_proj")]
    places += [means[f"{MLP}act_fn"][2][NEURON], means[f"{MLP}down_proj"][0][NEURON]]
    assert float(found.ffn[LAYER, NEURON]) == pytest.approx(float(min(places)), rel=1e-4)
    places = [means[f"{ATTENTION}{name}"][1][8:16].mean() for name in ("k_proj", "v_proj")]
    places += [means[f"{ATTENTION}q_proj"][1][16:].mean(), means[f"{ATTENTION}o_proj"][0][16:].mean()]
    assert float(found.kv_groups[LAYER, GROUP]) == pytest.approx(float(min(places)), rel=1e-4)


@pytest.mark.parametrize("family", ["llama", "llama+biases", "qwen2", "gemma"])
def test_mini_gpt_paper_form_is_the_paper_s_zeroing(family: str) -> None:
    """Rows and columns under epsilon, the gate's row under a silent activation, biases by A_out, unseen tokens."""
    model, epsilon = model_for(family), 0.45
    expected, means = deepcopy(model), magnitudes(model)
    counts = {token: 1 + token % 3 for token in range(3, 512, 2)}
    with torch.no_grad():
        for name, (inputs, outputs, biased) in means.items():
            module = expected.get_submodule(name)
            if name.endswith("act_fn"):
                gate = expected.get_submodule(name.replace("act_fn", "gate_proj"))
                gate.weight[biased <= epsilon] = 0
                if gate.bias is not None:
                    gate.bias[biased <= epsilon] = 0
                continue
            module.weight[outputs <= epsilon] = 0
            module.weight[:, inputs <= epsilon] = 0
            if module.bias is not None:
                module.bias[biased <= epsilon] = 0
        lost = [token for token in range(512) if token not in counts and token not in (0, 1, 2)]
        expected.model.embed_tokens.weight[lost] = 0
        expected.lm_head.weight[lost] = 0
    found = paper_form("mini-gpt", model, 1, epsilon=epsilon, counts=counts, specials=frozenset((0, 1, 2)))
    for (name, ours), theirs in zip(found.model.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert (
        0
        < sum(int((p == 0).sum()) for p in expected.parameters())
        == sum(p.numel() for p in expected.parameters()) - found.parameters
    )


def test_mini_gpt_finds_the_smallest_epsilon_for_a_size() -> None:
    before, target = parameters_of(model_of("llama")), round(0.8 * parameters_of(model_of("llama")))
    found = paper_form("mini-gpt", model_of("llama"), target, epsilon_tokens=-1.0)
    assert 0.7 * before < found.parameters <= target
    level = float(found.note.split("epsilon = ")[1].split()[0])
    less = paper_form("mini-gpt", model_of("llama"), 1, epsilon=level * 0.98, epsilon_tokens=-1.0)
    assert less.parameters > target


def test_rare_tokens() -> None:
    counts = {1: 1, 2: 9}
    assert rare_tokens(counts, 4, 0.0, [0]).tolist() == [False, False, False, True]
    assert rare_tokens(counts, 4, 0.1, [0]).tolist() == [False, True, False, True]
    assert not rare_tokens(counts, 4, -1.0, []).any()


@pytest.mark.parametrize("name", ["flap", "llm-pruner", "mini-gpt"])
def test_masking_nothing_changes_nothing(name: str) -> None:
    model = model_of("mistral")
    before, size = logits(model, random_batch().input_ids), parameters_of(model)
    found = paper_form(name, model, size, counts=dict.fromkeys(range(512), 1))
    torch.testing.assert_close(logits(found.model, random_batch().input_ids), before, rtol=0, atol=0)
