/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The command line of sluice-install. Pure but for getopt's own state. */
#include <stdbool.h>

#define OPTIONS_ERROR_MAX 256

enum install_mode {
	INSTALL_ONCE,
	INSTALL_WATCH,
	INSTALL_REMOVE,
	INSTALL_HELP,
};

/* Strings belong to argv. */
struct install_options {
	enum install_mode mode;
	const char *source;           /* the plugin in the image */
	const char *bin_dir;          /* of the host, as seen from here */
	const char *conf_dir;         /* likewise */
	const char *socket, *timeout; /* for the plugin, as the host sees them */
	const char *ready_file;       /* NULL: none */
	bool wait;                    /* with ONCE: while there is no configuration */
	bool stay;                    /* with REMOVE: until SIGTERM */
};

/* -EINVAL with one line in `error`. */
int install_options_parse(int argc, char **argv, struct install_options *ret,
			  char error[static OPTIONS_ERROR_MAX]);

const char *install_options_help(void);
