# SPDX-License-Identifier: Apache-2.0
# The container image, and the suite on a real Kubernetes.
k8s_packages := $(shell sed 's/\#.*//' tests/k8s/deps)

# A package list that is missing or old is the usual reason of a failure: then once more.
k8s-deps: deps
	$(Q)dpkg-query -s $(k8s_packages) >/dev/null 2>&1 || \
		{ echo "deps: installing $(k8s_packages)"; \
		  install="apt-get install -y -q --no-install-recommends $(k8s_packages)"; \
		  $$install >/dev/null 2>&1 || { apt-get update -q && $$install; }; }

image: all ## make the container image, build/sluice-image.tar, without Docker
	$(call say,IMAGE,$(B)/sluice-image.tar)
	$(Q)PYTHONDONTWRITEBYTECODE=1 $(PYTHON) deploy/image.py --build $(B) --out $(B)/sluice-image.tar \
		--name sluice:latest --name sluice:$(VERSION)

# Nothing of it may run before main but the C library's own start.
$(B)/tests/k8s/first: tests/k8s/first.c
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D) && $(CC) -std=gnu17 -D_GNU_SOURCE -O2 -Wall -Wextra -Wshadow -static $< -o $@

k8s: ## build the Kubernetes of the tests into build/k8s, or SLUICE_K8S_CACHE, unless it is there
	$(Q)tests/k8s/build.sh

test-k8s: k8s-deps ## tests on a real Kubernetes of three nodes (needs root; the first time builds it, 5 minutes)
	$(Q)$(again) image $(B)/tests/k8s/first k8s
	$(Q)SLUICE_BUILD=$(B) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -q -p no:cacheprovider tests/k8s $(PYTEST)

.PHONY: image k8s k8s-deps test-k8s
