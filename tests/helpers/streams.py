"""A CuPy whose streams run late, on a machine without a GPU: what is queued is done when something forces it.

Memory of the device is NumPy's. Freed memory is lent again at once, to the stream that it was allocated for, as CuPy's
pool does. Each stream keeps its order and waits for events; which of several streams goes on is the test's to choose.
What the library fails to order is then done in the wrong order, and the numbers are wrong.
"""

import threading
import weakref

import numpy as np


class World:
    """All streams, and who is eager: ``copy``, ``compute``, ``all``, or ``none``, which do nothing before they must."""

    def __init__(self, eager: str) -> None:
        self.eager, self.streams, self.free, self.log = eager, [], {}, []
        self.lock = threading.RLock()
        self.current = threading.local()
        self.compute = Stream(self, "compute")

    def now(self):
        """The current stream of this thread: in any but the first, that of CuPy's default."""
        return getattr(self.current, "stream", self.compute)

    def progress(self) -> None:
        for stream in self.streams:
            if self.eager in (stream.name, "all"):
                stream.advance()

    def force(self, event, version) -> None:
        """Run the streams until the event is recorded so often, and no more than that."""
        while event.done < version:
            stream = next(s for s in self.streams if (event, version) in s.records())
            stream.step()

    def lend(self, size, stream):
        stack = self.free.setdefault((stream, size), [])
        return stack.pop() if stack else np.full(size, 0xAB, np.uint8)


class Event:
    def __init__(self, world) -> None:
        self.world, self.recorded, self.done = world, 0, 0

    def synchronize(self) -> None:
        with self.world.lock:
            self.world.force(self, self.recorded)


class Stream:
    def __init__(self, world, name) -> None:
        self.world, self.name, self.queue = world, name, []
        world.streams.append(self)

    def __enter__(self):
        self.before, self.world.current.stream = self.world.now(), self
        return self

    def __exit__(self, *_):
        self.world.current.stream = self.before

    def submit(self, work) -> None:
        with self.world.lock:
            self.queue.append(("work", work))
            self.world.progress()

    def record(self, event) -> None:
        with self.world.lock:
            event.recorded += 1
            self.queue.append(("record", event, event.recorded))
            self.world.progress()

    def wait_event(self, event) -> None:
        with self.world.lock:
            self.queue.append(("wait", event, event.recorded))
            self.world.progress()

    def records(self):
        return [tuple(entry[1:]) for entry in self.queue if entry[0] == "record"]

    def blocked(self) -> bool:
        return not self.queue or (self.queue[0][0] == "wait" and self.queue[0][1].done < self.queue[0][2])

    def advance(self) -> None:
        while not self.blocked():
            self.step()

    def step(self) -> None:
        """The next entry of the queue; what it waits for is done first."""
        kind, what, *version = self.queue[0]
        if kind == "wait":
            self.world.force(what, version[0])
        self.queue.pop(0)
        if kind == "work":
            what()
        elif kind == "record":
            what.done = version[0]

    def drain(self) -> None:
        with self.world.lock:
            while self.queue:
                self.step()


class Memory:
    """Bytes of the device, lent again once this object is gone."""

    def __init__(self, world, size) -> None:
        stream = world.now()
        self.bytes = world.lend(size, stream)
        weakref.finalize(self, world.free.setdefault((stream, size), []).append, self.bytes)


class Pointer:
    """Memory of the device, given back when nobody points to it."""

    def __init__(self, memory, start=0) -> None:
        self.memory, self.start = memory, start

    @classmethod
    def allocate(cls, world, size):
        with world.lock:
            return cls(Memory(world, size))

    def __add__(self, offset):
        return Pointer(self.memory, self.start + offset)

    def view(self, size):
        return self.memory.bytes[self.start : self.start + size]

    def copy_from_host_async(self, address, size, stream) -> None:
        # Freed memory may be lent while a copy into it is queued: the copy keeps the bytes and not the pointer.
        target, host = self.view(size), _pinned[address]
        stream.world.log.append(("host", stream.name, size))
        stream.submit(lambda: np.copyto(target, host[:size]))

    def copy_from_device_async(self, source, size, stream) -> None:
        target, source = self.view(size), source.view(size)
        stream.world.log.append(("device", stream.name, size))
        stream.submit(lambda: np.copyto(target, source))


_pinned = {}


class Pinned(bytearray):
    """A pinned buffer; CuPy's has an address too."""

    def __init__(self, size) -> None:
        super().__init__(size)
        self.ptr = id(self)
        _pinned[self.ptr] = np.frombuffer(self, np.uint8)


class Array:
    """As much of CuPy's array as an uploader fills."""

    def __init__(self, world, shape, dtype) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.nbytes = int(np.prod(shape)) * self.dtype.itemsize
        self.data = Pointer.allocate(world, max(self.nbytes, 1))

    def read(self):
        """What is there when it is read, as bytes of the memory that it had."""
        view, shape, dtype = self.data.view(self.nbytes), self.shape, self.dtype
        return lambda: view.view(dtype).reshape(shape).copy()


def install(fake, monkeypatch, eager) -> World:
    """Let the fake CuPy of a test have such streams."""
    from xpnn.backends import cupy as backend

    world = World(eager)
    fake.module.empty = lambda shape, dtype: Array(world, shape, dtype)
    fake.module.cuda.__dict__.update(
        Stream=lambda non_blocking: Stream(world, "copy"),
        Event=lambda **_: Event(world),
        alloc=lambda size: Pointer.allocate(world, size),
        alloc_pinned_memory=Pinned,
        get_current_stream=world.now,
    )
    backend._uploader.cache_clear()
    return world
