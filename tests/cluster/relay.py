"""Passes connections on from one network to another: how pods, whose network reaches nothing of
this machine, reach the API server alone."""

import socket
import threading


class Relay:
    """`listening` may be of another network namespace; `target` is reached from this one."""

    def __init__(self, listening, target):
        self.listening, self.target = listening, target
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listening.accept()
                far = socket.create_connection(self.target)
            except OSError:
                return
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(source, sink), daemon=True).start()

    @staticmethod
    def carry(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listening.close()
