/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Makes the steps of a transaction on one table: objects, and rules expression by expression. The
 * first thing that fails is remembered in `r`, and everything after it does nothing, so that only
 * the end has to be asked. Nothing here talks to the kernel. Any thread; does not log.
 */
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <stddef.h>
#include <stdint.h>

#include "redirect/nft_table.h"

struct nft_make {
	struct nft_steps *steps; /* added to; the caller's */
	uint32_t family;         /* NFPROTO_* */
	const char *table;
	struct nftnl_rule *rule; /* between nft_rule_begin() and nft_rule_end() */
	int r;                   /* 0, -ENOMEM, or -EOPNOTSUPP: libnftnl lacks an expression */
};

/* ---- objects; `type`: NFT_MSG_*, `flags`: NLM_F_* ---- */

struct nft_make_chain {
	const char *name;
	const char *device; /* NULL unless of the netdev family */
	uint32_t hook;
	int32_t priority;
	uint32_t policy; /* NF_ACCEPT, NF_DROP */
};

/* Kinds of keys as nft(8) counts them (its datatype.h): only so that it can list them. */
#define NFT_KEY_IPV4         7
#define NFT_KEY_IPV6         8
#define NFT_KEY_PROTO        12
#define NFT_KEY_PORT         13
#define NFT_KEY_CONCAT(a, b) ((a) << 6 | (b))

struct nft_make_set {
	const char *name;
	uint32_t flags; /* NFT_SET_* */
	uint32_t key_type, key_len;
	uint32_t size; /* 0: without bound */
};

void nft_make_table(struct nft_make *m, uint16_t type, uint16_t flags);
void nft_make_base_chain(struct nft_make *m, const struct nft_make_chain *chain);
void nft_make_plain_chain(struct nft_make *m, const char *name);
void nft_make_set(struct nft_make *m, const struct nft_make_set *set);
void nft_delete_chain(struct nft_make *m, const char *name); /* with its rules */
void nft_delete_set(struct nft_make *m, const char *name);
void nft_flush_set(struct nft_make *m, const char *name);

/* The sets cluster4 and cluster6, and the plan's networks into them. */
void nft_make_cluster_sets(struct nft_make *m);
void nft_put_cluster(struct nft_make *m, const struct plan *plan);

/* Those of the addresses that are of the family, each once; `type`: NFT_MSG_NEWSETELEM or
 * _DELSETELEM. */
void nft_put_addrs4(struct nft_make *m, uint16_t type, const char *set, const struct addr *addrs,
		    size_t n);
void nft_put_addrs6(struct nft_make *m, uint16_t type, const char *set, const struct addr *addrs,
		    size_t n);

/* ---- a rule, expression by expression ----
 *
 * `word` is one of 16 registers of 4 bytes each. Matches without it work on the first ones.
 */
void nft_rule_begin(struct nft_make *m, const char *chain);
void nft_rule_end(struct nft_make *m, const char *comment); /* NULL: none */

void nft_load_meta(struct nft_make *m, uint32_t key);
void nft_load_ct(struct nft_make *m, uint32_t key);
void nft_load_payload(struct nft_make *m, uint32_t base, uint32_t offset, uint32_t len,
		      unsigned word);
void nft_load_value(struct nft_make *m, const void *data, uint32_t len, unsigned word);
/* `result`: NFT_FIB_RESULT_*, `flags`: NFTA_FIB_F_*. */
void nft_load_fib(struct nft_make *m, uint32_t result, uint32_t flags);
/* Of an IPv6 extension header; no match where the packet has none. */
void nft_load_exthdr(struct nft_make *m, uint8_t header, uint32_t offset, uint32_t len);
void nft_load_exthdr_present(struct nft_make *m, uint8_t header); /* 1 or 0 */

void nft_mask(struct nft_make *m, const void *mask, uint32_t len);
void nft_compare(struct nft_make *m, uint32_t op, const void *value, uint32_t len);
void nft_compare_u8(struct nft_make *m, uint32_t op, uint8_t value);
void nft_compare_be16(struct nft_make *m, uint32_t op, uint16_t value); /* host order */
/* Any of the bits in a word of conntrack. */
void nft_match_ct_bits(struct nft_make *m, uint32_t key, uint32_t bits);
/* `flags`: NFT_LOOKUP_F_*. */
void nft_look_up(struct nft_make *m, const char *set, uint32_t flags);
/* `op`: NFT_DYNSET_OP_*; the rule ends there when the set is full. The set has NFT_SET_TIMEOUT. */
void nft_change_set(struct nft_make *m, uint32_t op, const char *set, uint64_t timeout_ms);

void nft_count(struct nft_make *m);
void nft_limit(struct nft_make *m, uint64_t per_second, uint32_t burst);
void nft_report(struct nft_make *m, uint16_t group, uint32_t snaplen, const char *prefix);
void nft_verdict(struct nft_make *m, int32_t code);    /* NF_ACCEPT, NF_DROP */
void nft_go_to(struct nft_make *m, const char *chain); /* and does not come back */
void nft_redirect(struct nft_make *m); /* to this host, at the port that was loaded */
void nft_reject(struct nft_make *m, uint32_t type, uint8_t code); /* NFT_REJECT_* */
