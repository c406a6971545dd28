# SPDX-License-Identifier: Apache-2.0
# fuzz_X.c is the target X. Its seeds: tests/corpus/X unless said otherwise here, and regress/X.
fuzz_seeds_tls_hello    := tests/corpus/clienthello tests/corpus/real
fuzz_seeds_http_request := tests/corpus/http

FUZZ_SECONDS ?= 60
FUZZ_MAX_LEN ?= 20480

fuzz_names := $(fuzz_src:tests/fuzz/fuzz_%.c=%)
fuzz_seeds  = $(wildcard $(or $(fuzz_seeds_$1),tests/corpus/$1) tests/fuzz/regress/$1)
fuzz_obj   := $(lib_src:%.c=$(B)/fuzz/obj/%.o)
fuzz_flags := -std=gnu17 -O1 -g -pthread -fno-omit-frame-pointer -fno-sanitize-recover=all -MMD -MP

fuzz: $(fuzz_names:%=fuzz-explore-%) ## explore every reader with libFuzzer, FUZZ_SECONDS (60) each; needs clang

# One of them: make fuzz-explore-tls_hello
$(fuzz_names:%=fuzz-explore-%): fuzz-explore-%: $(B)/fuzz/fuzz_%
	$(Q)mkdir -p $(B)/fuzz/grown/$* $(B)/fuzz/found/$*
	$< -max_total_time=$(FUZZ_SECONDS) -max_len=$(FUZZ_MAX_LEN) -timeout=10 -print_final_stats=1 \
		-verbosity=0 -artifact_prefix=$(B)/fuzz/found/$*/ $(B)/fuzz/grown/$* $(call fuzz_seeds,$*)

$(fuzz_names:%=$(B)/fuzz/fuzz_%): $(B)/fuzz/fuzz_%: tests/fuzz/fuzz_%.c $(B)/fuzz/libsluice.a
	$(call say,FUZZ,$@)
	$(Q)$(CLANG) $(CPPFLAGS) $(fuzz_flags) -fsanitize=fuzzer,address,undefined $(filter %.c %.a,$^) $(libs) -o $@

$(B)/fuzz/libsluice.a: $(fuzz_obj)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

$(fuzz_obj): $(B)/fuzz/obj/%.o: %.c
	$(call say,CLANG,$@)
	$(Q)mkdir -p $(@D) && $(CLANG) $(CPPFLAGS) $(fuzz_flags) \
		-fsanitize=fuzzer-no-link,address,undefined -c $< -o $@

# Without an engine, with any compiler: a target without a single seed fails.
fuzz-replay: $(fuzz_names:%=fuzz-replay-%) ## replay all seeds and all that ever crashed a reader

$(fuzz_names:%=fuzz-replay-%): fuzz-replay-%: $(B)/tests/fuzz/fuzz_%
	$(Q)$< $(call fuzz_seeds,$*) 2>$(B)/tests/fuzz/$*.log || { tail -n 30 $(B)/tests/fuzz/$*.log; exit 1; }

-include $(fuzz_obj:.o=.d) $(fuzz_names:%=$(B)/fuzz/fuzz_%.d)
.PHONY: fuzz fuzz-replay $(fuzz_names:%=fuzz-explore-%) $(fuzz_names:%=fuzz-replay-%)
