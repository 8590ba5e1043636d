#!/bin/sh
# Compare methods and sizes on one domain before you decide: a table, a Pareto set and a page with pictures.
#
#   sh examples/sweep.sh [options of `minigpt sweep`]
#
# Without healing a point takes a minute or two on two cores. Points that are finished are not built again.
set -eu

minigpt sweep --domain medical --methods contextual,wanda,shortgpt --sizes 0.9,0.75 --output-dir runs/sweep "$@"
