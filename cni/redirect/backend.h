/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The ways in which a pod's connections get to the agent, in the order in which `auto` tries them.
 */
enum redirect_backend {
	REDIRECT_AUTO,
	REDIRECT_EBPF,     /* steered by the guard, outside of the pod */
	REDIRECT_NFTABLES, /* rules in the pod: redirect_nft */
	REDIRECT_IPTABLES, /* rules in the pod: redirect_ipt */
	REDIRECT_BACKEND_N_,
};

/* The words of `redirect.backend`. */
static inline const char *redirect_backend_str(enum redirect_backend backend)
{
	static const char *const words[REDIRECT_BACKEND_N_] = {
		[REDIRECT_AUTO] = "auto",
		[REDIRECT_EBPF] = "ebpf",
		[REDIRECT_NFTABLES] = "nftables",
		[REDIRECT_IPTABLES] = "iptables",
	};

	return words[backend];
}
