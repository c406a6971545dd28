/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/ctl/ctl.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <curl/curl.h>

#include "base/owned.h"
#include "pod/pod_name.h"

#define ADMIN_SOCKET "/run/sluice/admin.sock"
#define AGENT_SOCKET "/run/sluice/agent.sock"

static const char help[] =
	"Usage: sluicectl [--admin SOCKET] [--json] COMMAND\n"
	"\n"
	"  enroll --netns PATH --pod NS/NAME --service-account SA [--socket SOCKET]\n"
	"                   capture what the pod in this network namespace sends\n"
	"  enroll --cgroup PATH --pod NS/NAME --service-account SA [--socket SOCKET]\n"
	"                   the same for a pod on the host's network, by its cgroup2 folder\n"
	"  unenroll --pod NS/NAME [--socket SOCKET]\n"
	"                   take rules and listeners out of the pod again\n"
	"  pods             the pods that are enrolled on this node\n"
	"  registry         the hosts that are registered\n"
	"  connections      the connections that are open\n"
	"  config           the configuration in force\n"
	"  check HOST:PORT --pod NS/NAME [--protocol tls|http|tcp]\n"
	"                   what would be decided for this connection, and why\n"
	"  version          which version this is\n"
	"  help             this text\n"
	"\n"
	"  --admin SOCKET   of the agent to ask (" ADMIN_SOCKET ")\n"
	"  --socket SOCKET  where it takes enrolments (" AGENT_SOCKET ")\n"
	"  --json           print what the agent answers as it is\n"
	"\n"
	"Exit status: 0 done (check: it would be allowed), 1 failed, 2 wrong usage,\n"
	"3 check: it would be denied.";

int ctl_fail(const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	for (char *p = text; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	}
	fprintf(stderr, "sluicectl: %s\n", text);
	return EXIT_FAILED;
}

static int usage_error(const char *what, const char *which)
{
	ctl_fail("%s%s%s%s (sluicectl help shows how)", what, *which ? " '" : "", which,
		 *which ? "'" : "");
	return EXIT_USAGE;
}

static int ctl_version(const struct ctl *ctl)
{
	return print_text(ctl->json ? "{\"version\":\"" SLUICE_VERSION "\"}"
				    : "sluicectl " SLUICE_VERSION);
}

static int ctl_help(const struct ctl *ctl)
{
	(void)ctl;
	return print_text(help);
}

/* Which options a command cannot do without. */
#define NEEDS_POD    1
#define NEEDS_PLACE  2
#define NEEDS_SA     4
#define NEEDS_TARGET 8

static const struct command {
	const char *name;
	int (*run)(const struct ctl *ctl);
	unsigned needs;
} commands[] = {
	{"enroll", ctl_enroll, NEEDS_POD | NEEDS_PLACE | NEEDS_SA},
	{"unenroll", ctl_unenroll, NEEDS_POD},
	{"pods", ctl_pods, 0},
	{"registry", ctl_registry, 0},
	{"connections", ctl_connections, 0},
	{"config", ctl_config, 0},
	{"check", ctl_check, NEEDS_POD | NEEDS_TARGET},
	{"version", ctl_version, 0},
	{"help", ctl_help, 0},
};

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	}
	return NULL;
}

static int check_needs(const struct command *command, const struct ctl *ctl)
{
	const struct {
		unsigned flag;
		const char *value, *what;
	} needs[] = {
		{NEEDS_TARGET, ctl->target, "HOST:PORT"},
		{NEEDS_PLACE, ctl->netns ?: ctl->cgroup, "--netns PATH or --cgroup PATH"},
		{NEEDS_POD, ctl->pod, "--pod NS/NAME"},
		{NEEDS_SA, ctl->service_account, "--service-account SA"},
	};

	struct pod_name pod;

	for (size_t i = 0; i < ARRAY_SIZE(needs); i++) {
		if (command->needs & needs[i].flag && !(needs[i].value && *needs[i].value))
			return usage_error("this command needs", needs[i].what);
	}
	if (ctl->netns && ctl->cgroup)
		return usage_error("--netns or --cgroup, not both", "");
	if (command->needs & NEEDS_POD && pod_name_parse(ctl->pod, &pod) < 0)
		return usage_error("--pod takes NAMESPACE/NAME, not", ctl->pod);
	return EXIT_DONE;
}

/* Options may stand before and after the command: getopt moves what is none to the end. */
static int parse_options(int argc, char **argv, struct ctl *ctl, bool *ret_help)
{
	static const struct option options[] = {
		{"admin", required_argument, NULL, 'a'},
		{"socket", required_argument, NULL, 's'},
		{"netns", required_argument, NULL, 'n'},
		{"cgroup", required_argument, NULL, 'g'},
		{"pod", required_argument, NULL, 'p'},
		{"service-account", required_argument, NULL, 'S'},
		{"protocol", required_argument, NULL, 'P'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		switch (c) {
		case 'a':
			ctl->admin = optarg;
			break;
		case 's':
			ctl->agent = optarg;
			break;
		case 'n':
			ctl->netns = optarg;
			break;
		case 'g':
			ctl->cgroup = optarg;
			break;
		case 'p':
			ctl->pod = optarg;
			break;
		case 'S':
			ctl->service_account = optarg;
			break;
		case 'P':
			ctl->protocol = optarg;
			break;
		case 'j':
			ctl->json = true;
			break;
		case 'h':
			*ret_help = true;
			break;
		case ':':
			return usage_error("this option takes a value:", argv[optind - 1]);
		default:
			return usage_error("unknown option", argv[optind - 1]);
		}
	}
	return EXIT_DONE;
}

static int run(const struct command *command, int argc, char **argv, struct ctl *ctl)
{
	int r;

	if (command->needs & NEEDS_TARGET && argc > 0) {
		ctl->target = argv[0];
		argc--, argv++;
	}
	if (argc > 0)
		return usage_error("this is one word too many:", argv[0]);
	r = check_needs(command, ctl);
	if (r != EXIT_DONE)
		return r;
	return command->run(ctl);
}

int main(int argc, char **argv)
{
	struct ctl ctl = {.admin = ADMIN_SOCKET, .agent = AGENT_SOCKET};
	const struct command *command;
	bool wants_help = false;
	int r;

	r = parse_options(argc, argv, &ctl, &wants_help);
	if (r != EXIT_DONE)
		return r;
	if (wants_help)
		return ctl_help(&ctl);
	if (optind == argc)
		return usage_error("which command?", "");
	command = find_command(argv[optind]);
	if (!command)
		return usage_error("unknown command", argv[optind]);

	if (curl_global_init(CURL_GLOBAL_NOTHING) != CURLE_OK)
		return ctl_fail("out of memory");
	r = run(command, argc - optind - 1, argv + optind + 1, &ctl);
	curl_global_cleanup();
	return r;
}
