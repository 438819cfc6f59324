# Two commands to know: `make demo` and `make test`. Each does all its own set-up.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python)
VENV_PYTHON = .venv/bin/python
PORT ?= 8188
# Tests that leave the machine's other core alone; those that kill, measure or serve stay by themselves.
SPREAD = -n auto --dist loadfile
export SEG PALETTE METHOD PORT

.DEFAULT_GOAL := help
.PHONY: help demo demo-train comfy pictures test test-fast bench bench-convert effect clean env host tools browser

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: host ## run the graph in the real ComfyUI, pictures in demo-output/ (SEG=map.png PALETTE=ade20k METHOD=joint)
	@set --; \
	[ -z "$$SEG" ] || set -- "$$@" --seg "$$SEG"; \
	[ -z "$$PALETTE" ] || set -- "$$@" --palette "$$PALETTE"; \
	[ -z "$$METHOD" ] || set -- "$$@" --method "$$METHOD"; \
	$(VENV_PYTHON) scripts/demo.py "$$@"

demo-train: host ## train the demo's model from nothing: 2 to 3 hours on 2 cores; interrupt it and go on when you like
	@$(VENV_PYTHON) demo/train.py

comfy: host ## the same set in the browser (PORT=8188)
	@$(VENV_PYTHON) scripts/serve.py --port "$$PORT"

test: host tools browser ## everything: ruff, unit tests, kills and torchrun, the real ComfyUI, its page in a browser
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m pytest -q $(SPREAD) -c tests/pytest.ini tests/unit
	$(VENV_PYTHON) -m pytest -q -c tests/slow/pytest.ini tests/slow
	$(VENV_PYTHON) -m pytest -q $(SPREAD) -c tests/inhost/pytest.ini tests/inhost
	$(VENV_PYTHON) -m pytest -q -c tests/host/pytest.ini tests/host
	$(VENV_PYTHON) -m pytest -q -c tests/page/pytest.ini tests/page

pictures: host browser ## make every picture of the README and of the templates again, by running what they show
	$(VENV_PYTHON) scripts/make_pictures.py

test-fast: env ## unit tests only
	$(VENV_PYTHON) -m pytest -q $(SPREAD) -c tests/pytest.ini tests/unit

bench: host ## ours against the authors' algorithm
	$(VENV_PYTHON) benchmarks/prior.py
	$(VENV_PYTHON) benchmarks/reduce.py

bench-convert: host ## memory and time of converting a 13.8 GB checkpoint; needs 25 GB of disk, takes minutes
	$(VENV_PYTHON) benchmarks/convert.py

effect: host ## what each start changes in the pictures: an hour on two idle cores; interrupt it and go on when you like
	$(VENV_PYTHON) benchmarks/effect.py --out docs/effect-tables.md --figure docs/images/effect.png

clean: ## remove everything the commands made, except the environment and ComfyUI
	rm -rf .host/base .host/stand-ins .host/pycache demo-output .pytest_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -path ./.host -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

env:
	@$(PYTHON) scripts/setup_env.py

host: env
	@$(VENV_PYTHON) scripts/setup_host.py >/dev/null

tools: env
	@$(VENV_PYTHON) scripts/setup_tools.py

browser: env
	@$(VENV_PYTHON) scripts/setup_browser.py >/dev/null
