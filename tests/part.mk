# SPDX-License-Identifier: Apache-2.0
# What tests are made of: unit and golden programs (cmocka), fuzz targets, pytest suites, the bench.
unit_src := $(wildcard tests/unit/test_*.c tests/golden/test_*.c)
unit_bin := $(unit_src:%.c=$(B)/%)
fuzz_src := $(wildcard tests/fuzz/fuzz_*.c)
fuzz_bin := $(fuzz_src:%.c=$(B)/%)
test_libs = $(libs) -lcmocka

$(unit_bin): $(B)/%: $(B)/%.o $(B)/libsluice.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ $(test_libs) -o $@

# Replays corpora through a fuzz target without a fuzzing engine.
$(fuzz_bin): $(B)/%: $(B)/%.o $(B)/tests/fuzz/replay.o $(B)/libsluice.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ $(libs) -o $@

unit: all $(unit_bin)
	$(Q)for t in $(unit_bin); do $$t || exit 1; done

-include $(unit_bin:=.d) $(fuzz_bin:=.d)
.PHONY: unit
-include $(wildcard tests/*/part.mk)
