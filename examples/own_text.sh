#!/bin/sh
# A specialist of your own texts.
#
#   sh examples/own_text.sh NAME FOLDER [options of `minigpt build`]
#
# FOLDER holds .txt, .md, .jsonl or .parquet files. The domain file is written to ./domains/NAME.yaml: read it, it says
# where to put questions and sample prompts. Nothing leaves this machine.
set -eu

name=$1
folder=$2
shift 2

test -e "domains/$name.yaml" || minigpt domains new "$name" --from "$folder"
minigpt domains validate "$name"
minigpt corpus stats "$name"                                          # how much text, in which splits
minigpt build --domain "$name" --output-dir "runs/$name" "$@" --plan-only   # what would be removed
minigpt build --domain "$name" --output-dir "runs/$name" "$@"
