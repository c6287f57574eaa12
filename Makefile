# SPDX-License-Identifier: MIT OR Apache-2.0
# The commands of the README. They prepare everything they need, in a cache outside the checkout
# (svm-vm doctor shows where).

CARGO ?= cargo
SVM_VM := $(CARGO) run --quiet -p svm-vm --
# Not quiet: the first build takes a while.
BUILD_SVM_VM := $(CARGO) build -p svm-vm

# The guest's IOMMU: intel-iommu (QEMU's own) or svm-vtd (this project's).
IOMMU ?= intel-iommu
# The IOMMU of the second-level guest.
L2_IOMMU ?= svm-vtd
# Running time and seed of the fuzzer.
FUZZ_SECONDS ?= 60
FUZZ_SEED ?= 1
# A result of an earlier make bench or make suite to compare with the new one.
BASELINE ?=
# The rules of make suite and make mutants, by their numbers, and the bench: in-process; or qtest,
# guest or l2, or one of both units of these, as guest-svm-vtd. By default in-process and qtest.
RULE ?=
BENCH ?=
SUITE = $(CARGO) run --quiet -p svm-suite -- $(addprefix --rule ,$(RULE)) $(addprefix --bench ,$(BENCH))
# How long make differential compares, and by which seed.
DIFFERENTIAL ?= --seconds 600 --seed 1
# Text that the names of the tests of make check must contain.
ONLY ?=

.PHONY: help demo demo-l2 check test test-debug test-l2 selftests suite mutants differential page lint dist shell bench bench-guest fuzz coverage prepare doctor manual next clean

help:
	@echo "make demo       run the demonstration in a guest (IOMMU=svm-vtd: on this project's VT-d)"
	@echo "make demo-l2    run it in a guest inside of a guest (L2_IOMMU=intel-iommu)"
	@echo "make check      run what takes a minute (ONLY=text: tests with that in their name)"
	@echo "make test       run all tests, on the host and in the guest"
	@echo "make test-debug run the guest's tests on a kernel that watches the driver"
	@echo "make test-l2    run what takes long in a guest inside of a guest"
	@echo "make selftests  run Linux's own tests of IOMMUFD and VFIO in a guest that is a host"
	@echo "make suite      run the rules of ATS, PRI and PASID on every bench (RULE=38, BENCH=qtest);"
	@echo "                target/report/suite.html (BASELINE=file: what changed)"
	@echo "make mutants    break each rule on purpose and see that it is noticed (RULE, BENCH)"
	@echo "make page       write target/report/suite.html anew from the results that are there"
	@echo "make differential  compare QEMU's units with this project's (DIFFERENTIAL='--seed 2 --cases 250')"
	@echo "make lint       check formatting, lints, licences and documentation"
	@echo "make shell      an interactive guest with the device, its driver and svmctl"
	@echo "make bench      measure; a table, and target/report/bench.json (BASELINE=file: what moved)"
	@echo "make bench-guest  measure in the guest, on both IOMMUs; target/report/bench-guest*"
	@echo "make fuzz       fuzz unit and device for a minute (FUZZ_SECONDS, FUZZ_SEED)"
	@echo "make coverage   line coverage of the device's ATC, ATS and PRI code, by file"
	@echo "make prepare    only prepare what the guest needs"
	@echo "make dist       make the release's archive in target/dist"
	@echo "make doctor     say what this machine lacks"
	@echo "make manual     write docs/device-reference.md anew from svm-abi"
	@echo "make next       try the distribution's coming kernel and QEMU; say what would break"
	@echo "make clean      remove target/ and what the last runs left"

demo:
	@$(BUILD_SVM_VM)
	@$(SVM_VM) run --plan demo --iommu $(IOMMU) --trace

demo-l2:
	@$(BUILD_SVM_VM)
	@$(SVM_VM) nested --plan demo --l2-iommu $(L2_IOMMU) --trace

check:
	@$(CARGO) build -p svm-vm -p svm-tests
	@$(CARGO) run --quiet -p svm-tests --bin run-tests -- --check --only '$(ONLY)'

test:
	@$(CARGO) build -p svm-vm -p svm-tests
	@$(CARGO) run --quiet -p svm-tests --bin run-tests

test-debug:
	@$(CARGO) build -p svm-vm -p svm-tests
	@$(CARGO) run --quiet -p svm-tests --bin run-tests -- --debug

test-l2:
	@$(CARGO) build -p svm-vm -p svm-tests
	@$(CARGO) run --quiet -p svm-tests --bin run-tests -- --l2

selftests:
	@$(CARGO) run --quiet -p svm-tests --bin run-tests -- --selftests

# A program that is the prepared QEMU with the plug-in, for the benches that need it.
QEMU_WITH_PLUGIN := $(CURDIR)/target/qemu-with-svm-demo

.PHONY: qemu-with-plugin
qemu-with-plugin:
ifneq ($(filter guest% l2%,$(BENCH)),)
	@$(BUILD_SVM_VM)
else ifneq ($(BENCH),in-process)
	@$(BUILD_SVM_VM)
	@line="$$($(SVM_VM) qemu --print)" && \
	    printf '#!/bin/sh\nexec %s "$$@"\n' "$$line" > '$(QEMU_WITH_PLUGIN)'
	@chmod +x '$(QEMU_WITH_PLUGIN)'
endif

suite: qemu-with-plugin
	@SVM_QEMU='$(QEMU_WITH_PLUGIN)' SVM_VM='$(CURDIR)/target/debug/svm-vm' $(SUITE) --report target/report $(if $(BASELINE),--baseline '$(BASELINE)')

mutants: qemu-with-plugin
	@SVM_QEMU='$(QEMU_WITH_PLUGIN)' $(SUITE) --mutants --report target/report

page:
	@$(SUITE) --page --report target/report

differential: qemu-with-plugin
	@SVM_QEMU='$(QEMU_WITH_PLUGIN)' $(SUITE) --differential $(DIFFERENTIAL)

lint:
	$(CARGO) fmt --all --check
	rustfmt --check --edition 2021 guest-driver/*.rs
	$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --workspace --no-deps
	$(CARGO) run --quiet -p svm-tests --bin house-rules

shell:
	@$(BUILD_SVM_VM)
	@$(SVM_VM) shell --iommu $(IOMMU)

bench:
	@rm -f target/report/curves.json; status=0; \
	$(CARGO) run --profile optimized -p machine --bin bench -- $(if $(BASELINE),--baseline '$(BASELINE)') || status=$$?; \
	if [ -e target/report/curves.json ]; then \
		$(CARGO) run --quiet -p svmctl-cli --bin svmctl -- bench --from target/report/curves.json \
			--plot target/report/curves.svg >/dev/null && echo "drawn to target/report/curves.svg" || status=1; \
	fi; exit $$status

bench-guest:
	@$(BUILD_SVM_VM)
	@$(CARGO) run --quiet -p svm-tests --bin bench-guest

fuzz:
	@$(CARGO) run --release -p machine --bin fuzz -- --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

coverage:
	@$(CARGO) run --quiet -p svm-tests --bin coverage

dist:
	@$(CARGO) run --quiet -p svm-tests --bin dist

prepare:
	@$(BUILD_SVM_VM)
	@$(SVM_VM) prepare

doctor:
	@$(SVM_VM) doctor

manual:
	$(CARGO) run --quiet -p svm-tests --bin device-manual > docs/device-reference.md

next:
	@$(BUILD_SVM_VM)
	@$(SVM_VM) next

clean:
	$(CARGO) clean
