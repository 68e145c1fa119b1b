# make demo    sets up .venv and turns a prompt into demo.mp4
# make test    sets up .venv with the test tools and runs every test
# make canvas  starts the ComfyUI it finds with this pack and small models

PYTHON ?= python3
PY := .venv/bin/python
PROMPT ?= A red circle moves to the right

.PHONY: demo test canvas clean

demo: .venv/ready
	$(PY) -m wan_core demo --prompt "$(PROMPT)" --out demo.mp4

test: .venv/ready-for-tests
	$(PY) -m pytest

canvas: .venv/ready
	$(PY) scripts/canvas.py

# The torch version is pinned here and in the test extra, never for those who install the package.
.venv/ready: pyproject.toml
	@echo "Setting up .venv; torch and the rest take a few minutes and about 1 GB (more where torch comes with CUDA)."
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check torch==2.13.0 --editable .
	touch $@

.venv/ready-for-tests: .venv/ready
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@

clean:
	rm -rf .venv .canvas demo.mp4
