#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Who may include whom. Each row: files | our headers they may include (by first folder, or whole) |
# system headers they may not. A file belongs to the first row that matches it.
set -euo pipefail
cd "$(dirname "$0")/.."

libraries='libmnl/|libnftnl/|netlink/|openssl/|ares\.h|jansson\.h|yaml\.h|curl/|bpf/'
effects='unistd\.h|fcntl\.h|time\.h|pthread\.h|sys/(socket|epoll|time|mman|stat)\.h'
rows="
include/abi/*         | -                                                             | (?!linux/types\.h).*
bpf/*                 | abi/ bpf/                                                     | (?!linux/|bpf/|stdbool\.h).*
include/base/*        | base/                                                         | $libraries
agent/base/*          | base/                                                         | $libraries
agent/sniff/*         | base/ sniff/ !base/log.h !base/netns.h                        | $libraries|$effects
agent/registry/*      | base/ registry/ !base/log.h !base/netns.h                     | $libraries|$effects
cni/redirect/plan.?   | base/ redirect/plan.h !base/log.h !base/netns.h               | $libraries|$effects
cni/init/*            | base/ redirect/ init/ pod/enrol_client.h pod/pod_name.h       | openssl/|ares\.h|curl/
cni/plugin/*          | base/ plugin/ pod/enrol_client.h pod/pod_name.h               | openssl/|ares\.h|curl/|libmnl/|libnftnl/|netlink/|bpf/
cni/install/*         | base/ install/ plugin/cni.h                                   | openssl/|ares\.h|curl/|libmnl/|libnftnl/|netlink/|bpf/
cni/*                 | abi/ base/ redirect/                                          | openssl/|ares\.h|curl/
agent/net/*           | base/ net/                                                    | $libraries
agent/resource/*      | base/ net/ registry/ resource/ sniff/host.h                   | openssl/|ares\.h
agent/guard/*         | abi/ base/ net/ redirect/ guard/ bpf/                         | openssl/|ares\.h|curl/|jansson\.h
agent/pod/*           | abi/ base/ net/ redirect/ guard/ pod/                         | ares\.h|curl/
agent/gateway/*       | base/ net/ sniff/ registry/ gateway/                          | jansson\.h|curl/|libnftnl/
agent/tunnel/*        | base/ net/ sniff/ registry/ gateway/ tunnel/ config.h admin/access_log.h admin/metrics.h | ares\.h|curl/|libnftnl/
agent/proxy/*         | base/ net/ sniff/ registry/ gateway/ tunnel/ proxy/ config.h admin/access_log.h admin/metrics.h | ares\.h|curl/|libnftnl/
agent/admin/ctl/*     | base/ admin/ pod/enrol_client.h pod/pod_name.h                | ares\.h|libnftnl/
agent/kube/*          | base/ net/ registry/ resource/ kube/ admin/utf8.h             | ares\.h|libnftnl/|openssl/(?!evp|sha|rand)
agent/admin/*         | base/ net/ sniff/ admin/                                      | ares\.h|libnftnl/
agent/config*.?       | base/ registry/ resource/ config.h config_read.h config_words.h guard/guard.h kube/kube.h redirect/backend.h | ares\.h|curl/|libnftnl/
"

# Is the header $1 among the words of $2? "x/" is a folder, "!x" an exception.
allowed()
{
	local word ok=1

	for word in $2; do
		case $word in
		!*) [ "$1" = "${word#!}" ] && return 1 ;;
		*/) [[ $1 == "$word"* ]] && ok=0 ;;
		*) [ "$1" = "$word" ] && ok=0 ;;
		esac
	done
	return $ok
}

check_file()
{
	local file=$1 ours=$2 not=$3 line header

	while IFS= read -r line; do
		header=${line#*\"}
		header=${header%%\"*}
		[[ $header != */* && ( $file == */*/* || $file == bpf/* ) && -e "$(dirname "$file")/$header" ]] &&
			header=$(basename "$(dirname "$file")")/$header
		allowed "$header" "$ours" || echo "$file: may not include \"$header\" (only: ${ours//  /})"
	done < <(grep -E '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$file" || true)
	grep -nP "^\s*#\s*include\s*<($not)" "$file" /dev/null |
		sed 's/:\([0-9]*\):/:\1: may not include /' || true
}

check_all()
{
	local pattern ours not file done=' '

	while IFS='|' read -r pattern ours not; do
		pattern=${pattern// /}
		[ -z "$pattern" ] && continue
		# shellcheck disable=SC2086 # a glob
		for file in $(compgen -G "$pattern" || true); do
			[[ $file == *.[ch] && $done != *" $file "* ]] || continue
			done+="$file "
			check_file "$file" "$ours" "${not# }"
		done
	done <<<"$rows"
}

bad=$(check_all)
if [ -n "$bad" ]; then
	echo "$bad" >&2
	exit 1
fi
