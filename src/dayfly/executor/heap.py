"""
Both sides: keep forked children from copying what they only read.

A collection writes to every object that it looks at: what is frozen is not looked at. And
CPython counts who refers to an object in the object itself: a child that merely calls a
function writes to it, and gets a page of its own. Objects that are immortal (PEP 683) are not
counted: the code that a process which only forks has loaded lives as long as it does anyway.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import types
from typing import Any

#: What the lower half of the count is then, as CPython sets it itself, by version.
#: Source: Include/refcount.h of 3.13 and 3.14, Include/object.h of 3.12.
_IMMORTAL = {(3, 12): 0xFFFFFFFF, (3, 13): 0xFFFFFFFF, (3, 14): 3 << 30}
#: 3.14 has flags in the upper half; with this one set its evaluation loop does not count, either.
_FLAG_BYTES = 6
_IMMORTAL_FLAG = 1
#: What code is made of. It owns nothing that would have to be given back.
_DEFINITIONS = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    property,
    classmethod,
    staticmethod,
)
#: What definitions are made of in turn: their namespaces, bases, defaults and closures, and code.
_PARTS = frozenset({dict, tuple, types.CodeType})
#: What code holds beside names.
_CONSTANTS = frozenset({tuple, frozenset, str, bytes, int, float, complex, types.CodeType})


def freeze(*, immortal: bool) -> None:
    """Keep all that there is now from being collected; with *immortal* see `make_immortal`."""
    gc.collect()
    if immortal:
        make_immortal()
    gc.freeze()
    # Once more: the collector goes by how many objects the last collection left, and
    # would let garbage of a quarter of all that is frozen now pile up.
    gc.collect()


def can_be_immortal() -> bool:
    """Tell whether this interpreter is one whose objects can be made so."""
    return (
        sys.implementation.name == "cpython"
        and sys.version_info[:2] in _IMMORTAL
        and sys.byteorder == "little"
        and sys.maxsize > 2**32
        and not {"d", "t"} & set(sys.abiflags)
    )


def make_immortal() -> int:
    """
    Make all definitions immortal that are not frozen: functions, classes and modules, with their
    code, its constants and their namespaces; return how many objects that are.

    They are never freed then: for a process that lives to fork, after everything is loaded. About
    1 ms for 1,000 objects, once. Does nothing where it is not known how.

    Nothing else is made so. An object whose end has an effect must be able to end: a cached
    statement of SQLite that is never freed keeps its connection open for ever, and what a fork
    then copies spoils the file.
    """
    if not can_be_immortal():
        return 0
    objects = gc.get_objects()
    # Not isinstance(), which asks the object: a lazy one would be loaded.
    kinds = {kind for kind in set(map(type, objects)) if issubclass(kind, _DEFINITIONS)}
    definitions = [one for one in objects if type(one) in kinds]
    parts = [one for one in gc.get_referents(*definitions) if type(one) in _PARTS]
    addresses = {id(one) for one in (*definitions, *parts, *_constants(parts))}
    count_of, flags_of = ctypes.c_uint32.from_address, ctypes.c_uint16.from_address
    immortal = _IMMORTAL[sys.version_info[:2]]
    for address in addresses:
        count_of(address).value = immortal
    if sys.version_info >= (3, 14):
        for address in addresses:
            flags_of(address + _FLAG_BYTES).value |= _IMMORTAL_FLAG
    return len(addresses)


def _constants(parts: list[Any]) -> list[Any]:
    """Return the constants of all code in *parts*, the code of inner functions among them."""
    found: list[Any] = []
    codes = [one for one in parts if type(one) is types.CodeType]
    while codes:
        # The collector does not know what code refers to, but for its tuple of constants.
        tuples = [code.co_consts for code in codes]
        inside = [one for one in gc.get_referents(*tuples) if type(one) in _CONSTANTS]
        found += tuples
        found += inside
        codes = [one for one in inside if type(one) is types.CodeType]
    return found
