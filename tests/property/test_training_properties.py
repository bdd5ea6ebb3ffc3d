"""What must hold for any training set, seed and way of reading it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, SequentialSampler

from splade.datasets.training_sets import TrainingExample
from splade.training.callbacks import to_csv
from splade.training.early_stopping import EarlyStopping
from splade.training.sampler import TrainingSampler, split_rows


class Numbers:
    """A training set whose examples say which they are, and which draw of it."""

    def example(self, index, draw=0):
        return TrainingExample(f"{index}.{draw}", "", [])


def sampler_of(n, held_out, seed, length):
    return TrainingSampler(Numbers(), split_rows(n, held_out, seed)[0], seed, length)


def queries(examples):
    return [example.query for example in examples]


sizes = st.integers(1, 30)
seeds = st.integers(0, 2**31)


@given(n=sizes, seed=seeds, passes=st.integers(1, 3))
def test_every_pass_uses_every_example_once(n, seed, passes):
    found = queries(sampler_of(n, 0, seed, n * passes))
    for number in range(passes):
        assert sorted(found[number * n : (number + 1) * n]) == sorted(f"{index}.{number}" for index in range(n))


@given(n=sizes, seed=seeds, data=st.data())
def test_going_on_anywhere_sees_what_an_undisturbed_run_sees(n, seed, data):
    length = 3 * n
    start = data.draw(st.integers(0, length))
    resumed = sampler_of(n, 0, seed, length)
    assert [resumed[p].query for p in range(start, length)] == queries(sampler_of(n, 0, seed, length))[start:]


@given(n=sizes, seed=seeds, n_processes=st.integers(1, 4), per_process=st.integers(1, 4))
def test_processes_share_out_what_one_process_sees(n, seed, n_processes, per_process):
    batch, length = n_processes * per_process, n_processes * per_process * 3
    samplers = [sampler_of(n, 0, seed, length) for _ in range(n_processes)]
    shared = [
        samplers[rank][step * batch + rank * per_process + place].query
        for step in range(3)
        for rank in range(n_processes)
        for place in range(per_process)
    ]
    assert shared == queries(sampler_of(n, 0, seed, length))


@given(n=st.integers(2, 50), seed=seeds, data=st.data())
def test_held_out_examples_are_never_trained_on(n, seed, data):
    held_out = data.draw(st.integers(1, n - 1))
    training, kept = split_rows(n, held_out, seed)
    assert len(kept) == held_out and sorted([*training, *kept]) == list(range(n))
    assert np.array_equal(split_rows(n, held_out, seed)[1], kept)


def test_batches_do_not_depend_on_the_number_of_workers():
    def batches(n_workers):
        sampler = sampler_of(20, 3, 5, 40)
        return list(
            DataLoader(sampler, 4, sampler=SequentialSampler(sampler), num_workers=n_workers, collate_fn=queries)
        )

    assert batches(0) == batches(1) == batches(2)


@given(values=st.lists(st.floats(-1, 1), max_size=12), patience=st.integers(1, 4), greater=st.booleans())
def test_early_stopping_counts_validations_since_the_best(values, patience, greater):
    best, waited, stopped_after = None, 0, None
    for number, value in enumerate(values):
        if best is None or (value > best if greater else value < best):
            best, waited = value, 0
        else:
            waited += 1
        if waited >= patience and stopped_after is None:
            stopped_after = number
    stopping = EarlyStopping("eval_x", greater, patience)
    rows = [{"step": 0, "eval_x": 9.0 if greater else -9.0}]
    rows += [{"step": number + 1, "eval_x": value} for number, value in enumerate(values)]
    due = [stopping.is_due(rows[: number + 2]) for number in range(len(values))]
    assert due.index(True) == stopped_after if any(due) else stopped_after is None


@given(st.lists(st.dictionaries(st.sampled_from(["eval_a", "eval_b", "epoch"]), st.integers()), min_size=1))
def test_csv_has_a_line_for_every_row_and_a_cell_for_every_column(rows):
    lines = to_csv([row | {"step": number} for number, row in enumerate(rows)]).splitlines()
    assert len(lines) == len(rows) + 1 and len({line.count(",") for line in lines}) == 1
