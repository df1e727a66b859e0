# Two commands for a fresh machine with Python 3.11, git and make: make repro, make test.
PYTHON ?= python3
VENV := $(CURDIR)/.venv
export PATH := $(VENV)/bin:$(PATH)
export VIRTUAL_ENV := $(VENV)
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
unexport PYTHONDONTWRITEBYTECODE  # each process would compile its packages again
SETUP := .venv/.setup
# The kernel opens no port, and so does not warn of one.
EXECUTE := jupyter nbconvert --log-level=ERROR --execute \
	--KernelManager.transport=ipc --KernelManager.ip="$$(mktemp -u -t kernel.XXXXXX)"
.DEFAULT_GOAL := help
.PHONY: help setup repro quick test slow torture audit docs lab mlflow data prepare style clean-notebooks export readme study bench lock

help: ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 10

setup: $(SETUP) ## make .venv from requirements.lock and install the package into it

# A .venv that came along when the folder was moved or copied runs the code of its first place: it is made again.
ifneq ($(shell cat $(SETUP) 2>/dev/null),$(CURDIR))
.PHONY: $(SETUP)
NEW := --clear
endif

$(SETUP): requirements.lock pyproject.toml setup.py .pre-commit-config.yaml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "leadscore needs Python 3.11; name it by make PYTHON=…"; exit 1; }
	$(PYTHON) -m venv $(NEW) "$(VENV)"
	python -m pip install --quiet uv
	uv pip install --quiet --requirement requirements.lock
	uv pip install --quiet --no-deps --editable .
	@test ! -d .git || pre-commit install || echo "git hooks are not installed, see above; all else works"
	@echo "$(CURDIR)" >$@

data/leadscoring.csv: | $(SETUP)
	dvc pull --quiet data.dvc

repro: $(SETUP) data/leadscoring.csv ## run the pipeline on the leads in data/, then register the model
	dvc repro
	leadscore register

quick: $(SETUP) ## what needs no pipeline, kernel, browser or server: the notebooks' tests, and some of tests/
	nbdev_test --n_workers 2
	pytest -q -m "not pipeline and not slow"

test: $(SETUP) data/leadscoring.csv ## the notebooks' tests, and those of tests/ that don't take minutes
	nbdev_test --n_workers 2
	pytest -q -n 2 --dist loadgroup -m "not slow"

slow: $(SETUP) data/leadscoring.csv ## the rest of tests/: installs, what the docs say, the browser, kills
	pytest -q -n 2 --dist loadgroup -m slow

torture: $(SETUP) data/leadscoring.csv ## kill each stage and command 20 times, try 20,000 bad files
	pytest -q -rP tests/test_torture.py tests/test_bad_files.py --kills 20 --examples 20000

audit: $(SETUP) ## look for weaknesses in the code, and ask PyPI for known ones of the packages
	bandit --quiet --configfile pyproject.toml --recursive leadscore benchmarks
	PIP_AUDIT_LOGLEVEL=error uvx --quiet pip-audit --requirement requirements.lock --no-deps --disable-pip

docs: $(SETUP) ## build the site into _docs/, from notebooks, docstrings and the sample's reports: after make repro on it
	python docs/build_site.py

lab: $(SETUP) ## open JupyterLab on nbs/index.ipynb
	jupyter lab --ip=127.0.0.1 --config=nbs/jupyter_lab_config.py

mlflow: $(SETUP) ## open the tracking page on http://127.0.0.1:5000
	mlflow server --host 127.0.0.1 --port 5000 --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}"

data: $(SETUP) ## make data FROM=DIR: swap in the leads of DIR; FROM=sample goes back
	@test -n "$(FROM)" || { echo "make data FROM=DIR: name a folder with leadscoring.csv and leadscoring_inference.csv, or sample"; exit 1; }
	leadscore data "$(FROM)"

prepare: $(SETUP) data/leadscoring.csv ## before a commit: clean and export the notebooks, test them, make README.md
	$(MAKE) clean-notebooks
	$(MAKE) export
	$(MAKE) style
	nbdev_test --n_workers 2
	$(MAKE) readme

style: $(SETUP) ## ruff over the code, the house style over the notebooks
	pytest -q tests/test_style.py

clean-notebooks: $(SETUP)
	jupyter nbconvert --log-level=ERROR --clear-output --inplace nbs/index.ipynb nbs/pipeline/*.ipynb
	nbdev_clean

export: $(SETUP)
	nbdev_export

readme: $(SETUP) ## make README.md from nbs/index.ipynb, which shows the sample's results: after make repro on it
	python docs/build_site.py --check
	$(EXECUTE) --to markdown --no-input --output-dir=. --output=README \
		--NbConvertApp.output_files_dir=nbs/images nbs/index.ipynb

study: $(SETUP) ## measure features, parts of the model and leaks on the leads cleaned last: nbs/study.ipynb (10 min)
	$(EXECUTE) --to notebook --inplace nbs/study.ipynb
	nbdev_clean --fname nbs/study.ipynb

bench: $(SETUP) ## measure what users wait for, beside the targets
	python benchmarks/bench.py

lock: $(SETUP) ## resolve requirements.lock again
	uv pip compile --quiet --upgrade pyproject.toml --extra dev --python-version 3.11 --no-emit-index-url \
		--no-annotate --custom-compile-command "make lock" --output-file requirements.lock
