# SPDX-License-Identifier: Apache-2.0
"""The run folder of a world and the processes that belong to it.

A world owns /tmp/sluice-test-ID/ and the namespaces slu-ID-*. The folder records who the owner is and
every process that was started, each as pid and start time, so that the next run can clear away what a
killed one left behind without ever touching a process that only happens to have the same pid.
"""
import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

BASE = Path("/tmp")
FOLDER = "sluice-test-"
NETNS = "slu-"


def wait_for(predicate, timeout=10, what="", interval=0.02):
    """Calls predicate until it is true and returns what it gave; TimeoutError says `what`. A file that goes
    while it is looked at is only not what is waited for."""
    deadline = time.monotonic() + timeout
    while True:
        gone = None
        last = time.monotonic() > deadline  # a look that began in time and ended late is not the last
        try:
            if value := predicate():
                return value
        except FileNotFoundError as e:
            gone = e
        if last:
            raise TimeoutError(f"not within {timeout} s: {what or predicate}") from gone
        time.sleep(interval)


def start_time(pid):
    """Of a live process, in clock ticks since boot; None when there is none (or a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = fields.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def is_alive(pid, started):
    return started is not None and start_time(pid) == started


def send(pid, sig, group=False):
    try:
        (os.killpg if group else os.kill)(pid, sig)
    except ProcessLookupError:
        pass


def remove_folder(folder):
    """With what is mounted in it: what is pinned there and nowhere else goes, too."""
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        where = line.split()[1]
        if where.startswith(f"{folder}/"):
            subprocess.run(["umount", where], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


class Proc:
    """A process that we started, leader of its own session. Output goes to `log` in the folder."""

    def __init__(self, popen, name, log, stop_signal):
        self.popen, self.name, self.log = popen, name, log
        self.pid = popen.pid
        self.stop_signal = stop_signal

    def running(self):
        return self.popen.poll() is None

    def wait(self, timeout=10):
        return self.popen.wait(timeout)

    def signal(self, sig):
        if self.running():
            self.popen.send_signal(sig)

    def kill(self):
        """SIGKILL for it and its children; waits. Nothing when it is gone."""
        if self.running():
            send(self.pid, signal.SIGKILL, group=True)
        self.popen.wait()

    def stop(self, timeout=10):
        """Asks, waits, then kills what is left. Returns the exit code."""
        self.signal(self.stop_signal)
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.popen.returncode

    def output(self):
        return self.log.read_text(errors="replace") if self.log else ""


class Procs:
    """The run folder and everything started for it."""

    def __init__(self):
        self.id = f"{os.getpid()}-{secrets.token_hex(3)}"
        self.folder = BASE / (FOLDER + self.id)
        self.netns_prefix = f"{NETNS}{self.id}-"
        self.list = []
        self.count = 0
        # Made under another name first: whoever sees the folder also sees its owner.
        making = BASE / ("." + FOLDER + self.id)
        making.mkdir(mode=0o755)
        (making / "owner").write_text(f"{os.getpid()} {start_time(os.getpid())}\n", encoding="ascii")
        making.rename(self.folder)

    def start(self, name, argv, stop_signal=signal.SIGTERM, log=None, **options):
        """Starts argv; stdout and stderr go to NAME.log unless given otherwise."""
        self.count += 1
        log = log or self.folder / f"{name.replace('/', '_')}.{self.count}.log"
        with open(log, "ab") as out:
            options.setdefault("stdin", subprocess.DEVNULL)
            options.setdefault("stdout", out)
            options.setdefault("stderr", out)
            popen = subprocess.Popen(argv, start_new_session=True, **options)
        with open(self.folder / "processes", "a", encoding="ascii") as f:
            f.write(f"{popen.pid} {start_time(popen.pid) or 0} {name}\n")
        proc = Proc(popen, name, log, stop_signal)
        self.list.append(proc)
        return proc

    def stop_all(self):
        """Newest first; all are asked before the first is waited for."""
        for proc in reversed(self.list):
            proc.signal(proc.stop_signal)
        for proc in reversed(self.list):
            proc.stop(timeout=5)
            for stream in (proc.popen.stdin, proc.popen.stdout, proc.popen.stderr):
                if stream:
                    stream.close()

    def mount_bpf(self):
        """A bpffs of this world's own, for what its agents pin; twice is once."""
        path = self.folder / "bpf"
        if not path.exists():
            path.mkdir()
            subprocess.run(["mount", "-t", "bpf", "none", path], check=True)
        return path

    def remove_folder(self):
        remove_folder(self.folder)


def _netns_names():
    return os.listdir("/run/netns") if os.path.isdir("/run/netns") else []


def remove_netns(name):
    """Ends what still runs in a namespace of ours (all of it was started by a world), removes it."""
    pids = subprocess.run(["ip", "netns", "pids", name], check=False, capture_output=True, text=True)
    for pid in pids.stdout.split():
        send(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _end_recorded(folder):
    record = folder / "processes"
    if not record.exists():
        return
    for line in record.read_text(encoding="ascii").splitlines():
        pid, started = (int(word) for word in line.split()[:2])
        if is_alive(pid, started):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                send(pid, signal.SIGKILL, group=os.getpgid(pid) == pid)


def _owner_is_alive(folder):
    try:
        pid, started = (folder / "owner").read_text(encoding="ascii").split()
    except (FileNotFoundError, ValueError):
        return False
    return is_alive(int(pid), int(started))


def remove_leftovers():
    """Clears away what killed runs left: processes, namespaces, folders. Live runs are left alone."""
    live = set()
    for folder in BASE.glob(FOLDER + "*"):
        try:
            stat = folder.lstat()
        except FileNotFoundError:
            continue  # another run has just ended
        if stat.st_uid != os.getuid() or folder.is_symlink() or not folder.is_dir():
            continue  # somebody else's: nothing in it is to be believed
        run_id = folder.name[len(FOLDER):]
        if _owner_is_alive(folder):
            live.add(run_id)
            continue
        _end_recorded(folder)
        for name in _netns_names():
            if name.startswith(f"{NETNS}{run_id}-"):
                remove_netns(name)
        remove_folder(folder)
    for name in _netns_names():
        found = re.match(rf"{NETNS}((\d+)-[0-9a-f]{{6}})-", name)
        if found and found[1] not in live and start_time(int(found[2])) is None:
            remove_netns(name)
