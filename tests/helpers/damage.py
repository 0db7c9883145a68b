"""Files damaged at random, each read with its time and memory measured.

Enters: as a program, a folder of samples, their readers, a seed and how many times each file is
damaged; it runs in a process of its own, so that what it takes is its own. Leaves: a line of JSON
with everything that broke a rule: another error than the package's, more than one line, more than
two seconds of the processor, or 200 MB above the size of the file.
"""

import json
import logging
import re
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

MOST_SECONDS = 2.0
MOST_BYTES = 200 << 20
_ADDRESS_SPACE = 24 << 30  # against freezing the machine: far above what is allowed
_NUMBER = re.compile(rb'-?\d+(\.\d+)?(e[-+]?\d+)?')
_ODD_NUMBERS = (b'nan', b'inf', b'-inf', b'1e400', b'-1', b'0', b'99999999999', b'1e-320', b'x')
_ODD_BINARY = (
    *(np.array(v, '<f4').tobytes() for v in (np.nan, np.inf, -np.inf, 3e38, 1e-40)),
    *(np.array(v, '<u4').tobytes() for v in (0, 0x7FFFFFFF, 0xFFFFFFFF, 0x00FFFFFF)),
    *(np.array(v, '<u8').tobytes() for v in (2**63 - 1, 2**40)),
)


def truncated(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut off anywhere."""
    return content[: rng.integers(len(content))]


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, half of the time near the beginning, where headers are."""
    changed = bytearray(content)
    reach = len(content) if rng.random() < 0.5 else min(len(content), 256)
    for place in rng.integers(reach, size=rng.integers(1, 6)):
        changed[place] = rng.integers(256)
    return bytes(changed)


def odd_number(content: bytes, rng: np.random.Generator) -> bytes:
    """One number of a text is another one, or no number; half of the time a header's."""
    found = list(_NUMBER.finditer(content))
    if not found:
        return odd_word(content, rng)
    match = found[rng.integers(len(found) if rng.random() < 0.5 else min(12, len(found)))]
    odd = _ODD_NUMBERS[rng.integers(len(_ODD_NUMBERS))]
    return content[: match.start()] + odd + content[match.end() :]


def odd_word(content: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes are those of a huge count, nan or inf."""
    odd = _ODD_BINARY[rng.integers(len(_ODD_BINARY))]
    reach = len(content) if rng.random() < 0.3 else min(len(content), 400)
    place = int(rng.integers(max(1, reach - len(odd))))
    return content[:place] + odd + content[place + len(odd) :]


def exchanged(content: bytes, rng: np.random.Generator) -> bytes:
    """Two lines, or two words of a line, in each other's place."""
    lines = content.split(b'\n')
    first, second = rng.integers(min(len(lines), 40), size=2)
    if rng.random() < 0.5:
        lines[first], lines[second] = lines[second], lines[first]
    else:
        words = lines[first].split(b' ')
        i, j = rng.integers(len(words), size=2)
        words[i], words[j] = words[j], words[i]
        lines[first] = b' '.join(words)
    return b'\n'.join(lines)


def repeated(content: bytes, rng: np.random.Generator) -> bytes:
    """A piece of it twice, or left out."""
    start, end = np.sort(rng.integers(len(content) + 1, size=2))
    if rng.random() < 0.5:
        return content[:end] + content[start:]
    return content[:start] + content[end:]


def emptied(content: bytes, rng: np.random.Generator) -> bytes:
    """Nothing, zeros, or another encoding of the same text."""
    kinds = (b'', bytes(len(content)), content.decode('latin-1').encode('utf-16'))
    return kinds[rng.integers(len(kinds))]


DAMAGES = (truncated, flipped, flipped, odd_number, odd_number, odd_word, exchanged, repeated)


def damaged(content: bytes, number: int, rng: np.random.Generator) -> tuple[str, bytes]:
    """The name of a damage and what it makes of a file; the first is to empty it."""
    damage = emptied if number == 0 else DAMAGES[rng.integers(len(DAMAGES))]
    return damage.__name__, damage(content, rng)[: 1 << 20]


def examine(path: Path, read: Callable[[], object], count: int, seed: int) -> list[str]:
    """Damage a file so many times; what broke a rule, in words."""
    whole, faults = path.read_bytes(), []
    for number in range(count):
        name, content = damaged(whole, number, np.random.default_rng([seed, number]))
        path.write_bytes(content)
        fault = _fault_of(read, len(content))
        if fault is not None:
            faults.append(f'{path.name}, {name} {number}: {fault}')
    path.write_bytes(whole)
    return faults


def _fault_of(read: Callable[[], object], num_bytes: int) -> str | None:
    _forget_peak()
    before, started = _peak(), time.process_time()
    try:
        read()
    except (ValueError, FileNotFoundError) as error:
        if '\n' in str(error):
            return f'more than one line: {error}'
    except BaseException as error:  # noqa: BLE001 (whatever else leaves a reader is looked for)
        return f'{type(error).__name__}: {error}'

    seconds, grown = time.process_time() - started, _peak() - before
    if seconds > MOST_SECONDS:
        return f'{seconds:.1f} s'
    if grown > MOST_BYTES + num_bytes:
        return f'{grown >> 20} MB'
    return None


def _forget_peak() -> None:
    """The greatest size so far is that of now (Linux)."""
    Path('/proc/self/clear_refs').write_text('5')


def _peak() -> int:
    status = Path('/proc/self/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) << 10


def main() -> None:
    """``folder count seed``: the files of the folder's ``jobs.json``."""
    from tests.helpers.damaged_samples import READERS

    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    logging.disable(logging.CRITICAL)
    warnings.simplefilter('ignore')
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    faults = []
    for job in json.loads((folder / 'jobs.json').read_text()):
        read = READERS[job['reader']]
        source, options = folder / job['source'], job['options']
        read(source, **options)  # sound, and what it imports is there
        found = examine(
            folder / job['file'], lambda r=read, s=source, o=options: r(s, **o), count, seed
        )
        faults += [f'{job["reader"]} {job["file"]}: {fault}' for fault in found]
    sys.stdout.write(json.dumps(faults) + '\n')


if __name__ == '__main__':
    main()
