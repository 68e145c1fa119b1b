# make demo      sets up .venv and turns a prompt into demo.mp4
# make test      sets up .venv with the test tools and runs every test
# make check     lint, types and the fast tests: before every commit
# make bench     measures on the CPU against diffusers and, where it is found, ComfyUI, into benchmarks/results
# make canvas    starts the ComfyUI it finds with this pack and small models
# make hooks     has git run lint and types at every commit
# make demo-model    trains the demo model again, from nothing: a few hours on two CPU cores

PYTHON ?= python3
PY := .venv/bin/python
PROMPT ?= A red circle moves to the right
# Tests are small: one thread each, and as many at a time as there are cores.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --dist loadgroup

.PHONY: demo demo-model test check hooks test-newest-frontend canvas bench clean

demo: .venv/ready
	$(PY) -m wan_core demo --prompt "$(PROMPT)" --out demo.mp4

demo-model: .venv/ready
	$(PY) -m scripts.demo_model.make build/demo-model

test: .venv/ready-for-tests
	$(PYTEST)

check: .venv/ready-for-tests
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PYTEST) -m "not slow and not comfyui and not browser"

hooks: .venv/ready-for-tests
	$(PY) -m pre_commit install

# The canvas tests again, on the newest frontend instead of the one that ComfyUI pins.
test-newest-frontend: .venv/ready-for-tests
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade --no-deps --target .canvas/frontend comfyui-frontend-package
	COMFYUI_FRONTEND=$(CURDIR)/.canvas/frontend/comfyui_frontend_package/static $(PY) -m pytest -m browser

# An hour on two cores; one script after the other, since each measures CPU time.
bench: .venv/ready-for-tests
	for name in dit vae pipeline load scale step_cache; do $(PY) -m benchmarks.cpu.$$name || exit 1; done

canvas: .venv/ready
	$(PY) -m scripts.canvas

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
	rm -rf .venv .canvas demo.mp4 demo.png
