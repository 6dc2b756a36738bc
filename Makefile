# Everything that people and CI run. `make demo` and `make test` need only Python 3.11.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
TEST_PROCESSES ?= 2

.PHONY: images tools cluster cluster-down test-kubernetes engine engine-down test-compose demo test test-all lint format lock clean docs dev-servers help

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# uv comes from pip, so that a machine with only Python can start; versions of everything else come from the locks.
$(UV):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"

$(VENV)/.installed: $(UV) requirements/edgewright.txt pyproject.toml
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/edgewright.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	touch $@

install: $(VENV)/.installed  ## set up the environment
install-dev: $(VENV)/.installed-dev  ## set up the environment with test and lint tools

demo: $(VENV)/.installed  ## run the heart-disease pipeline through a real Airflow, and look at the results
	@$(BIN)/edgewright demo

test: $(VENV)/.installed-dev  ## all tests that every push runs
	$(BIN)/python -m pytest -m "not slow" -n $(TEST_PROCESSES) --dist loadgroup

test-all: $(VENV)/.installed-dev  ## and the long ones
	$(BIN)/python -m pytest

dev-servers: $(VENV)/.installed  ## download Kafka and Cassandra for the tests that need them (Java and Maven do it)
	$(BIN)/edgewright dev fetch

CLUSTER := $(HOME)/.cache/edgewright/cluster

cluster: $(VENV)/.installed-dev  ## start a real single-node Kubernetes (root, Go; builds it once)
	tests/kubernetes/build.sh $(CLUSTER)
	tests/kubernetes/cluster.sh up $(CLUSTER)

cluster-down:  ## end it
	tests/kubernetes/cluster.sh down $(CLUSTER)

test-kubernetes: $(VENV)/.installed-dev  ## the tests on that cluster
	nsenter --net=/run/netns/edgewright-cluster env KUBECONFIG=$(CLUSTER)/state/kubeconfig \
	  $(BIN)/python -m pytest tests/kubernetes tests/places/test_against.py

ENGINE := $(HOME)/.cache/edgewright/engine

engine: $(VENV)/.installed-dev tools  ## start a Docker engine with our images, built here (root, Go; builds it all once)
	tests/compose/engine.sh build $(ENGINE)
	tests/compose/engine.sh up $(ENGINE)

engine-down:  ## end it
	tests/compose/engine.sh down $(ENGINE)

test-compose: $(VENV)/.installed-dev  ## the stack of docker-compose.yml, up on that engine
	nsenter --net=/run/netns/edgewright-engine env DOCKER_HOST=unix://$(ENGINE)/run/docker.sock \
	  $(BIN)/python -m pytest tests/compose

IMAGES := step-cpu step-gpu notebook serving edge mlflow airflow airflow-spark spark

images:  ## build the images with Docker (IMAGES="serving edge" builds some)
	for image in $(IMAGES); do docker build -f images/Dockerfile --target $$image -t edgewright/$$image:0.1.0 . || exit 1; done

tools:  ## build Helm, Docker Compose and an OCI registry from their Go modules, for the tests that need them
	tests/kubernetes/tools.sh $(HOME)/.cache/edgewright/tools

lint: $(VENV)/.installed-dev  ## style, types, import contracts, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev  ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(UV)  ## make the hashed locks anew (no addresses in them)
	requirements/lock.sh $(UV)

clean:  ## remove what was built
	rm -rf $(VENV) .edgewright .pytest_cache .mypy_cache .ruff_cache
