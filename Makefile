# `make demo` and `make test` are all the set-up there is: each makes .venv on first use.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check ui docs
setup: .venv/ready

.venv/ready: pyproject.toml
	@echo "Setting up .venv from pyproject.toml (once, and again when it changes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@scripts/install $(BIN)/python
	@touch $@

demo: setup
	@$(BIN)/optimize lm pull
	@$(BIN)/optimize run order_slip --finetune lora --epochs 4 --replay 100 --val-rows 40 --test-rows 60 --max-calls 2250 \
		--without reasoning --without simba --without gepa --without copro || test $$? -eq 1

test: setup
	@$(BIN)/optimize lm pull
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

check: test

ui: setup
	@$(BIN)/optimize ui

docs: setup
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Written: site/index.html"
