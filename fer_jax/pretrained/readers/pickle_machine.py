"""Runs the opcodes of a pickle without importing or calling what it names.

Names with a builder of ours make tensors and dictionaries; every other object is an inert `Placeholder`. Dictionaries
keep only their text keys, since the hash of a key that a file makes can take any time.
"""

import codecs
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fer_jax.utils import limits
from fer_jax.utils.limits import LimitError, check_limit


class Symbol(NamedTuple):
    """The name of a class or function in a pickle."""

    module: str
    name: str

    def __str__(self) -> str:
        return f'{self.module[:80]}.{self.name[:80]}'


class Placeholder:
    """A placeholder for an object that is not created: its class or function, its arguments and its state."""

    __slots__ = ('arguments', 'items', 'state', 'symbol')

    def __init__(self, symbol: Any, arguments: Any = ()):
        self.symbol = symbol if isinstance(symbol, Symbol) else Symbol('an', 'object')
        self.arguments = arguments
        self.state: dict[Any, Any] | None = None
        self.items: dict[Any, Any] | None = None

    def content(self) -> dict[Any, Any]:
        """Returns its attributes and its items."""
        return {**(self.state or {}), **(self.items or {})}


class PickleMachine:
    """An interpreter of pickles: a stack, its marks and a memo.

    Args:
      file: has `read` and `readline`, and returns no more than the file holds.
      builders: {(module, name): function that is called in its place, with the machine and the arguments}.
      load_persistent: makes an object from a persistent id.
      steps: number of opcodes that other pickles of the same file have used.
    """

    def __init__(
        self,
        file: Any,
        builders: Mapping[tuple[str, str], Callable[..., Any]],
        load_persistent: Callable[[Any], Any] | None = None,
        steps: int = 0,
    ):
        self.file, self.builders, self.load_persistent = file, builders, load_persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.steps = steps

    def charge(self, steps: int) -> None:
        """Counts the work of one opcode, so that no pickle can request the same large copy again and again."""
        self.steps += steps
        check_limit(self.steps, limits.OPCODES, 'opcodes in its pickle')

    def load(self) -> Any:
        """Returns the object that the pickle describes.

        Raises:
          LimitError: it is above one of the limits.
          ValueError, IndexError, KeyError, TypeError: it is damaged.
        """
        read = self.file.read
        while True:
            code = read(1)
            if code == pickle.STOP:
                return self.stack.pop()
            reader, act = ACTIONS.get(code) or _unknown(code)
            self.steps += 1
            if self.steps > limits.OPCODES:
                self.charge(0)
            act(self, reader(self.file) if reader else None)

    def pop_marked(self) -> list[Any]:
        """Pops the items above the newest mark from the stack and returns them."""
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def call(self, function: Any, arguments: Any) -> Any:
        """Returns the result of the builder of `function`, or a placeholder where it has none."""
        builder = self.builders.get(function) if isinstance(function, Symbol) else None
        if builder is None:
            return Placeholder(function, arguments)
        check_limit(len(arguments), limits.ARGUMENTS, 'arguments in a call')
        return builder(self, *arguments)

    def set_items(self, target: Any, pairs: list[Any]) -> None:
        if isinstance(target, Placeholder):
            target.items = {} if target.items is None else target.items
        items = target.items if isinstance(target, Placeholder) else target
        if type(items) is not dict or len(pairs) % 2:
            raise ValueError('its pickle sets items of what has none')
        for index in range(0, len(pairs), 2):
            items[pairs[index] if type(pairs[index]) is str else object()] = pairs[index + 1]

    def build(self, target: Any, state: Any) -> None:
        """Sets the state of an object that accepts one; for any other object the state is dropped."""
        if isinstance(target, Placeholder):
            parts = state if type(state) is tuple and len(state) == 2 else (state,)
            for part in parts:
                if type(part) is dict:
                    self.charge(len(part) + len(target.state or ()))
                    target.state = {**(target.state or {}), **part}
        elif hasattr(type(target), 'set_state'):
            target.set_state(self, state)


def _unknown(code: bytes) -> Any:
    raise ValueError('its pickle ends early' if not code else f'{code!r} is no opcode of a pickle')


def read_text(file: Any) -> str:
    """Reads the argument of STRING, the bytes of a Python 2 str, and decodes each byte to one character."""
    line = file.readline()
    if len(line) < 3 or line[-1:] != b'\n' or line[:1] not in (b'"', b"'"):
        raise ValueError('its pickle has a text without quotes')
    return codecs.escape_decode(line.strip()[1:-1])[0].decode('latin1')  # type: ignore[attr-defined]


def read_names(file: Any) -> Symbol:
    """Reads the argument of GLOBAL and INST, a module and a name."""
    module, name = (file.readline().rstrip(b'\n').decode() for _ in range(2))
    return Symbol(module, name)


def _push(machine: PickleMachine, value: Any) -> None:
    if type(value) is int and value.bit_length() > 8 * limits.INTEGER_BYTES:
        raise LimitError(
            f'it has an integer of {value.bit_length() // 8:,} bytes, at most {limits.INTEGER_BYTES} are read'
        )
    machine.stack.append(value)


def _constant(value: Any) -> Callable[[PickleMachine, Any], None]:
    return lambda machine, _: machine.stack.append(value)


def _made(make: Callable[[], Any]) -> Callable[[PickleMachine, Any], None]:
    return lambda machine, _: machine.stack.append(make())


def _marked(make: Callable[[list[Any]], Any]) -> Callable[[PickleMachine, Any], None]:
    return lambda machine, _: machine.stack.append(make(machine.pop_marked()))


def _tuple(size: int) -> Callable[[PickleMachine, Any], None]:
    def act(machine: PickleMachine, _: Any) -> None:
        items = tuple(machine.stack[-size:])
        if len(items) < size:
            raise ValueError('its pickle takes more than it has')
        machine.stack[-size:] = [items]

    return act


def _put(machine: PickleMachine, index: Any) -> None:
    machine.memo[len(machine.memo) if index is None else index] = machine.stack[-1]


def _pop(machine: PickleMachine, _: Any) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()


def _pop_marked(machine: PickleMachine, _: Any) -> None:
    machine.pop_marked()


def _dict(machine: PickleMachine, _: Any) -> None:
    pairs = machine.pop_marked()
    machine.stack.append({})
    machine.set_items(machine.stack[-1], pairs)


def _set_items(machine: PickleMachine, _: Any) -> None:
    pairs = machine.pop_marked()
    machine.set_items(machine.stack[-1], pairs)


def _set_item(machine: PickleMachine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.set_items(machine.stack[-1], [key, value])


def _append(machine: PickleMachine, _: Any) -> None:
    value = machine.stack.pop()
    if type(machine.stack[-1]) is list:
        machine.stack[-1].append(value)


def _extend(machine: PickleMachine, _: Any) -> None:
    items = machine.pop_marked()
    if type(machine.stack[-1]) is list:
        machine.stack[-1].extend(items)


def _reduce(machine: PickleMachine, _: Any) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.call(function, arguments))


def _new_object_ex(machine: PickleMachine, _: Any) -> None:
    machine.stack.pop()
    _reduce(machine, None)


def _object(machine: PickleMachine, _: Any) -> None:
    symbol, *arguments = machine.pop_marked()
    machine.stack.append(machine.call(symbol, arguments))


def _build(machine: PickleMachine, _: Any) -> None:
    state = machine.stack.pop()
    machine.build(machine.stack[-1], state)


def _persistent(machine: PickleMachine, _: Any) -> None:
    if machine.load_persistent is None:
        raise ValueError('its pickle names storages outside of it')
    machine.stack.append(machine.load_persistent(machine.stack.pop()))


def _stack_global(machine: PickleMachine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise ValueError('its pickle has a name that is no text')
    machine.stack.append(Symbol(module, name))


def _instance(machine: PickleMachine, symbol: Any) -> None:
    machine.stack.append(machine.call(symbol, machine.pop_marked()))


_PUSHED = 'INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES'
_PUSHED += ' BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 FLOAT BINFLOAT'
_ACTIONS: dict[str, Callable[[PickleMachine, Any], None]] = {
    **dict.fromkeys(_PUSHED.split(), _push),
    **dict.fromkeys(('PROTO', 'FRAME', 'READONLY_BUFFER'), lambda machine, _: None),
    **dict.fromkeys(('PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'), _put),
    **dict.fromkeys(('GET', 'BINGET', 'LONG_BINGET'), lambda machine, index: machine.stack.append(machine.memo[index])),
    **dict.fromkeys(('EMPTY_LIST', 'EMPTY_SET'), _made(list)),
    **dict.fromkeys(('LIST', 'FROZENSET'), _marked(list)),
    **dict.fromkeys(('APPENDS', 'ADDITEMS'), _extend),
    **dict.fromkeys(('REDUCE', 'NEWOBJ'), _reduce),
    'NONE': _constant(None),
    'NEWTRUE': _constant(True),
    'NEWFALSE': _constant(False),
    'EMPTY_TUPLE': _constant(()),
    'EMPTY_DICT': _made(dict),
    'MARK': lambda machine, _: machine.marks.append(len(machine.stack)),
    'POP_MARK': _pop_marked,
    'POP': _pop,
    'DUP': lambda machine, _: machine.stack.append(machine.stack[-1]),
    'TUPLE': _marked(tuple),
    'TUPLE1': _tuple(1),
    'TUPLE2': _tuple(2),
    'TUPLE3': _tuple(3),
    'DICT': _dict,
    'SETITEM': _set_item,
    'SETITEMS': _set_items,
    'APPEND': _append,
    'NEWOBJ_EX': _new_object_ex,
    'OBJ': _object,
    'INST': _instance,
    'BUILD': _build,
    'BINPERSID': _persistent,
    'GLOBAL': _push,
    'STACK_GLOBAL': _stack_global,
}
_READERS = {'STRING': read_text, 'GLOBAL': read_names, 'INST': read_names}
# code -> (reader of its argument or None, what it does)
ACTIONS: dict[bytes, tuple[Any, Callable[[PickleMachine, Any], None]]] = {
    opcode.code.encode('latin1'): (
        _READERS.get(opcode.name, opcode.arg.reader if opcode.arg else None),
        _ACTIONS[opcode.name],
    )
    for opcode in pickletools.opcodes
    if opcode.name in _ACTIONS
}
