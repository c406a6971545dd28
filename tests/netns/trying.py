# SPDX-License-Identifier: Apache-2.0
"""A pod that goes on trying to get out, in a thread of its own, while a test changes things around it."""
import threading

from attack import OUT4, OUT6, inside, tables
from procs import wait_for


def undo_rules(pod):
    """Those of whatever back end."""
    for family, name in tables(pod):
        if name != "witness":
            inside(pod, "nft", "delete", "table", family, name)
    if "-A" in inside(pod, "sh", "-c", "iptables-legacy-save; ip6tables-legacy-save").stdout:
        inside(pod, "sh", "-c", "for i in iptables ip6tables; do for t in filter nat mangle raw; do "
               "$i-legacy -t $t -F; done; done")


class Trying:
    """Sends without pause while in the block: sockets and frames, and it undoes the rules now and then."""

    def __init__(self, attack, undo_rules=False):
        self.attack, self.undo_rules = attack, undo_rules
        self.rounds = 0
        self.failed = None
        self.stopping = threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self.until(3)
        return self

    def __exit__(self, *exc):
        self.stopping.set()
        self.thread.join()
        assert self.failed is None, self.failed

    def _run(self):
        try:
            while not self.stopping.is_set():
                self._once()
                self.rounds += 1
        except Exception as e:  # said by __exit__
            self.failed = e

    def _once(self):
        attack = self.attack
        if self.undo_rules and self.rounds % 5 == 0:
            undo_rules(attack.pod)
        attack.all_of(OUT4, OUT6)
        for v in (4, 6):
            for packet in (attack.udp_packet(v), attack.tcp_packet(v)):
                attack.frame(packet)
        attack.close_sockets()

    def until(self, more, timeout=10):
        """That many rounds more."""
        before = self.rounds
        wait_for(lambda: self.rounds >= before + more or self.failed, timeout, "it goes on trying")
        assert self.failed is None, self.failed
