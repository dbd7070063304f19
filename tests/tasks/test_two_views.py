"""The earlier generation's two views: pretraining, alignment, sites with one view or none, privacy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cardionets_core.config.generation import CHOICES, GENERATIONS, Parts, models_name, parts_of, split_name
from cardionets_core.config.study import Phase, Study
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.windows import evaluation_starts
from cardionets_core.errors import ConfigError, UnknownNameError
from cardionets_core.losses import info_nce
from cardionets_core.models import MODULES, build_module, get_preset
from cardionets_core.models.two_view_augmentation import draw_pose, pose_cine
from cardionets_core.privacy.counts import PEOPLE, check_counts
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.tasks.cases import conditions_of, kept_conditions
from cardionets_core.tasks.features import ecg_features
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.tasks.short_axis import short_axis_modules, short_axis_site
from cardionets_core.tasks.two_view_pretraining import SMALLEST_CONTRAST
from cardionets_core.tasks.view_rows import view_rows
from cardionets_core.training import train_locally
from cardionets_core.training.local import check_phase
from cardionets_core.training.private import check_decomposes
from cardionets_core.training.seeds import derive_seed
from cardionets_core.training.tensors import export_tensors
from server.phase_order import check_order
from simulation.central import train_centrally

pytestmark = pytest.mark.usefixtures("single_thread")
CPU = torch.device("cpu")
MODELS = "nano+cardiacnets"
PARTS = get_preset(MODELS).parts
SAMPLES = 600


def make_cohort(long: list[bool], short: list[bool], *, ecg: bool = True, seed: int = 0) -> Cohort:
    """One row a person, with a 4-chamber cine and a short-axis cine where the lists say so."""
    rng, rows = np.random.default_rng(seed), len(long)
    items = np.arange(2 * rows)
    return Cohort(
        site="a",
        digest="a",
        ecg_counts=rng.integers(-900, 900, rows * 12 * SAMPLES).astype(np.int16),
        ecg_offsets=np.arange(rows) * SAMPLES,
        ecg_samples=np.full(rows, SAMPLES),
        cines=rng.integers(0, 256, (2 * rows, 50, 96, 96)).astype(np.uint8),
        row_patient=np.arange(rows),
        row_split=np.zeros(rows, dtype=np.int8),
        row_ecg=np.arange(rows) if ecg else np.full(rows, -1),
        row_cine=np.where(long, items[:rows], -1),
        row_views={"sax": np.where(short, items[rows:], -1)},
        phenotypes=rng.normal(size=(rows, 82)).astype(np.float32),
        diseases=rng.integers(0, 2, (rows, 8)).astype(np.float32),
    )


def view(cohort: Cohort) -> SiteView:
    return SiteView(cohort=cohort, shape=shape_of(MODELS), device=CPU)


def make_modules() -> dict[str, torch.nn.Module]:
    modules = {name: build_module(name, MODELS, seed=1) for name in MODULES}
    generator = torch.Generator().manual_seed(5)
    for name in ("cmr_principal", "sax_principal"):
        for parameter in modules[name].parameters():
            parameter.data.normal_(generator=generator).abs_()
    return modules


def loss_of(task, modules, cohort, *, seed=0, role=None):
    """The loss of all rows as one batch, with the draws of a seed."""
    site, role = view(cohort), role or task.roles[0]
    task.prepare_modules(modules, role)
    state = task.open_round(modules, site, role)
    rows = site.rows(role.row_needs, "train")
    keys = role.row_needs if task.batch_keys is None else task.batch_keys
    batch = cohort.batch(rows, keys=keys, shape=site.shape, generator=np.random.default_rng(0))
    return task.loss(modules, batch, state, generator=torch.Generator().manual_seed(seed))


def test_names_of_models_and_their_parts_are_one_to_one():
    names = set()
    for ecg in CHOICES["ecg_encoder"]:
        for cmr in CHOICES["cmr_encoder"]:
            for generator in CHOICES["cmr_generator"]:
                parts = Parts(ecg_encoder=ecg, cmr_encoder=cmr, cmr_generator=generator)
                name = models_name("small", parts)
                names.add(name)
                assert split_name(name) == ("small", parts)
                assert (get_preset(name).name, get_preset(name).parts) == (name, parts)
    assert len(names) == 12 and {"small", "small+cardiacnets", "small+vit+swin", "small+vit-film"} <= names
    assert split_name("small+swin+vit") == split_name("small+vit+swin")
    assert parts_of("cardiacnets", {"cmr_generator": "mar"}) == split_name("nano+vit+swin")[1]
    with pytest.raises(UnknownNameError, match="did you mean 'swin'"):
        get_preset("nano+swim")
    for generation, chosen in (
        ("cardiacnet", {}),
        ("cardionets", {"ecg": "vit"}),
        ("cardionets", {"ecg_encoder": "swin"}),
    ):
        with pytest.raises(UnknownNameError):
            parts_of(generation, chosen)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_study_chooses_a_generation_or_a_part_by_name(generation):
    content = {"name": "s", "preset": "nano", "phases": [{"task": "ecg_mae", "rounds": 1}]}
    study = Study.model_validate({**content, "generation": generation})
    assert study.models == {"cardionets": "nano", "cardiacnets": MODELS}[generation]
    part = Study.model_validate({**content, "generation": generation, "parts": {"cmr_encoder": "swin"}})
    assert part.model_parts == replace(study.model_parts, cmr_encoder="swin")
    assert len({study.digest, part.digest, Study.model_validate(content).digest}) == (
        3 if generation == "cardiacnets" else 2
    )
    for wrong in ({"generation": "cardio"}, {"parts": {"cmr_encoder": "resnet"}}, {"preset": MODELS}):
        with pytest.raises(ValueError, match=r"generation|parts|preset"):
            Study.model_validate({**content, **wrong})


@pytest.mark.parametrize(
    ("name", "millions"), [("ecg_encoder", 303), ("cmr_encoder", 87), ("sax_encoder", 87)]
)
def test_published_parameter_counts(name, millions):
    module = build_module(name, "paper+cardiacnets", seed=0, device="meta")
    assert sum(p.numel() for p in module.parameters()) == pytest.approx(millions * 1e6, rel=0.01)


def test_the_contrast_of_two_equal_towers_has_its_closed_form():
    """Orthogonal, equal embeddings: ``ln(1 + (B - 1) exp(-1/T))``; all alike: ``ln B`` (SCIENCE 8.2)."""
    task, modules = make_task("cmr_mae", {"augment": False}, PARTS), make_modules()
    rows = 12
    cohort = make_cohort([True] * rows, [True] * rows)

    class Row(torch.nn.Module):
        """The unit vector of a row, or one vector for all."""

        def __init__(self, tower, alike):
            super().__init__()
            self.tower, self.alike = tower, alike

        def __getattr__(self, name):
            return super().__getattr__(name) if name in ("tower", "alike") else getattr(self.tower, name)

        def forward(self, cine):
            eye = torch.eye(32)[: len(cine)]
            return eye[:1].expand_as(eye) if self.alike else eye

    for alike, expected in ((False, math.log(1 + (rows - 1) * math.exp(-10.0))), (True, math.log(rows))):
        own = make_modules()
        for tower, projection in (("cmr_encoder", "cmr_projection"), ("sax_encoder", "sax_projection")):
            own[tower] = Row(modules[tower], alike)
            own[projection] = torch.nn.Identity()
        found = task._contrast(  # the part of the loss that the towers decide
            views_of(own, cohort), torch.arange(rows)
        )[0]
        assert float(found) == pytest.approx(expected, abs=1e-6)


def views_of(modules, cohort):
    batch = cohort.batch(np.arange(len(cohort.row_patient)), keys=frozenset({"cmr"}), shape=shape_of(MODELS))
    return view_rows(modules, batch)


def test_pretraining_adds_the_two_autoencoders_and_the_contrast():
    cohort, modules = make_cohort([True] * 9, [True] * 9), make_modules()

    def found(**options):
        return loss_of(make_task("cmr_mae", {"augment": False, **options}, PARTS), modules, cohort)

    off, clip = found(contrast="off"), found(contrast="clip")
    whole = float(off.total.detach())
    assert whole == pytest.approx(off.parts["masked_mse_4ch"] + off.parts["masked_mse_sax"], rel=1e-6)
    assert float(clip.total.detach()) == pytest.approx(whole + clip.parts["clip"], rel=1e-6)
    assert off.per_sample_B is not None and clip.per_sample_B is None
    with torch.no_grad():
        views = views_of(modules, cohort).values()
        embedded = [v.modules["cmr_projection"](v.modules["cmr_encoder"](v.cine_BFYX)) for v in views]
    expected = float(info_nce(embedded[1], embedded[0], temperature=0.1))
    assert clip.parts["clip"] == pytest.approx(expected, rel=1e-5)


def test_rows_with_one_view_reconstruct_it_and_leave_the_other_alone():
    """A row's loss is the sum of its own views'; a batch with few pairs has no contrast."""
    modules = make_modules()
    long, short = [True, True, False, True], [True, False, True, True]
    task = make_task("cmr_mae", {"augment": False, "contrast": "off"}, PARTS)
    mixed = loss_of(task, modules, make_cohort(long, short)).per_sample_B
    both = loss_of(task, modules, make_cohort([True] * 4, [True] * 4)).per_sample_B
    for row in (0, 3):
        assert float(mixed[row].detach()) == pytest.approx(float(both[row].detach()), rel=1e-5)
    for row in (1, 2):
        assert 0.0 < float(mixed[row].detach()) < float(both[row].detach())
    assert SMALLEST_CONTRAST > 2
    coupled = loss_of(make_task("cmr_mae", {"augment": False}, PARTS), modules, make_cohort(long, short))
    assert float(coupled.total.detach()) == pytest.approx(float(mixed.mean().detach()), rel=1e-6)


def test_both_views_of_a_row_get_one_pose():
    rows = 5
    pose = draw_pose(rows, generator=torch.Generator().manual_seed(3))
    task = make_task("cmr_mae", {"contrast": "off"}, PARTS)
    cohort, modules = make_cohort([True] * rows, [True] * rows), make_modules()
    batch = cohort.batch(np.arange(rows), keys=frozenset({"cmr"}), shape=shape_of(MODELS))
    posed = task._posed(modules, batch, generator=torch.Generator().manual_seed(3))
    assert torch.equal(posed["4ch"].cine_BFYX, pose_cine(batch.cine_BFYX, pose))
    assert torch.equal(posed["sax"].cine_BFYX, pose_cine(batch.sax_BFYX, pose))


@pytest.mark.parametrize("loss", ["infonce", "weighted", "cosine", "sigmoid"])
def test_alignment_is_the_sum_of_a_term_a_view_over_the_rows_that_have_it(loss):
    modules = make_modules()
    rows = 24
    long = [row % 3 != 0 for row in range(rows)]
    short = [row % 2 != 0 for row in range(rows)]
    either = [a or b for a, b in zip(long, short, strict=True)]
    cohort = make_cohort(long, short)
    task, one_view = (
        make_task("align", {"loss": loss}, PARTS),
        make_task("align", {"loss": loss, "temperature": 0.1}),
    )
    site = view(cohort)
    found = loss_of(task, modules, cohort)
    seen = site.rows(task.needs, "train")
    assert seen.tolist() == np.flatnonzero(either).tolist()
    windows = cohort.batch(
        seen, keys=frozenset({"ecg"}), shape=site.shape, generator=np.random.default_rng(0)
    )
    expected, expected_B = 0.0, np.zeros(len(seen))
    for name, own, there in (
        ("4ch", modules, site),
        ("sax", short_axis_modules(modules), short_axis_site(site)),
    ):
        one_view.prepare_modules(own)
        state = one_view.open_round(own, there, one_view.roles[0])
        place = np.flatnonzero(np.isin(seen, there.rows(one_view.needs, "train")))
        part = replace(
            windows,
            patient_B=windows.patient_B[place],
            row_B=windows.row_B[place],
            ecg_BLT=windows.ecg_BLT[place],
        )
        term = one_view.loss(own, part, state, generator=torch.Generator().manual_seed(0))
        assert found.parts[f"{loss}_{name}"] == pytest.approx(float(term.total.detach()), rel=1e-5)
        expected += float(term.total.detach())
        if term.per_sample_B is not None:
            expected_B[place] += term.per_sample_B.detach().numpy()
    if task.decomposes:
        assert found.per_sample_B.detach().numpy() == pytest.approx(expected_B, rel=1e-4, abs=1e-6)
    else:
        assert float(found.total.detach()) == pytest.approx(expected, rel=1e-5)


def test_the_targets_of_alignment_are_heads_that_were_trained_before():
    task = make_task("align", {}, PARTS)
    assert task.trains == ("ecg_encoder", "ecg_projection")
    assert {"cmr_encoder", "cmr_projection", "sax_encoder", "sax_projection"} == set(task.reads)
    pretraining = make_task("cmr_mae", {}, PARTS)
    check_order([pretraining, task], initial=(), parts=PARTS)
    for before in ([], [make_task("cmr_mae", {"contrast": "off"}, PARTS)]):
        with pytest.raises(ConfigError, match="cmr_projection, which nothing before it makes") as caught:
            check_order([*before, task], initial=(), parts=PARTS)
        assert "task cmr_mae" in caught.value.remedy


KINDS = {
    "both": ([True] * 12, [True] * 12, True),
    "short axis alone": ([False] * 12, [True] * 12, True),
    "long axis alone": ([True] * 12, [False] * 12, True),
    "no cine": ([False] * 12, [False] * 12, True),
    "cines without ECGs": ([True] * 12, [True] * 12, False),
}
LONG, SHORT = ("cmr_encoder", "cmr_decoder"), ("sax_encoder", "sax_decoder")
ALIGNED = ("ecg_encoder", "ecg_projection")
TRAINED = {
    "both": {"cmr_mae": (*LONG, "cmr_projection", *SHORT, "sax_projection"), "align": ALIGNED},
    "short axis alone": {"cmr_mae": SHORT, "align": ALIGNED},
    "long axis alone": {"cmr_mae": LONG, "align": ALIGNED},
    "no cine": {"cmr_mae": (), "align": ("ecg_encoder",)},
    "cines without ECGs": {"cmr_mae": (*LONG, "cmr_projection", *SHORT, "sax_projection"), "align": ()},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_site_trains_what_its_views_can_serve(kind):
    long, short, ecg = KINDS[kind]
    site = view(make_cohort(long, short, ecg=ecg))

    def trained(task) -> tuple[str, ...]:
        return next((role.trains for role in task.roles if len(site.rows(role.needs, "train"))), ())

    found = {name: trained(make_task(name, {}, PARTS)) for name in ("cmr_mae", "align")}
    assert {name: set(value) for name, value in found.items()} == {
        name: set(value) for name, value in TRAINED[kind].items()
    }
    for view_name, held in (("4ch", any(long)), ("sax", any(short))):
        served = trained(make_task("tokenizer", {"view": view_name}, PARTS))
        assert bool(served) == held


@pytest.mark.parametrize(
    ("name", "options"),
    [("cmr_mae", {}), ("align", {}), ("align", {"loss": "dcco"}), ("align", {"loss": "sigmoid"})],
)
def test_a_loss_that_couples_its_rows_is_refused_under_privacy_by_name(name, options):
    with pytest.raises(ConfigError, match=f"the loss of task {name} couples the patients") as caught:
        check_decomposes(make_task(name, options, PARTS))
    assert "cosine" in caught.value.remedy
    cosine = {"cmr_mae": {"contrast": "cosine"}, "align": {"loss": "cosine"}}[name]
    check_decomposes(make_task(name, cosine, PARTS))


@pytest.mark.parametrize("name", ["cmr_mae", "principal", "tokenizer"])
def test_a_task_of_the_short_axis_is_the_task_on_a_site_whose_cines_are_those(name):
    parts = split_name("nano")[1]
    site = replace(view(make_cohort([True] * 6, [True] * 6)), shape=shape_of("nano"))
    modules = {module: build_module(module, "nano", seed=1) for module in MODULES}
    measured = []
    for task, there, own in (
        (make_task(name, {"view": "sax"}, parts), site, modules),
        (make_task(name, {}, parts), short_axis_site(site), short_axis_modules(modules)),
    ):
        measured.append(task.metric_sums(own, there, split="train", seed=3))
    assert measured[0].keys() == measured[1].keys() and measured[0]["n_rows"] == 6
    assert all(np.array_equal(value, measured[1][key]) for key, value in measured[0].items())
    usual = make_task(name, {}, parts).metric_sums(modules, site, split="train", seed=3)
    assert any(not np.array_equal(value, measured[0][key]) for key, value in usual.items())


def test_derived_arrays_of_two_views_do_not_take_each_other_s_place(tmp_path):
    from cardionets_core.tasks.bank import cine_bank
    from cardionets_core.tasks.kept import Kept

    site = replace(view(make_cohort([True] * 5, [True] * 5)), kept=Kept(tmp_path, cohort="c"))
    modules = make_modules()
    # Equal towers and digests: only the view tells their features apart.
    modules["sax_encoder"] = modules["cmr_encoder"]
    rows = np.arange(5)
    banks = [
        cine_bank(modules, site, rows, split="train"),
        cine_bank(short_axis_modules(modules), short_axis_site(site), rows, split="train"),
    ]
    assert not torch.equal(banks[0].feature_ND, banks[1].feature_ND)
    assert len(list(tmp_path.iterdir())) == 2
    again = cine_bank(short_axis_modules(modules), short_axis_site(site), rows, split="train")
    assert torch.equal(again.feature_ND, banks[1].feature_ND)


def test_covariates_reach_the_encoder_that_asks_for_them_and_no_other():
    """Age and sex change its feature in training and in evaluation; what is unknown is 0."""
    cohort = replace(
        make_cohort([True] * 3, [False] * 3),
        row_age_years=np.array([60.0, 75.0, np.nan], dtype=np.float32),
        row_sex=np.array([1, 0, -1], dtype=np.int8),
    )
    rows = np.arange(3)
    for models, expected in (
        ("nano+vit", None),
        ("nano+vit-film", [[0.0, 1.0, 1.0, 1.0], [1.5, 1.0, -1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]),
    ):
        site = SiteView(cohort=cohort, shape=shape_of(models), device=CPU)
        batch = cohort.batch(rows, keys=frozenset({"ecg"}), shape=site.shape, window=0)
        told = batch.covariates_BC
        assert (None if told is None else told.tolist()) == expected
        encoder = build_module("ecg_encoder", models, seed=1)
        plain = ecg_features(encoder, site, rows)
        if expected is None:
            assert encoder.film is None
            continue
        with torch.no_grad():
            for parameter in encoder.film.parameters():
                parameter.normal_(generator=torch.Generator().manual_seed(1))
        assert not torch.allclose(ecg_features(encoder, site, rows), plain, atol=1e-2)
        nobody = replace(cohort, row_age_years=np.full(3, np.nan), row_sex=np.full(3, -1))
        unknown = ecg_features(encoder, replace(site, cohort=nobody), rows)
        seen = ecg_features(encoder, site, rows)
        assert torch.equal(unknown[2], seen[2]) and not torch.allclose(unknown[:2], seen[:2], atol=1e-2)


def test_a_module_counts_the_rows_that_had_something_to_say_of_it():
    """What a mean over sites weighs a tower by: the rows that have its view, not all of the site's."""
    long, short = [True] * 21 + [False] * 9, [True] * 9 + [False] * 6 + [True] * 15
    cohort, modules = make_cohort(long, short), make_modules()
    phase = Phase.model_validate(
        {"task": "cmr_mae", "rounds": 1, "local_epochs": 1, "batch_size": 30, "optimiser": {"lr": 1e-4}}
    )
    task = make_task("cmr_mae", {}, PARTS)

    def counted(smallest_cell: int, people: Cohort = cohort) -> dict[str, int]:
        site = replace(view(people), smallest_cell=smallest_cell)
        result = train_locally(task, modules, site, phase=phase, round_index=1, seed=1)
        assert result.samples == 30
        found = result.samples_of
        assert all(found[f"{view}_encoder"] == found[f"{view}_decoder"] for view in ("cmr", "sax"))
        return {name.removesuffix("encoder"): n for name, n in found.items() if "decoder" not in name}

    both = sum(a and b for a, b in zip(long, short, strict=True))
    assert counted(5) == {"cmr_": 21, "sax_": 24, "cmr_projection": both, "sax_projection": both}
    # Six people lack the short axis: fewer than may be told of, so the tower counts all.
    assert counted(7)["sax_"] == 30 and counted(7)["cmr_"] == 21
    few = make_cohort([True] * 7 + [False] * 23, [True] * 30)
    assert counted(5, few)["cmr_projection"] == 0, "too few for a contrast"
    with pytest.raises(ConfigError, match="batch_size 4 is under the 8"):
        check_phase(task, phase.model_copy(update={"batch_size": 4}))


def test_a_kind_of_row_of_a_few_people_is_told_of_in_no_sum():
    """Neither a view that few people have, nor one that few lack, can be told from the counts."""
    for long, short in (
        ([True] * 30, [True] * 2 + [False] * 28),
        ([True] * 30, [True] * 28 + [False] * 2),
        ([True] * 28 + [False] * 2, [True] * 30),
    ):
        site = replace(view(make_cohort(long, short)), smallest_cell=5)
        for name in ("cmr_mae", "align"):
            task, modules = make_task(name, {}, PARTS), make_modules()
            sums = task.metric_sums(modules, site, split="train", seed=0)
            check_counts(sums, {**task.counts, **PEOPLE}, minimum=5)
            rows = float(sums["n_rows"][0])
            own = [float(sums[f"{v}/{'n' if name == 'cmr_mae' else 'n_rows'}"][0]) for v in ("4ch", "sax")]
            assert rows == 28 and all(n in (0, rows) for n in own) and max(own) == rows
        state = make_task("align", {"loss": "cosine"}, PARTS).open_round(
            make_modules(), site, make_task("align", {}, PARTS).roles[0]
        )
        assert len(state.of_view) == (1 if sum(short) == 2 else 2)


@pytest.mark.parametrize(("long", "short"), [(True, False), (False, True)])
def test_a_site_alone_with_one_view_trains_its_tower_and_aligns_to_no_random_head(long, short):
    """As in a federation: the other tower keeps its bytes, and the encoder stays as it was."""
    steps = {"rounds": 1, "local_steps": 1, "batch_size": 8, "optimiser": {"lr": 1e-2, "weight_decay": 0.1}}
    study = Study.model_validate(
        {
            "name": "alone",
            "generation": "cardiacnets",
            "phases": [{"task": "cmr_mae", **steps}, {"task": "align", **steps}],
        }
    )
    rows = 9
    ends = train_centrally(study, make_cohort([long] * rows, [short] * rows)).phase_ends
    begun = {
        name: export_tensors(build_module(name, MODELS, seed=derive_seed(study.seed, "initial", name)))
        for name in ends[-1]
    }
    moved = {
        n for n, end in ends[-1].items() if any(not np.array_equal(v, begun[n][k]) for k, v in end.items())
    }
    assert moved == ({"cmr_encoder", "cmr_decoder"} if long else {"sax_encoder", "sax_decoder"})


# -- Drawing -------------------------------------------------------------------------------------------


def test_the_condition_of_the_denoiser_is_the_feature_and_the_patches_by_their_time():
    modules, site = make_modules(), view(make_cohort([True] * 5, [False] * 5))
    needs = make_task("generate", {}, PARTS).needs
    rows, encoder = site.rows(needs, "train"), modules["ecg_encoder"]
    found = conditions_of(modules, site, rows)
    starts = evaluation_starts(SAMPLES, site.shape.ecg_samples)
    windows = [
        site.cohort.batch(rows, keys=frozenset({"ecg"}), shape=site.shape, window=window).ecg_BLT
        for window in range(len(starts))
    ]
    with torch.no_grad():
        feature_BD = torch.stack([encoder(each) for each in windows]).mean(dim=0)
        token_BND = torch.stack([encoder.tokens(each).mean(dim=1) for each in windows]).mean(dim=0)
    assert torch.allclose(found[:, 0], feature_BD, atol=1e-5)
    assert torch.allclose(found[:, 1:], token_BND, atol=1e-5)
    kept = kept_conditions(modules, site, needs=needs, split="train")
    assert kept.dtype == torch.float16 and torch.allclose(kept.float(), found, rtol=2e-3, atol=2e-3)
