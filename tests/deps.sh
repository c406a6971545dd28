#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that building and testing need and that are missing, all at once;
# with the word `build`, those that building needs. Says and does nothing when all are there.
set -eu

build="gcc libc6-dev make pkg-config clang bpftool libbpf-dev libmnl-dev libnftnl-dev libnl-3-dev libnl-route-3-dev libssl-dev
	libc-ares-dev libjansson-dev libyaml-dev libcurl4-openssl-dev libcmocka-dev"
# What tests, demo and bench run: clients, servers and tools.
run="python3 python3-pytest python3-yaml iproute2 iputils-ping mount procps util-linux nftables binutils curl openssl nginx-light
	dnsmasq-base containernetworking-plugins iptables ngtcp2-client ngtcp2-server postgresql haproxy libnginx-mod-stream"
packages="$build $run"
[ "${1-}" != build ] || packages=$build

# Prints those of its arguments that are not installed.
missing()
{
	# shellcheck disable=SC2016 # the format is dpkg-query's
	have=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null |
		sed -n 's/^installed //p')
	for p in "$@"; do
		printf '%s\n' "$have" | grep -qx -- "$p" || printf '%s ' "$p"
	done
}

# Servers that come with the packages must not start: tests start their own, in namespaces.
policy=/usr/sbin/policy-rc.d
forbid_services()
{
	[ -e $policy ] && return
	trap 'rm -f $policy' EXIT
	trap 'exit 130' INT TERM HUP
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
}

# shellcheck disable=SC2086 # a list of words
want=$(missing $packages)
[ -z "$want" ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "deps: missing packages: $want" >&2
	echo "deps: run as root, or: sudo apt-get install $want" >&2
	exit 1
fi
if ! command -v apt-get >/dev/null; then
	echo "deps: no apt-get here; install what these Debian packages hold: $want" >&2
	exit 1
fi

echo "deps: installing $want"
export DEBIAN_FRONTEND=noninteractive
forbid_services
# shellcheck disable=SC2086
install="apt-get install -y -q --no-install-recommends $want"
# A package list that is missing or old is the usual reason of a failure: then once more.
if ! $install >/dev/null 2>&1; then
	apt-get update -q
	$install
fi
