# SPDX-License-Identifier: Apache-2.0
# The load generator, programs that time one module (*_bench.c), and the bench that runs them all.
bench_bin := $(patsubst %.c,$(B)/%,$(wildcard tests/bench/*.c))

$(bench_bin): $(B)/%: $(B)/%.o $(B)/libsluice.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ $(libs) -o $@

bench-build: all $(bench_bin)

bench: deps ## CPU time and memory beside HAProxy, nginx and the kernel alone (needs root)
	$(Q)$(MAKE) --no-print-directory bench-build
	$(Q)PYTHONDONTWRITEBYTECODE=1 $(PYTHON) tests/bench/bench.py --build $(B)

-include $(bench_bin:=.d)
.PHONY: bench bench-build
