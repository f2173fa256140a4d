"""What the processes of a run say to each other beside their collectives: who is there, who lives, who leaves.

A star of TCP connections around process 0, one JSON object a line. JAX has a service of the same kind, but what goes
wrong in it ends the process without an exception, and a process that is frozen keeps all others waiting.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from fer_jax.distributed.rendezvous import GRACE_SECONDS, HERE, Line

LOST_STATUS = 69  # os.EX_UNAVAILABLE; scripts/slurm/train.sbatch queues the job again
TURN_SECONDS = 1.0  # seconds in which process 0 may say itself what all would say


class Peers:
    """Exchanges messages with the other processes of a run, and ends this process where another one fails.

    A process that dies, freezes, or leaves in error ends all others, with a message, at most `lost_after` seconds after
    its last sign of life; a process whose steps no longer end is ended after `stuck_after` seconds. Where this process
    itself was suspended, for example with its whole job, both times begin anew.

    Args:
      lines: {process: (host, connection)}; process 0 has all others, each other process has process 0.
      end: function of an exit status that ends this process.
    """

    def __init__(
        self,
        index: int,
        lines: Mapping[int, tuple[str, Line]],
        *,
        lost_after: float,
        stuck_after: float,
        end: Callable[[int], None],
    ):
        self.index = index
        self._lines = {other: line for other, (_, line) in lines.items()}
        self._hosts = {other: host for other, (host, _) in lines.items()}
        self._lost_after, self._stuck_after, self._end = lost_after, stuck_after, end
        self._news = threading.Condition()
        self._heard = dict.fromkeys(lines, time.monotonic())
        self._left: dict[int, tuple[int, float]] = {}  # process -> (status, when)
        self._gone: set[int] = set()
        self._values: dict[str, str] = {}
        self._here: dict[str, set[int]] = {}
        self._finished: float | None = None
        self._ending = self._over = False
        for other in lines:
            threading.Thread(target=self._listen, args=(other,), daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def broadcast_from_main(self, name: str, value: str) -> str:
        """Returns the `value` of process 0 in all processes; each `name` may be used once."""
        if self.index == 0:
            self._all({'value': [name, value]})
            return value
        self._until(lambda: name in self._values)
        return self._values.pop(name)

    def barrier(self, name: str) -> None:
        """Waits until all processes have called it; each `name` may be used once."""
        if self.index:
            self._lines[0].say({'here': name})
            self.broadcast_from_main(f'met {name}', '')
            return
        self._until(lambda: self._here.get(name, set()) >= set(self._lines))
        del self._here[name]
        self.broadcast_from_main(f'met {name}', '')

    def finished(self, what: bool = True) -> None:
        """Restarts the timeout of a step.

        Args:
          what: whether another step follows; False stops the timeout.
        """
        self._finished = time.monotonic() if what else None

    def leave(self, status: int) -> bool:
        """Tells all processes that this one leaves; returns whether process 0 has just left with the same status."""
        self._ending, self._finished = True, None
        self._all({'left': [self.index, status]})
        if self.index:
            self._until(lambda: 0 in self._left or 0 in self._gone, TURN_SECONDS)
        return self._left.get(0, (None,))[0] == status

    def linger(self, status: int) -> None:
        """Waits until this process can end without harm to the others: process 0 ends last."""
        if self.index == 0:
            self._until(lambda: self._gone >= set(self._lines), 2 * GRACE_SECONDS if status else None)
        else:
            self._until(lambda: 0 in self._left or 0 in self._gone, 2 * GRACE_SECONDS if status else None)

    def _all(self, message: Mapping[str, Any], but: int = -1) -> None:
        for other, line in self._lines.items():
            if other != but:
                line.say(message)

    def _until(self, true: Callable[[], bool], seconds: float | None = None) -> None:
        """Waits, in short turns: signals are heard between them."""
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._news:
            while not true() and (deadline is None or time.monotonic() < deadline):
                self._news.wait(0.2)

    def _listen(self, other: int) -> None:
        """What comes on one line, until it ends."""
        try:
            while message := self._lines[other].hear():
                self._heard[other] = time.monotonic()
                with self._news:
                    self._take(other, message)
                    self._news.notify_all()
        except (ValueError, OSError):
            pass
        with self._news:
            self._gone.add(other)
            self._news.notify_all()
        if other not in self._left:
            self._lose(other, 'has ended without a word: it was killed, or its machine is gone')

    def _take(self, other: int, message: Mapping[str, Any]) -> None:
        if 'value' in message:
            name, value = message['value']
            self._values[name] = value
        elif 'here' in message:
            self._here.setdefault(message['here'], set()).add(other)
        elif 'left' in message:
            who, status = message['left']
            self._left[who] = (status, time.monotonic())
            if self.index == 0:
                self._all(message, but=who)
        elif 'lost' in message:
            self._finish(LOST_STATUS, f'{message["lost"]}; what was saved is whole, and the same command goes on')

    def _watch(self) -> None:
        """Gives signs of life, and looks for those of the others."""
        awake = time.monotonic()
        while True:
            time.sleep(min(2.0, self._lost_after / 5))
            self._all({'beat': 1})
            before, now = awake, time.monotonic()
            awake = now
            if now - before > self._lost_after / 2:
                self._wake(now)
            for other, heard in self._heard.items():
                if now - heard > self._lost_after and other not in self._gone:
                    self._lose(other, f'has given no sign of life for {now - heard:.0f} s: it, or its machine, hangs')
            for who, (status, when) in list(self._left.items()):
                if status and now - when > GRACE_SECONDS and not self._ending:
                    self._finish(status, '' if status in (2, 75) else f'process {who} has ended with status {status}')
            if self._finished is not None and now - self._finished > self._stuck_after:
                self._lose(self.index, f'has finished no step, or no checkpoint, for {now - self._finished:.0f} s')

    def _wake(self, now: float) -> None:
        self._heard = dict.fromkeys(self._heard, now)
        if self._finished is not None:
            self._finished = now

    def _lose(self, other: int, how: str) -> None:
        message = f'process {other} on {self._hosts.get(other, HERE)} {how}'
        self._all({'lost': message})
        self._finish(LOST_STATUS, f'{message}; what was saved is whole, and the same command goes on')

    def _finish(self, status: int, message: str) -> None:
        with self._news:
            if self._over:
                return
            self._over = True
        if message:
            os.write(2, f'fer_jax: process {self.index} on {HERE} ends: {message}\n'.encode())
        self._all({'left': [self.index, status]})
        if self.index == 0:  # JAX's service ends with this process, and with it whoever is still there
            self._until(lambda: self._gone >= set(self._lines), 2.0)
        self._end(status)
