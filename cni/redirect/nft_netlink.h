/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Between redirect_nft.c, which tells the kernel, and nft_verify.c, which asks it. In the namespace
 * that the calling thread is in; neither logs above debug level.
 */
#include <libmnl/libmnl.h>
#include <stdio.h>

#include "redirect/nft_table.h"

int nft_socket_open(struct mnl_socket **ret);
void nft_socket_close(struct mnl_socket **nl); /* for OWNED() */

/* 0: the kernel holds exactly what the steps leave behind. -ESTALE: it does not. -errno. */
int nft_verify(const struct nft_steps *steps);

/* The objects that are there when all steps are done, one line each, rules with their place. */
void nft_print_result(const struct nft_steps *steps, FILE *out);
