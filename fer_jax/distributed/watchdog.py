"""What the processes of a run say to each other beside their collectives: who is there, who lives, who leaves.

A star of TCP connections around process 0, one JSON object a line. JAX has a service of the same kind, but what goes
wrong in it ends the process without an exception, and a process that is frozen keeps all others waiting.
"""

import contextlib
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

from fer_jax.errors import UserError

LONGEST = 1 << 16  # bytes of a line
GRACE = 5.0  # seconds that are left to end by oneself where another process has ended
GREETING = 10.0  # seconds in which whoever connects has to say who it is
RESOLVING = 30.0  # seconds after which a name that nobody knows is taken for wrong
TURN = 1.0  # seconds in which process 0 may say itself what all would say
HERE = socket.gethostname()


class Line:
    """One connection."""

    def __init__(self, connection: socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection, self._lock = connection, threading.Lock()
        self._file: IO[bytes] = connection.makefile('rb')

    def say(self, message: Mapping[str, Any]) -> None:
        """Sends; a connection that is gone is noticed by whoever listens."""
        with contextlib.suppress(OSError), self._lock:
            self._connection.sendall(json.dumps(message).encode() + b'\n')

    def hear(self) -> dict[str, Any]:
        """The next message, {} where there will be none.

        Raises:
          ValueError: it is none.
        """
        with contextlib.suppress(ConnectionError):
            if line := self._file.readline(LONGEST):
                return dict(json.loads(line))
        return {}

    def wait_at_most(self, seconds: float | None) -> None:
        self._connection.settimeout(seconds)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def gather(port: int, count: int, about: Mapping[str, Any], wait: float) -> dict[int, tuple[str, Line]]:
    """Process 0 waits on `port` for the others; returns {process: (host, connection)}, all of whom know it.

    Args:
      about: what has to be the same in all processes.
      wait: seconds.

    Raises:
      UserError: the port is taken, a process does not come, comes twice, or is of another run.
    """
    found: dict[int, tuple[str, Line]] = {}
    deadline = time.monotonic() + wait
    with _listening(port) as listener:
        while len(found) < count - 1:
            missing = sorted(set(range(1, count)) - set(found))
            if time.monotonic() > deadline:
                few = ', '.join(map(str, missing[:8])) + (' ...' if len(missing) > 8 else '')
                raise UserError(
                    f'process {few} of {count} did not come to {HERE}:{port} in {wait:.0f} s: was it started, and can '
                    'it reach that port? config.parallel.wait is how long to wait'
                )
            with contextlib.suppress(TimeoutError):
                line = Line(listener.accept()[0])
                if hello := _greeted(line):
                    wrong = _wrong(hello, missing, count, about)
                    line.say({'refused': wrong} if wrong else {'welcome': 0})
                    if wrong:
                        raise UserError(wrong)
                    found[hello['process']] = (hello['host'], line)
    for _, line in found.values():
        line.say({'begin': HERE})
    return found


def _listening(port: int) -> socket.socket:
    dual = socket.has_dualstack_ipv6()
    listener = socket.socket(socket.AF_INET6 if dual else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # JAX's service takes the port over
    if dual:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        listener.bind(('', port))
    except OSError as error:
        listener.close()
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        reason = 'is taken' if error.errno == errno.EADDRINUSE else 'may not be used'
        raise UserError(f'port {port} of {HERE} {reason}; give another one in --coordinator={HERE}:PORT') from None
    listener.listen(1024)
    listener.settimeout(0.5)
    return listener


def _greeted(line: Line) -> dict[str, Any]:
    """What who has connected says of itself, {} where that is no process of such a run."""
    line.wait_at_most(GREETING)
    try:
        hello = line.hear()
    except (ValueError, OSError):
        hello = {}
    line.wait_at_most(None)
    if isinstance(hello.get('process'), int) and isinstance(hello.get('host'), str):
        return hello
    line.close()
    return {}


def _wrong(hello: Mapping[str, Any], missing: list[int], count: int, about: Mapping[str, Any]) -> str:
    who = f'process {hello["process"]} on {hello["host"]}'
    if hello.get('count') != count:
        return f'{who} says that there are {hello.get("count")} processes, process 0 on {HERE} says {count}'
    if hello['process'] not in missing:
        return f'{who} is there twice, or is none of 0 to {count - 1}; each needs a number of its own'
    for name, value in about.items():
        if (other := hello.get('about', {}).get(name)) != value:
            return f'{who} has another {name}, {other}, than process 0 on {HERE}, {value}; start all by one command'
    return ''


def join(
    host: str,
    port: int,
    index: int,
    count: int,
    about: Mapping[str, Any],
    wait: float,
    resolving: float = RESOLVING,
) -> tuple[str, Line]:
    """Another process connects to process 0, and waits until all are there; (its host, the connection).

    Args:
      wait: seconds.
      resolving: seconds in which somebody has to know the name `host`.

    Raises:
      UserError: nobody answers, or says no.
    """
    begun = time.monotonic()
    hello = {'process': index, 'count': count, 'host': HERE, 'about': dict(about)}
    where, reason = f'{host}:{port}', ''
    while (left := begun + wait - time.monotonic()) > 0:
        try:
            line = Line(socket.create_connection((host, port), timeout=GREETING))
        except OSError as error:
            reason = error.strerror or str(error)
            if isinstance(error, socket.gaierror) and time.monotonic() - begun > resolving:
                break
            time.sleep(0.2)
            continue
        line.say(hello)
        try:
            answer = line.hear()
            if 'welcome' in answer:
                line.wait_at_most(left + GRACE)
                answer = line.hear() or {'refused': f'process 0 at {where} has given up, see what it says'}
        except (ValueError, TimeoutError):
            raise UserError(f'what answers at {where} is no process 0 of fer_jax; check --coordinator') from None
        if 'begin' in answer:
            line.wait_at_most(None)
            return answer['begin'], line
        if 'refused' in answer:
            raise UserError(answer['refused'])
        line.close()
        reason = 'it hung up'
        time.sleep(0.2)
    raise UserError(
        f'process 0 does not answer at {where} ({reason}): it has to be started on {host}, and {HERE} has to reach '
        'that port; check --coordinator. config.parallel.wait is how many seconds to wait'
    )


class Peers:
    """The processes of a run, once all are there.

    A process that dies, freezes, or leaves in error ends all others, with a message, `lost_after` seconds after its
    last sign of life at most; one whose steps no longer end is ended after `stuck_after`. Where this process itself was
    suspended, as with the whole of its job, both begin anew.

    Args:
      lines: {process: (host, connection)}: of process 0 all others, of others process 0.
      end: of a status: ends this process.
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

    def tell(self, name: str, value: str) -> str:
        """What process 0 says of `name`, in all processes; to be asked once a name."""
        if self.index == 0:
            self._all({'value': [name, value]})
            return value
        self._until(lambda: name in self._values)
        return self._values.pop(name)

    def meet(self, name: str) -> None:
        """Returns once all processes are here; to be asked once a name."""
        if self.index:
            self._lines[0].say({'here': name})
            self.tell(f'met {name}', '')
            return
        self._until(lambda: self._here.get(name, set()) >= set(self._lines))
        del self._here[name]
        self.tell(f'met {name}', '')

    def finished(self, what: bool = True) -> None:
        """A step has ended, and another is to: the clock starts anew; False stops it."""
        self._finished = time.monotonic() if what else None

    def leave(self, status: int) -> bool:
        """Says so to all; returns whether process 0 has just left with the same status."""
        self._ending, self._finished = True, None
        self._all({'left': [self.index, status]})
        if self.index:
            self._until(lambda: 0 in self._left or 0 in self._gone, TURN)
        return self._left.get(0, (None,))[0] == status

    def linger(self, status: int) -> None:
        """Waits until this process can end without harm to the others: process 0 goes last."""
        if self.index == 0:
            self._until(lambda: self._gone >= set(self._lines), 2 * GRACE if status else None)
        else:
            self._until(lambda: 0 in self._left or 0 in self._gone, 2 * GRACE if status else None)

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
            self._finish(1, f'{message["lost"]}; what was saved is whole, and the same command goes on')

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
                if status and now - when > GRACE and not self._ending:
                    self._finish(status, '' if status in (2, 75) else f'process {who} has ended with status {status}')
            if self._finished is not None and now - self._finished > self._stuck_after:
                self._lose(self.index, f'has finished no step, or no checkpoint, for {now - self._finished:.0f} s')

    def _wake(self, now: float) -> None:
        self._heard = dict.fromkeys(self._heard, now)
        if self._finished is not None:
            self._finished = now

    def _lose(self, other: int, how: str) -> None:
        said = f'process {other} on {self._hosts.get(other, HERE)} {how}'
        self._all({'lost': said})
        self._finish(1, f'{said}; what was saved is whole, and the same command goes on')

    def _finish(self, status: int, said: str) -> None:
        with self._news:
            if self._over:
                return
            self._over = True
        if said:
            os.write(2, f'fer_jax: process {self.index} on {HERE} ends: {said}\n'.encode())
        self._all({'left': [self.index, status]})
        if self.index == 0:  # JAX's service ends with this process, and with it whoever is still there
            self._until(lambda: self._gone >= set(self._lines), 2.0)
        self._end(status)
