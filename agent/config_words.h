/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The words of the configuration, for who reads it and who prints it. */
#include "config.h"

#define CONFIG_API_VERSION "sluice.io/v1alpha1"

static const char *const roles[] = {[ROLE_NODE] = "Node", [ROLE_GATEWAY] = "Gateway"};
static const char *const outbound_modes[] = {
	[OUTBOUND_REGISTRY_ONLY] = "REGISTRY_ONLY",
	[OUTBOUND_ALLOW_ANY] = "ALLOW_ANY",
};
static const char *const tunnel_modes[] = {
	[TUNNEL_PLAINTEXT] = "PLAINTEXT",
	[TUNNEL_MUTUAL] = "MUTUAL",
};
static const char *const backends[] = {
	[REDIRECT_AUTO] = "auto",
	[REDIRECT_EBPF] = "ebpf",
	[REDIRECT_NFTABLES] = "nftables",
	[REDIRECT_IPTABLES] = "iptables",
};
static const char *const guard_modes[] = {
	[GUARD_REQUIRED] = "required",
	[GUARD_OPTIONAL] = "optional",
};
static const char *const guard_attaches[] = {
	[GUARD_ATTACH_AUTO] = "auto",
	[GUARD_ATTACH_TCX] = "tcx",
	[GUARD_ATTACH_TC] = "tc",
	[GUARD_ATTACH_NFTABLES] = "nftables",
};
static const char *const enrol_modes[] = {
	[ENROL_LABELLED] = "labelled",
	[ENROL_ALL] = "all",
};
static const char *const encodings[] = {
	[LOG_ENCODING_JSON] = "JSON",
	[LOG_ENCODING_TEXT] = "TEXT",
};
