# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the agent behind the enrolment socket, that answers as it is told."""
import array
import json
import os
import socket
import threading

OK = {"ok": True}


class FakeAgent:
    """Answers each request with what `answers` gives next, the last one for ever: a mapping, bytes to be
    sent as they are, DIE to close without a word, or WAIT for no answer at all."""

    DIE, WAIT = "die", "wait"

    def __init__(self, path, *answers):
        self.path, self.answers = str(path), list(answers) or [OK]
        self.requests = []   # what was asked, with "fd_is": (device, inode) of the descriptor
        self.sockets = []
        self.listener = None

    def __enter__(self):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()  # what has been asked is answered
        self.listener.close()
        for sock in self.sockets:
            sock.close()
        os.unlink(self.path)

    def _serve(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.sockets.append(sock)
            self._answer(sock)

    def _answer(self, sock):
        data, control, flags, _ = sock.recvmsg(1 << 19, socket.CMSG_SPACE(32))
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC), flags
        request = json.loads(data)
        for _, _, payload in control:
            fds = array.array("i", payload[:len(payload) - len(payload) % 4])
            for fd in fds:
                st = os.fstat(fd)
                request["fd_is"] = (st.st_dev, st.st_ino)
                os.close(fd)
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == self.WAIT:
            return
        if answer != self.DIE:
            sock.send(answer if isinstance(answer, bytes) else json.dumps(answer).encode())
        sock.close()
