"""Pools as compiled jobs: each output combines the inputs that a `Table` lists, for all channels in vectors.

Forward, outputs are windows or bins. Backward they are the cells of the input, each of which adds up the windows that
contain it: so no cell is written by two items, and sums have a fixed order.
"""

from typing import Any

from .compiler import njit
from .jobs import INT, job, read, write
from .lanes import Code, vectorised

# Inputs of a large bin whose sum is added to the others': its error grows with their number.
PARTIAL = 64


@vectorised
def _largest(
    code: Code, x: Any, begin: Any, entries: Any, first: Any, stop: Any, channels: Any, best: Any, cell: Any, to: Any,
    added: Any,
) -> None:  # fmt: skip
    """The first maximum of the inputs, NaN counting as the largest, and its code plus ``added``."""
    builder = code.builder
    kind = cell.type.pointee
    for lanes, c in code.over(channels):

        def given(k: Any, lanes: Any = lanes, c: Any = c) -> tuple[Any, Any]:
            at = code.times(code.add(begin, code.read(entries, code.times(k, 2))), channels)
            number = code.read(entries, code.add(code.times(k, 2), 1))
            number = number if lanes.whole.width == 64 else builder.trunc(number, lanes.whole)
            return lanes.load(x, code.add(at, c)), lanes.spread(number)

        value, number = given(first)
        largest, which = code.variable(value), code.variable(number)
        with code.each(code.add(first, 1), stop) as k:
            value, number = given(k)
            so_far = builder.load(largest)
            # "Not less or equal" is true for a NaN; after a first NaN nothing wins.
            wins = builder.fcmp_unordered(">", value, so_far)
            wins = builder.and_(wins, builder.fcmp_ordered("ord", so_far, so_far))
            builder.store(builder.select(wins, value, so_far), largest)
            builder.store(builder.select(wins, number, builder.load(which)), which)
        at = code.add(code.times(to, channels), c)
        lanes.store(builder.load(largest), best, at)
        found, wide = builder.load(which), lanes.vector(kind)
        if kind.width != lanes.whole.width:
            found = builder.trunc(found, wide) if kind.width < lanes.whole.width else builder.sext(found, wide)
        added_here = added if kind.width == 64 else builder.trunc(added, kind)
        lanes.store(builder.add(found, lanes.spread(added_here)), cell, at)


@vectorised
def _chosen(
    code: Code, dy: Any, cell: Any, begin: Any, entries: Any, first: Any, stop: Any, channels: Any, dx: Any, to: Any,
    added: Any,
) -> None:  # fmt: skip
    """The sum of ``dy`` where ``cell`` is the code of the entry plus ``added``."""
    builder, kind = code.builder, cell.type.pointee
    for lanes, c in code.over(channels):
        total = code.variable(lanes.constant(0.0))
        with code.each(first, stop) as k:
            at = code.times(code.add(begin, code.read(entries, code.times(k, 2))), channels)
            at = code.add(at, c)
            number = code.add(code.read(entries, code.add(code.times(k, 2), 1)), added)
            number = number if kind.width == 64 else builder.trunc(number, kind)
            same = builder.icmp_signed("==", lanes.load(cell, at), lanes.spread(number))
            share = builder.select(same, lanes.load(dy, at), lanes.constant(0.0))
            builder.store(lanes.add(builder.load(total), share), total)
        lanes.store(builder.load(total), dx, code.add(code.times(to, channels), c))


@vectorised
def _mean(
    code: Code, x: Any, begin: Any, entries: Any, first: Any, stop: Any, channels: Any, y: Any, to: Any, divisor: Any
) -> None:
    """The sum of the inputs over ``divisor``, a number; every `PARTIAL` of them are added up first."""
    builder = code.builder
    parts = builder.sdiv(code.add(builder.sub(stop, first), PARTIAL - 1), code.word(PARTIAL))
    for lanes, c in code.over(channels):
        total = code.variable(lanes.constant(0.0))
        with code.each(0, parts) as part:
            begin_part = code.add(first, code.times(part, PARTIAL))
            end = code.add(begin_part, PARTIAL)
            end = builder.select(builder.icmp_signed("<", end, stop), end, stop)
            partial = code.variable(lanes.constant(0.0))
            with code.each(begin_part, end) as k:
                at = code.times(code.add(begin, code.read(entries, code.times(k, 2))), channels)
                builder.store(lanes.add(builder.load(partial), lanes.load(x, code.add(at, c))), partial)
            builder.store(lanes.add(builder.load(total), builder.load(partial)), total)
        mean = builder.fdiv(builder.load(total), lanes.spread(divisor))
        lanes.store(mean, y, code.add(code.times(to, channels), c))


@vectorised
def _shares(
    code: Code, dy: Any, offset: Any, begin: Any, entries: Any, first: Any, stop: Any, channels: Any, dx: Any, to: Any,
    divisors: Any,
) -> None:  # fmt: skip
    """The sum of ``dy`` over the divisor of its window or bin; ``offset`` is that of the sample in ``dy``."""
    builder = code.builder
    for lanes, c in code.over(channels):
        total = code.variable(lanes.constant(0.0))
        with code.each(first, stop) as k:
            window = code.add(begin, code.read(entries, code.times(k, 2)))
            at = code.add(code.times(code.add(window, offset), channels), c)
            share = builder.fdiv(lanes.load(dy, at), lanes.spread(code.read(divisors, window)))
            builder.store(lanes.add(builder.load(total), share), total)
        lanes.store(builder.load(total), dx, code.add(code.times(to, channels), c))


# Units of work are parts of samples; an item computes ``per`` of them. `inner` and `outer` are the numbers of cells of
# a sample among the inputs and the outputs.


@njit()
def _maxima(item: Any, x: Any, parts: Any, outputs: Any, entries: Any, best: Any, cell: Any, inner: Any, outer: Any,
            channels: Any, units: Any, per: Any) -> None:  # fmt: skip
    for unit in range(item * per, min((item + 1) * per, units)):
        n, part = unit // len(parts), unit % len(parts)
        first, stop = parts[part, 2], parts[part, 3]
        for o in range(parts[part, 0], parts[part, 1]):
            begin, to = n * inner + outputs[o, 0], n * outer + outputs[o, 1]
            _largest(x, begin, entries, first, stop, channels, best, cell, to, outputs[o, 2])


@njit()
def _maxima_back(item: Any, dy: Any, cell: Any, parts: Any, outputs: Any, entries: Any, dx: Any, inner: Any, outer: Any,
                 channels: Any, units: Any, per: Any) -> None:  # fmt: skip
    for unit in range(item * per, min((item + 1) * per, units)):
        n, part = unit // len(parts), unit % len(parts)
        first, stop = parts[part, 2], parts[part, 3]
        for o in range(parts[part, 0], parts[part, 1]):
            begin, to = n * inner + outputs[o, 0], n * outer + outputs[o, 1]
            _chosen(dy, cell, begin, entries, first, stop, channels, dx, to, outputs[o, 2])


TABLE = (read(2, "int64"),) * 3
SIZES = (INT,) * 5


@job(read(1), *TABLE, write(1), write(1, "int8"), *SIZES)
def maxima(
    item: Any, x: Any, parts: Any, outputs: Any, entries: Any, best: Any, cell: Any, inner: Any, outer: Any,
    channels: Any, units: Any, per: Any,
) -> None:  # fmt: skip
    """Maxima, and their cells as int8."""
    _maxima(item, x, parts, outputs, entries, best, cell, inner, outer, channels, units, per)


@job(read(1), *TABLE, write(1), write(1, "int64"), *SIZES)
def maxima_of_many(
    item: Any, x: Any, parts: Any, outputs: Any, entries: Any, best: Any, cell: Any, inner: Any, outer: Any,
    channels: Any, units: Any, per: Any,
) -> None:  # fmt: skip
    """Maxima, and their cells as int64."""
    _maxima(item, x, parts, outputs, entries, best, cell, inner, outer, channels, units, per)


@job(read(1), read(1, "int8"), *TABLE, write(1), *SIZES)
def maxima_back(
    item: Any, dy: Any, cell: Any, parts: Any, outputs: Any, entries: Any, dx: Any, inner: Any, outer: Any,
    channels: Any, units: Any, per: Any,
) -> None:  # fmt: skip
    """The adjoint of `maxima`."""
    _maxima_back(item, dy, cell, parts, outputs, entries, dx, inner, outer, channels, units, per)


@job(read(1), read(1, "int64"), *TABLE, write(1), *SIZES)
def maxima_of_many_back(
    item: Any, dy: Any, cell: Any, parts: Any, outputs: Any, entries: Any, dx: Any, inner: Any, outer: Any,
    channels: Any, units: Any, per: Any,
) -> None:  # fmt: skip
    """The adjoint of `maxima_of_many`."""
    _maxima_back(item, dy, cell, parts, outputs, entries, dx, inner, outer, channels, units, per)


@job(read(1), *TABLE, write(1), read(1), *SIZES)
def means(
    item: Any, x: Any, parts: Any, outputs: Any, entries: Any, y: Any, divisors: Any, inner: Any, outer: Any,
    channels: Any, units: Any, per: Any,
) -> None:  # fmt: skip
    """Sums over the divisors of the outputs."""
    for unit in range(item * per, min((item + 1) * per, units)):
        n, part = unit // len(parts), unit % len(parts)
        first, stop = parts[part, 2], parts[part, 3]
        for o in range(parts[part, 0], parts[part, 1]):
            begin, to = n * inner + outputs[o, 0], n * outer + outputs[o, 1]
            _mean(x, begin, entries, first, stop, channels, y, to, divisors[outputs[o, 1]])


@job(read(1), *TABLE, write(1), read(1), *SIZES)
def means_back(
    item: Any, dy: Any, parts: Any, outputs: Any, entries: Any, dx: Any, divisors: Any, inner: Any, outer: Any,
    channels: Any, units: Any, per: Any,
) -> None:  # fmt: skip
    """The adjoint of `means`."""
    for unit in range(item * per, min((item + 1) * per, units)):
        n, part = unit // len(parts), unit % len(parts)
        first, stop = parts[part, 2], parts[part, 3]
        for o in range(parts[part, 0], parts[part, 1]):
            to = n * outer + outputs[o, 1]
            _shares(dy, n * inner, outputs[o, 0], entries, first, stop, channels, dx, to, divisors)
