/* SPDX-License-Identifier: Apache-2.0 */

/* How long a registry of N hosts takes to load, one ServiceEntry a host: as YAML documents in one
 * file, and as JSON Lists. Prints one line: {"hosts":N,"yaml_load_ms":..,"json_load_ms":..}
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/num.h"
#include "resource/source.h"

#define JSON_FILES 8
#define ROUNDS     3 /* the best of them counts: others use this machine, too */

static FILE *create(const char *folder, const char *format, size_t i)
{
	char path[256], name[64];

	snprintf(name, sizeof(name), format, i);
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return fopen(path, "we");
}

static int write_yaml(const char *folder, size_t n)
{
	FILE *f = create(folder, "hosts-%zu.yaml", 0);

	if (!f)
		return -errno;
	for (size_t i = 0; i < n; i++)
		fprintf(f,
			"---\n"
			"apiVersion: networking.istio.io/v1\n"
			"kind: ServiceEntry\n"
			"metadata:\n"
			"  name: host-%zu\n"
			"  namespace: default\n"
			"spec:\n"
			"  hosts:\n"
			"  - host-%zu.example.com\n"
			"  location: MESH_EXTERNAL\n"
			"  ports:\n"
			"  - number: 443\n"
			"    name: tls\n"
			"    protocol: TLS\n"
			"  - number: 80\n"
			"    name: http\n"
			"    protocol: HTTP\n"
			"  resolution: DNS\n",
			i, i);
	return fclose(f) == 0 ? 0 : -errno;
}

static int write_json_file(const char *folder, size_t file, size_t n)
{
	FILE *f = create(folder, "hosts-%zu.json", file);
	const char *comma = "";

	if (!f)
		return -errno;
	fputs("{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [\n", f);
	for (size_t i = file; i < n; i += JSON_FILES, comma = ",\n")
		fprintf(f,
			"%s{\"apiVersion\": \"networking.istio.io/v1\", \"kind\": "
			"\"ServiceEntry\", \"metadata\": {\"name\": \"host-%zu\", \"namespace\": "
			"\"default\"}, \"spec\": {\"hosts\": [\"host-%zu.example.com\"], "
			"\"location\": \"MESH_EXTERNAL\", \"ports\": [{\"number\": 443, \"name\": "
			"\"tls\", \"protocol\": \"TLS\"}, {\"number\": 80, \"name\": \"http\", "
			"\"protocol\": \"HTTP\"}], \"resolution\": \"DNS\"}}",
			comma, i, i);
	fputs("\n]}\n", f);
	return fclose(f) == 0 ? 0 : -errno;
}

static int write_json(const char *folder, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < JSON_FILES && r == 0; i++)
		r = write_json_file(folder, i, n);
	return r;
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int measure(const char *folder, size_t n, double *ret_ms)
{
	double best = 0;

	for (int i = 0; i < ROUNDS; i++) {
		double start = now_ms(), took;
		struct registry *reg;
		int r = source_load(&folder, 1, &reg, NULL);

		took = now_ms() - start;
		if (r < 0)
			return r;
		if (registry_n_hosts(reg) != n)
			return log_err(-EBADMSG, "%zu hosts loaded", registry_n_hosts(reg));
		registry_unref(reg);
		best = i == 0 || took < best ? took : best;
	}
	*ret_ms = best;
	return 0;
}

static void remove_folder(const char *folder)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(folder);
}

static int run(int (*fill)(const char *, size_t), size_t n, double *ret_ms)
{
	char folder[] = "/tmp/sluice-load-bench-XXXXXX";
	int r;

	if (!mkdtemp(folder))
		return log_err(-errno, "cannot make a folder in /tmp");
	r = fill(folder, n);
	if (r == 0)
		r = measure(folder, n, ret_ms);
	remove_folder(folder);
	return r;
}

int main(int argc, char **argv)
{
	double yaml = 0, json = 0;
	uint64_t n;

	if (argc != 2 || num_parse_u64(argv[1], 1, 10 * 1000 * 1000, &n) < 0) {
		fprintf(stderr, "usage: load_bench HOSTS\n");
		return 2;
	}
	if (run(write_yaml, n, &yaml) < 0 || run(write_json, n, &json) < 0)
		return 1;
	printf("{\"hosts\":%llu,\"yaml_load_ms\":%.1f,\"json_load_ms\":%.1f}\n",
	       (unsigned long long)n, yaml, json);
	return 0;
}
