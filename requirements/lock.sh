#!/usr/bin/env bash
# Make the hashed locks. They name packages and digests, no addresses.
# usage: requirements/lock.sh UV
set -euo pipefail
uv=${1:?path of uv}
cd "$(dirname "$0")/.."
compile() {
  "$uv" pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-annotate \
    --no-emit-index-url "$@"
}
compile pyproject.toml requirements/build.in -o requirements/edgewright.txt
compile pyproject.toml requirements/build.in --extra dev -c requirements/edgewright.txt -o requirements/dev.txt
# a beta, and older than what the others need: an environment of its own (tests/airflow34)
compile --prerelease=if-necessary-or-explicit requirements/airflow34.in -o requirements/airflow34.txt
# compilers of edge targets, and Spark: environments of their own, built by the task that needs them
for target in requirements/targets/*.in; do
  compile "$target" -o "${target%.in}.txt"
done
# a node on the edge: the smallest environment
compile requirements/edge.in -c requirements/edgewright.txt -o requirements/edge.txt
# what runs in an image (images/): the same versions as here; airflow's on top of everything
for image in step-cpu step-gpu notebook serving edge mlflow sbom; do
  compile "requirements/images/$image.in" -c requirements/edgewright.txt -c requirements/dev.txt -o "requirements/images/$image.txt"
done
compile requirements/build.in -c requirements/edgewright.txt -o requirements/images/build.txt
compile requirements/edgewright.txt requirements/images/airflow.in -c requirements/dev.txt -o requirements/images/airflow.txt
