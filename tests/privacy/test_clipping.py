"""No patient adds more than the bound, for any number of records (SCIENCE 8.17)."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, grad, vmap

from cardionets_core.models import build_module
from cardionets_core.privacy.clipping import clip_by_patient

WIDTH = 64
HEAD = build_module("phenotype_head", "nano", seed=1)


def record_gradients(records: int, *, seed: int = 0, scale: float = 30.0) -> dict[str, torch.Tensor]:
    """One gradient a record of the phenotype head's squared error."""
    draw = torch.Generator().manual_seed(seed)
    feature_BD = torch.randn(records, WIDTH, generator=draw)
    target_BK = scale * torch.randn(records, 82, generator=draw)

    def loss(parameters, feature_D, target_K):
        return (functional_call(HEAD, parameters, (feature_D[None],))[0] - target_K).square().sum()

    parameters = {name: value.detach() for name, value in HEAD.named_parameters()}
    return vmap(grad(loss), in_dims=(None, 0, 0))(parameters, feature_BD, target_BK)


def norm(gradients: dict[str, torch.Tensor]) -> float:
    return float(sum(value.double().square().sum() for value in gradients.values()) ** 0.5)


def difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: first[name] - second[name] for name in first}


def part(gradients: dict[str, torch.Tensor], chosen: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: value[chosen] for name, value in gradients.items()}


@pytest.mark.parametrize("records", [1, 2, 5, 40])
@pytest.mark.parametrize("bound", [0.01, 1.0, 250.0])
def test_no_patient_adds_more_than_the_bound(records, bound):
    patient_B = torch.tensor([7] * records + [3, 3, 900, 2**40])
    gradients = record_gradients(len(patient_B))
    together = clip_by_patient(gradients, patient_B, bound=bound)
    for patient in patient_B.unique():
        rest = patient_B != patient
        without = clip_by_patient(part(gradients, rest), patient_B[rest], bound=bound)
        assert norm(difference(together, without)) <= bound * (1 + 1e-4)
        alone = clip_by_patient(part(gradients, ~rest), patient_B[~rest], bound=bound)
        assert norm(alone) == pytest.approx(bound, rel=1e-5), "these gradients are far above the bound"


def test_clipping_each_record_would_break_the_bound():
    """What the identity guards against: records that agree, as those of one patient do."""
    one = record_gradients(1)
    five = {name: value.expand(5, *value.shape[1:]) for name, value in one.items()}
    as_five_patients = clip_by_patient(five, torch.arange(5), bound=1.0)
    assert norm(as_five_patients) == pytest.approx(5.0, rel=1e-5)
    assert norm(clip_by_patient(five, torch.zeros(5, dtype=torch.int64), bound=1.0)) == pytest.approx(1.0)


def test_below_the_bound_it_is_the_plain_sum():
    gradients = record_gradients(6, scale=0.1)
    found = clip_by_patient(gradients, torch.tensor([0, 0, 1, 2, 2, 2]), bound=1e9)
    for name, value in gradients.items():
        assert torch.allclose(found[name], value.sum(dim=0), rtol=1e-4, atol=1e-5), name


def test_directions_are_kept_and_order_does_not_matter():
    gradients = record_gradients(6)
    patient_B = torch.tensor([4, 9, 4, 9, 9, 4])
    mine = patient_B == 4
    clipped = clip_by_patient(part(gradients, mine), patient_B[mine], bound=2.0)
    plain = {name: value[mine].sum(dim=0) for name, value in gradients.items()}
    for name, value in clipped.items():
        assert torch.allclose(value, plain[name] * (2.0 / norm(plain)), atol=1e-5), name
    order = torch.tensor([5, 3, 1, 0, 4, 2])
    first = clip_by_patient(gradients, patient_B, bound=2.0)
    second = clip_by_patient(part(gradients, order), patient_B[order], bound=2.0)
    assert norm(difference(first, second)) < 1e-4


def test_no_record_no_gradient_and_faults():
    none = {"weight": torch.zeros(0, 3, 2)}
    empty_B = torch.zeros(0, dtype=torch.int64)
    assert torch.equal(clip_by_patient(none, empty_B, bound=1.0)["weight"], torch.zeros(3, 2))
    still = {"weight": torch.zeros(2, 3)}
    assert torch.equal(clip_by_patient(still, torch.tensor([0, 1]), bound=1.0)["weight"], torch.zeros(3))
    with pytest.raises(ValueError, match="above 0"):
        clip_by_patient(still, torch.tensor([0, 1]), bound=0.0)
    with pytest.raises(ValueError, match="one gradient for each of 3"):
        clip_by_patient(still, torch.tensor([0, 1, 2]), bound=1.0)
