"""A secure sum is the sum, whoever drops out when, and is none below the threshold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.errors import SecureSumError
from cardionets_core.privacy.secure_sum import Coordinator, FixedPoint, SecureSite
from cardionets_core.privacy.secure_sum.masks import TILE_BYTES


@st.composite
def courses(draw):
    """Sites, a threshold, and who is left after each of five steps."""
    sites = draw(st.integers(2, 7))
    threshold = draw(st.integers(max(2, sites // 2 + 1), sites))
    left = [f"site-{number}" for number in range(sites)]
    steps = []
    for _ in range(5):
        gone = draw(st.sets(st.sampled_from(left), max_size=len(left) - threshold))
        left = [name for name in left if name not in gone]
        steps.append(left)
    return sites, threshold, steps


@settings(max_examples=40)
@given(
    course=courses(),
    size=st.integers(1, 200),
    dtype=st.sampled_from([np.uint32, np.uint64]),
    reborn=st.booleans(),
)
def test_the_sum_is_the_plain_sum_whoever_drops_out(play, course, size, dtype, reborn):
    sites, threshold, (advertise, share, mask, confirm, unmask) = course
    run = play(sites, threshold, reborn=reborn).advertise(advertise).share(share)
    run.mask(mask, size=size, dtype=dtype).confirm(confirm).unmask(unmask)
    total = run.total()
    assert total.dtype == dtype
    np.testing.assert_array_equal(total, run.plain_sum())


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_vectors_that_end_beside_the_end_of_a_tile(play, dtype, beside):
    size = 2 * TILE_BYTES // np.dtype(dtype).itemsize + beside
    run = play(4, 3).advertise().share()
    run.mask(run.names[:3], size=size, dtype=dtype).confirm().unmask()
    np.testing.assert_array_equal(run.total(), run.plain_sum())


@settings(max_examples=15)
@given(bits=st.sampled_from([32, 64]), seed=st.integers(0, 99), gone=st.integers(0, 2))
def test_the_sum_of_values_is_right_to_half_a_step_a_party(play, bits, seed, gone):
    form = FixedPoint.finest(bits, largest=4.0, parties=5)
    draw = np.random.default_rng(seed)
    run = play(5, 3).advertise().share()
    values = {name: draw.uniform(-4, 4, 300) for name in run.names[gone:]}
    for name, value in values.items():
        run.masked[name] = run.at(name).mask(run.deliveries[name], form.encode(value, name="update"))
    run.survivors = run.server.close_masked(list(values))
    found = form.decode(run.confirm().unmask().total())
    exact = sum(value.astype(np.longdouble) for value in values.values())
    # Reading a sum of 64 bits rounds once more, to double precision.
    bound = len(values) * form.error + np.spacing(np.abs(found))
    assert (np.abs(found - exact) <= bound).all()
    if bits == 32:
        assert np.abs(found - exact).max() > form.error / 100, "else the bound says nothing"


@pytest.mark.parametrize("step", ["advertise", "share", "mask", "confirm", "unmask"])
def test_one_site_too_few_at_any_step_opens_nothing(play, refused, step):
    run = play(5, 4)
    few = run.names[:3]
    with refused("too-few-sites"):
        for name in ("advertise", "share", "mask", "confirm", "unmask"):
            getattr(run, name)(few if name == step else None)
        run.total()


def test_a_site_refuses_too_few_by_itself(play, refused, key_of):
    """Whatever the server thinks of it."""
    run = play(5, 4).advertise()
    with run.unmoved("site-0") as site, refused("too-few-sites"):
        site.share(replace(run.participants, adverts=run.participants.adverts[:3]))
    run.share()
    few = run.deliveries["site-0"]
    with run.unmoved("site-0") as site, refused("too-few-sites"):
        site.mask(replace(few, envelopes=few.envelopes[:2]), np.ones(3, np.uint32))
    run.mask()
    with run.unmoved("site-0") as site, refused("too-few-sites"):
        site.confirm(replace(run.survivors, sites=run.survivors.sites[:3]), identity=key_of("site-0"))
    run.confirm()
    with run.unmoved("site-0") as site, refused("too-few-sites"):
        site.unmask(replace(run.request, confirmations=run.request.confirmations[:3]))


def test_asking_again_gives_the_same_bytes_at_every_step(play, key_of):
    run = play(3, 2, reborn=True).advertise().share()
    name = "site-1"
    assert run.at(name).advertise() == run.participants.adverts[1]
    assert run.at(name).share(run.participants) == run.server._bundles[name]
    run.mask()
    again = run.at(name).mask(run.deliveries[name], run.vectors[name])
    np.testing.assert_array_equal(again, run.masked[name])
    run.confirm()
    assert run.at(name).confirm(run.survivors, identity=key_of(name)) == run.request.confirmations[1]
    run.unmask()
    assert run.at(name).unmask(run.request) == run.server._replies[name]
    assert run.at(name).confirm(run.survivors, identity=key_of(name)) == run.request.confirmations[1]


def test_a_server_that_starts_again_hands_the_messages_in_once_more(play):
    run = play(4, 3).advertise().share(["site-0", "site-1", "site-3"]).mask().confirm().unmask()
    second = Coordinator(run.terms)
    for advert in reversed(run.participants.adverts):
        second.add_advert(type(advert).from_bytes(advert.to_bytes()))
    assert second.close_adverts() == run.participants
    for bundle in reversed(list(run.server._bundles.values())):
        second.add_bundle(bundle)
        second.add_bundle(bundle)
    assert second.close_bundles() == run.deliveries
    assert second.close_masked(set(run.masked)) == run.survivors
    for confirmation in run.request.confirmations:
        second.add_confirmation(confirmation)
    assert second.unmask_request() == run.request
    for reply in run.server._replies.values():
        second.add_reply(reply)
    np.testing.assert_array_equal(second.total(reversed(run.masked.items())), run.plain_sum())


def test_the_masked_vectors_may_lie_on_a_disk(play, tmp_path):
    run = play(3, 2).advertise().share().mask(size=70_000).confirm().unmask()

    def mapped():
        for name, vector in run.masked.items():
            np.save(tmp_path / f"{name}.npy", vector)
            yield name, np.load(tmp_path / f"{name}.npy", mmap_mode="r")

    np.testing.assert_array_equal(run.server.total(mapped()), run.plain_sum())


def test_the_vector_of_the_caller_stays_as_it_is(play):
    run = play(2, 2).advertise().share()
    vector = np.arange(10, dtype=np.uint32)
    vector.flags.writeable = False
    masked = run.at("site-0").mask(run.deliveries["site-0"], vector)
    assert (masked != vector).any()
    np.testing.assert_array_equal(vector, np.arange(10, dtype=np.uint32))


def byte_chi_square(vector: np.ndarray) -> float:
    """Of 256 equally likely bytes: 255 on average, with a deviation of 23."""
    counts = np.bincount(vector.view(np.uint8), minlength=256)
    expected = vector.nbytes / 256
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_a_masked_vector_looks_like_noise_and_changes_with_the_session(play, dtype):
    plain = np.arange(40_000, dtype=dtype)
    found = []
    for attempt in (1, 2):
        run = play(3, 2, attempt=attempt).advertise().share()
        found.append(run.at("site-0").mask(run.deliveries["site-0"], plain))
    assert byte_chi_square(plain) > 1000, "the test would see structure"
    for noise in (found[0], found[1], found[0] - found[1], found[0] - plain, found[0] ^ plain):
        assert 120 < byte_chi_square(noise) < 420
        assert (noise == plain).sum() <= 2


def test_the_masks_of_one_site_are_not_those_of_another(play):
    run = play(3, 2).advertise().share().mask()
    streams = [run.masked[name] - run.vectors[name] for name in run.names]
    for first in range(3):
        for second in range(first):
            assert (streams[first] != streams[second]).mean() > 0.9
            assert (streams[first] + streams[second] != 0).mean() > 0.9


def test_a_state_of_another_session_site_or_threshold_is_refused(play, refused):
    run = play(3, 2).advertise()
    kept = run.sites["site-0"].to_bytes()
    for other, site in (
        (play(3, 2, attempt=2).terms, "site-0"),
        (run.terms, "site-1"),
        (play(3, 3).terms, "site-0"),
    ):
        with refused("state-invalid"):
            SecureSite.resume(kept, other, site=site)


def test_secrets_leave_the_state_when_they_are_needed_no_more(play):
    run = play(3, 2).advertise().share()
    name = "site-0"
    secrets = {
        key: getattr(run.sites[name]._state, key) for key in ("channel_private", "mask_private", "seed")
    }

    def there(secret: bytes) -> bool:
        return secret.hex().encode() in run.sites[name].to_bytes()

    assert all(there(secret) for secret in secrets.values())
    run.mask()
    held = run.sites[name]._state.held
    assert {key: there(secret) for key, secret in secrets.items()} == {
        "channel_private": False,
        "mask_private": True,
        "seed": True,
    }
    assert len(held) == 3
    run.confirm()
    assert not any(there(secret) for secret in secrets.values())
    assert all(there(entry.key_share) and there(entry.seed_share) for entry in held)
    run.unmask()
    assert not any(there(entry.key_share) for entry in held), "nobody dropped out, so none of these was told"
    assert run.sites[name].step == "unmasked"


def test_neither_repr_nor_errors_show_a_secret(play):
    run = play(3, 2).advertise().share().mask().confirm()
    site = run.sites["site-0"]
    held = site._state.held
    young = play(3, 2).advertise().sites["site-0"]
    state = young._state
    reply = site.unmask(run.request)
    secrets = [state.channel_private, state.mask_private, state.seed]
    secrets += [entry.seed_share for entry in held] + [entry.key_share for entry in held]
    texts = [
        repr(thing) for thing in (site, young, state, site._state, reply, *reply.shares, held, run.terms)
    ]
    for content in (young.to_bytes()[:-1], young.to_bytes() + b" ", reply.to_bytes() + b" "):
        with pytest.raises(SecureSumError) as caught:
            type(state).from_bytes(content)
        assert caught.value.__cause__ is None and caught.value.__context__ is None
        texts.append(str(caught.value))
    for text in texts:
        for secret in secrets:
            assert secret.hex() not in text and repr(secret)[2:-1] not in text
