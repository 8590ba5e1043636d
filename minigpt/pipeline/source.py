"""Source of a specialist: the model that is pruned and that teaches, a blend of the tuned parent and the parent."""

from __future__ import annotations

from pathlib import Path

from minigpt import assets
from minigpt.files import fingerprint
from minigpt.healing.blend import blend_weights
from minigpt.machine import release
from minigpt.pipeline.run import Run, SavedModel, load, save_model
from minigpt.pipeline.tuning import TunedParent


def source_of(run: Run, parent: assets.Parent, tuned: TunedParent | None) -> SavedModel:
    """Return the model that is pruned and that teaches: the parent, the tuned parent, or a blend of both.

    A blend holds the setting `blend` of the parent's weights and the rest of the tuned parent's.

    Args:
        run: the build.
        parent: the untuned parent.
        tuned: the tuned parent; None where the settings leave it out.
    """
    if tuned is None:
        return SavedModel(path=parent.path, key=parent.fingerprint)
    share = run.settings.blend
    if not share:
        return tuned.model
    key = fingerprint("blend", tuned.model.key, parent.fingerprint, share, run.options.dtype)

    def make(folder: Path) -> None:
        with run.reporter.stage(f"Blending the tuned parent with {share:.0%} of the parent"):
            model = load(run, tuned.model.path, training=True)
            blend_weights(model, load(run, parent.path, training=True), share)
            save_model(model, assets.load_tokenizer(parent.path), folder / "model", run.options.dtype)
            del model
            release()

    folder, _ = run.workspace.stage("blended", key, make)
    return SavedModel(path=folder / "model", key=key)
