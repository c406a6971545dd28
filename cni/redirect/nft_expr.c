/* SPDX-License-Identifier: Apache-2.0 */

/* The expressions of a rule, for nft_make.h. Every attribute that the kernel says when it is asked
 * afterwards is set here, too: nft_verify() compares them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <libnftnl/expr.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>

#include "redirect/nft_make.h"

static struct nftnl_expr *add(struct nft_make *m, const char *name)
{
	struct nftnl_expr *e;

	if (m->r < 0)
		return NULL;
	errno = ENOMEM;
	e = nftnl_expr_alloc(name);
	if (!e) {
		m->r = -errno;
		return NULL;
	}
	nftnl_rule_add_expr(m->rule, e);
	return e;
}

/* As the kernel names it: by the old registers of 16 bytes where one begins there. */
static uint32_t reg(unsigned word)
{
	return word % 4 == 0 ? NFT_REG_1 + word / 4 : NFT_REG32_00 + word;
}

/* ---- loads ---- */

void nft_load_meta(struct nft_make *m, uint32_t key)
{
	struct nftnl_expr *e = add(m, "meta");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_DREG, NFT_REG_1);
}

void nft_load_ct(struct nft_make *m, uint32_t key)
{
	struct nftnl_expr *e = add(m, "ct");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, key);
	nftnl_expr_set_u32(e, NFTNL_EXPR_CT_DREG, NFT_REG_1);
}

void nft_load_payload(struct nft_make *m, uint32_t base, uint32_t offset, uint32_t len,
		      unsigned word)
{
	struct nftnl_expr *e = add(m, "payload");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_BASE, base);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_LEN, len);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_DREG, reg(word));
}

void nft_load_value(struct nft_make *m, const void *data, uint32_t len, unsigned word)
{
	struct nftnl_expr *e = add(m, "immediate");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, reg(word));
	nftnl_expr_set(e, NFTNL_EXPR_IMM_DATA, data, len);
}

void nft_load_fib(struct nft_make *m, uint32_t result, uint32_t flags)
{
	struct nftnl_expr *e = add(m, "fib");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_RESULT, result);
	nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_FLAGS, flags);
	nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
}

static void load_exthdr(struct nft_make *m, uint8_t header, uint32_t offset, uint32_t len,
			uint32_t flags)
{
	struct nftnl_expr *e = add(m, "exthdr");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_EXTHDR_OP, NFT_EXTHDR_OP_IPV6);
	nftnl_expr_set_u8(e, NFTNL_EXPR_EXTHDR_TYPE, header);
	nftnl_expr_set_u32(e, NFTNL_EXPR_EXTHDR_OFFSET, offset);
	nftnl_expr_set_u32(e, NFTNL_EXPR_EXTHDR_LEN, len);
	nftnl_expr_set_u32(e, NFTNL_EXPR_EXTHDR_FLAGS, flags);
	nftnl_expr_set_u32(e, NFTNL_EXPR_EXTHDR_DREG, NFT_REG_1);
}

void nft_load_exthdr(struct nft_make *m, uint8_t header, uint32_t offset, uint32_t len)
{
	load_exthdr(m, header, offset, len, 0);
}

void nft_load_exthdr_present(struct nft_make *m, uint8_t header)
{
	load_exthdr(m, header, 0, 1, NFT_EXTHDR_F_PRESENT);
}

/* ---- matches ---- */

void nft_mask(struct nft_make *m, const void *mask, uint32_t len)
{
	static const uint8_t zero[16];
	struct nftnl_expr *e = add(m, "bitwise");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_LEN, len);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_OP, NFT_BITWISE_BOOL);
	nftnl_expr_set(e, NFTNL_EXPR_BITWISE_MASK, mask, len);
	nftnl_expr_set(e, NFTNL_EXPR_BITWISE_XOR, zero, len);
}

void nft_compare(struct nft_make *m, uint32_t op, const void *value, uint32_t len)
{
	struct nftnl_expr *e = add(m, "cmp");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_OP, op);
	nftnl_expr_set(e, NFTNL_EXPR_CMP_DATA, value, len);
}

void nft_compare_u8(struct nft_make *m, uint32_t op, uint8_t value)
{
	nft_compare(m, op, &value, sizeof(value));
}

void nft_compare_be16(struct nft_make *m, uint32_t op, uint16_t value)
{
	uint16_t be = htons(value);

	nft_compare(m, op, &be, sizeof(be));
}

void nft_match_ct_bits(struct nft_make *m, uint32_t key, uint32_t bits)
{
	static const uint32_t zero;

	nft_load_ct(m, key);
	nft_mask(m, &bits, sizeof(bits));
	nft_compare(m, NFT_CMP_NEQ, &zero, sizeof(zero));
}

void nft_look_up(struct nft_make *m, const char *set, uint32_t flags)
{
	struct nftnl_expr *e = add(m, "lookup");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_FLAGS, flags);
	if (nftnl_expr_set_str(e, NFTNL_EXPR_LOOKUP_SET, set) < 0)
		m->r = -ENOMEM;
}

/* ---- what a rule does ---- */

void nft_change_set(struct nft_make *m, uint32_t op, const char *set, uint64_t timeout_ms)
{
	struct nftnl_expr *e = add(m, "dynset");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_DYNSET_SREG_KEY, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_DYNSET_OP, op);
	nftnl_expr_set_u64(e, NFTNL_EXPR_DYNSET_TIMEOUT, timeout_ms);
	if (nftnl_expr_set_str(e, NFTNL_EXPR_DYNSET_SET_NAME, set) < 0)
		m->r = -ENOMEM;
}

void nft_count(struct nft_make *m)
{
	add(m, "counter");
}

void nft_limit(struct nft_make *m, uint64_t per_second, uint32_t burst)
{
	struct nftnl_expr *e = add(m, "limit");

	if (!e)
		return;
	nftnl_expr_set_u64(e, NFTNL_EXPR_LIMIT_RATE, per_second);
	nftnl_expr_set_u64(e, NFTNL_EXPR_LIMIT_UNIT, 1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_LIMIT_BURST, burst);
	nftnl_expr_set_u32(e, NFTNL_EXPR_LIMIT_TYPE, NFT_LIMIT_PKTS);
	nftnl_expr_set_u32(e, NFTNL_EXPR_LIMIT_FLAGS, 0);
}

void nft_report(struct nft_make *m, uint16_t group, uint32_t snaplen, const char *prefix)
{
	struct nftnl_expr *e = add(m, "log");

	if (!e)
		return;
	nftnl_expr_set_u16(e, NFTNL_EXPR_LOG_GROUP, group);
	nftnl_expr_set_u32(e, NFTNL_EXPR_LOG_SNAPLEN, snaplen);
	if (nftnl_expr_set_str(e, NFTNL_EXPR_LOG_PREFIX, prefix) < 0)
		m->r = -ENOMEM;
}

static struct nftnl_expr *verdict(struct nft_make *m, int32_t code)
{
	struct nftnl_expr *e = add(m, "immediate");

	if (!e)
		return NULL;
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_VERDICT, (uint32_t)code);
	return e;
}

void nft_verdict(struct nft_make *m, int32_t code)
{
	verdict(m, code);
}

void nft_go_to(struct nft_make *m, const char *chain)
{
	struct nftnl_expr *e = verdict(m, NFT_GOTO);

	if (e && nftnl_expr_set_str(e, NFTNL_EXPR_IMM_CHAIN, chain) < 0)
		m->r = -ENOMEM;
}

void nft_redirect(struct nft_make *m)
{
	struct nftnl_expr *e = add(m, "redir");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_REDIR_REG_PROTO_MIN, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_REDIR_REG_PROTO_MAX, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_REDIR_FLAGS, NF_NAT_RANGE_PROTO_SPECIFIED);
}

void nft_reject(struct nft_make *m, uint32_t type, uint8_t code)
{
	struct nftnl_expr *e = add(m, "reject");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_REJECT_TYPE, type);
	nftnl_expr_set_u8(e, NFTNL_EXPR_REJECT_CODE, code);
}
