/* SPDX-License-Identifier: Apache-2.0 */

/* sluice-cni: a chained CNI plugin that has the node's agent enrol each pod before its first
 * process runs. Statically linked: it runs on the host's root, whatever distribution that is.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/owned.h"
#include "plugin/plugin.h"

#define INPUT_MAX (4 * 1024 * 1024) /* GC lists every attachment of the node */

/* Standard input as a whole. -EFBIG, -errno. */
static int read_input(char **ret, size_t *ret_len)
{
	OWNED_MEM char *buf = malloc(INPUT_MAX + 1);
	size_t len = 0;

	if (!buf)
		return -ENOMEM;
	while (len <= INPUT_MAX) {
		ssize_t n = read(STDIN_FILENO, buf + len, INPUT_MAX + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	if (len > INPUT_MAX)
		return -EFBIG;
	*ret = TAKE_PTR(buf);
	*ret_len = len;
	return 0;
}

static const char *get(const char *name)
{
	return getenv(name);
}

static int print(const char *text)
{
	return text && (puts(text) < 0 || fflush(stdout) != 0) ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int print_error(const char *version, const struct cni_error *error)
{
	OWNED_MEM char *text = cni_print_error(version, error);

	print(text);
	return EXIT_FAILURE;
}

static int run(const struct cni_env *env, const char *input, size_t len)
{
	OWNED(cni_config_done) struct cni_config config = {0};
	struct cni_error error = {0};
	OWNED_MEM char *text = NULL;

	if (env->command == CNI_VERSION) {
		text = cni_print_version(input, len);
		return text ? print(text) : EXIT_FAILURE;
	}
	if (cni_read_config(input, len, env->command, &config, &error) < 0 ||
	    plugin_run(env, &config, &text, &error) < 0)
		return print_error(config.version, &error);
	return print(text);
}

int main(void)
{
	struct cni_error error = {0};
	OWNED_MEM char *input = NULL;
	struct cni_env env;
	size_t len = 0;
	int r;

	r = cni_read_env(get, &env, &error);
	if (r == -ENOENT) {
		fputs("CNI plugin sluice-cni " SLUICE_VERSION "\n"
		      "CNI protocol versions supported: 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n",
		      stderr);
		return EXIT_SUCCESS;
	}
	if (r < 0)
		return print_error(NULL, &error);
	r = read_input(&input, &len);
	if (r < 0) {
		cni_fail(&error, CNI_CODE_IO, strerrordesc_np(-r), "cannot read standard input");
		return print_error(NULL, &error);
	}
	return run(&env, input, len);
}
