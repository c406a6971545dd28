# SPDX-License-Identifier: Apache-2.0
# The targets that run tests. What installs packages builds in a make of its own afterwards: this one
# looked for the libraries before they were there.
headers := $(wildcard include/*/*.h agent/*.h agent/*/*.h agent/*/*/*.h cni/*/*.h)
again   := $(MAKE) --no-print-directory
helpers := $(patsubst %.c,$(B)/%,$(wildcard tests/netns/*.c))

demo: deps ## show on real traffic what the agents let through (needs root)
	$(Q)$(again) all
	$(Q)SLUICE_BUILD=$(B) $(PYTHON) tests/demo/demo.py

test: deps ## everything: check and check-root, and nothing may be skipped (needs root)
	$(Q)$(again) all
	$(Q)tests/no_skips.sh $(again) check
	$(Q)SLUICE_NO_SKIPS=1 $(again) check-root

check: all check-layers check-headers check-deploy unit fuzz-replay ## unit, golden and corpus tests; needs neither root nor a network

check-layers:
	$(Q)tests/check_layers.sh

check-deploy: all
	$(Q)SLUICE_BUILD=$(B) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -q -p no:cacheprovider tests/deploy

check-headers: $(headers:%=$(B)/headers/%.ok)

$(B)/headers/%.ok: % $(headers)
	$(Q)mkdir -p $(@D)
	$(Q)echo '#include "$<"' | $(CC) -I. $(CPPFLAGS) $(filter-out -MMD -MP,$(CFLAGS)) -Werror \
		-fsyntax-only -x c -
	$(Q)touch $@

$(helpers:=.o): | $(skeletons)

$(helpers): $(B)/%: $(B)/%.o $(B)/libsluice.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ $(libs) -o $@

check-root: all $(helpers) ## tests in network namespaces, with real clients and servers (needs root)
	$(Q)SLUICE_BUILD=$(B) $(PYTHON) -m pytest -q -p no:cacheprovider tests/netns $(PYTEST)

-include $(helpers:=.d)
.PHONY: demo test check check-layers check-deploy check-headers check-root
