"""The file of a table's numbers: sorted lines, nobody's lost, faults named."""

import json
import os
import threading

import pytest

from oneformer3d.experiments.ablation_results import read_results, write_result


def result(cell, seed, miou=0.5):
    return {'cell': cell, 'seed': seed, 'digest': 'x', 'metrics': {'default': {'mIoU': miou}}}


def test_lines_are_sorted_and_replaced(tmp_path):
    path = tmp_path / 'new folder' / 'table.jsonl'
    assert read_results(path) == {}
    for cell, seed in (('b', 1), ('a', 10), ('b', 0), ('a', 9)):
        write_result(path, result(cell, seed))
    write_result(path, result('b', 0, miou=0.75))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(x['cell'], x['seed']) for x in lines] == [('a', 9), ('a', 10), ('b', 0), ('b', 1)]
    assert read_results(path)['b', 0] == result('b', 0, miou=0.75)
    assert sorted(x.name for x in path.parent.iterdir()) == ['table.jsonl']


def test_writers_in_threads_and_processes_lose_nothing(tmp_path):
    path = tmp_path / 'table.jsonl'

    def write(cell):
        for seed in range(10):
            write_result(path, result(cell, seed))

    children = []
    for number in range(2):
        child = os.fork()
        if child == 0:
            write(f'process{number}')
            os._exit(0)
        children.append(child)
    threads = [threading.Thread(target=write, args=(f'thread{number}',)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert len(read_results(path)) == 40


@pytest.mark.parametrize('line', ['', '[]', '{"cell": "a"}', 'no json', '{"cell": "a", "seed": 0}'])
def test_a_line_that_is_not_the_numbers_of_a_cell_is_named(tmp_path, line):
    path = tmp_path / 'table.jsonl'
    write_result(path, result('a', 0))
    path.write_text(path.read_text() + line + '\n')
    with pytest.raises(ValueError, match=r'table\.jsonl, line 2: not the numbers'):
        read_results(path)
