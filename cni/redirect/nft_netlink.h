/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What asks nf_tables, in the network namespace that the calling thread is in (nft_transact.h tells
 * it). Any thread; does not log above debug level.
 */
#include <libmnl/libmnl.h>
#include <stdio.h>

#include "redirect/nft_table.h"

int nft_socket_open(struct mnl_socket **ret);
void nft_socket_close(struct mnl_socket **nl); /* for OWNED() */

/* A request for objects of a table, or for a set's elements. */
struct nft_question {
	uint16_t family;    /* NFPROTO_* */
	uint16_t type;      /* NFT_MSG_GET* */
	const char *table;  /* NULL: of all of them */
	const char *within; /* NULL, or: rules of this chain only; elements of this set */
};

/* Calls `on_object` with each message of the answer. -EINTR: it changed meanwhile, ask again.
 * -ENOENT; -errno.
 */
int nft_ask(struct mnl_socket *nl, const struct nft_question *question, mnl_cb_t on_object,
	    void *data);

/* 0: the kernel's table is exactly what the steps leave behind, elements included but for those of
 * sets that rules fill. -ESTALE: it is not. -errno.
 */
int nft_verify(const struct nft_steps *steps);

/* The same for the objects of the steps, whatever other chains and sets the table has. */
int nft_verify_part(const struct nft_steps *steps);

/* The objects that are there when all steps are done, one line each, rules with their place. */
void nft_print_result(const struct nft_steps *steps, FILE *out);
