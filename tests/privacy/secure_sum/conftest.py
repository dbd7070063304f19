"""A consortium in one process: sites, a server, and a refusal that must have a name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache

import numpy as np
import pytest

from cardionets_core.errors import SecureSumError
from cardionets_core.privacy.secure_sum import Coordinator, SecureSite, SessionName, Terms
from cardionets_core.trust.keys import PrivateKey, make_key


@cache
def identity(site: str) -> PrivateKey:
    return make_key()


def session_name(**changed) -> SessionName:
    fields = {"study_digest": "ab" * 32, "phase": 1, "round": 4, "attempt": 1, "purpose": "update"}
    return SessionName(**(fields | changed))


class Play:
    """A session with honest parties; a test lies where it wants to."""

    def __init__(self, sites: int, threshold: int, *, reborn: bool = False, **changed) -> None:
        self.names = [f"site-{number}" for number in range(sites)]
        roster = {name: identity(name).public_key() for name in [*self.names, "guest"]}
        self.terms = Terms(session=session_name(**changed), threshold=threshold, roster=roster)
        self.server = Coordinator(self.terms)
        self.reborn = reborn
        self.sites: dict[str, SecureSite] = {}
        self.vectors: dict[str, np.ndarray] = {}
        self.masked: dict[str, np.ndarray] = {}

    def at(self, name: str) -> SecureSite:
        """A site; where asked for, one that begins each step in a fresh process."""
        if self.reborn:
            kept = self.sites[name].to_bytes()
            self.sites[name] = SecureSite.resume(kept, self.terms, site=name)
            assert self.sites[name].to_bytes() == kept
        return self.sites[name]

    def advertise(self, names: Iterable[str] | None = None):
        for name in names or self.names:
            self.sites[name] = SecureSite.begin(self.terms, site=name, identity=identity(name))
            self.server.add_advert(self.at(name).advertise())
        self.participants = self.server.close_adverts()
        return self

    def share(self, names: Iterable[str] | None = None):
        for name in names or self.names:
            self.server.add_bundle(self.at(name).share(self.participants))
        self.deliveries = self.server.close_bundles()
        return self

    def mask(self, names: Iterable[str] | None = None, *, size: int = 50, dtype=np.uint32):
        for name in names or list(self.deliveries):
            draw = np.random.default_rng(len(self.vectors))
            top = np.iinfo(dtype).max
            self.vectors[name] = draw.integers(0, top, size, dtype=dtype, endpoint=True)
            self.masked[name] = self.at(name).mask(self.deliveries[name], self.vectors[name])
        self.survivors = self.server.close_masked(list(self.masked))
        return self

    def confirm(self, names: Iterable[str] | None = None):
        for name in names or list(self.masked):
            signed = self.at(name).confirm(self.survivors, identity=identity(name))
            self.server.add_confirmation(signed)
        self.request = self.server.unmask_request()
        return self

    def unmask(self, names: Iterable[str] | None = None):
        for name in names or [entry.site for entry in self.request.confirmations]:
            self.server.add_reply(self.at(name).unmask(self.request))
        return self

    def total(self) -> np.ndarray:
        return self.server.total(iter(self.masked.items()))

    def plain_sum(self) -> np.ndarray:
        vectors = [self.vectors[name] for name in self.masked]
        return np.sum(vectors, axis=0, dtype=vectors[0].dtype)

    @contextlib.contextmanager
    def unmoved(self, name: str) -> Iterator[SecureSite]:
        """A site that must stand where it stood afterwards."""
        before = self.sites[name].to_bytes()
        yield self.sites[name]
        assert self.sites[name].to_bytes() == before


@pytest.fixture(scope="session")
def play() -> type[Play]:
    return Play


@pytest.fixture(scope="session")
def key_of() -> Callable[[str], PrivateKey]:
    return identity


@pytest.fixture(scope="session")
def refused():
    @contextlib.contextmanager
    def check(reason: str, site: str | None = None):
        with pytest.raises(SecureSumError) as caught:
            yield
        assert caught.value.reason == reason, str(caught.value)
        assert caught.value.remedy
        if site is not None:
            assert caught.value.site == site
            assert site in caught.value.what

    return check
