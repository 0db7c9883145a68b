"""What a pickle would cost is counted before it is read.

Enters: the bytes of a pickle, which is a program for a stack machine. Leaves: nothing, or the one
reason why reading it could take memory or time out of all proportion to its length: nine bytes can
ask for a table of 16 GB, and thirty nested tuples for a hash over 2^30 of them.

The program is gone through as ``pickletools`` describes it, without making any of its objects: on
the stack lie the sizes that they would have, a shared part counted as often as it is shared.
"""

import pickle
import pickletools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

_COSTS_PER_BYTE = 100  # real infos and checkpoints stay below 5
_COSTS_OF_ANY = 1_000_000  # what a file of any length may cost
_NUM_LONG_INTEGERS = 1000  # of more than 64 bits, whose hashes can be made to collide
_ALLOCATORS = ('bytearray', 'bytes', 'Tensor', 'Storage')  # make what a number tells them to

# operations that call, copy or hash what they take, and those that put it into what lies below
_WORKING = {'REDUCE', 'NEWOBJ', 'NEWOBJ_EX', 'OBJ', 'INST', 'BUILD', 'FROZENSET', 'DICT'}
_WORKING |= {'SETITEM', 'SETITEMS', 'ADDITEMS', 'BINPERSID', 'STOP'}
_GROWING = {'APPEND', 'APPENDS', 'SETITEM', 'SETITEMS', 'ADDITEMS', 'BUILD'}
_CALLING = {'REDUCE', 'NEWOBJ', 'NEWOBJ_EX'}


@dataclass(frozen=True, slots=True)
class _Operation:
    """What an operation takes and makes: objects above a mark, ``num_below`` objects under them."""

    name: str
    num_below: int
    has_mark: bool
    makes: bool
    is_working: bool
    is_growing: bool


def _operation(code: pickletools.OpcodeInfo) -> _Operation:
    before = code.stack_before
    has_mark = pickletools.markobject in before
    num_below = before.index(pickletools.markobject) if has_mark else len(before)
    works, grows = code.name in _WORKING, code.name in _GROWING
    return _Operation(code.name, num_below, has_mark, bool(code.stack_after), works, grows)


_OPERATIONS = {code.name: _operation(code) for code in pickletools.opcodes}


@dataclass(slots=True)
class _Value:
    """What an object on the stack would be.

    Attributes:
        size: objects and bytes it holds, shared parts counted every time.
        largest: the largest integer in it.
        text: its first characters, if it is a text or a name.
    """

    size: int = 1
    largest: int = 0
    text: str = ''


_MARK = _Value(-1)


def check_costs(stream: BinaryIO, num_bytes: int) -> None:
    """Go through one pickle up to its end.

    Args:
        stream: at its first byte; afterwards at the byte behind its last.
        num_bytes: length of the file that it is from, which its costs are compared with.

    Raises:
        pickle.UnpicklingError: it is broken, or costs too much.

    Example:
        >>> import io
        >>> check_costs(io.BytesIO(pickle.dumps([1, 2, 3])), 40)
        >>> check_costs(io.BytesIO(bytes.fromhex('4e72ffffff7f2e')), 7)
        Traceback (most recent call last):
        _pickle.UnpicklingError: it numbers 2147483647 objects and holds 2 operations
    """
    machine = _Machine(_COSTS_OF_ANY + _COSTS_PER_BYTE * num_bytes, num_bytes)
    try:
        for code, argument, _ in pickletools.genops(stream):
            machine.step(code.name, argument)
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise pickle.UnpicklingError(f'it is broken: {error}') from error


class _Machine:
    """The stack, the numbered objects, and what was spent so far."""

    def __init__(self, allowance: int, num_bytes: int) -> None:
        self.allowance, self.num_bytes = allowance, num_bytes
        self.stack: list[_Value] = []
        self.numbered: dict[int, _Value] = {}
        self.spent = self.num_operations = self.num_long = 0

    def step(self, name: str, argument: object) -> None:
        """One operation."""
        self.num_operations += 1
        if name == 'MARK':
            self.stack.append(_MARK)
        elif name in ('MEMOIZE', 'BINPUT', 'LONG_BINPUT', 'PUT'):
            self._number(argument if isinstance(argument, int) else len(self.numbered))
        elif name in ('BINGET', 'LONG_BINGET', 'GET') and isinstance(argument, int):
            self.stack.append(self.numbered[argument])
        elif name == 'DUP':
            self.stack.append(self.stack[-1])
        elif name == 'POP':
            self.stack.pop()
        elif name == 'FRAME' and isinstance(argument, int) and argument > self.num_bytes:
            raise pickle.UnpicklingError(f'it announces {argument} bytes and is shorter')
        else:
            self._make(_OPERATIONS[name], argument)

    def _number(self, index: int) -> None:
        if index > self.num_operations:
            raise pickle.UnpicklingError(
                f'it numbers {index} objects and holds {self.num_operations} operations'
            )
        self.numbered[index] = self.stack[-1]

    def _make(self, operation: _Operation, argument: object) -> None:
        """Operations that take objects from the stack and make one of them."""
        takes = operation.num_below or operation.has_mark
        parts = self._pop(operation) if takes else []
        container = parts[0] if operation.is_growing else None
        made = self._made_of(operation.name, parts[1:] if container else parts, argument)

        if operation.is_working:
            self.spent += made.size
        if made.size + self.spent > self.allowance:
            raise pickle.UnpicklingError('what it asks for is out of proportion to its length')

        # a container that grows stays the same object, for those who hold it too
        if container is not None:
            container.size = min(container.size + made.size, self.allowance)
            made = container
        if operation.makes:
            self.stack.append(made)

    def _pop(self, operation: _Operation) -> list[_Value]:
        """What an operation takes, undermost first."""
        stack, parts = self.stack, []
        if operation.has_mark:
            while (top := stack.pop()) is not _MARK:
                parts.append(top)
        for _ in range(operation.num_below):
            parts.append(stack.pop())
        if any(part is _MARK for part in parts):
            raise ValueError('a mark where an object is expected')
        parts.reverse()
        return parts

    def _made_of(self, name: str, parts: Sequence[_Value], argument: object) -> _Value:
        size, largest, text = 1, 0, ''
        for part in parts:
            size += part.size
            if part.largest > largest:
                largest = part.largest
        if isinstance(argument, int):
            largest = max(largest, abs(argument))
            self._count_long(argument)
        elif isinstance(argument, (str, bytes, bytearray)):
            size += len(argument)
            text = argument[:200] if isinstance(argument, str) else ''
        elif name == 'STACK_GLOBAL':
            text = parts[-1].text

        # a number tells these how much memory to take
        if name == 'BINPERSID' or (name in _CALLING and parts[0].text.endswith(_ALLOCATORS)):
            size += largest
        return _Value(size, largest, text)

    def _count_long(self, value: int) -> None:
        self.num_long += value.bit_length() > 64
        if self.num_long > _NUM_LONG_INTEGERS:
            raise pickle.UnpicklingError('it holds many integers of more than 64 bits')
