"""Laws that every gradient of the network obeys, whatever its numbers.

A law says how the gradients change when the arguments do. Where both sides carry out the same
operations on the same numbers, it holds bit for bit. Where only the order of a sum differs, it
holds within what rounding can explain (``rounding.py``), in regimes in which that is little. The
loss is sum(dy * y) + sum(dh_last * h[T]) throughout, unless it is one of the package's.
"""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rounding import gamma, rounding_bounds

import manual_bptt as mb
from reference.strategies import problems

CALM = ("contracting", "critical", "linear", "saturated")
GARBAGE = (np.nan, np.inf, -np.inf, 1e308, 0.0)
# What each of the last axes of an array counts.
AXES = {"W": "HH", "U": "HD", "b": "H", "V": "OH", "c": "O", "x": "D", "h0": "H", "h": "H"}
AXES |= {"dy": "O", "dh_last": "H"}
of_any_dtype = problems() | problems(dtype="float32")
seeds = st.integers(0, 2**32 - 1)


def arguments(problem, seed=0):
    """Return all arguments by name, with random gradients dy and dh_last."""
    rng = np.random.default_rng(seed)
    shapes = {"dy": (*problem.x.shape[:-1], problem.sizes["O"]), "dh_last": problem.h0.shape}
    arriving = {k: rng.standard_normal(s).astype(problem.dtype) for k, s in shapes.items()}
    return {**problem.params._asdict(), "x": problem.x, "h0": problem.h0, **arriving}


def params_of(a):
    return mb.Params(*(a[k] for k in mb.Params._fields))


def gradients(a):
    """Return every gradient by name; h is that in every state."""
    params, dy, dh_last = params_of(a), a["dy"], a["dh_last"]
    trace = mb.forward(params, a["x"], a["h0"])
    dh = mb.hidden_gradients(params, trace, dy, dh_last=dh_last)
    return {**mb.backward(params, trace, dy, dh_last=dh_last)._asdict(), "h": dh}


def bounds(a):
    """Return {gradient: how far rounding may move each entry}, for all but h."""
    return rounding_bounds(params_of(a), a["x"], a["h0"], a["dy"], a["dh_last"])


def explained(found, expected, bound):
    """Return whether rounding alone can separate two computed arrays; both sides round."""
    return (np.abs(found - expected) <= 2 * bound + np.finfo(float).tiny).all()


def assert_explained(found, expected, bound):
    for k in bound:
        assert found[k].shape == expected[k].shape, k
        assert explained(found[k], expected[k], bound[k]), k


def bits(arrays):
    """Return the bits of every array: equal ones are equal to the last, NaN and -0 included."""
    return {k: np.asarray(a).tobytes() for k, a in arrays.items()}


def rearranged(arrays, order, factor):
    """Return the arrays with units, inputs and outputs in another order, times factors.

    A gradient is rearranged in the same way as what it is the gradient of.
    """
    result = {}
    for k, array in arrays.items():
        for axis, what in enumerate(AXES[k], -len(AXES[k])):
            column = np.reshape(factor[what], (-1, *[1] * (-1 - axis)))
            array = np.take(array, order[what], axis) * column
        result[k] = array
    return result


def widened(array, value):
    """Return the array with one more entry, the value, at the end of its last axis."""
    return np.concatenate([array, np.full_like(array[..., :1], value)], axis=-1)


def without_the_last_unit(grads):
    cut = {"W": grads["W"][:-1, :-1], "U": grads["U"][:-1], "b": grads["b"][:-1]}
    return grads | cut | {"V": grads["V"][:, :-1], "h0": grads["h0"][..., :-1]}


def sizes(a):
    return {"H": len(a["b"]), "D": a["x"].shape[-1], "O": len(a["c"])}


# --- symmetries of the network -------------------------------------------------------------------


@given(of_any_dtype, seeds)
def test_negating_units_inputs_and_outputs_negates_their_gradients_bit_for_bit(problem, seed):
    """tanh is odd, in NumPy too; only the sign of a zero may differ."""
    a, rng = arguments(problem), np.random.default_rng(seed)
    order = {k: np.arange(n) for k, n in sizes(a).items()}
    signs = {k: rng.choice(np.int8([-1, 1]), n) for k, n in sizes(a).items()}
    found, plain = gradients(rearranged(a, order, signs)), gradients(a)
    expected = rearranged(plain, order, signs)
    assert all(np.array_equal(found[k], expected[k]) for k in plain)


@given(problems(regimes=CALM), seeds)
def test_a_signed_permutation_of_units_inputs_and_outputs_moves_their_gradients(problem, seed):
    a, rng = arguments(problem), np.random.default_rng(seed)
    order = {k: rng.permutation(n) for k, n in sizes(a).items()}
    signs = {k: rng.choice(np.int8([-1, 1]), n) for k, n in sizes(a).items()}
    ones = dict.fromkeys(signs, 1.0)
    assert_explained(
        gradients(rearranged(a, order, signs)),
        rearranged(gradients(a), order, signs),
        rearranged(bounds(a), order, ones),
    )


@given(problems(longest=12), seeds)
def test_other_units_of_measurement_rescale_the_gradients_bit_for_bit(problem, seed):
    """Powers of two only move exponents: inputs by 2^i, outputs by 2^o, the loss by 2^k.

    What is multiplied by 2^e has a gradient multiplied by 2^(k - e). There are at most 12 steps, so
    that nothing over- or underflows.
    """
    a, rng = arguments(problem), np.random.default_rng(seed)
    i, o = (rng.integers(-20, 21, sizes(a)[axis]) for axis in "DO")
    k = int(rng.integers(-20, 21))
    exponents = {"x": i, "U": -i, "V": o[:, None], "c": o, "dy": k - o, "dh_last": k}
    found = gradients({k: np.ldexp(v, exponents.get(k, 0)) for k, v in a.items()})
    plain = gradients(a)
    assert bits(found) == bits({n: np.ldexp(g, k - exponents.get(n, 0)) for n, g in plain.items()})


@given(problems(regimes=CALM), st.data())
def test_two_units_that_share_the_work_of_one_share_its_gradient(problem, data):
    a = arguments(problem)
    H = sizes(a)["H"]
    twin = data.draw(st.integers(0, H - 1))
    order = {k: np.arange(n) for k, n in sizes(a).items()} | {"H": np.append(np.arange(H), twin)}
    half = np.where(order["H"] == twin, 0.5, 1.0)
    ones = dict.fromkeys("DHO", 1.0)
    doubled = rearranged(a, order, ones)
    # What is read from the two counts half; so does the gradient of what goes into them.
    doubled |= {k: doubled[k] * half for k in ("W", "V", "dh_last")}

    def shared(grads):
        grads = rearranged(grads, order, ones)
        rows = {k: grads[k] * half[:, None] for k in ("W", "U")}
        return grads | rows | {k: grads[k] * half for k in ("b", "h0")}

    assert_explained(gradients(doubled), shared(gradients(a)), shared(bounds(a)))


@given(problems(regimes=CALM), seeds)
def test_a_unit_that_nobody_reads_gets_no_gradient_and_changes_no_other(problem, seed):
    a, rng = arguments(problem), np.random.default_rng(seed)
    n = sizes(a)
    with_unit = {
        "W": np.vstack([widened(a["W"], 0), rng.standard_normal(n["H"] + 1)]),
        "U": np.vstack([a["U"], rng.standard_normal(n["D"])]),
        "b": widened(a["b"], rng.standard_normal()),
        "V": widened(a["V"], 0),
        "h0": widened(a["h0"], rng.standard_normal()),
        "dh_last": widened(a["dh_last"], 0),
    }
    found = gradients(a | with_unit)
    assert not any(found[k][-1].any() for k in "WUb")
    assert not found["h0"][..., -1].any()
    assert_explained(without_the_last_unit(found), gradients(a), bounds(a))


@given(problems(regimes=CALM))
def test_an_output_bias_is_the_weight_of_a_unit_that_is_always_one(problem):
    a = arguments(problem)
    with_unit = {
        "W": np.pad(a["W"], (0, 1)),
        "U": np.pad(a["U"], ((0, 1), (0, 0))),
        "b": widened(a["b"], 40),  # tanh(40) is 1 to the last bit
        "V": np.column_stack([a["V"], a["c"]]),
        "c": np.zeros_like(a["c"]),
        "h0": widened(a["h0"], 0.3),
        "dh_last": widened(a["dh_last"], 1),
    }
    found = gradients(a | with_unit)
    renamed = without_the_last_unit(found) | {"c": found["V"][:, -1]}
    assert_explained(renamed, gradients(a), bounds(a))


@given(problems(regimes=CALM))
def test_a_bias_is_the_weight_of_an_input_that_is_always_one(problem):
    a = arguments(problem)
    with_input = {
        "U": np.column_stack([a["U"], a["b"]]),
        "x": widened(a["x"], 1),
        "b": np.zeros_like(a["b"]),
    }
    found = gradients(a | with_input)
    renamed = {"U": found["U"][:, :-1], "x": found["x"][..., :-1], "b": found["U"][:, -1]}
    assert_explained(found | renamed, gradients(a), bounds(a))


# --- linearity -----------------------------------------------------------------------------------


@given(problems(regimes=CALM), seeds)
def test_gradients_are_linear_in_dy_and_dh_last(problem, seed):
    a = arguments(problem)
    # Multiples of 2^-20, so that what is put together from the two is exact.
    first, second = (
        {k: np.round(v[k] * 2**20) / 2**20 for k in ("dy", "dh_last")}
        for v in (a, arguments(problem, seed))
    )
    parts = [a | first, a | second, a | {k: first[k] - 3 * second[k] for k in first}]
    one, two, both = map(gradients, parts)
    bound_one, bound_two, bound_both = map(bounds, parts)
    for k in bound_one:
        combined = one[k] - 3 * two[k]
        rounding = 2**-52 * (np.abs(one[k]) + 3 * np.abs(two[k]))
        bound = bound_one[k] + 3 * bound_two[k] + bound_both[k] + rounding
        assert (np.abs(both[k] - combined) <= bound + np.finfo(float).tiny).all(), k


@given(of_any_dtype)
def test_no_gradient_in_gives_none_out(problem):
    a = arguments(problem)
    zeros = gradients(a | {k: np.zeros_like(a[k]) for k in ("dy", "dh_last")})
    assert not any(g.any() for g in zeros.values())


# --- batches -------------------------------------------------------------------------------------

PER_SEQUENCE = {"x": 1, "h0": 0, "h": 1, "dy": 1, "dh_last": 0}  # which axis counts the sequences


def sequences(arrays, chosen):
    """Return the arrays with only the chosen sequences of the batch."""
    cut = {k: np.take(arrays[k], chosen, axis) for k, axis in PER_SEQUENCE.items() if k in arrays}
    return {**arrays, **cut}


@given(problems(batched=True, regimes=CALM), st.data())
def test_parts_of_a_batch_add_up_and_keep_their_own_gradients(problem, data):
    a = arguments(problem)
    B = problem.sizes["B"]
    group = np.array(data.draw(st.lists(st.integers(0, B - 1), min_size=B, max_size=B)))
    groups = [np.flatnonzero(group == g) for g in np.unique(group)]
    parts = [gradients(sequences(a, chosen)) for chosen in groups]
    whole, bound = gradients(a), bounds(a)
    for k in mb.Params._fields:
        assert explained(sum(part[k] for part in parts), whole[k], bound[k]), k
    for chosen, part in zip(groups, parts, strict=True):
        own, own_bound = sequences(whole, chosen), sequences(bound, chosen)
        assert_explained(part, own, {k: own_bound[k] for k in ("x", "h0")})


@given(problems(batched=True, regimes=CALM), seeds)
def test_sequences_in_another_order_keep_their_own_gradients_and_the_sums(problem, seed):
    a = arguments(problem)
    order = np.random.default_rng(seed).permutation(problem.sizes["B"])
    expected = sequences(gradients(a), order)
    assert_explained(gradients(sequences(a, order)), expected, sequences(bounds(a), order))


@given(problems(batched=True, regimes=CALM))
def test_sequences_without_a_batch_axis_are_the_same_sequences(problem):
    a = arguments(problem)
    singles = [
        gradients(a | {k: np.take(a[k], i, axis) for k, axis in PER_SEQUENCE.items() if k in a})
        for i in range(problem.sizes["B"])
    ]
    together = {k: sum(s[k] for s in singles) for k in mb.Params._fields}
    together |= {k: np.stack([s[k] for s in singles], PER_SEQUENCE[k]) for k in ("x", "h0")}
    assert_explained(together, gradients(a), bounds(a))


@given(problems(batched=True), st.data())
def test_a_sequence_does_not_touch_the_others_whatever_it_holds_bit_for_bit(problem, data):
    a = arguments(problem)
    B = problem.sizes["B"]
    assume(B > 1)
    changed = data.draw(st.integers(0, B - 1))
    value = data.draw(st.sampled_from(GARBAGE))
    others = [i for i in range(B) if i != changed]
    params = params_of(a)

    def states_and_gradients(x, h0, dy, dh_last):
        unchecked = {"dh_last": dh_last, "check_finite": False}
        trace = mb.forward(params, x, h0, check_finite=False)
        grads = mb.backward(params, trace, dy, **unchecked)
        dh = mb.hidden_gradients(params, trace, dy, **unchecked)
        return {"x": grads.x, "h0": grads.h0, "h": dh, "states": trace.h, "y": trace.y}

    names = ("x", "h0", "dy", "dh_last")
    name = data.draw(st.sampled_from(names))
    other = {k: a[k].copy() for k in names}
    np.moveaxis(other[name], PER_SEQUENCE[name], 0)[changed] = value
    with np.errstate(all="ignore"):
        found, plain = states_and_gradients(**other), states_and_gradients(*(a[k] for k in names))
    axis = PER_SEQUENCE | {"states": 1, "y": 1}
    for k in plain:
        assert (
            np.take(found[k], others, axis[k]).tobytes()
            == np.take(plain[k], others, axis[k]).tobytes()
        ), k


# --- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batched", [True, False])
def test_cutting_a_sequence_at_any_place_and_chaining_dh_last_changes_nothing(batched):
    @given(problems(batched=batched, regimes=CALM, longest=12))
    def holds(problem):
        a = arguments(problem)
        whole, bound = gradients(a), bounds(a)
        T = problem.sizes["T"]
        for cuts in [*([cut] for cut in range(1, T)), range(1, T)]:
            assert_explained(chained(a, [0, *cuts, T]), whole, bound)

    holds()


def chained(a, ends):
    """Return the gradients of a sequence that is run in pieces, from one end to the next."""
    params, h0, dh_last = params_of(a), a["h0"], a["dh_last"]
    traces, pieces = [], []
    for start, end in pairwise(ends):
        traces.append(mb.forward(params, a["x"][start:end], h0))
        h0 = traces[-1].h[-1]
    for trace, dy in zip(traces[::-1], np.split(a["dy"], ends[1:-1])[::-1], strict=True):
        pieces.insert(0, mb.backward(params, trace, dy, dh_last=dh_last))
        dh_last = pieces[0].h0
    total = {k: sum(getattr(piece, k) for piece in pieces) for k in mb.Params._fields}
    return total | {"x": np.concatenate([piece.x for piece in pieces]), "h0": dh_last}


@given(problems(regimes=CALM, longest=12))
def test_the_gradient_in_a_state_is_that_of_its_output_and_of_all_that_follows(problem):
    a = arguments(problem)
    dh, states = gradients(a)["h"], mb.forward(params_of(a), a["x"], a["h0"]).h
    later, bound = a["dh_last"], 0.0
    for t in range(problem.sizes["T"], 0, -1):
        now, terms = a["dy"][t - 1] @ a["V"], np.abs(a["dy"][t - 1]) @ np.abs(a["V"])
        bound = bound + gamma(problem.sizes["O"] + 1, 2**-53) * (terms + np.abs(later))
        assert explained(dh[t], now + later, bound)
        rest = a | {"x": a["x"][t - 1 :], "h0": states[t - 1], "dy": a["dy"][t - 1 :]}
        later, bound = gradients(rest)["h0"], bounds(rest)["h0"]
    assert explained(dh[0], later, bound)


@given(of_any_dtype, st.data())
def test_an_input_changes_nothing_before_its_step_bit_for_bit(problem, data):
    a = arguments(problem)
    t = data.draw(st.integers(0, problem.sizes["T"] - 1))
    changed = a["x"].copy()
    changed[t] += 1
    plain, other = (mb.forward(params_of(a), x, a["h0"]) for x in (a["x"], changed))
    assert plain.h[: t + 1].tobytes() == other.h[: t + 1].tobytes()
    assert plain.y[:t].tobytes() == other.y[:t].tobytes()


@given(of_any_dtype, st.data())
def test_dy_changes_no_gradient_after_its_step_bit_for_bit(problem, data):
    a = arguments(problem)
    t = data.draw(st.integers(0, problem.sizes["T"] - 1))  # dy[t] is the gradient in y^[t+1]
    changed = a["dy"].copy()
    changed[t] += 1
    plain, other = gradients(a), gradients(a | {"dy": changed})
    assert plain["h"][t + 2 :].tobytes() == other["h"][t + 2 :].tobytes()
    assert plain["x"][t + 1 :].tobytes() == other["x"][t + 1 :].tobytes()
    assert not np.array_equal(plain["h"][t + 1], other["h"][t + 1])


@given(problems(regimes=CALM), st.integers(1, 5))
def test_steps_after_the_end_that_no_loss_looks_at_change_nothing(problem, more):
    a = arguments(problem) | {"dh_last": np.zeros_like(problem.h0)}
    T = problem.sizes["T"]
    padded = a | {
        "x": np.concatenate([a["x"], np.full_like(a["x"][:1], 3.0).repeat(more, 0)]),
        "dy": np.concatenate([a["dy"], np.zeros_like(a["dy"][:1]).repeat(more, 0)]),
    }
    found = gradients(padded)
    assert not found["x"][T:].any()
    assert not found["h"][T + 1 :].any()
    assert_explained(found | {"x": found["x"][:T]}, gradients(a), bounds(a))


def test_steps_in_front_that_no_loss_looks_at_change_what_follows():
    """Unless they leave the state where it was: then, and only then, they may be padding."""
    rng = np.random.default_rng(0)
    params = mb.init_params(3, 4, 2, rng=rng)
    x, target = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
    padded, ignored = np.concatenate([np.zeros((2, 3)), x]), np.full((2, 2), np.nan)
    weights, longer = np.array([0, 0, 1, 1, 1, 1, 1]), np.concatenate([ignored, target])
    for b, harmless in ((np.zeros(4), True), (np.ones(4), False)):
        biased = params._replace(b=b)
        loss, _ = mb.loss_and_gradients(biased, x, target)
        in_front, _ = mb.loss_and_gradients(biased, padded, longer, weights=weights)
        assert bool(abs(in_front - loss) < 1e-12 * loss) == harmless


# --- losses --------------------------------------------------------------------------------------


def weighted(problem, weights, target):
    """Return the loss and every gradient of a weighted problem."""
    value, grads = mb.loss_and_gradients(
        mb.Params(*problem.params), problem.x, target, h0=problem.h0, weights=weights
    )
    return {"loss": value, **grads._asdict()}


def some_zeros(problem, form, seed):
    """Return weights in the form of so many axes, about half of them zero."""
    rng = np.random.default_rng(seed)
    shape = problem.target.shape[:form]
    return rng.uniform(0.5, 2, shape) * rng.integers(0, 2, shape)


@given(of_any_dtype, st.integers(1, 3), seeds)
def test_a_target_of_no_weight_is_not_looked_at_bit_for_bit(problem, form, seed):
    weights = some_zeros(problem, form, seed)
    garbage = np.random.default_rng(seed).choice(GARBAGE, problem.target.shape)
    ignored = np.broadcast_to((weights == 0).T, problem.target.T.shape).T
    replaced = np.where(ignored, garbage, problem.target)
    found, plain = weighted(problem, weights, replaced), weighted(problem, weights, problem.target)
    assert bits(found) == bits(plain)


@given(problems(), st.integers(1, 3), seeds, st.integers(-40, 40))
def test_weights_of_another_power_of_two_rescale_loss_and_gradients_bit_for_bit(
    problem, form, seed, k
):
    assume(problem.sizes["T"] <= 12)
    weights = some_zeros(problem, form, seed)
    found = weighted(problem, np.ldexp(weights, k), problem.target)
    plain = weighted(problem, weights, problem.target)
    assert bits(found) == bits({name: np.ldexp(v, k) for name, v in plain.items()})


@given(of_any_dtype, st.integers(1, 3), seeds)
def test_weights_of_the_other_sign_turn_the_sign_of_loss_and_gradients_bit_for_bit(
    problem, form, seed
):
    weights = some_zeros(problem, form, seed)
    found, plain = (weighted(problem, w, problem.target) for w in (-weights, weights))
    for name, expected in plain.items():
        np.testing.assert_array_equal(found[name], -expected, err_msg=name)  # -0 equals 0


def test_a_negative_weight_counts_as_it_is_beside_a_positive_one():
    y, target = np.array([[3.0], [5.0]]), np.array([[1.0], [4.0]])
    value, dy = mb.squared_error(y, target, weights=[-2.0, 3.0])
    assert value == -2 * 4 + 3 * 1
    assert dy.tolist() == [[2 * -2 * 2], [2 * 3 * 1]]


@given(problems(batched=True), st.data())
def test_a_whole_weight_counts_a_sequence_that_often(problem, data):
    T, B, O = problem.target.shape
    y = mb.forward(mb.Params(*problem.params), problem.x, problem.h0).y
    times = np.array(data.draw(st.lists(st.integers(1, 4), min_size=B, max_size=B)))
    value, dy = mb.squared_error(y, problem.target, np.tile(times, (T, 1)))
    repeated = [np.repeat(array, times, 1) for array in (y, problem.target)]
    expected, dy_repeated = mb.squared_error(*repeated)
    # Every term is positive and rounds four times; then come the additions.
    assert abs(value - expected) <= 2 * gamma(T * times.sum() * O + 4, 2**-53) * expected
    starts = np.concatenate([[0], np.cumsum(times)[:-1]])
    summed = np.add.reduceat(dy_repeated, starts, axis=1)
    assert (np.abs(dy - summed) <= 2 * gamma(6, 2**-53) * np.abs(dy)).all()


@given(problems(loss="last_step_squared_error"))
def test_the_last_step_alone_is_a_weight_of_one_there_and_zero_before(problem):
    y = mb.forward(mb.Params(*problem.params), problem.x, problem.h0).y
    target = np.full_like(y, np.nan)
    target[-1] = problem.target
    last = np.zeros(len(y))
    last[-1] = 1
    value, dy = mb.squared_error(y, target, last)
    expected, dy_expected = mb.last_step_squared_error(y, problem.target)
    assert np.array_equal(dy, dy_expected)
    assert abs(value - expected) <= 2 * gamma(problem.target.size + 2, 2**-53) * expected


@given(of_any_dtype)
def test_output_and_target_exchanged_give_the_same_loss_and_the_opposite_gradient(problem):
    y = mb.forward(mb.Params(*problem.params), problem.x, problem.h0).y
    value, dy = mb.squared_error(y, problem.target)
    exchanged, opposite = mb.squared_error(problem.target, y)
    assert value == exchanged
    assert np.array_equal(dy, -opposite)


@given(of_any_dtype, st.booleans())
def test_one_call_is_forward_loss_and_backward_bit_for_bit(problem, weigh):
    params = mb.Params(*problem.params)
    weights = some_zeros(problem, 1, 0) if weigh else None
    trace = mb.forward(params, problem.x, problem.h0)
    value, dy = mb.squared_error(trace.y, problem.target, weights)
    found = weighted(problem, weights, problem.target)
    assert bits(found) == bits({"loss": value, **mb.backward(params, trace, dy)._asdict()})
