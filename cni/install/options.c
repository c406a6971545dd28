/* SPDX-License-Identifier: Apache-2.0 */
#include "install/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "base/num.h"

#define TIMEOUT_MAX_MS 60000 /* what the plugin takes */

static const struct option known[] = {
	{"source", required_argument, NULL, 's'},
	{"bin-dir", required_argument, NULL, 'b'},
	{"conf-dir", required_argument, NULL, 'c'},
	{"socket", required_argument, NULL, 'a'},
	{"timeout", required_argument, NULL, 't'},
	{"ready-file", required_argument, NULL, 'r'},
	{"once", no_argument, NULL, '1'},
	{"watch", no_argument, NULL, 'w'},
	{"remove", no_argument, NULL, 'u'},
	{"wait", no_argument, NULL, 'W'},
	{"stay", no_argument, NULL, 'S'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

const char *install_options_help(void)
{
	return "usage: sluice-install [--once | --watch | --remove] [OPTION...]\n"
	       "Puts sluice-cni onto a node, and into the CNI configuration that its runtime "
	       "takes.\n"
	       "  --once              do it and end (the default)\n"
	       "  --wait              with --once: wait for the primary CNI's configuration\n"
	       "  --watch             do it, and again whenever somebody undoes it, until "
	       "SIGTERM,\n"
	       "                      which leaves everything in place\n"
	       "  --remove            put everything back\n"
	       "  --stay              with --remove: then wait for SIGTERM, as a container has to\n"
	       "  --source FILE       the plugin (/usr/lib/sluice/sluice-cni)\n"
	       "  --bin-dir DIR       where it goes (/host/opt/cni/bin)\n"
	       "  --conf-dir DIR      where the configurations are (/host/etc/cni/net.d)\n"
	       "  --socket PATH       the agent's, as the host sees it (/run/sluice/agent.sock)\n"
	       "  --timeout DURATION  how long a pod waits for the agent (5s)\n"
	       "  --ready-file PATH   is there while all is in place\n";
}

__attribute__((format(printf, 2, 3))) static int bad(char error[static OPTIONS_ERROR_MAX],
						     const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, OPTIONS_ERROR_MAX, format, args);
	va_end(args);
	return -EINVAL;
}

static void take(struct install_options *o, int option, const char *value)
{
	switch (option) {
	case 's':
		o->source = value;
		break;
	case 'b':
		o->bin_dir = value;
		break;
	case 'c':
		o->conf_dir = value;
		break;
	case 'a':
		o->socket = value;
		break;
	case 't':
		o->timeout = value;
		break;
	case 'r':
		o->ready_file = value;
		break;
	case 'W':
		o->wait = true;
		break;
	case 'S':
		o->stay = true;
		break;
	}
}

static int take_mode(struct install_options *o, int option, int *n_modes)
{
	static const struct {
		int option;
		enum install_mode mode;
	} modes[] = {{'1', INSTALL_ONCE},
		     {'w', INSTALL_WATCH},
		     {'u', INSTALL_REMOVE},
		     {'h', INSTALL_HELP}};

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (modes[i].option != option)
			continue;
		o->mode = modes[i].mode;
		++*n_modes;
		return 1;
	}
	return 0;
}

static int check(const struct install_options *o, char error[static OPTIONS_ERROR_MAX])
{
	uint64_t ms;

	if (o->socket[0] != '/' || strlen(o->socket) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return bad(error, "--socket must be an absolute path of at most %zu bytes",
			   sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	if (num_parse_duration_ms(o->timeout, &ms) < 0 || ms == 0 || ms > TIMEOUT_MAX_MS)
		return bad(error, "--timeout must be a duration like 5s, at most 60s");
	if (!o->source[0] || !o->bin_dir[0] || !o->conf_dir[0])
		return bad(error, "--source, --bin-dir and --conf-dir must not be empty");
	return 0;
}

int install_options_parse(int argc, char **argv, struct install_options *ret,
			  char error[static OPTIONS_ERROR_MAX])
{
	struct install_options o = {.source = "/usr/lib/sluice/sluice-cni",
				    .bin_dir = "/host/opt/cni/bin",
				    .conf_dir = "/host/etc/cni/net.d",
				    .socket = "/run/sluice/agent.sock",
				    .timeout = "5s"};
	int option, n_modes = 0, r;

	optind = 0; /* glibc: from the start, whatever was parsed before */
	opterr = 0;
	while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
		if (option == '?')
			return bad(error, "'%.100s' is unknown or lacks its value; see --help",
				   argv[optind - 1]);
		if (!take_mode(&o, option, &n_modes))
			take(&o, option, optarg);
	}
	if (optind < argc)
		return bad(error, "'%.100s' belongs to no option; see --help", argv[optind]);
	if (n_modes > 1)
		return bad(error, "--once, --watch and --remove exclude each other");
	if ((o.wait && o.mode != INSTALL_ONCE) || (o.stay && o.mode != INSTALL_REMOVE))
		return bad(error, "--wait goes with --once, --stay with --remove");
	r = check(&o, error);
	if (r == 0)
		*ret = o;
	return r;
}
