/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* sluice-init's command line: istio-iptables' flags and environment, and a few of our own. Pure.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "init/flags.h"
#include "pod/pod_name.h"

#define INIT_ERROR_MAX 512

/* Where a value came from; what comes later in this list wins. */
enum init_source {
	INIT_BY_DEFAULT,
	INIT_BY_ENVIRONMENT,
	INIT_BY_ARGUMENT,
};

struct init_options {
	const char *value[INIT_FLAG_N_]; /* never NULL; borrowed from arguments and environment */
	enum init_source source[INIT_FLAG_N_];
	const char *entry[INIT_FLAG_N_]; /* "NAME=value" where it is by environment */
	struct pod_name pod; /* --pod, else POD_NAMESPACE and POD_NAME; "" "" when not given */
};

/* Reads arguments (argv[0] is the program) and environment ("NAME=value", NULL at the end), and
 * looks at every value. A first argument "istio-iptables" is passed over: that is how Istio calls
 * its own. -EINVAL with a line in `error` that says what to do.
 */
int init_options_parse(int argc, char *const *argv, char *const *environment,
		       struct init_options *ret, char error[static INIT_ERROR_MAX]);

/* Of a flag that is true or false. */
bool init_is_on(const struct init_options *o, enum init_flag flag);

/* Was it given, and not as ""? */
bool init_is_set(const struct init_options *o, enum init_flag flag);

/* "--proxy-uid", or the environment's name where it came from there. Returns buf. */
const char *init_flag_name(const struct init_options *o, enum init_flag flag, char buf[static 64]);

uint64_t init_agent_timeout_ms(const struct init_options *o);
enum log_level init_log_level(const struct init_options *o);
