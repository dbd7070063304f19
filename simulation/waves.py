"""How a heart shows in its electrical waves: the invented but smooth law that an encoder has to find.

Comes in: a ``Heart``. Goes out: the waves of one beat, and the intervals that a cart's program would print.
Every relation is graded. Only shape carries the message, since a training window is standardised and so
loses its voltage:

* P: the right atrium makes the early wave, the left atrium the late one (to the left and back: the terminal
  force in V1) and the P duration.
* QRS: slow conduction and a large left ventricle widen it; left ventricular volume turns it to the back
  (deep S in V1 to V4), wall thickness raises the leftward force and delays its peak, the right ventricle
  adds a force to the right and front (tall R in V1, S in V6).
* ST and T: a weak, thick or ischaemic ventricle lowers T, turns it away from QRS and shifts ST.
* QT grows with the square root of the cycle (Bazett, Heart 1920).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulation.hearts import Heart


@dataclass(frozen=True, slots=True, kw_only=True)
class Waves:
    """One beat as W asymmetric Gaussians.

    Attributes:
        centre_s: float [W], time of each wave's peak after the middle of the QRS.
        rise_s: float [W], width (SD) before the peak.
        fall_s: float [W], width (SD) after the peak.
        vector_mv: float [W, 3], Frank x (left), y (feet), z (back).
        jitter: float [W], relative change of size from beat to beat.
        follows_rate: float [W], seconds by which the centre moves per unit of relative sqrt(RR).
    """

    centre_s: np.ndarray
    rise_s: np.ndarray
    fall_s: np.ndarray
    vector_mv: np.ndarray
    jitter: np.ndarray
    follows_rate: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """Intervals of a beat in ms."""

    p_ms: float
    pq_ms: float
    qrs_ms: float
    qt_ms: float
    rr_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scores:
    """The heart on scales where 0 is average and 1 is a marked deviation."""

    volume: float
    ejection: float
    wall: float
    right: float
    left_atrium: float
    right_atrium: float


def _scores(heart: Heart) -> _Scores:
    return _Scores(
        volume=float(np.log(heart.lv_end_diastolic_ml / 150.0)) / 0.30,
        ejection=(heart.ejection_fraction - 0.58) / 0.10,
        wall=float(np.log(heart.wall_thickness_mm / 7.8)) / 0.28,
        right=float(np.log(heart.rv_end_diastolic_ml / 162.0)) / 0.30,
        left_atrium=float(np.log(heart.la_max_ml / 72.0)) / 0.35,
        right_atrium=float(np.log(heart.ra_max_ml / 80.0)) / 0.35,
    )


def intervals_of(heart: Heart) -> Intervals:
    """P, PQ, QRS, QT and RR of a heart."""
    score = _scores(heart)
    trait = heart.traits
    rr_s = 60.0 / heart.heart_rate_bpm
    p_ms = 104.0 + 13.0 * score.left_atrium + 3.0 * score.right_atrium + 8.0 * trait[0]
    qrs_ms = 84.0 + heart.conduction_delay_ms + 7.0 * score.volume + 2.0 * score.wall + 6.0 * trait[1]
    corrected = 404.0 - 6.0 * score.ejection + 5.0 * score.wall + 8.0 * trait[2]
    qt_ms = corrected * np.sqrt(rr_s) + 0.35 * (qrs_ms - 92.0)
    pq_ms = 150.0 + 0.35 * heart.conduction_delay_ms + 0.4 * (p_ms - 104.0) + 9.0 * trait[3]
    return Intervals(
        p_ms=float(np.clip(p_ms, 70, 160)),
        pq_ms=float(np.clip(pq_ms, np.clip(p_ms, 70, 160) + 16, 260)),
        qrs_ms=float(np.clip(qrs_ms, 70, 190)),
        qt_ms=float(np.clip(qt_ms, 290, 540)),
        rr_ms=1000.0 * rr_s,
    )


def waves_of(heart: Heart) -> Waves:
    """The waves of one beat of a heart."""
    score, trait, interval = _scores(heart), heart.traits, intervals_of(heart)
    quiet = float(np.exp(-0.55 * heart.effusion))
    half = interval.qrs_ms / 2000.0
    slow = float(np.clip((interval.qrs_ms - 100.0) / 50.0, 0.0, 1.6))

    axis = np.radians(heart.axis_degrees)
    left = quiet * 1.15 * float(np.exp(0.34 * score.wall + 0.06 * score.volume + 0.13 * trait[4]))
    back = quiet * 0.78 * float(np.exp(0.48 * score.volume + 0.27 * trait[5]))
    front = quiet * 0.30 * float(np.exp(0.75 * score.right + 0.27 * trait[6]))
    septal = quiet * 0.34 * float(np.exp(0.15 * score.wall - 0.5 * slow))
    main = np.array([np.cos(axis), np.sin(axis), 0.22])

    # T and ST: along a mean direction that turns away from QRS as the ventricle weakens or thickens.
    height = 0.44 + 0.13 * score.ejection - 0.10 * score.wall - 0.22 * heart.ischaemia + 0.08 * trait[7]
    height = 0.10 + 0.55 * float(np.tanh((height - 0.10) / 0.55))
    turn = np.radians(
        24.0 - 13.0 * score.ejection + 13.0 * score.wall + 14.0 * heart.ischaemia + 11.0 * trait[10]
    )
    t_axis = 0.55 * axis + 0.45 * np.radians(40.0)
    t_direction = rotation(np.array([0.0, turn, 0.0])) @ np.array([np.cos(t_axis), np.sin(t_axis), -0.15])
    st = 0.05 * score.ejection - 0.055 * score.wall - 0.10 * heart.ischaemia
    st_vector = np.clip(st, -0.3, 0.1) * t_direction + 0.13 * heart.effusion * np.array([0.8, 0.8, -0.2])

    p_half = interval.p_ms / 2000.0
    p_middle = -half - interval.pq_ms / 1000.0 + p_half
    right_p = 0.115 * float(np.exp(0.65 * score.right_atrium + 0.32 * trait[8]))
    left_p = 0.105 * float(np.exp(0.75 * score.left_atrium + 0.40 * trait[9]))

    t_width = 0.042 + 0.010 * (interval.qt_ms - 380.0) / 100.0 + 0.006 * max(0.0, -score.ejection)
    t_width = float(np.clip(t_width, 0.03, 0.075))
    t_peak = interval.qt_ms / 1000.0 - half - 1.9 * t_width
    late = 0.004 * float(np.tanh(score.wall)) + 0.004 * slow
    q = half / 0.046

    rows = [
        # centre, rise, fall, vector, jitter
        (
            p_middle - 0.42 * p_half,
            0.40 * p_half,
            0.42 * p_half,
            right_p * np.array([0.35, 0.85, -0.45]),
            0.05,
        ),
        (p_middle + 0.38 * p_half, 0.42 * p_half, 0.36 * p_half, left_p * np.array([0.75, 0.30, 0.80]), 0.05),
        (-0.56 * half, 0.0070 * q, 0.0075 * q, septal * np.array([-0.40, 0.0, -0.85]), 0.03),
        (0.02 * half + late, 0.0090 * q, 0.0085 * q, left * (1 - 0.22 * slow) * main, 0.03),
        (0.34 * half, 0.0095 * q, 0.0090 * q, front * np.array([-0.80, 0.12, -0.68]), 0.03),
        (0.48 * half, 0.0100 * q, 0.0085 * q, back * np.array([-0.12, -0.12, 0.95]), 0.03),
        (0.52 * half + late, 0.0080 * q, 0.0080 * q, 0.55 * slow * left * main, 0.04),
        (0.5 * (half + t_peak), 0.30 * (t_peak - half), 0.30 * (t_peak - half), st_vector, 0.05),
        (t_peak, 1.35 * t_width, 0.85 * t_width, height * t_direction, 0.07),
    ]
    return Waves(
        centre_s=np.array([row[0] for row in rows]),
        rise_s=np.array([row[1] for row in rows]),
        fall_s=np.array([row[2] for row in rows]),
        vector_mv=np.array([row[3] for row in rows]),
        jitter=np.array([row[4] for row in rows]),
        follows_rate=np.array([0.0] * 7 + [0.5 * t_peak, t_peak]),
    )


def rotation(angles_rad: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles_rad), np.sin(angles_rad)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
