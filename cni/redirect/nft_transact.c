/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/nft_transact.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/batch.h>
#include <libnftnl/common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/owned.h"
#include "redirect/nft_netlink.h"
#include "redirect/nft_table.h"

/* A nested attribute holds up to 64 KiB, and so little more does a message. A page must hold any
 * message: libnftnl loses those that do not fit into an empty one.
 */
#define MESSAGE_MAX (128U << 10)
#define FIRST_SEQ   1 /* of the batch's begin; step i is FIRST_SEQ + 1 + i */

/* ---- the batch ---- */

static void free_batch(struct nftnl_batch **batch)
{
	if (*batch)
		nftnl_batch_free(*batch);
}

static int end_message(struct nftnl_batch *batch)
{
	return nftnl_batch_update(batch) < 0 ? -ENOMEM : 0;
}

static uint16_t family_of(const struct nft_step *step)
{
	uint32_t family;

	if (step->table)
		family = nftnl_table_get_u32(step->table, NFTNL_TABLE_FAMILY);
	else if (step->chain)
		family = nftnl_chain_get_u32(step->chain, NFTNL_CHAIN_FAMILY);
	else if (step->set)
		family = nftnl_set_get_u32(step->set, NFTNL_SET_FAMILY);
	else
		family = nftnl_rule_get_u32(step->rule, NFTNL_RULE_FAMILY);
	return (uint16_t)family;
}

static struct nlmsghdr *put_header(struct nftnl_batch *batch, const struct nft_step *step,
				   uint32_t seq)
{
	return nftnl_nlmsg_build_hdr(nftnl_batch_buffer(batch), step->type, family_of(step),
				     step->flags | NLM_F_ACK, seq);
}

/* As many messages as it takes: an attribute ends at 64 KiB. */
static int put_elems(struct nftnl_batch *batch, const struct nft_step *step, uint32_t seq)
{
	struct nftnl_set_elems_iter *iter = nftnl_set_elems_iter_create(step->set);
	int more, r = 0;

	if (!iter)
		return -ENOMEM;
	do {
		struct nlmsghdr *h = put_header(batch, step, seq);

		more = nftnl_set_elems_nlmsg_build_payload_iter(h, iter);
		r = end_message(batch);
	} while (more > 0 && r == 0);
	nftnl_set_elems_iter_destroy(iter);
	return r;
}

static int count_elem(struct nftnl_set_elem *elem, void *n)
{
	(void)elem;
	++*(size_t *)n;
	return 0;
}

/* Deleting elements without naming any deletes all of them. */
static bool is_flush(const struct nft_step *step)
{
	size_t n = 0;

	if (step->type != NFT_MSG_DELSETELEM)
		return false;
	nftnl_set_elem_foreach(step->set, count_elem, &n);
	return n == 0;
}

static int put_step(struct nftnl_batch *batch, const struct nft_step *step, uint32_t seq)
{
	bool flush = is_flush(step);
	struct nlmsghdr *h;

	if (step->type == NFT_MSG_NEWSETELEM || (step->type == NFT_MSG_DELSETELEM && !flush))
		return put_elems(batch, step, seq);
	h = put_header(batch, step, seq);
	if (step->table)
		nftnl_table_nlmsg_build_payload(h, step->table);
	else if (step->chain)
		nftnl_chain_nlmsg_build_payload(h, step->chain);
	else if (flush)
		nftnl_set_elems_nlmsg_build_payload(h, step->set);
	else if (step->set)
		nftnl_set_nlmsg_build_payload(h, step->set);
	else
		nftnl_rule_nlmsg_build_payload(h, step->rule);
	return end_message(batch);
}

static int make_batch(const struct nft_steps *steps, struct nftnl_batch **ret)
{
	OWNED(free_batch)
	struct nftnl_batch *batch = nftnl_batch_alloc(MESSAGE_MAX, MESSAGE_MAX);
	uint32_t seq = FIRST_SEQ;
	int r;

	if (!batch)
		return -ENOMEM;
	nftnl_batch_begin(nftnl_batch_buffer(batch), seq++);
	r = end_message(batch);
	for (size_t i = 0; i < steps->n && r == 0; i++)
		r = put_step(batch, &steps->v[i], seq++);
	if (r < 0)
		return r;
	nftnl_batch_end(nftnl_batch_buffer(batch), seq);
	r = end_message(batch);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(batch);
	return 0;
}

/* All of it in one sendmsg(): only what comes in one piece is one transaction. */
static int send_batch(struct mnl_socket *nl, struct nftnl_batch *batch)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	int n = nftnl_batch_iovec_len(batch), fd = mnl_socket_get_fd(nl);
	OWNED_MEM struct iovec *iov = calloc((size_t)n, sizeof(*iov));
	struct msghdr msg = {.msg_name = &kernel,
			     .msg_namelen = sizeof(kernel),
			     .msg_iov = iov,
			     .msg_iovlen = (size_t)n};
	size_t size = 4096;

	if (!iov)
		return -ENOMEM;
	nftnl_batch_iovec(batch, iov, (uint32_t)n);
	for (int i = 0; i < n; i++)
		size += iov[i].iov_len;
	/* FORCE is for the owner of the first user namespace only; the plain one has a bound. One
	 * acknowledgement each comes back at once. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &(int){(int)size}, sizeof(int)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){(int)size}, sizeof(int));
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &(int){1 << 20}, sizeof(int)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){1 << 20}, sizeof(int));
	return sendmsg(fd, &msg, 0) < 0 ? -errno : 0;
}

static const char *step_name(const struct nft_steps *steps, uint32_t seq)
{
	const struct nft_step *s;

	if (seq <= FIRST_SEQ || seq - FIRST_SEQ > steps->n)
		return "transaction";
	s = &steps->v[seq - FIRST_SEQ - 1];
	if (s->chain)
		return nftnl_chain_get_str(s->chain, NFTNL_CHAIN_NAME);
	if (s->set)
		return nftnl_set_get_str(s->set, NFTNL_SET_NAME);
	if (s->rule)
		return nftnl_rule_get_str(s->rule, NFTNL_RULE_CHAIN);
	return nftnl_table_get_str(s->table, NFTNL_TABLE_NAME);
}

struct acks {
	const struct nft_steps *steps;
	uint32_t last; /* newest message that was answered */
	int r;         /* the first refusal: the others follow from it */
};

static void read_acks(struct acks *acks, const char *buf, int len)
{
	const struct nlmsghdr *h;

	for (h = (const struct nlmsghdr *)buf; mnl_nlmsg_ok(h, len); h = mnl_nlmsg_next(h, &len)) {
		const struct nlmsgerr *e = mnl_nlmsg_get_payload(h);

		if (h->nlmsg_type != NLMSG_ERROR || mnl_nlmsg_get_payload_len(h) < sizeof(*e))
			continue;
		if (h->nlmsg_seq > acks->last)
			acks->last = h->nlmsg_seq;
		if (e->error == 0 || acks->r < 0)
			continue;
		acks->r = e->error;
		log_debug("nf_tables refuses step %u ('%s'): %s", h->nlmsg_seq - FIRST_SEQ,
			  step_name(acks->steps, h->nlmsg_seq), strerrordesc_np(-e->error));
	}
}

/* The kernel has answered all there is to answer when sendmsg() returns, so nothing is waited for.
 */
static int receive_acks(struct mnl_socket *nl, const struct nft_steps *steps)
{
	char buf[16384] __attribute__((aligned(8)));
	struct acks acks = {.steps = steps};

	for (;;) {
		ssize_t n = recv(mnl_socket_get_fd(nl), buf, sizeof(buf), MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return -errno;
		read_acks(&acks, buf, (int)n);
	}
	if (acks.r == 0 && acks.last < FIRST_SEQ + steps->n)
		return -EPROTO; /* the last step was never answered: nothing is known */
	return acks.r;
}

int nft_transact_on(struct mnl_socket *nl, const struct nft_steps *steps)
{
	OWNED(free_batch) struct nftnl_batch *batch = NULL;
	int r;

	r = make_batch(steps, &batch);
	if (r < 0)
		return r;
	r = send_batch(nl, batch);
	if (r < 0)
		return r;
	return receive_acks(nl, steps);
}

int nft_transact(const struct nft_steps *steps)
{
	OWNED(nft_socket_close) struct mnl_socket *nl = NULL;
	int r = nft_socket_open(&nl);

	return r < 0 ? r : nft_transact_on(nl, steps);
}

int nft_table_exists(uint16_t family, const char *name)
{
	OWNED(nft_socket_close) struct mnl_socket *nl = NULL;
	char buf[4096] __attribute__((aligned(8)));
	struct nlmsghdr *h;
	ssize_t n;
	int r;

	r = nft_socket_open(&nl);
	if (r < 0)
		return r;
	h = nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETTABLE, family, 0, FIRST_SEQ);
	mnl_attr_put_strz(h, NFTA_TABLE_NAME, name);
	if (mnl_socket_sendto(nl, h, h->nlmsg_len) < 0)
		return -errno;
	n = mnl_socket_recvfrom(nl, buf, sizeof(buf));
	if (n < 0)
		return -errno;
	if (mnl_cb_run(buf, (size_t)n, FIRST_SEQ, mnl_socket_get_portid(nl), NULL, NULL) >= 0)
		return 1;
	return errno == ENOENT ? 0 : -errno;
}
