"""The distilled twin: the unpruned parent, trained as the specialist is, which alone isolates what pruning costs.

The tuned parent learns from the text, the specialist from the tuned parent's probabilities, over more text and with
another optimizer. The twin has all of the specialist's training and all of the parent's units (a born-again network,
Furlanello et al. 2018), so that the ratio of the specialist to it is the price of pruning alone.
"""

from __future__ import annotations

from transformers import AutoConfig

from minigpt import assets
from minigpt.evaluation import Suite
from minigpt.methods.ranking import keep_everything
from minigpt.pipeline.controls import Controls, with_twin
from minigpt.pipeline.healing import heal
from minigpt.pipeline.measure import measure
from minigpt.pipeline.read import Corpora
from minigpt.pipeline.run import Run, SavedModel
from minigpt.pipeline.text import TrainingText
from minigpt.transformer.arch import shape_of


def add_twin(
    run: Run, corpora: Corpora, suite: Suite, parent: assets.Parent, text: TrainingText, controls: Controls
) -> Controls:
    """Train the distilled twin, measure it, and add it to the controls; without the setting `twin` nothing is done.

    Its recipe is that of healing where nothing was removed, and its teacher is the specialist's.

    Args:
        run: the build.
        corpora: domain and general text.
        suite: the texts and questions that are measured.
        parent: the untuned parent.
        text: all training text.
        controls: parent and tuned parent.
    """
    if not run.settings.twin:
        return controls
    plan = keep_everything(shape_of(AutoConfig.from_pretrained(parent.path)))
    untuned = SavedModel(path=parent.path, key=parent.fingerprint)
    twin = heal(
        run,
        corpora,
        parent,
        text,
        controls.source,
        plan,
        untuned,
        stage="distilled",
        title="Training the distilled twin",
    )
    measured = measure(run, suite, "parent_distilled", twin.model)
    return with_twin(controls, measured, seconds=twin.seconds, training=twin.training)
