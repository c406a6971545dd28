#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Kubernetes 1.20.2 and cnitool for the tests on real nodes, from Debian 12's packages alone: built from Debian's
# sources with Debian's Go, beside etcd, containerd, runc, the CNI plugins and a static busybox, which are unpacked
# and not installed, so that no daemon starts. All of it lands in $SLUICE_K8S_CACHE (default: build/k8s):
#
#   bin/     programs, busybox and pause among them
#   cni/     the CNI plugins
#   ready    the recipe that all this was made by: when it is this one, nothing is left to do; nor when it
#            says "own": then somebody has put other programs there
#
# It is made in a folder beside it, which takes the cache's place at the end: an interrupted build leaves
# nothing behind that could be taken for a whole one.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=$(realpath -m "${SLUICE_K8S_CACHE:-$here/../../build/k8s}")
new=$cache.new

# Debian's kubernetes-client is built from this; its vendor/ is complete, unlike what Debian's patches leave.
tarball=kubernetes_1.20.5+really1.20.2.orig.tar.gz
sha256=b83c0780efb182d928dc63d46488a847f161f04e40a94b96bf5247dd671ecdfc
version=1.20.2
# What golang-github-appc-cni-dev is made from; the package itself leaves cnitool out.
cni_tarball=golang-github-appc-cni_1.1.2.orig.tar.xz
cni_sha256=d16939874ef2e2ff2e34970e2ef62bac910a518b17f3bd2e72bfd05096a1dfec
go_packages="golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev"
packages="etcd-server containerd runc containernetworking-plugins busybox-static"
programs="kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl"

unpacked=$new/packages
source=$new/go/src/k8s.io/kubernetes
cni_source=$new/go/src/github.com/containernetworking/cni

say()
{
	printf '  %-5s %s (%d s)\n' K8S "$1" $SECONDS
}

recipe()
{
	sha256sum <"$here/build.sh"
}

is_ready()
{
	local made_by
	made_by=$(cat "$cache/ready" 2>/dev/null) && { [ "$made_by" = own ] || [ "$made_by" = "$(recipe)" ]; }
}

# A package list that is missing or old is the usual reason of a failure: then once more.
apt()
{
	apt-get -q -oAPT::Sandbox::User=root "$@" 2>"$new/apt.log" && return
	apt-get -q update >/dev/null
	apt-get -q -oAPT::Sandbox::User=root "$@"
}

unpack_packages()
{
	mkdir "$new/debs"
	cd "$new/debs"
	# shellcheck disable=SC2086 # lists of words
	apt download $go_packages $packages >/dev/null
	for deb in *.deb; do
		dpkg-deb -x "$deb" "$unpacked"
	done
}

# PACKAGE TARBALL SHA256 FOLDER TAR-OPTIONS...: the tarball lies in the mirror beside the .deb of a package that
# is built from it, whose address apt knows.
fetch_source()
{
	local uri package=$1 tarball=$2 sha256=$3 folder=$4
	shift 4
	cd "$new"
	uri=$(apt download --print-uris "$package" | cut -d"'" -f2)
	curl -fsSL --retry 3 -o "$tarball" "${uri%/*}/$tarball"
	echo "$sha256  $tarball" | sha256sum -c --quiet
	mkdir -p "$folder"
	tar -xf "$tarball" --strip-components=1 -C "$folder" "$@"
	rm "$tarball"
}

fetch_sources()
{
	fetch_source kubernetes-client "$tarball" "$sha256" "$source" \
		--exclude='*/test/e2e*' --exclude='*/docs' --exclude='*/CHANGELOG'
	fetch_source golang-github-appc-cni-dev "$cni_tarball" "$cni_sha256" "$cni_source"
}

# reflect2 1.0.1, as it is in vendor/, panics on any JSON with a map when built with Go 1.18 or newer.
replace_reflect2()
{
	local path=github.com/modern-go/reflect2
	cd "$source/vendor/$path"
	rm ./*.go ./*.s
	cp "$unpacked/usr/share/gocode/src/$path"/*.{go,s} .
}

set_up_go()
{
	export GOROOT=$unpacked/usr/lib/go-1.19 GOPATH=$new/go GOCACHE=$new/go-cache
	export GO111MODULE=off CGO_ENABLED=0 GOFLAGS='' GOENV=off
	export PATH=$GOROOT/bin:$PATH
}

# The folders that ask for it by a comment, as Kubernetes' own makefile finds them.
openapi_inputs()
{
	grep -rl '+k8s:openapi-gen=' --include=*.go pkg staging/src/k8s.io |
		grep -Ev '/testdata/|code-generator/|sample-apiserver/|_test.go|zz_generated' |
		xargs -n1 dirname | LC_ALL=C sort -u |
		sed 's,^staging/src/,vendor/,; s,^,k8s.io/kubernetes/,' | paste -sd,
}

# The one generated file that the tarball lacks.
generate_openapi()
{
	cd "$source"
	go build -o "$new/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
	"$new/openapi-gen" -i "$(openapi_inputs)" -p k8s.io/kubernetes/pkg/generated/openapi \
		-O zz_generated.openapi -r /dev/null \
		-h vendor/k8s.io/code-generator/hack/boilerplate.go.txt
}

# Without the cloud providers and dockershim.
build_programs()
{
	local vendor=k8s.io/kubernetes/vendor/k8s.io set=''
	for package in component-base/version client-go/pkg/version; do
		set+=" -X $vendor/$package.gitVersion=v$version"
		set+=" -X $vendor/$package.gitMajor=1 -X $vendor/$package.gitMinor=20"
	done
	cd "$source"
	# shellcheck disable=SC2046,SC2086 # lists of words
	go build -tags providerless,dockerless -trimpath -ldflags "-s -w$set" -o "$new/bin/" \
		$(printf ' ./cmd/%s' $programs)
	gcc -Os -static -s -DVERSION=3.2 -o "$new/bin/pause" build/pause/linux/pause.c
	cd "$cni_source"
	go build -trimpath -ldflags '-s -w' -o "$new/bin/" ./cnitool
}

collect()
{
	cp "$unpacked"/usr/bin/{etcd,containerd,containerd-shim-runc-v2,ctr} "$unpacked/usr/sbin/runc" \
		"$unpacked/bin/busybox" "$new/bin/"
	mkdir "$new/cni"
	cp "$unpacked"/usr/lib/cni/* "$new/cni/"
}

# Go's own caches are read-only.
remove()
{
	[ ! -e "$1" ] || chmod -R u+w "$1"
	rm -rf "$1"
}

finish()
{
	for part in debs packages go go-cache openapi-gen apt.log; do
		remove "$new/$part"
	done
	recipe >"$new/ready"
	remove "$cache"
	mv "$new" "$cache"
}

is_ready && exit
mkdir -p "$(dirname "$cache")"
# Two builds at once: the second waits, and finds everything done.
exec 9>"$cache.lock"
flock 9
is_ready && exit
remove "$new"
mkdir -p "$new/bin"
renice -n 10 $$ >/dev/null
unpack_packages
say 'packages are unpacked'
fetch_sources
replace_reflect2
set_up_go
say 'sources are unpacked'
generate_openapi
say 'OpenAPI is generated'
build_programs
say 'programs are built'
collect
finish
