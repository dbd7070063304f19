"""This site's part in the secure sums of a study: its sessions on disk, and its answers (rows 0, 8 to 10).

Comes in: an order with a step of the protocol. Goes out: the step's message, or a masked vector. A session's
state is on the disk before its answer leaves; it holds secrets, has mode 0600, and goes when later rounds
have begun. The terms come from the study that IT approved, never from the server. The protocol is
``privacy.secure_sum``'s.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from cardionets_core.config.study import Study
from cardionets_core.durable import on_disk
from cardionets_core.errors import OrderRefusedError, SecureSumError
from cardionets_core.exchange.messages import Order, Reply, RoundName
from cardionets_core.exchange.secure import SecurePart, SecureStep
from cardionets_core.privacy.secure_sum import (
    Participants,
    SecureSite,
    ShareDelivery,
    Survivors,
    Terms,
    UnmaskRequest,
)
from cardionets_core.privacy.secure_sum.fixed_point import Ring
from cardionets_core.tasks import Role, Task
from cardionets_core.training.secure_round import Question, form_of, secure_of, terms_of, vector_of
from cardionets_core.trust.keys import PrivateKey
from cardionets_core.trust.secret_files import write_file
from client.heads import journal_key

FOLDER = "secure"
ROUNDS_KEPT = 2
OPEN = ("advertised", "shared", "masked")
"""Steps after which nothing of the site's vector can have become known yet."""


class SecureSessions:
    """The sessions of one site.

    Args:
        site: its name.
        root: the folder of ``site.yaml``.
        state: the folder of states.
    """

    def __init__(self, site: str, *, root: Path, state: Path) -> None:
        self._site = site
        self._root = root
        self._state = state
        self._folder = state / FOLDER

    def answer(self, order: Order, study: Study) -> bytes:
        """The message of a step that needs no vector.

        Raises:
            OrderRefusedError: there is no such step.
            SecureSumError: the step is refused.
            StorageFailedError: the disk did not take the session's state.
        """
        asked = _step_of(order)
        terms = terms_of(study, order.name, asked.part)
        if asked.step == "advertise":
            session = self._begin(terms, order.name, asked.part, study)
            message = session.advertise().to_bytes()
        else:
            session = self._resume(terms, order.name, asked.part)
            message = self._made(session, asked)
        self._keep(session, order.name, asked.part)
        return message

    def masked(self, order: Order, study: Study, vector: Ring) -> Ring:
        """The site's vector, masked.

        Raises:
            OrderRefusedError: the order brings no shares.
            SecureSumError: the step is refused.
            StorageFailedError: the disk did not take the session's state.
        """
        asked = _step_of(order)
        if asked.step != "mask":
            raise OrderRefusedError(f"the step {asked.step} masks nothing", where="order")
        session = self._resume(terms_of(study, order.name, asked.part), order.name, asked.part)
        found = session.mask(ShareDelivery.from_bytes(asked.message), vector)
        self._keep(session, order.name, asked.part)
        return found

    def _made(self, session: SecureSite, asked: SecureStep) -> bytes:
        if asked.step == "share":
            return session.share(Participants.from_bytes(asked.message)).to_bytes()
        if asked.step == "confirm":
            survivors = Survivors.from_bytes(asked.message)
            return session.confirm(survivors, identity=self._key()).to_bytes()
        if asked.step == "unmask":
            return session.unmask(UnmaskRequest.from_bytes(asked.message)).to_bytes()
        raise OrderRefusedError(f"the step {asked.step} goes with an order that it hides", where="order")

    def _begin(self, terms: Terms, name: RoundName, part: SecurePart, study: Study) -> SecureSite:
        """A new session, or the one that was begun: then its keys are told again.

        Raises:
            SecureSumError: ``already-answered``: the same values may be known from another attempt.
        """
        path = self._path(name, part)
        if path.exists():
            return SecureSite.resume(path.read_bytes(), terms, site=self._site)
        for other in sorted(path.parent.glob("*.json")):
            earlier = replace(name, attempt=int(other.stem))
            before = SecureSite.resume(other.read_bytes(), terms_of(study, earlier, part), site=self._site)
            if before.step not in OPEN:
                raise SecureSumError(
                    "another attempt of this sum was confirmed here: two sums of the same values over other "
                    "sites would tell the difference",
                    where="secure sum",
                    remedy="the coordinator goes on with the attempt that was confirmed",
                    reason="already-answered",
                )
        self._prune(name)
        return SecureSite.begin(terms, site=self._site, identity=self._key())

    def _resume(self, terms: Terms, name: RoundName, part: SecurePart) -> SecureSite:
        path = self._path(name, part)
        if not path.exists():
            raise SecureSumError(
                "this site has not begun such a session, or has lost it",
                where="secure sum",
                remedy="nothing: it takes part in the next attempt",
                reason="out-of-order",
            )
        return SecureSite.resume(path.read_bytes(), terms, site=self._site)

    def _keep(self, session: SecureSite, name: RoundName, part: SecurePart) -> None:
        path, content = self._path(name, part), session.to_bytes()
        if path.exists() and path.read_bytes() == content:
            return
        with on_disk(self._state, keeps="nothing left the site"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, content, secret=True, replace=True)

    def _path(self, name: RoundName, part: SecurePart) -> Path:
        return self._round_folder(name) / part / f"{name.attempt:04d}.json"

    def _round_folder(self, name: RoundName) -> Path:
        return self._folder / name.study_digest[:24] / f"{name.phase:02d}-{name.round:05d}"

    def _prune(self, name: RoundName) -> None:
        """Earlier rounds are over once a later one has begun; secrets that nobody needs go."""
        folder = self._round_folder(name)
        for old in sorted(folder.parent.glob("*-*"))[:-ROUNDS_KEPT]:
            if old.name < folder.name:
                shutil.rmtree(old, ignore_errors=True)

    def _key(self) -> PrivateKey:
        return journal_key(self._root, self._state)


class Masking:
    """Makes the one vector that leaves in the place of a reply.

    Args:
        sessions: of the site.
        order: with the tensors that the changes are told from, and the shares of the others.
        study: with secure aggregation.
        task: of the phase.
        role: of the site in it.
    """

    def __init__(
        self, sessions: SecureSessions, *, order: Order, study: Study, task: Task, role: Role
    ) -> None:
        self._sessions = sessions
        self._order = order
        self._study = study
        self._task = task
        self._role = role

    def mask(self, reply: Reply) -> Ring:
        """The reply as a masked vector.

        Raises:
            FixedPointRangeError: a value of it is too large for the study's range.
            OrderRefusedError: the order does not belong to a secure sum.
            SecureSumError: the session refuses.
        """
        order, part = self._order, _step_of(self._order).part
        if part != (order.split if order.kind == "evaluate" else order.kind):
            raise OrderRefusedError(f"the sum of {part} does not answer this order", where="order")
        asked = Question(task=self._task, part=part, measures=order.measure and order.kind == "train")
        sizes = {name: module.values.size for name, module in order.modules.items()}
        form = form_of(self._study, asked, sizes)
        vector = vector_of(
            reply,
            form,
            secure=secure_of(self._study),
            weight=self._role.weight,
            sent=lambda name: order.modules[name].values,
        )
        return self._sessions.masked(order, self._study, vector)


def _step_of(order: Order) -> SecureStep:
    if order.secure is None:
        raise OrderRefusedError(
            "the study asks for secure aggregation: nothing leaves but a masked vector",
            where="order",
            remedy="compare versions: this coordinator asks for plain answers",
        )
    return order.secure
