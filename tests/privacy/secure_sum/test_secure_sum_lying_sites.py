"""What a lying site can be caught at, it is caught at, by its name; the others go on without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cardionets_core.privacy.secure_sum import dealing
from cardionets_core.privacy.secure_sum.shares import split
from cardionets_core.privacy.secure_sum.vouching import confirmed, signed_advert

LIAR = "site-1"


@pytest.fixture
def confirmed_run(play):
    """Five sites, a threshold of three, one dropped out after it had dealt."""
    return play(5, 3).advertise().share().mask(["site-0", "site-1", "site-2", "site-3"]).confirm()


def flipped(content: bytes) -> bytes:
    """One bit changed, and none of those that X25519 ignores in a private key."""
    return content[:1] + bytes([content[1] ^ 1]) + content[2:]


@pytest.mark.parametrize("place", [0, 1, 4], ids=["a seed", "its own seed", "a key"])
def test_whoever_tells_a_wrong_share_is_named_and_the_others_are_enough(confirmed_run, refused, place):
    run = confirmed_run
    told = run.sites[LIAR].unmask(run.request)
    wrong = replace(told.shares[place], share=flipped(told.shares[place].share))
    lie = replace(told, shares=(*told.shares[:place], wrong, *told.shares[place + 1 :]))
    with refused("share-wrong", LIAR):
        run.server.add_reply(lie)
    run.unmask(["site-0", "site-2", "site-3"])
    np.testing.assert_array_equal(run.total(), run.plain_sum())


def test_whoever_tells_the_other_kind_or_too_little_is_named(confirmed_run, refused):
    run = confirmed_run
    held = run.sites[LIAR]._state.held
    told = run.sites[LIAR].unmask(run.request)
    other = replace(told.shares[0], kind="key", share=held[0].key_share)
    disguised = replace(told.shares[0], share=held[0].key_share)
    for shares, reason in (
        ((other, *told.shares[1:]), "share-wrong"),
        ((disguised, *told.shares[1:]), "share-wrong"),
        (told.shares[:-1], "share-wrong"),
        ((*told.shares, told.shares[-1]), "share-wrong"),
    ):
        with refused(reason, LIAR):
            run.server.add_reply(replace(told, shares=shares))


@pytest.mark.parametrize("secret", ["seed", "mask_private"])
def test_whoever_deals_shares_of_something_else_is_named(play, refused, monkeypatch, secret):
    """Each share is the one that was published; together they give another secret than the advert's."""
    run = play(4, 3).advertise()
    wrong = getattr(run.sites[LIAR]._state, secret)

    def other(content, **numbers):
        return split(flipped(content) if content == wrong else content, **numbers)

    monkeypatch.setattr(dealing, "split", other)
    run.share()
    left = run.names if secret == "seed" else ["site-0", "site-2", "site-3"]
    run.mask(left).confirm().unmask()
    with refused("secret-wrong", LIAR):
        run.total()


def test_whoever_deals_shares_that_lie_on_no_curve_is_named(play, refused, monkeypatch):
    run = play(4, 3).advertise()
    seed = run.sites[LIAR]._state.seed

    def bent(content, **numbers):
        shares = split(content, **numbers)
        return shares | {1: flipped(shares[1])} if content == seed else shares

    monkeypatch.setattr(dealing, "split", bent)
    run.share().mask().confirm().unmask()
    with refused("secret-wrong", LIAR):
        run.total()


def test_whoever_deals_other_shares_than_it_published_is_named_by_the_holder(play, refused, monkeypatch):
    run = play(4, 3).advertise()
    true = dealing.share_digest

    def false(share, **about):
        lies = (about["dealer"], about["holder"], about["kind"]) == (LIAR, "site-2", "key")
        return flipped(true(share, **about)) if lies else true(share, **about)

    monkeypatch.setattr(dealing, "share_digest", false)
    run.share()
    monkeypatch.undo()
    vector = np.ones(3, np.uint32)
    with run.unmoved("site-2") as site, refused("envelope-invalid", LIAR):
        site.mask(run.deliveries["site-2"], vector)
    run.sites["site-0"].mask(run.deliveries["site-0"], vector)


def test_bundles_that_are_not_for_exactly_the_others(play, refused):
    run = play(4, 3).advertise()
    other = play(4, 3, attempt=2).advertise().share().server._bundles[LIAR]
    bundle = run.sites[LIAR].share(run.participants)
    first, second, third = bundle.envelopes
    for lie, reason in (
        (other, "session-differs"),
        (replace(other, session=bundle.session), "participants-differ"),
        (replace(other, session=bundle.session, participants=bundle.participants), "envelope-invalid"),
        (replace(bundle, envelopes=(first, second)), "envelope-invalid"),
        (replace(bundle, envelopes=(first, third, second)), "envelope-invalid"),
        (replace(bundle, envelopes=(first, first, third)), "envelope-invalid"),
        (replace(bundle, envelopes=(first, second, replace(third, dealer="site-0"))), "envelope-invalid"),
        (replace(bundle, site="guest"), "site-unknown"),
    ):
        with refused(reason, lie.site):
            run.server.add_bundle(lie)
    run.server.add_bundle(bundle)
    run.server.add_bundle(bundle)
    again = replace(bundle, envelopes=(replace(first, sealed=second.sealed), second, third))
    with refused("already-answered", LIAR):
        run.server.add_bundle(again)


def test_adverts_that_are_not_the_sites_own(play, refused, key_of):
    run = play(4, 3)
    run.advertise(run.names[:3])
    fresh = play(4, 3)
    for advert in run.participants.adverts[1:]:
        fresh.server.add_advert(advert)
    advert = run.participants.adverts[0]
    stolen = signed_advert(
        replace(advert, mask_public=run.participants.adverts[1].mask_public), key_of("site-0")
    )
    for lie, reason in (
        (stolen, "key-twice"),
        (signed_advert(replace(advert, mask_public=bytes(32)), key_of("site-0")), "key-weak"),
        (signed_advert(advert, key_of("guest")), "signature-invalid"),
        (signed_advert(replace(advert, site="nobody"), key_of("nobody")), "site-unknown"),
    ):
        with refused(reason, lie.site):
            fresh.server.add_advert(lie)
    fresh.server.add_advert(advert)
    with refused("already-answered", "site-0"):
        fresh.server.add_advert(signed_advert(replace(advert, seed_check=bytes(32)), key_of("site-0")))
    with refused("out-of-order"):
        run.server.add_advert(advert)


def test_more_sites_than_the_threshold_allows(play, refused):
    run = play(6, 3)
    with refused("threshold-too-low"):
        run.advertise()


def test_confirmations_of_something_else(confirmed_run, refused, key_of):
    run = confirmed_run
    signed = run.request.confirmations[1]
    with refused("signature-invalid", LIAR):
        run.server.add_confirmation(
            confirmed(b"another list", session=signed.session, site=LIAR, identity=key_of(LIAR))
        )
    with refused("site-unknown", "site-4"):
        run.server.add_confirmation(replace(signed, site="site-4"))


def test_vectors_that_do_not_fit_or_are_not_all_there(confirmed_run, refused):
    run = confirmed_run.unmask()
    for lie, reason in (
        (np.ones(49, np.uint32), "vector-differs"),
        (np.ones(50, np.uint64), "vector-differs"),
    ):
        with refused(reason, LIAR):
            run.server.total(iter((run.masked | {LIAR: lie}).items()))
    with refused("vector-differs"):
        run.server.total(iter((run.masked | {LIAR: np.ones(50)}).items()))
    with refused("site-unknown", "site-4"):
        run.server.total(iter((run.masked | {"site-4": np.ones(50, np.uint32)}).items()))
    with refused("site-twice", "site-0"):
        run.server.total([*run.masked.items(), ("site-0", run.masked["site-0"])])
    with refused("too-few-sites"):
        run.server.total([item for item in run.masked.items() if item[0] != LIAR])
    with refused("survivors-differ"):
        run.server.close_masked(["site-0", "site-1", "site-2"])
    np.testing.assert_array_equal(run.total(), run.plain_sum())


def test_the_server_makes_no_step_before_the_one_it_follows(play, refused):
    run = play(3, 2)
    far = play(3, 2).advertise().share().mask().confirm().unmask()
    for step in (
        lambda: run.server.add_bundle(far.server._bundles["site-0"]),
        lambda: run.server.close_bundles(),
        lambda: run.server.close_masked(["site-0", "site-1"]),
        lambda: run.server.add_confirmation(far.request.confirmations[0]),
        lambda: run.server.unmask_request(),
        lambda: run.server.add_reply(far.server._replies["site-0"]),
        lambda: run.server.total([]),
    ):
        with refused("out-of-order"):
            step()


def test_the_server_closes_no_step_with_too_few(play, refused):
    """It need not wait for the sites to refuse."""
    run = play(4, 3)
    with refused("too-few-sites"):
        run.advertise(run.names[:2])
    run = play(4, 3).advertise()
    with refused("too-few-sites"):
        run.share(run.names[:2])
    run.share(run.names[2:]).mask()
    other = play(4, 3).advertise().share()
    with refused("too-few-sites"):
        other.server.close_masked(run.names[:2])
    with refused("too-few-sites"):
        run.confirm(run.names[:2])
    run.confirm(run.names[2:]).unmask(run.names[:2])
    with refused("too-few-sites"):
        run.total()
    run.unmask(run.names[2:])
    np.testing.assert_array_equal(run.total(), run.plain_sum())
