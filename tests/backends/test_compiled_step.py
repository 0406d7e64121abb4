"""What a recording refuses, without a device; `tests/backends/test_compiled_steps.py` tests recordings."""

import numpy as np
import pytest

from xpnn.backends import CaptureError, Generator
from xpnn.backends.recording.compiled_step import CompiledStep
from xpnn.backends.recording.guards import (
    Counter,
    counted,
    guarded,
    in_recording,
    require_owned,
    require_repeatable,
)
from xpnn.backends.recording.slots import Slot


class Holder:
    value = 3


def test_outside_a_recording_everything_is_allowed():
    require_repeatable("this")
    require_owned(Holder(), "that")
    assert not in_recording() and counted(Holder()) is None


def test_inside_a_recording_only_given_owners_may_change():
    known, other = Holder(), Holder()
    with guarded([Slot.attribute("value", known, "value")]):
        assert in_recording()
        require_owned(known, "that")
        with pytest.raises(CaptureError, match="changes that, which it was not given"):
            require_owned(other, "that")
        with pytest.raises(CaptureError, match="can't repeat this: a copy"):
            require_repeatable("a copy")
    require_repeatable("a copy")


def test_a_rehearsal_refuses_nothing():
    with guarded([], records=False):
        assert in_recording()
        require_repeatable("a copy")
        require_owned(Holder(), "that")


def test_a_counter_gets_its_array_on_the_device():
    stream, array = Generator(3), np.zeros(())
    (slot,) = (slot for slot in stream.slots() if slot.counter is not None)
    with guarded([slot], [Counter(slot, slot.counter(), array, 5)]):
        assert counted(stream) == (array, 5) and counted(Generator(3)) is None


def test_a_streams_slots_are_its_key_and_its_position():
    stream = Generator(3)
    key, position = stream.slots()
    assert key.get() == stream.key and position.get() == 0 and key.place != position.place
    position.set(7)
    assert stream.position == 7 and position.counter() is stream


def test_random_numbers_on_the_host_are_refused_in_a_recording():
    with guarded([]), pytest.raises(CaptureError, match="on the host"):
        Generator(3).uniform((2,), backend="numpy")


def test_an_object_without_state_is_no_owner():
    with pytest.raises(TypeError, match="models and optimizers"):
        CompiledStep(lambda: None, [3], None)
