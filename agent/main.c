/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "base/log.h"

static const char usage[] =
	"sluice-agent --config FILE           run in the foreground; SIGTERM ends it, SIGHUP "
	"re-reads\n"
	"sluice-agent --config FILE --check   say what is wrong with the configuration and the\n"
	"                                     registry's files, and exit 1 if anything is\n"
	"sluice-agent --config FILE --uninstall   when no agent runs: take away rules, guards and\n"
	"                                     state, so that pods are as they were before\n"
	"  --wait                             until none runs any more\n"
	"sluice-agent --version\n"
	"  --log-level error|warning|info|debug\n";

static const struct option options[] = {
	{"config", required_argument, NULL, 'c'},
	{"check", no_argument, NULL, 'k'},
	{"uninstall", no_argument, NULL, 'u'},
	{"wait", no_argument, NULL, 'w'},
	{"log-level", required_argument, NULL, 'l'},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static int set_level(const char *name)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};

	for (int i = 0; i < 4; i++) {
		if (strcmp(name, names[i]) == 0) {
			log_set_level((enum log_level)i);
			return 0;
		}
	}
	fprintf(stderr, "sluice-agent: --log-level: '%s' is none of error, warning, info, debug\n",
		name);
	return -1;
}

/* The configuration is in order; are the registry's files? */
static int check(const struct config *config)
{
	struct registry *reg;
	int r = source_load(config->registry_files, config->n_registry_files, &reg, NULL);

	if (r == 0) {
		printf("'%s' is in order: %zu hosts are registered\n", config->path,
		       registry_n_hosts(reg));
		registry_unref(reg);
	}
	config_unref(config);
	return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
	const struct config *config;
	const char *path = NULL;
	bool only_check = false, uninstall = false, wait = false;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 'c':
			path = optarg;
			break;
		case 'k':
			only_check = true;
			break;
		case 'u':
			uninstall = true;
			break;
		case 'w':
			wait = true;
			break;
		case 'l':
			if (set_level(optarg) < 0)
				return EXIT_FAILURE;
			break;
		case 'V':
			puts("sluice-agent " SLUICE_VERSION);
			return EXIT_SUCCESS;
		case 'h':
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		default:
			fputs(usage, stderr);
			return EXIT_FAILURE;
		}
	}
	if (!path || optind < argc) {
		fputs(usage, stderr);
		return EXIT_FAILURE;
	}
	if (config_load(path, &config) < 0)
		return EXIT_FAILURE;
	if (only_check)
		return check(config);
	if (uninstall)
		return agent_uninstall(config, wait) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
	return agent_run(config) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
