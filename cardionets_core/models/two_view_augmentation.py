"""One pose for both views of a heart: rotation and crop, drawn once and applied to cines of any size.

Comes in: cines in [-1, 1]. Goes out: cines of the same size, black where the pose looks past the edge.
Nothing is ever mirrored: left and right of a heart are not alike.

Legend: B rows, F frames, Y rows and X columns of pixels, 2 column and row of a place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import affine_grid, grid_sample

LARGEST_ANGLE_RAD = math.radians(30.0)
LEAST_SCALE = 0.8
BLACK = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """What each cine is looked at through: a square, turned and smaller than the cine.

    Attributes:
        angle_rad_B: by which the square is turned, from the columns' axis towards the rows'; the heart in it
            turns the other way.
        scale_B: side of the square, as a share of the cine's.
        shift_B2: its centre's column and row; the cine spans -1 to 1, its own centre is 0.
    """

    angle_rad_B: torch.Tensor
    scale_B: torch.Tensor
    shift_B2: torch.Tensor


def draw_pose(rows: int, *, generator: torch.Generator) -> Pose:
    """Draw a pose for each row: turned by up to 30 degrees, four fifths of the side or more are kept.

    The square lies within the cine before it is turned. All draws are uniform, and those of a row do not
    depend on how many rows follow it.

    Args:
        rows: B.
        generator: a CPU generator; the draw does not depend on the device of the cines.
    """
    draw_B4 = torch.rand(rows, 4, generator=generator)
    scale_B = LEAST_SCALE + (1.0 - LEAST_SCALE) * draw_B4[:, 1]
    return Pose(
        angle_rad_B=LARGEST_ANGLE_RAD * (2.0 * draw_B4[:, 0] - 1.0),
        scale_B=scale_B,
        shift_B2=(1.0 - scale_B)[:, None] * (2.0 * draw_B4[:, 2:] - 1.0),
    )


def pose_cine(cine_BFYX: torch.Tensor, pose: Pose) -> torch.Tensor:
    """Each cine through its pose, all frames alike, bilinear: ``[B, F, Y, X]``.

    Args:
        cine_BFYX: cines in [-1, 1], on any device.
        pose: of as many rows.

    Raises:
        ValueError: the cines are not square, or there are not as many as poses.
    """
    batch, _, rows, columns = cine_BFYX.shape
    if rows != columns:
        raise ValueError(f"{rows} x {columns} pixels are not a square cine")
    if batch != len(pose.scale_B):
        raise ValueError(f"{batch} cines for {len(pose.scale_B)} poses")
    if not batch:
        return cine_BFYX
    # Places are rounded once: as float32 throughout they would be off by some 1e-5 of a pixel.
    place_BYX2 = affine_grid(_affine(pose).double(), list(cine_BFYX.shape), align_corners=False)
    place_BYX2 = place_BYX2.to(device=cine_BFYX.device, dtype=cine_BFYX.dtype)
    # Outside the sampler reads 0, which is black once the cine begins there.
    seen = grid_sample(
        cine_BFYX - BLACK, place_BYX2, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return (seen + BLACK).clamp(-1.0, 1.0)


def _affine(pose: Pose) -> torch.Tensor:
    """From a place in the result to that in the cine: ``[B, 2, 3]``; the determinant is the squared scale."""
    cosine_B, sine_B = pose.angle_rad_B.cos() * pose.scale_B, pose.angle_rad_B.sin() * pose.scale_B
    turn_B22 = torch.stack([cosine_B, -sine_B, sine_B, cosine_B], dim=1).unflatten(1, (2, 2))
    return torch.cat([turn_B22, pose.shift_B2[:, :, None]], dim=2)
