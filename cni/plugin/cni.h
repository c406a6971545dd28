/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The Container Network Interface as a chained plugin meets it (specification 1.1.0, and 0.3.0,
 * 0.3.1, 0.4.0, 1.0.0): what the runtime asks, by environment and standard input, and what it is
 * answered. Pure but for memory; one thread.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CNI_TEXT_MAX 256
#define CNI_NAME_MAX 128 /* what the agent keeps */

enum cni_command {
	CNI_ADD,
	CNI_DEL,
	CNI_CHECK,
	CNI_GC,
	CNI_STATUS,
	CNI_VERSION,
	CNI_N_,
};

/* Section "Error": 1 to 99 are the specification's, 100 and up our own. */
enum cni_code {
	CNI_CODE_VERSION = 1,        /* incompatible CNI version */
	CNI_CODE_FIELD = 2,          /* unsupported field in the configuration */
	CNI_CODE_CONTAINER = 3,      /* container unknown or does not exist */
	CNI_CODE_ENVIRONMENT = 4,    /* invalid necessary environment variables */
	CNI_CODE_IO = 5,             /* i/o failure */
	CNI_CODE_DECODE = 6,         /* failed to decode content */
	CNI_CODE_CONFIG = 7,         /* invalid network config */
	CNI_CODE_NETNS = 8,          /* CNI_NETNS is the plugin's own */
	CNI_CODE_RETRY = 11,         /* try again later */
	CNI_CODE_UNAVAILABLE = 50,   /* STATUS: the plugin cannot service ADD */
	CNI_CODE_NOT_ENROLLED = 100, /* CHECK: the pod is not captured as it should be */
	CNI_CODE_REFUSED = 101,      /* the agent will not do it */
};

struct cni_error {
	enum cni_code code;
	char msg[CNI_TEXT_MAX];
	char details[CNI_TEXT_MAX];
};

/* Sets msg by a format, details to `details` (NULL: none). Returns -EINVAL. */
int cni_fail(struct cni_error *error, enum cni_code code, const char *details, const char *format,
	     ...) __attribute__((format(printf, 4, 5)));

/* The environment, as pointers into it; "" where a variable is not set. */
struct cni_env {
	enum cni_command command;
	const char *container_id, *netns, *ifname, *args;
};

/* Reads CNI_* by `get` (getenv). -ENOENT when CNI_COMMAND is not set at all; -EINVAL with `error`:
 * what is required for the command and missing, or not of the form that the specification gives.
 */
int cni_read_env(const char *(*get)(const char *name), struct cni_env *ret,
		 struct cni_error *error);

/* The value of one of CNI_ARGS' "K=V;K=V", copied; of several the last. 1; 0 when there is none, or
 * an empty one; -EINVAL when it is longer than `size` has room for.
 */
int cni_arg(const char *args, const char *key, char *ret, size_t size);

bool cni_speaks(const char *version);

/* The network configuration from standard input. Strings belong to `json`. */
struct cni_config {
	json_t *json;
	const char *version; /* that answers are written in */
	const char *name;
	const char *agent_socket; /* agentSocket, /run/sluice/agent.sock */
	const char
		*default_namespace; /* defaultNamespace: of what no orchestrator named; "" none */
	unsigned timeout_ms;        /* timeout, "5s" */
	json_t *prev_result;        /* NULL when there is none */
};

/* -EINVAL with `error`: not JSON, a version we do not speak or that lacks the command, a field that
 * is missing or of the wrong form; then `version` is set all the same. cni_config_done() also after
 * a failure. DEL is lenient: what it can do without may be wrong, and has its default.
 */
int cni_read_config(const char *text, size_t len, enum cni_command command, struct cni_config *ret,
		    struct cni_error *error);
void cni_config_done(struct cni_config *config); /* all zero is fine */

/* Container ids of GC's cni.dev/valid-attachments, a new reference to an array of strings. -ENOENT
 * when they are not given, which is not the same as none; -EINVAL with `error`.
 */
int cni_valid_containers(const struct cni_config *config, json_t **ret, struct cni_error *error);

/* Answers, malloc'ed JSON for the caller to free; NULL when out of memory. The one to VERSION takes
 * what was on standard input, whatever that is.
 */
char *cni_print_result(const struct cni_config *config);
char *cni_print_version(const char *text, size_t len);
char *cni_print_error(const char *version, const struct cni_error *error);
