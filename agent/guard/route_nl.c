/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/route_nl.h"

#include <errno.h>
#include <netlink/errno.h>
#include <netlink/socket.h>
#include <stdbool.h>

#include "base/owned.h"

struct answer {
	int (*each)(void *ctx, struct nlmsghdr *answer);
	void *ctx;
	int r;
};

static int errno_of(int nl_error)
{
	switch (-nl_error) {
	case NLE_SUCCESS:
		return 0;
	case NLE_NOMEM:
		return -ENOMEM;
	case NLE_PERM:
		return -EPERM;
	case NLE_NOACCESS:
		return -EACCES;
	case NLE_AF_NOSUPPORT:
		return -EAFNOSUPPORT;
	case NLE_DUMP_INTR:
		return -EAGAIN;
	default:
		return -EIO;
	}
}

static void free_msg(struct nl_msg **msg)
{
	nlmsg_free(*msg);
}

static void put_cb(struct nl_cb **cb)
{
	nl_cb_put(*cb);
}

int route_nl_open(struct nl_sock **ret)
{
	OWNED(route_nl_close) struct nl_sock *sk = nl_socket_alloc();
	int r;

	if (!sk)
		return -ENOMEM;
	nl_socket_disable_auto_ack(sk);
	r = nl_connect(sk, NETLINK_ROUTE);
	if (r < 0)
		return errno_of(r);
	*ret = TAKE_PTR(sk);
	return 0;
}

void route_nl_close(struct nl_sock **sk)
{
	nl_socket_free(*sk);
	*sk = NULL;
}

static int on_error(struct sockaddr_nl *from, struct nlmsgerr *error, void *arg)
{
	struct answer *a = arg;

	(void)from;
	a->r = error->error;
	return NL_STOP;
}

static int on_valid(struct nl_msg *msg, void *arg)
{
	struct answer *a = arg;

	if (a->each)
		a->r = a->each(a->ctx, nlmsg_hdr(msg));
	return a->r < 0 ? NL_STOP : NL_OK;
}

static int ask(struct nl_sock *sk, struct nl_msg *taken, struct answer *a)
{
	OWNED(free_msg) struct nl_msg *msg = taken;
	OWNED(put_cb) struct nl_cb *cb = nl_cb_alloc(NL_CB_DEFAULT);
	int r;

	if (!msg || !cb)
		return -ENOMEM;
	nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_valid, a);
	nl_cb_err(cb, NL_CB_CUSTOM, on_error, a);
	r = nl_send_auto(sk, msg);
	if (r >= 0)
		r = nl_recvmsgs(sk, cb);
	/* What the kernel said is more exact than what libnl makes of it. */
	if (a->r < 0)
		return a->r;
	return r < 0 ? errno_of(r) : 0;
}

int route_nl_change(struct nl_sock *sk, struct nl_msg *msg)
{
	struct answer a = {0};

	if (msg)
		nlmsg_hdr(msg)->nlmsg_flags |= NLM_F_ACK;
	return ask(sk, msg, &a);
}

int route_nl_read(struct nl_sock *sk, struct nl_msg *msg,
		  int (*each)(void *ctx, struct nlmsghdr *answer), void *ctx)
{
	struct answer a = {.each = each, .ctx = ctx};

	return ask(sk, msg, &a);
}
