"""Whether the site's policy lets a study's privacy in, told from the two documents alone (rows 0 and 1).

Comes in: a study and the site's document. Goes out: nothing, or a refusal that names the key of the policy.
What was spent already is ``spending``'s.
"""

from __future__ import annotations

from cardionets_core.config.site import SiteConfig
from cardionets_core.config.study import Study
from cardionets_core.errors import PhaseNotPermittedError


def check_policy(study: Study, config: SiteConfig) -> None:
    """Whether the site's policy lets a study's privacy in.

    Raises:
        PhaseNotPermittedError: names the key of the policy.
    """
    policy, asked = config.policy.privacy, study.privacy
    if asked.mechanism == "none":
        if policy.required:
            raise PhaseNotPermittedError(
                "this site trains only with differential privacy; the study has none",
                where="site.yaml: policy.privacy.required",
                remedy="ask the coordinator for privacy: {mechanism: dp_sgd}",
            )
        return
    if asked.delta > policy.maximum_delta:
        raise PhaseNotPermittedError(
            f"the study's delta is {asked.delta:g}; the policy allows {policy.maximum_delta:g}",
            where="site.yaml: policy.privacy.maximum_delta",
        )
    if asked.epsilon is not None and asked.epsilon > policy.maximum_epsilon:
        raise PhaseNotPermittedError(
            f"the study's epsilon is {asked.epsilon:g}; the policy allows {policy.maximum_epsilon:g}",
            where="site.yaml: policy.privacy.maximum_epsilon",
        )
    if asked.deterministic and not policy.deterministic:
        raise PhaseNotPermittedError(
            "the study's noise follows from its public seed: it hides nothing",
            where="site.yaml: policy.privacy.deterministic",
            remedy="ask the coordinator to remove privacy.deterministic; it is for made-up patients alone",
        )
