"""Heads, fusion, and the modules that are solved from sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from cardionets_core.models import DISEASES, PHENOTYPES, SUBTYPES, build_module
from cardionets_core.models.fusion_head import FusionHead
from cardionets_core.models.heads import DISEASE_NAMES, SUBTYPE_NAMES
from cardionets_core.models.solved import (
    CmrPrincipal,
    PhenotypeStandardiser,
    ScreeningCalibration,
    ScreeningPrior,
)
from cardionets_core.models.transformer import Block, make_blocks


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_screening_columns_are_diseases_then_subtypes():
    assert (len(DISEASE_NAMES), len(SUBTYPE_NAMES)) == (DISEASES, SUBTYPES)
    head = build_module("screening_head", "nano", seed=0)
    feature = normal(3, 64)
    found = head(feature)
    assert found.shape == (3, 8)
    assert torch.equal(found[:, 2:3], head.diseases["hf"](feature))
    assert torch.equal(found[:, 5:], head.subtype(feature))


def test_one_disease_trains_its_own_map_alone():
    head = build_module("screening_head", "nano", seed=0)
    head(normal(3, 64))[:, 1].sum().backward()
    moved = {name for name, p in head.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"diseases.cm.weight", "diseases.cm.bias"}


def test_the_phenotype_head_has_two_hidden_layers():
    head = build_module("phenotype_head", "paper", seed=0)
    assert [(p.in_features, p.out_features) for p in head if isinstance(p, nn.Linear)] == [
        (768, 256),
        (256, 128),
        (128, PHENOTYPES),
    ]
    assert head(normal(2, 768)).shape == (2, 82)


@pytest.mark.parametrize(
    ("size", "count"), [((64, 1, 4), 50_177), ((256, 2, 4), 1_580_289), ((768, 4, 8), 28_353_793)]
)
def test_fusion_with_one_logit_has_the_parameters_of_the_table(size, count):
    with torch.device("meta"):
        head = FusionHead(width=size[0], depth=size[1], heads=size[2], outputs=1)
    assert sum(p.numel() for p in head.parameters()) == count


def test_fusion_reads_both_and_ignores_the_order_of_tokens():
    head = build_module("fusion_head", "small", seed=0).eval()
    ecg, cmr = normal(2, 30, 256), normal(2, 65, 256, seed=1)
    found = head(ecg, cmr)
    assert found.shape == (2, 5)
    assert torch.allclose(found, head(ecg.flip(1), cmr), atol=1e-4)
    assert not torch.allclose(found, head(ecg[:, 1:], cmr), atol=1e-3)
    assert not torch.allclose(found, head(ecg, cmr[:, 1:]), atol=1e-3)
    assert torch.allclose(found[:1], head(ecg[:1], cmr[:1]), atol=1e-4)


def test_drop_path_grows_to_its_value_and_leaves_out_whole_rows():
    assert [block.drop_path for block in make_blocks(8, depth=3, heads=2, epsilon=1e-6, drop_path=0.1)] == [
        0.0,
        0.05,
        0.1,
    ]
    block = Block(8, 2, epsilon=1e-6, drop_path=0.5).train()
    with torch.no_grad():
        block.mlp[-1].weight.zero_()
        block.mlp[-1].bias.zero_()
    tokens = normal(400, 3, 8)
    plain = block.eval()(tokens) - tokens
    torch.manual_seed(0)
    moved = block.train()(tokens) - tokens
    kept = (moved.flatten(1).abs().sum(dim=1) > 0).float()
    assert torch.allclose(moved, 2 * kept[:, None, None] * plain, atol=1e-5), "a row is dropped as a whole"
    assert abs(float(kept.detach().mean()) - 0.5) < 4 * 0.5 / math.sqrt(400)


def test_solved_modules_begin_neutral():
    logits, values = normal(3, 8), normal(3, 82)
    assert torch.equal(build_module("phenotype_standardiser", "nano", seed=0)(values), values)
    assert torch.equal(build_module("screening_prior", "nano", seed=0)(logits), logits)
    assert torch.equal(build_module("screening_calibration", "nano", seed=0)(logits), logits)
    principal = build_module("cmr_principal", "nano", seed=0)
    feature = normal(3, 64)
    assert torch.equal(principal(feature), feature[:, : len(principal.variance)])
    assert principal.sigma_squared.shape == (1,)


def test_standardise_and_restore_are_inverse_and_keep_nan():
    module = PhenotypeStandardiser(3)
    with torch.no_grad():
        module.mean.copy_(torch.tensor([150.0, 60.0, 5.0]))
        module.deviation.copy_(torch.tensor([30.0, 8.0, 0.5]))
    values = torch.tensor([[180.0, 52.0, float("nan")]])
    found = module.standardise(values)
    assert torch.allclose(found[:, :2], torch.tensor([[1.0, -1.0]])) and found[0, 2].isnan()
    assert torch.allclose(module.restore(found)[:, :2], values[:, :2])


def test_prior_adds_log_odds_and_calibration_leaves_subtypes():
    prior, calibration = ScreeningPrior(2, 3), ScreeningCalibration(2)
    with torch.no_grad():
        prior.logit.copy_(torch.tensor([math.log(0.1 / 0.9), 0.0]))
        prior.log_share.copy_(torch.tensor([0.5, 0.3, 0.2]).log())
        calibration.slope.copy_(torch.tensor([2.0, 1.0]))
        calibration.intercept.copy_(torch.tensor([0.0, -1.0]))
    zero = torch.zeros(1, 5)
    assert torch.allclose(prior(zero)[:, :2].sigmoid(), torch.tensor([[0.1, 0.5]]))
    assert torch.allclose(prior(zero)[:, 2:].softmax(1), torch.tensor([[0.5, 0.3, 0.2]]))
    assert prior(zero[:, :2]).shape == (1, 2)
    assert torch.equal(calibration(torch.ones(1, 5)), torch.tensor([[2.0, 0.0, 1.0, 1.0, 1.0]]))
    assert torch.equal(calibration(torch.ones(1, 2)), torch.tensor([[2.0, 0.0]]))


def test_principal_coordinates_equal_scikit_learn():
    features = normal(50, 6).numpy() @ np.diag([5.0, 3.0, 1.0, 0.5, 0.2, 0.1]) + 7.0
    reference = PCA(n_components=2).fit(features)
    module = CmrPrincipal(6, 2)
    with torch.no_grad():
        module.mean.copy_(torch.tensor(reference.mean_))
        module.components.copy_(torch.tensor(reference.components_))
    found = module(torch.tensor(features, dtype=torch.float32))
    assert np.allclose(found.detach().numpy(), reference.transform(features), atol=1e-4)
