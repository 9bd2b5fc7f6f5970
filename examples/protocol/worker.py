"""A worker without a line of Tradewind's: written from docs/src/protocol.md, with the standard library alone.

    python3 worker.py TASKS_HOST:PORT RESULTS_HOST:PORT

It has one slot, answers each task with its text in capitals, and leaves with the job. What it leaves out: dialling
again when a connection breaks, timeouts, Cancel and Drain.
"""
import queue, secrets, socket, struct, sys, threading, time

VERSION, WORKER, SLOTS = 8, 1, 1
SESSION = secrets.randbits(63)
ROLL_CALL, TASKS, SETTLED, RECALL, CANCEL, DRAIN, PING, DONE, LIMITS = range(9)
HEARTBEAT, HOLDING, RECALLED = 0, 1, 6


# bincode: how values become bytes.

def number(n):
    if n < 251:
        return bytes([n])
    for mark, form, bits in ((251, "<H", 16), (252, "<I", 32), (253, "<Q", 64)):
        if n < 1 << bits:
            return bytes([mark]) + struct.pack(form, n)


def text(data):
    return number(len(data)) + data


def ranges(seqs):
    """A set of seqs, which ascend: ranges between which a seq is missing."""
    runs = []
    for seq in seqs:
        if runs and sum(runs[-1]) == seq:
            runs[-1][1] += 1
        else:
            runs.append([seq, 1])
    return number(len(runs)) + b"".join(number(first) + number(count) for first, count in runs)


class Reader:
    """Takes a frame apart."""

    def __init__(self, frame):
        self.frame, self.at = frame, 0

    def take(self, count):
        if self.at + count > len(self.frame):
            raise ValueError("the frame ends too early")
        self.at += count
        return self.frame[self.at - count:self.at]

    def byte(self):
        return self.take(1)[0]

    def number(self):
        first = self.byte()
        return first if first < 251 else int.from_bytes(self.take({251: 2, 252: 4, 253: 8}[first]), "little")

    def text(self):
        return self.take(self.number())

    def ranges(self):
        return [(self.number(), self.number()) for _ in range(self.number())]

    def limits(self):
        timeout_us = self.number() if self.byte() else None
        return timeout_us, self.byte(), self.byte()

    def tasks(self):
        beside = list(struct.iter_unpack("<QI", self.text()))
        if self.number() != len(beside):
            raise ValueError("there are not as many tasks as tags")
        return [self.task(tag, known) for tag, known in beside]

    def task(self, tag, known):
        head = self.byte()
        if head & ~0x03:
            raise ValueError("a task has fields that are not known")
        seq = self.number()
        attempt = self.number() if head & 0x02 else 1
        return seq, attempt, head & 0x01, self.text(), known, tag


# ZMTP 3: how messages become a stream.

class Lane:
    """One connection to a port, as PUSH or PULL."""

    def __init__(self, address, kind):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.stream = self.socket.makefile("rb")
        self.lock = threading.Lock()
        card = bytes([VERSION]) + b"c" + number(WORKER) + number(SESSION) + number(SLOTS) + number(64 << 20)
        body = b"\x05READY"
        for name, value in ((b"Socket-Type", kind), (b"Identity", card + text(b"python") + text(b""))):
            body += bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
        self.socket.sendall(greeting + b"\x04" + bytes([len(body)]) + body)
        if self.read(64)[10] < 3:
            raise ConnectionError("not ZMTP 3")
        self.receive()

    def read(self, count):
        data = self.stream.read(count)
        if len(data) < count:
            raise ConnectionError("closed by the other end")
        return data

    def receive(self):
        flags = self.read(1)[0]
        length = struct.unpack(">Q", self.read(8))[0] if flags & 0x02 else self.read(1)[0]
        body = self.read(length)
        if flags & 0x04 and not body.startswith(b"\x05READY"):
            raise ConnectionError(f"refused: {body[7:].decode(errors='replace')}")
        return body

    def send(self, body):
        long = len(body) > 255
        head = b"\x02" + struct.pack(">Q", len(body)) if long else b"\x00" + bytes([len(body)])
        with self.lock:
            self.socket.sendall(head + body)


# The worker.

class Worker:
    def __init__(self, tasks, results):
        self.tasks = Lane(tasks, b"PULL")
        self.results = Lane(results, b"PUSH")
        self.waiting, self.finished, self.job = {}, {}, None

    def news(self, body):
        self.results.send(bytes([VERSION]) + b"s" + number(1) + number(SESSION) + body)

    def push(self, tag, result):
        head = bytes([VERSION]) + b"s" + number(0) + number(self.job) + number(SESSION)
        self.results.send(head + text(struct.pack("<Q", tag)) + number(1) + result)

    def run(self, task):
        seq, attempt, last, payload, known, tag = task
        started, began = time.time(), time.monotonic()
        output = payload.upper()
        ran_us = int((time.monotonic() - began) * 1e6)
        head = last | (0x02 if attempt != 1 else 0)
        head = bytes([head]) + number(seq) + (number(attempt) if attempt != 1 else b"")
        result = number(int(started * 1e6)) + number(ran_us) + number(len(payload)) + number(known) + text(output)
        self.finished[seq] = known, tag, head, result
        self.push_again(seq)

    def push_again(self, seq):
        _, tag, head, result = self.finished[seq]
        self.push(tag, head + result)

    def hear(self, frame):
        """One message of the ventilator; true if the job is over."""
        said = Reader(frame)
        if said.take(2) != bytes([VERSION]) + b"w":
            raise ValueError("not a message to a worker of this version")
        kind = said.number()
        if kind == ROLL_CALL:
            job, call = said.number(), said.number()
            if job != self.job:
                self.job, self.waiting, self.finished = job, {}, {}
            held = {seq: task[4:6] for seq, task in self.waiting.items()}
            held |= {seq: done[0:2] for seq, done in self.finished.items()}
            self.news(number(HOLDING) + number(job) + number(call)
                      + ranges(sorted(self.waiting)) + ranges(sorted(self.finished))
                      + number(len(held)) + b"".join(number(held[seq][0]) for seq in sorted(held))
                      + number(len(held)) + b"".join(number(held[seq][1]) for seq in sorted(held)))
            for seq in self.finished:
                self.push_again(seq)
        elif kind == TASKS and said.number() == self.job:
            said.limits()
            for task in said.tasks():
                if task[0] not in self.finished:
                    self.waiting[task[0]] = task
                elif self.finished[task[0]][1] != task[5]:
                    known, _, head, result = self.finished[task[0]]
                    self.finished[task[0]] = known, task[5], head, result
                    self.push_again(task[0])
        elif kind == SETTLED and said.number() == self.job:
            below, stored = said.number(), said.ranges()
            for seq in list(self.finished):
                if seq < below or any(first <= seq < first + count for first, count in stored):
                    del self.finished[seq]
        elif kind == RECALL and said.number() == self.job:
            call, keep = said.number(), said.number()
            back = sorted(self.waiting)[keep:]
            for seq in back:
                del self.waiting[seq]
            self.news(number(RECALLED) + number(self.job) + number(call) + ranges(back))
        return kind == DONE

    def work(self):
        heard = queue.Queue()
        threading.Thread(target=self.listen, args=(heard,), daemon=True).start()
        beat = 0.0
        while True:
            if time.monotonic() >= beat:
                beat = time.monotonic() + 1
                self.news(number(HEARTBEAT) + number(0) + number(len(self.waiting)) + number(SLOTS))
            try:
                frame = heard.get(block=not self.waiting, timeout=0.2)
                if frame is None or self.hear(frame):
                    return frame is not None
            except queue.Empty:
                if self.waiting:
                    self.run(self.waiting.pop(min(self.waiting)))

    def listen(self, heard):
        try:
            while True:
                heard.put(self.tasks.receive())
        except OSError as error:
            print(f"worker.py: {error}", file=sys.stderr)
            heard.put(None)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: worker.py TASKS_HOST:PORT RESULTS_HOST:PORT")
    sys.exit(0 if Worker(sys.argv[1], sys.argv[2]).work() else 1)
