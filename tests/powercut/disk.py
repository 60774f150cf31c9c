"""A disk with a volatile cache, served over NBD (newstyle, fixed handshake) on a Unix socket.

What is written is seen at once and durable only when the guest flushes, or writes with FUA. When the power is cut, each
write since the last flush is lost, kept, or kept in part (by sectors), as the dice say: a real disk orders its writes
itself, and only promises a sector to be whole.
"""
import socket
import struct
import threading

SECTOR = 512
MAGIC, OPTION, REPLY = b"NBDMAGIC", b"IHAVEOPT", 0x3E889045565A9
REQUEST, SIMPLE = 0x25609513, 0x67446698
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
FUA = 1
# Has flags, sends flush, sends FUA.
FLAGS = 1 | 4 | 8


class Disk:
    """The disk. `is_lying` acknowledges flushes and forgets them: with it the rig must find losses."""

    def __init__(self, image, is_lying=False):
        self.durable = bytearray(image)
        self.seen = bytearray(image)
        self.pending = []
        self.flushes = 0
        self.is_lying = is_lying
        self.is_cut = False
        self.lock = threading.Lock()

    def write(self, at, data, is_durable):
        with self.lock:
            if self.is_cut:
                return False
            self.seen[at:at + len(data)] = data
            # Kept in order even when it is durable: an older write to the same place must not come after it.
            self.pending.append((at, data, is_durable))
            if is_durable and not self.is_lying:
                self.durable[at:at + len(data)] = data
            return True

    def flush(self):
        with self.lock:
            if self.is_cut:
                return False
            self.flushes += 1
            if not self.is_lying:
                for at, data, _ in self.pending:
                    self.durable[at:at + len(data)] = data
                self.pending.clear()
            return True

    def cut(self, dice):
        """The power goes. Returns how many writes were under way, and how many of them were lost in whole or in part."""
        with self.lock:
            self.is_cut = True
            keep = dice.choice([0.0, 0.1, 0.5, 0.9, dice.random()])
            lost = 0
            for at, data, is_durable in self.pending:
                if is_durable and not self.is_lying or dice.random() < keep:
                    self.durable[at:at + len(data)] = data
                    continue
                lost += 1
                if dice.random() < 0.3:
                    for sector in range(0, len(data), SECTOR):
                        if dice.random() < 0.5:
                            self.durable[at + sector:at + sector + SECTOR] = data[sector:sector + SECTOR]
            return len(self.pending), lost

    def serve(self, path):
        """Serves one client at a socket; in a thread of its own."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        thread = threading.Thread(target=self._serve, args=(listener,), daemon=True)
        thread.start()
        return thread

    def _serve(self, listener):
        client, _ = listener.accept()
        listener.close()
        try:
            with client:
                self._greet(client)
                while self._answer(client):
                    pass
        except (ConnectionError, EOFError):
            # The guest's machine is gone: that is what this rig is for.
            pass

    def _greet(self, client):
        client.sendall(MAGIC + OPTION + struct.pack(">H", 1))
        take(client, 4)
        while True:
            magic, option, length = struct.unpack(">8sII", take(client, 16))
            assert magic == OPTION, magic
            data = take(client, length)
            reply = lambda kind, body=b"": client.sendall(struct.pack(">QIII", REPLY, option, kind, len(body)) + body)
            if option in (6, 7):
                reply(3, struct.pack(">HQH", 0, len(self.seen), FLAGS))
                reply(1)
                if option == 7:
                    return
            elif option == 1:
                client.sendall(struct.pack(">QH", len(self.seen), FLAGS) + bytes(124))
                return
            elif option == 2:
                reply(1)
                raise EOFError
            else:
                del data
                reply(0x80000001)

    def _answer(self, client):
        magic, flags, kind, handle, at, length = struct.unpack(">IHHQQI", take(client, 28))
        assert magic == REQUEST, hex(magic)
        body, is_done = b"", True
        if kind == READ:
            body = bytes(self.seen[at:at + length])
        elif kind == WRITE:
            is_done = self.write(at, take(client, length), flags & FUA)
        elif kind == FLUSH:
            is_done = self.flush()
        elif kind == DISCONNECT:
            return False
        else:
            client.sendall(struct.pack(">IIQ", SIMPLE, 22, handle))
            return True
        # After the cut nothing is acknowledged any more.
        if is_done:
            client.sendall(struct.pack(">IIQ", SIMPLE, 0, handle) + body)
        return is_done


def take(client, length):
    parts = []
    while length:
        part = client.recv(min(length, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
