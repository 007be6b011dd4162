"""A coordinator for processes that are threads: a key-value store, and rounds of the living."""

import threading
import time


class Coordinator:
    """What `PeerMonitor` and `Exchange` use of JAX's client."""

    def __init__(self, processes):
        self.values, self.live = {}, set(range(processes))
        self.barrier = threading.Barrier(processes)
        self._lock = threading.Lock()

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite or key not in self.values
        self.values[key] = value

    def key_value_increment(self, key, by):
        with self._lock:
            self.values[key] = self.values.get(key, 0) + by
            return self.values[key]

    def key_value_dir_get(self, key):
        return [(name, value) for name, value in list(self.values.items()) if name.startswith(key)]

    def key_value_delete(self, key):
        for name, _ in self.key_value_dir_get(key):
            del self.values[name]

    def blocking_key_value_get(self, key, milliseconds):
        end = time.monotonic() + milliseconds / 1000
        while key not in self.values:
            if time.monotonic() > end:
                raise RuntimeError("DEADLINE_EXCEEDED: no such key")
            time.sleep(0.005)
        return self.values[key]

    def get_live_nodes(self, processes):
        self.barrier.wait(20)
        return dict.fromkeys(self.live, 1)
