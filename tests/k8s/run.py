# SPDX-License-Identifier: Apache-2.0
"""What belongs to one cluster: a folder, network namespaces, cgroups and processes, all named after the run.

The folder records who the owner is and every process that was started, so that the next run can clear away
what a killed one left behind. A cluster that was started from a shell has no owner: it is kept until
somebody takes it down.
"""
import contextlib
import os
import secrets
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from procs import Procs, is_alive, remove_folder, remove_netns, send, start_time, wait_for  # noqa: E402

BASE = Path("/tmp")
FOLDER = "sluice-k8s-"
NETNS = "slk-"
CGROUPS = Path("/sys/fs/cgroup")
KEPT = "kept"


class Run(Procs):
    """A new run; with keep it outlives this process."""

    def __init__(self, keep=False):  # pylint: disable=super-init-not-called # other names, other owner
        self.id = f"{os.getpid()}-{secrets.token_hex(3)}"
        self.folder = BASE / (FOLDER + self.id)
        self.netns_prefix = f"{NETNS}{self.id}-"
        self.list = []
        self.count = 0
        # Made under another name first: whoever sees the folder also sees its owner.
        making = BASE / ("." + FOLDER + self.id)
        making.mkdir(mode=0o755)
        owner = KEPT if keep else f"{os.getpid()} {start_time(os.getpid())}"
        (making / "owner").write_text(owner + "\n", encoding="ascii")
        making.rename(self.folder)

    def remove(self):
        """Ends and removes all of it."""
        self.stop_all()
        remove_run(self.folder)


# ---- cgroups ----

def hierarchies():
    """Where the kernel's cgroup hierarchies are mounted."""
    lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    return [Path(where) for _, where, kind, *_ in (line.split() for line in lines)
            if kind in ("cgroup", "cgroup2") and where.startswith(f"{CGROUPS}/")]


def make_cgroups(name):
    """One in each hierarchy. Returns their folders."""
    made = [hierarchy / name for hierarchy in hierarchies()]
    for cgroup in made:
        cgroup.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):  # nobody may enter a cpuset without either
            if cgroup.parent.name == "cpuset":
                (cgroup / file).write_text((cgroup.parent / file).read_text(encoding="ascii"), "ascii")
    return made


def _try_rmdir(folder):
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # EBUSY: a process of it is still on its way out
        return False
    return True


def remove_cgroups(prefix):
    """All whose name begins so, with what is in them; nothing runs there any more."""
    def gone():
        left = [top for hierarchy in hierarchies() for top in hierarchy.glob(prefix + "*")]
        for top in left:
            for folder, _, _ in os.walk(top, topdown=False):
                _try_rmdir(Path(folder))
        return not any(top.exists() for top in left)
    wait_for(gone, 60, f"cgroups {prefix}* are empty")


# ---- removing ----

def _end_recorded(folder):
    record = folder / "processes"
    if not record.exists():
        return
    recorded = [line.split()[:2] for line in record.read_text(encoding="ascii").splitlines()]
    recorded = [(int(pid), int(started)) for pid, started in recorded]
    for pid, started in recorded:
        if is_alive(pid, started):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                send(pid, 9, group=os.getpgid(pid) == pid)
    wait_for(lambda: not any(is_alive(*one) for one in recorded), what="recorded processes are gone")


def remove_run(folder):
    """Whatever is left of the run whose folder this is. Its netns and cgroups are named after it; the
    pods of a node die with the node's PID 1, which is one of the recorded processes."""
    run_id = folder.name[len(FOLDER):]
    _end_recorded(folder)
    for path in Path("/run/netns").glob(f"{NETNS}{run_id}-*"):
        remove_netns(path.name)
    remove_cgroups(f"{NETNS}{run_id}-")
    remove_folder(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _owner(folder):
    """KEPT, True while the owner lives, else False."""
    try:
        text = (folder / "owner").read_text(encoding="ascii").split()
        return KEPT if text == [KEPT] else is_alive(int(text[0]), int(text[1]))
    except (FileNotFoundError, ValueError, IndexError):
        return False


def _folders():
    for folder in BASE.glob(FOLDER + "*"):
        try:
            stat = folder.lstat()
        except FileNotFoundError:
            continue  # another run has just ended
        # Somebody else's: nothing in it is to be believed.
        if stat.st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink():
            yield folder


def remove_leftovers():
    """Clears away what killed runs left. Live ones and those that are kept stay."""
    for folder in list(_folders()):
        if _owner(folder) is False:
            remove_run(folder)


def kept():
    """Folders of runs that were started from a shell."""
    return [folder for folder in _folders() if _owner(folder) == KEPT]
