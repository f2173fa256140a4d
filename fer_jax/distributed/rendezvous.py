"""All processes find process 0 before JAX starts: a TCP connection of each, one JSON object a line."""

import contextlib
import errno
import json
import socket
import threading
import time
from collections.abc import Mapping
from typing import IO, Any

from fer_jax.errors import UserError

LONGEST_LINE_BYTES = 1 << 16  # bytes of a line


GRACE_SECONDS = 5.0  # seconds that are left to end by oneself where another process has ended


GREETING_SECONDS = 10.0  # seconds in which whoever connects has to say who it is


RESOLVING_SECONDS = 30.0  # seconds after which a name that nobody knows is taken for wrong


HERE = socket.gethostname()


class Line:
    """A connection to another process, for JSON messages of one line each."""

    def __init__(self, connection: socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection, self._lock = connection, threading.Lock()
        self._file: IO[bytes] = connection.makefile('rb')

    def say(self, message: Mapping[str, Any]) -> None:
        """Sends a message. A broken connection is ignored here: `hear` notices it."""
        with contextlib.suppress(OSError), self._lock:
            self._connection.sendall(json.dumps(message).encode() + b'\n')

    def hear(self) -> dict[str, Any]:
        """Returns the next message, or {} where the connection has ended.

        Raises:
          ValueError: what came is no message.
          TimeoutError: none came in the time that `wait_at_most` sets.
        """
        with contextlib.suppress(ConnectionError):
            if line := self._file.readline(LONGEST_LINE_BYTES):
                return dict(json.loads(line))
        return {}

    def wait_at_most(self, seconds: float | None) -> None:
        self._connection.settimeout(seconds)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def await_processes(port: int, count: int, about: Mapping[str, Any], wait: float) -> dict[int, tuple[str, Line]]:
    """Waits in process 0 on `port` until all other processes have connected, and tells them so.

    Args:
      count: number of processes, process 0 included.
      about: what has to be the same in all processes.
      wait: seconds.

    Returns:
      {process: (host, connection)}.

    Raises:
      UserError: the port is taken, a process does not come, comes twice, or is of another run.
    """
    devices: dict[int, tuple[str, Line]] = {}
    deadline = time.monotonic() + wait
    with _listening(port) as listener:
        while len(devices) < count - 1:
            missing = sorted(set(range(1, count)) - set(devices))
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
                    devices[hello['process']] = (hello['host'], line)
    for _, line in devices.values():
        line.say({'begin': HERE})
    return devices


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
    line.wait_at_most(GREETING_SECONDS)
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


def join_processes(
    host: str,
    port: int,
    index: int,
    count: int,
    about: Mapping[str, Any],
    wait: float,
    resolving: float = RESOLVING_SECONDS,
) -> tuple[str, Line]:
    """Connects this process to process 0, and waits until all processes have connected.

    Args:
      host, port: address of process 0.
      index: number of this process.
      count: number of processes.
      about: what has to be the same in all processes.
      wait: seconds.
      resolving: seconds after which a host name that cannot be resolved is an error.

    Returns:
      (host name of process 0, the connection to it).

    Raises:
      UserError: process 0 does not answer, or refuses this process.
    """
    begun = time.monotonic()
    hello = {'process': index, 'count': count, 'host': HERE, 'about': dict(about)}
    where, reason = f'{host}:{port}', ''
    while (left := begun + wait - time.monotonic()) > 0:
        try:
            line = Line(socket.create_connection((host, port), timeout=GREETING_SECONDS))
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
                line.wait_at_most(left + GRACE_SECONDS)
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
