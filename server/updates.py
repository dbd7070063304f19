"""Updates in the study's wire precision become the modules that they lead to (before row 11 of the walk).

Comes in: a reply as it arrived. Goes out: the same reply with float32 modules, so that its checks, the round
store and the strategies do not know how it travelled. Whether the values may touch the model is not judged
here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from cardionets_core.errors import PeerError, ReplyRefusedError
from cardionets_core.exchange.messages import PackedModule, Reply
from cardionets_core.exchange.tensors import Layout
from cardionets_core.exchange.updates import from_update
from cardionets_core.training.local_rule import LocalRule


def with_tensors(
    reply: Reply,
    *,
    site: str,
    layouts: Mapping[str, Layout],
    rule: LocalRule,
    current: Callable[[str], np.ndarray],
) -> Reply:
    """The reply with all its modules in float32.

    Args:
        reply: as it came.
        site: the sender.
        layouts: of the modules that the phase trains; any other is left as it came, for the checks.
        rule: names the form in which trained modules come; what a strategy sends beside them is exact.
        current: gives the flat values of a module that a change is added to.

    Raises:
        ReplyRefusedError: a module is in another form than the study's, or its codes are not sound.
    """
    modules: dict[str, PackedModule] = {}
    for name, module in reply.modules.items():
        wanted = rule.form if name in layouts else "fp32"
        if module.form != wanted:
            raise _refused(site, f"module {name} came in {module.form}, not in {wanted}")
        try:
            modules[name] = module if wanted == "fp32" else from_update(module, current(name))
        except PeerError as error:
            raise _refused(site, f"the update of {name} cannot be read: {error.what}") from error
    return replace(reply, modules=modules)


def _refused(site: str, what: str) -> ReplyRefusedError:
    return ReplyRefusedError(
        f"site {site} was left out of the round: {what}",
        where="reply",
        remedy="ask the site which version and study it runs",
    )
