# What a developer types. `make demo` and `make test` need nothing by hand on a fresh Debian with Rust.

SHELL  := /bin/bash
TRIPLE := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
# The released program is static: it runs on any Linux of its architecture, and in the image without a libc.
STATIC := CARGO_TARGET_$(shell echo '$(TRIPLE)' | tr 'a-z-' 'A-Z_')_RUSTFLAGS='-C target-feature=+crt-static'
PMGATE := target/$(TRIPLE)/release/pmgate

.PHONY: help demo build test soak powercut lint bench clean

help:
	@echo 'make demo    a simulated rack, the gateway, certificates and curl lines (ARGS="--listen 127.0.0.1:9443" …)'
	@echo 'make build   the static program: $(PMGATE)'
	@echo 'make test    install what the tests need, run all of them'
	@echo 'make soak    a million worlds of the simulation (SEEDS=…); a seed that goes wrong is printed'
	@echo 'make powercut  a guest whose power is cut while it writes (ROUNDS=50 SEED=…): what was acknowledged must be there'
	@echo 'make lint    formatting, clippy, documentation, dependencies'
	@echo 'make bench   what a poll and a switch cost, beside a floor and net-snmp'

build:
	@tests/setup/build.sh
	$(STATIC) cargo build --release --locked --target $(TRIPLE)

demo: build
	@exec $(PMGATE) demo $(ARGS)

test:
	@tests/setup/test.sh
	@# Most of a test's time is spent waiting for programs and simulated devices: two at once on a processor.
	@export RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((2 * $$(nproc)))}; \
	 if cargo test --locked && cargo test --locked --profile world --test world; then echo 'make test: passed'; else echo 'make test: FAILED'; exit 1; fi

soak:
	cargo test --locked --profile world --test world -- --seeds $(or $(SEEDS),1000000) --from $(or $(FROM),0)

powercut: build
	@tests/setup/powercut.sh
	@python3 tests/powercut/powercut.py $(PMGATE) --rounds $(or $(ROUNDS),50) $(if $(SEED),--seed $(SEED)) $(ARGS)

lint:
	@tests/setup/build.sh
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check; \
	 else echo 'cargo-deny is not installed: dependencies not checked (cargo install --locked cargo-deny)'; fi

bench: build
	@tests/setup/test.sh
	@PMGATE=$(PMGATE) python3 benches/bench.py

clean:
	cargo clean
