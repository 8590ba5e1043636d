"""4-bit transformers folder whose linear layers are stored as NF4 (Dettmers et al. 2023, QLoRA, section 3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from minigpt.assets.quiet import quiet_transformers
from minigpt.errors import ExportError, first_line
from minigpt.exporting.common import copy_tokenizer
from minigpt.exporting.quiet import silence
from minigpt.exporting.request import ExportRequest, Written
from minigpt.progress import Reporter
from minigpt.transformer.arch import bare_matrices


def write(request: ExportRequest, folder: Path, _reporter: Reporter) -> Written:
    """Pack the linear layers with bitsandbytes; embedding and output projection stay in bfloat16.

    The scales of the blocks are quantized too (double quantization).

    Raises:
        ExportError: bitsandbytes cannot pack this model here.
    """
    # Both classes are untyped for mypy.
    config_class: Any = BitsAndBytesConfig
    bare = bare_matrices(AutoConfig.from_pretrained(request.source.path, local_files_only=True))
    config = config_class(
        llm_int8_skip_modules=["lm_head", *bare] if bare else None,  # None: the output projection
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_quant_storage=torch.uint8,
    )
    loader: Any = AutoModelForCausalLM
    try:
        with quiet_transformers(), silence():
            model = loader.from_pretrained(
                request.source.path,
                quantization_config=config,
                dtype=torch.bfloat16,
                local_files_only=True,
                device_map={"": request.device},
            )
            model.save_pretrained(folder)
    except (ImportError, ValueError, RuntimeError) as error:
        raise ExportError(f"bitsandbytes cannot pack this model on {request.device}: {first_line(error)}") from error
    copy_tokenizer(request.source.path, folder, skip=("config.json", "generation_config.json"))
    weights = tuple(path.name for path in sorted(folder.glob("*.safetensors")))
    return Written(
        weights=weights,
        bytes_per_token=sum((folder / name).stat().st_size for name in weights),
        settings={"quantizer": "bitsandbytes", "type": "nf4", "double_quantization": True, "compute": "bfloat16"},
    )
