#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# PID 1 of a node, in mount, pid, uts, ipc, cgroup and network namespaces of its own. Its root is an overlay
# on the machine's: what a node writes stays in its folder, over reboots too, and never reaches the machine.
#   NODE ADDRESS   its name and address
#   STATE          its folder: fs/ (a tmpfs) for the overlay, disk/ for what may be large, log/
#   PROGRAMS PKI   folders
#   IMAGES         archives that containerd shall have from the first boot on
#   SHARED         folders that node and machine see alike
#   KUBELET_FLAGS  more of them, as words
set -eu

root=$STATE/fs/root
export PATH=$PROGRAMS/bin:/usr/sbin:/usr/bin:/sbin:/bin

mount_root()
{
	mkdir -p "$root" "$STATE/fs/upper" "$STATE/fs/work"
	mount -t overlay -o "lowerdir=/,upperdir=$STATE/fs/upper,workdir=$STATE/fs/work" node "$root"
	mount -t proc proc "$root/proc"
	mount -t sysfs sysfs "$root/sys"
	mount --rbind /dev "$root/dev"
	mount -t tmpfs -o mode=755 tmpfs "$root/run"
	mkdir -p "$root/run/netns" "$root/run/lock"
	for path in $SHARED; do
		mkdir -p "$root$path"
		mount --bind "$path" "$root$path"
	done
	# containerd's own overlays do not lie on an overlay.
	for path in /var/lib/containerd /var/lib/kubelet /var/log; do
		mkdir -p "$STATE/disk$path" "$root$path"
		mount --bind "$STATE/disk$path" "$root$path"
	done
	mount -t bpf bpf "$root/sys/fs/bpf"
}

# In a cgroup namespace each hierarchy begins at the node's own cgroup.
mount_cgroups()
{
	mount -t tmpfs -o mode=755 cgroup "$root/sys/fs/cgroup"
	while IFS=: read -r _ controllers _; do
		name=${controllers#name=}
		mkdir "$root/sys/fs/cgroup/${name:-unified}"
		if [ -n "$controllers" ]; then
			[ "$name" = "$controllers" ] || controllers=none,$controllers
			mount -t cgroup -o "$controllers" cgroup "$root/sys/fs/cgroup/$name"
		else
			mount -t cgroup2 cgroup "$root/sys/fs/cgroup/unified"
		fi
	done </proc/self/cgroup
}

# The kubelet sets these for the whole machine unless they read so already.
pretend_sysctls()
{
	mkdir -p "$STATE/sysctl"
	for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
		kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
		file=$STATE/sysctl/$(basename "${setting%=*}")
		echo "${setting#*=}" >"$file"
		mount --bind "$file" "$root/proc/sys/${setting%=*}"
	done
}

enter_root()
{
	cd "$root"
	pivot_root . .
	umount -l .
	cd /
	mount --make-rshared /
}

# Starts it again when it ends, as systemd would; its pid is in /run/NAME.pid.
keep()
{
	local name=$1
	shift
	while :; do
		"$@" >>"$STATE/log/$name.log" 2>&1 &
		echo $! >"/run/$name.pid"
		wait $! || true
		sleep 0.1
	done
}

import_images()
{
	until ctr version >/dev/null 2>&1; do
		sleep 0.05
	done
	[ -e "$STATE/imported" ] && return
	for image in $IMAGES; do
		ctr -n k8s.io images import "$image" >>"$STATE/log/images.log" 2>&1
	done
	touch "$STATE/imported"
}

hostname "$NODE"
mount_root
mount_cgroups
pretend_sysctls
enter_root
keep containerd containerd -c "$STATE/containerd.toml" &
import_images
# shellcheck disable=SC2086 # words
keep kubelet kubelet --config="$STATE/kubelet.yaml" --kubeconfig="$PKI/$NODE.kubeconfig" \
	--hostname-override="$NODE" --node-ip="$ADDRESS" $KUBELET_FLAGS \
	--container-runtime-endpoint=unix:///run/containerd/containerd.sock &
keep kube-proxy kube-proxy --kubeconfig="$PKI/proxy.kubeconfig" --hostname-override="$NODE" \
	--bind-address="$ADDRESS" --proxy-mode=iptables --cluster-cidr=10.244.0.0/16 \
	--conntrack-max-per-core=0 --conntrack-min=0 &
wait
