/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where the API server is, whom it has to be, and who we are to it: the service account's files in
 * a pod, or a kubeconfig. Without encryption, or without knowing the server, there is no access.
 * One thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kube/client.h"
#include "resource/arena.h"

#define ACCESS_TOKEN_MAX ((size_t)64 * 1024)

/* A PEM: a file that is read when it is used, or the text itself. Both NULL: none. */
struct access_pem {
	const char *file;
	const char *text;
	size_t len;
};

struct access {
	const char *server;     /* "https://host:port": what was configured */
	const char *base;       /* what a path is put behind */
	const char *connect_to; /* NULL: where `base` says. Otherwise "::host:port" */
	const char *proxy;      /* NULL: as the environment says */
	struct access_pem ca, cert, key;
	const char *token_file; /* NULL: `token` never changes */
	char *token;            /* NULL: none */
	uint64_t token_read_ms;
	bool token_unreadable; /* and it was said */
	struct arena mem;      /* all of the above */
};

/* Logs. -EINVAL with what to do in the log, -errno. */
int access_open(struct access **ret, const struct kube_config *config);
void access_close(struct access *access); /* NULL is fine */

/* The token to be sent now, NULL for none; valid until the next call. Its file is read again when
 * the last time was a minute ago. What cannot be read, or is empty, leaves the old one. Logs.
 */
const char *access_token(struct access *access, uint64_t now_ms);

/* Reads the file now. True: there is a token that is another one. Logs. */
bool access_renew(struct access *access, uint64_t now_ms);

/* For those who fill one: reads "https://HOST[:PORT][/PATH]" into server, base and connect_to.
 * `name`: who the server's certificate has to be for, NULL: HOST. NULL when all is well, else what
 * is wrong with it.
 */
const char *access_set_server(struct access *access, const char *url, const char *name);

/* Fills from a kubeconfig. Logs. -EINVAL, -errno. */
int access_read_kubeconfig(struct access *access, const char *path);
