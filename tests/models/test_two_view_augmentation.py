"""A pose is drawn once and moves both views of a heart alike, whatever their sizes; nothing is mirrored."""

from __future__ import annotations

import math

import pytest
import torch

from cardionets_core.models.two_view_augmentation import Pose, draw_pose, pose_cine


def pose(*, angle=0.0, scale=1.0, shift=(0.0, 0.0)):
    return Pose(
        angle_rad_B=torch.tensor([angle]), scale_B=torch.tensor([scale]), shift_B2=torch.tensor([shift])
    )


def disc(pixels, centre, *, radius=0.15, frames=2):
    """A bright blurred disc on black; places are column and row in a cine that spans -1 to 1."""
    place = (torch.arange(pixels) + 0.5) * 2.0 / pixels - 1.0
    away = ((place[None, :] - centre[0]) ** 2 + (place[:, None] - centre[1]) ** 2).sqrt()
    return (2.0 * torch.sigmoid((radius - away) * 30.0) - 1.0).expand(1, frames, pixels, pixels)


def centroid(cine):
    light = cine[0, 0] + 1.0
    place = (torch.arange(len(light)) + 0.5) * 2.0 / len(light) - 1.0
    return torch.stack([(light * place[None, :]).sum(), (light * place[:, None]).sum()]) / light.sum()


def landing(centre, given):
    """Where a place of the cine lies in the result: the pose undone by hand."""
    angle, scale = float(given.angle_rad_B[0]), float(given.scale_B[0])
    column, row = (at - float(by) for at, by in zip(centre, given.shift_B2[0], strict=True))
    return torch.tensor(
        [
            (math.cos(angle) * column + math.sin(angle) * row) / scale,
            (-math.sin(angle) * column + math.cos(angle) * row) / scale,
        ]
    )


@pytest.mark.parametrize("pixels", [24, 80, 96])
def test_a_pose_that_changes_nothing_gives_the_cine_back(pixels):
    cine = torch.rand(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    assert (pose_cine(cine, pose()) - cine).abs().max() < 1e-5


@pytest.mark.parametrize(
    "given",
    [
        pose(shift=(0.2, -0.1)),
        pose(scale=0.8),
        pose(angle=math.radians(30.0)),
        pose(angle=math.radians(-20.0), scale=0.85, shift=(-0.1, 0.15)),
    ],
    ids=["shift", "scale", "turn", "all"],
)
def test_a_disc_lands_where_the_pose_says_in_both_views(given):
    centre = (0.3, -0.2)
    landed = [centroid(pose_cine(disc(pixels, centre), given)) for pixels in (80, 96)]
    for found in landed:
        assert torch.allclose(found, landing(centre, given), atol=0.01)
    assert torch.allclose(*landed, atol=0.005)


def test_all_frames_move_alike_and_each_row_by_its_own_pose():
    cine = disc(48, (0.3, -0.2)).expand(2, 2, 48, 48)
    given = draw_pose(2, generator=torch.Generator().manual_seed(3))
    posed = pose_cine(cine, given)
    assert torch.equal(posed[:, 0], posed[:, 1])
    assert not torch.allclose(posed[0], posed[1], atol=0.1)
    for row in range(2):
        one = Pose(
            angle_rad_B=given.angle_rad_B[[row]],
            scale_B=given.scale_B[[row]],
            shift_B2=given.shift_B2[[row]],
        )
        assert torch.allclose(pose_cine(cine[[row]], one), posed[[row]], atol=1e-6)


def test_nothing_is_ever_mirrored():
    """Three discs in clockwise order stay in clockwise order."""
    places = [(0.0, -0.4), (0.35, 0.3), (-0.35, 0.3)]
    given = draw_pose(20, generator=torch.Generator().manual_seed(0))
    for row in range(20):
        one = Pose(
            angle_rad_B=given.angle_rad_B[[row]],
            scale_B=given.scale_B[[row]],
            shift_B2=given.shift_B2[[row]],
        )
        first, second, third = (centroid(pose_cine(disc(48, place), one)) for place in places)
        sides = torch.stack([second - first, third - first])
        assert float(torch.linalg.det(sides)) > 0.0


def test_draws_cover_their_ranges_and_stay_in_them():
    given = draw_pose(5000, generator=torch.Generator().manual_seed(0))
    degrees = torch.rad2deg(given.angle_rad_B)
    assert -30.0 <= degrees.min() < -29.0 and 29.0 < degrees.max() <= 30.0
    assert abs(float(degrees.mean())) < 1.0
    assert 0.8 <= given.scale_B.min() < 0.805 and 0.995 < given.scale_B.max() <= 1.0
    assert float(given.scale_B.mean()) == pytest.approx(0.9, abs=0.005)
    # Before it is turned, the square lies within the cine.
    assert (given.shift_B2.abs() + given.scale_B[:, None]).max() <= 1.0 + 1e-6
    share = given.shift_B2 / (1.0 - given.scale_B[:, None])
    assert share.min() < -0.99 and share.max() > 0.99
    assert share.std(dim=0).tolist() == pytest.approx([3**-0.5] * 2, abs=0.02)
    together = torch.stack([degrees, given.scale_B, *share.T]).corrcoef()
    assert torch.allclose(together, torch.eye(4), atol=0.05), "no draw follows from another"


def test_draws_repeat_with_the_seed_and_do_not_depend_on_later_rows():
    first, again = (draw_pose(3, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    longer = draw_pose(5, generator=torch.Generator().manual_seed(4))
    for name in ("angle_rad_B", "scale_B", "shift_B2"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert torch.equal(getattr(first, name), getattr(longer, name)[:3])


def test_values_stay_legal_and_what_lies_outside_is_black():
    cine = torch.ones(8, 2, 32, 32)
    posed = pose_cine(cine, draw_pose(8, generator=torch.Generator().manual_seed(0)))
    assert posed.min() >= -1.0 and posed.max() <= 1.0
    corner = pose_cine(cine[:1], pose(angle=math.radians(30.0)))[0, 0, 0, 0]
    assert float(corner) == -1.0
    noise = torch.rand(8, 2, 32, 32, generator=torch.Generator().manual_seed(0)).round() * 2.0 - 1.0
    posed = pose_cine(noise, draw_pose(8, generator=torch.Generator().manual_seed(1)))
    assert posed.min() >= -1.0 and posed.max() <= 1.0


def test_no_rows_are_legal():
    given = draw_pose(0, generator=torch.Generator())
    assert given.shift_B2.shape == (0, 2)
    assert pose_cine(torch.zeros(0, 3, 32, 32), given).shape == (0, 3, 32, 32)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="32 x 24 pixels are not a square cine"):
        pose_cine(torch.zeros(1, 3, 32, 24), pose())
    with pytest.raises(ValueError, match="2 cines for 1 poses"):
        pose_cine(torch.zeros(2, 3, 32, 32), pose())
