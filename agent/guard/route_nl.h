/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Requests to route netlink by libnl, with the kernel's own -errno as the answer. They act on the
 * network namespace in which the socket was opened. Any thread, a socket at a time; does not log.
 */
#include <netlink/msg.h>
#include <netlink/netlink.h>

/* The caller's: route_nl_close(). -ENOMEM, -errno. */
int route_nl_open(struct nl_sock **ret);
void route_nl_close(struct nl_sock **sk); /* NULL is fine; made for OWNED() */

/* Takes `msg` (NULL: -ENOMEM), sends it and waits for the kernel's word. */
int route_nl_change(struct nl_sock *sk, struct nl_msg *msg);

/* Takes `msg` (NULL: -ENOMEM) and calls `each` with every message of the answer, which is borrowed
 * for the call. What `each` returns below zero ends it and is returned; the socket is then good for
 * nothing but closing. -EAGAIN when things changed while they were listed. -errno.
 */
int route_nl_read(struct nl_sock *sk, struct nl_msg *msg,
		  int (*each)(void *ctx, struct nlmsghdr *answer), void *ctx);
