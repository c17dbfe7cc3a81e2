# make help          what there is
PYTHON ?= python3.11
BIN := .venv/bin
PHOTOGRAPHS := .cache/photographs
LANGUAGE_MODEL := .cache/models/smollm2-135m-instruct
BACKEND ?= local
IMAGES := data annotate train airflow mlflow
IN_CONTAINERS := $(filter docker,$(BACKEND))
RUN ?=
DEMO_RUN = $(or $(RUN),runs/demo$(if $(IN_CONTAINERS),-docker))
PARTS_RUN = $(or $(RUN),runs/parts)
PYTEST_ARGS ?=
WORKERS ?= 4
export GX_ANALYTICS_ENABLED = false
export DVC_NO_ANALYTICS = true
export DO_NOT_TRACK = 1
export PIXCLIP_HOME = $(CURDIR)
export PYTHONUTF8 = 1
PORT = 8080

.DEFAULT_GOAL := help
.PHONY: help setup environment demo demo-images demo-parts demo-vllm airflow images images-test test test-vllm test-python test-peers test-kills lint ablation part-ablation params golden versions lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

setup: environment $(PHOTOGRAPHS)/.complete $(LANGUAGE_MODEL)/config.json  ## the virtual environment, the photographs, a small language model

# Looks each time, and knows more than times of files: moved and copied clones, killed installs.
environment:
	@$(PYTHON) scripts/install.py --venv .venv --lock locks/laptop.txt

$(PHOTOGRAPHS)/.complete: | environment
	$(BIN)/python -m components.data.sample_grit.photographs --into $(PHOTOGRAPHS)
	@touch $@

$(LANGUAGE_MODEL)/config.json: | environment
	$(BIN)/python -m components.training.adapt_text.sample_model --into $(LANGUAGE_MODEL)

comma := ,
# Small groups, so that even the sample runs through every mapped task twice.
BUILD_CONF = {"run_folder": "$(1)", $(2)"overrides": { \
	"select": {"records_per_group": 150}, "publish": {"repository": "$(1)/repository"}}}
PLACE := $(if $(IN_CONTAINERS),"backend": "docker"$(comma) )

# Two ranks through DeepSpeed, one a core.
TRAIN_CONF = {"run_folder": "$(1)", $(2)"overrides": { \
	"resolve_data": {"repository": "$(1)/repository"}, "$(3)": {"num_ranks": 2}}}
MLFLOW_DATABASE := sqlite:///runs/mlflow/mlflow.db

# Whatever tracking server a person uses otherwise: the demos have their own.
demo demo-parts demo-vllm: export MLFLOW_TRACKING_URI =
# With BACKEND=docker every step runs in its image, and LongGRIT is compared with that of processes.
ENGINE := DOCKER_HOST=$$(images/start-engine) && export DOCKER_HOST &&
LAPTOP := $(BIN)/python -m components.orchestration.laptop run
demo: setup $(if $(IN_CONTAINERS),demo-images)  ## photographs become LongGRIT, and a small model is trained on it, in runs/demo (RUN=folder, BACKEND=docker)
	@$(if $(IN_CONTAINERS),$(ENGINE)) $(LAPTOP) \
		--dag longgrit_build --conf '$(call BUILD_CONF,$(DEMO_RUN),$(PLACE))' \
		--dag pixclip_train --conf '$(call TRAIN_CONF,$(DEMO_RUN),$(PLACE),train)'
	@$(BIN)/pixclip summary "$(DEMO_RUN)"
ifneq ($(IN_CONTAINERS),)
	@$(LAPTOP) --dag longgrit_build --conf '$(call BUILD_CONF,$(DEMO_RUN)-processes,)'
	@diff --recursive --brief "$(DEMO_RUN)/longgrit" "$(DEMO_RUN)-processes/longgrit"
	@echo "LongGRIT            the same bytes in containers as in processes: $$(find $(DEMO_RUN)/longgrit -type f | wc -l) files"
endif
	@echo "runs and registry   $(BIN)/mlflow ui --backend-store-uri $(MLFLOW_DATABASE)"
	@echo "the champion        $(BIN)/pixclip fetch models:/pixclip@champion"

demo-parts: setup  ## the same with the objects of scenes as parts: FG-Part and PA-CLIP, in runs/parts (RUN=folder)
	@$(LAPTOP) \
		--dag fgpart_build --conf '$(call BUILD_CONF,$(PARTS_RUN),)' \
		--dag paclip_train --conf '$(call TRAIN_CONF,$(PARTS_RUN),,train_parts)'
	@$(BIN)/pixclip summary "$(PARTS_RUN)"
	@echo "runs and registry   $(BIN)/mlflow ui --backend-store-uri $(MLFLOW_DATABASE)"
	@echo "the champion        $(BIN)/pixclip fetch models:/paclip@champion"

demo-images: environment
	@$(ENGINE) $(BIN)/python images/build.py data annotate train

images: environment  ## the container images, and lists of their packages in images/sbom (IMAGES="data train")
	$(ENGINE) $(BIN)/python images/build.py $(IMAGES) --sbom images/sbom

images-test: setup  ## every image on the sample, without network, its root file system read-only
	$(ENGINE) $(BIN)/python -m pytest -m docker tests/images

demo-vllm: setup  ## describe a few regions with real vLLM servers on the CPU
	PYTHON=$(PYTHON) sh demo/vllm/install.sh
	$(BIN)/python demo/vllm/run.py

airflow: setup  ## Airflow's pages and scheduler on this machine, until Ctrl-C (PORT=8081)
	$(BIN)/python -m components.orchestration.laptop serve --port $(PORT)

# Most tests wait for servers and processes: four workers keep two cores busy, with a thread each.
test: export OMP_NUM_THREADS = 1
test: export OMP_WAIT_POLICY = passive
test: lint  ## lint and all tests that need neither GPU, network nor vLLM
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -rs \
		-m "not vllm and not gpu and not peers" $(PYTEST_ARGS)

test-vllm: setup  ## the tests on real vLLM servers
	PYTHON=$(PYTHON) sh demo/vllm/install.sh
	$(BIN)/python -m pytest -m vllm tests/vllm

test-python:  ## the library's and the steps' tests on Debian trixie's Python 3.13 (needs root)
	scripts/test_python.sh $(PYTEST_ARGS)

test-peers: setup  ## our towers against open_clip's, full-size
	@$(PYTHON) scripts/install.py --venv .venv-peers --lock locks/peers.txt --no-project
	$(BIN)/python -m pytest -m peers tests/peers

test-kills: setup  ## kill every step of both pipelines at random moments, run it again, compare; KILLS=110 SEED=1
	nice $(BIN)/python -m tests.kills.campaign --kills $(or $(KILLS),110) --seed $(or $(SEED),1)

lint: setup  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ablation: setup  ## does each loss help? rows, options and seeds into docs/ablation.md (about two and a half hours on 2 cores)
	$(BIN)/python benchmarks/ablation.py

part-ablation: setup  ## what do long, short and part captions each bring PA-CLIP? into docs/part-ablation.md (about half an hour on 2 cores)
	$(BIN)/python benchmarks/part_ablation.py

params: setup  ## write the meaning of every setting, and new settings, into params/*.yaml; values stay
	$(BIN)/python -m components.core.params params/*.yaml

golden: setup  ## write the golden files anew after a wanted change
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest tests/orchestration/airflow tests/orchestration/kubeflow/test_compile.py

versions: setup  ## record the steps' code after a change; SAME="select pack": whose outputs are still the same
	UPDATE_VERSIONS="$(SAME)" $(BIN)/python -m pytest tests/test_step_versions.py

lock: setup  ## resolve locks/*.txt anew; FIND_LINKS=folder for wheels of this machine
	sh scripts/lock.sh $(if $(FIND_LINKS),--find-links $(FIND_LINKS))

clean:  ## remove runs and caches, keep environments and photographs
	rm -rf runs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
