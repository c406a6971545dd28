# SPDX-License-Identifier: Apache-2.0
# Everything that is made lands in $(B). CFLAGS, LDFLAGS, CC belong to the user; SAN=address,undefined
# builds beside the plain build, in a folder of its own.
CC      ?= gcc
CFLAGS  ?= -O2 -g
CLANG   ?= clang
BPFTOOL ?= $(shell PATH=$$PATH:/usr/sbin:/sbin command -v bpftool)
PYTHON  ?= /usr/bin/python3
PREFIX  ?= /usr
SAN     ?=
comma   := ,
B       := build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))
PKGS    := libbpf libmnl libnftnl libnl-3.0 libnl-route-3.0 openssl libcares jansson yaml-0.1 libcurl
VERSION := 0.1.0

Q := $(if $(filter 1,$(V)),,@)
say = $(if $(Q),@printf '  %-5s %s\n' '$(1)' '$(2)')
san := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)

override CPPFLAGS += -D_GNU_SOURCE -Iinclude -Iagent -Icni -I$(B) -DSLUICE_VERSION='"$(VERSION)"'
override CFLAGS += -std=gnu17 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
	$(if $(WERROR),-Werror) -fstack-protector-strong -fPIE -pthread -MMD -MP $(san) \
	$(if $(SAN),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
override LDFLAGS += -pie -Wl,-z,relro,-z,now -Wl,--as-needed -pthread $(san)
override CPPFLAGS += $(shell pkg-config --cflags $(PKGS) 2>/dev/null)

lib_src   := $(filter-out agent/admin/ctl/%,$(wildcard agent/*/*.c)) $(wildcard agent/config*.c) \
	$(filter-out %/main.c,$(wildcard cni/*/*.c))
lib_obj   := $(lib_src:%.c=$(B)/%.o)
bpf_src   := $(wildcard bpf/*.bpf.c)
skeletons := $(bpf_src:%.bpf.c=$(B)/%.skel.h)
agent_obj := $(B)/agent/main.o $(B)/agent/agent.o $(B)/agent/cluster.o $(B)/agent/routes.o
init_obj  := $(B)/cni/init/main.o
cni_obj   := $(B)/cni/plugin/main.o
inst_obj  := $(B)/cni/install/main.o
ctl_obj   := $(patsubst %.c,$(B)/%.o,$(wildcard agent/admin/ctl/*.c))
programs  := $(addprefix $(B)/,sluice-agent sluicectl sluice-init sluice-cni sluice-install)
libs      := $(shell pkg-config --libs $(PKGS) 2>/dev/null)

include tests/part.mk

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:

all: $(programs) ## build everything into build/

$(B)/sluice-agent: $(agent_obj) $(B)/libsluice.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ $(libs) -o $@

$(B)/sluicectl: $(ctl_obj) $(B)/libsluice.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ $(libs) -o $@

$(B)/sluice-init: $(init_obj) $(B)/libsluice.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ $(libs) -o $@

# Runs on the host's root, whatever distribution that is. Sanitizers need the dynamic linker.
$(B)/sluice-cni: $(cni_obj) $(B)/libsluice.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(if $(SAN),$(LDFLAGS),$(filter-out -pie,$(LDFLAGS)) -static-pie) $^ -ljansson -o $@

$(B)/sluice-install: $(inst_obj) $(B)/libsluice.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ -ljansson -o $@

$(B)/libsluice.a: $(lib_obj)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(B)/%.o: %.c
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) -c $< -o $@

# What runs in the kernel. The machine's own headers are those of the C library: no vmlinux.h, no BTF
# of the building machine.
bpf_sys := -idirafter /usr/include/$(shell $(CC) -print-multiarch 2>/dev/null)

$(B)/%.bpf.o: %.bpf.c
	$(call say,BPF,$@)
	$(Q)mkdir -p $(@D) && $(CLANG) -g -O2 -target bpf -mcpu=v3 -Wall -Wextra -Werror -Iinclude $(bpf_sys) \
		-MMD -MP -c $< -o $@

$(B)/%.skel.h: $(B)/%.bpf.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen skeleton $< name $(notdir $*)_bpf > $@

$(lib_obj): | $(skeletons)

deps: ## install the Debian packages that are missing (needs root and apt-get)
	$(Q)./tests/deps.sh

install: all ## install to $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(filter-out %-cni,$(programs)) $(DESTDIR)$(PREFIX)/bin/
	install -d $(DESTDIR)$(PREFIX)/lib/sluice
	install -m 755 $(B)/sluice-cni $(DESTDIR)$(PREFIX)/lib/sluice/

clean: ## remove what was built
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | sort | awk -F'\t' '{printf "  %-13s %s\n", $$1, $$2}'

.PHONY: all deps install clean help

-include $(lib_obj:.o=.d) $(agent_obj:.o=.d) $(ctl_obj:.o=.d) $(init_obj:.o=.d) $(cni_obj:.o=.d) $(inst_obj:.o=.d) $(bpf_src:%.c=$(B)/%.d)
