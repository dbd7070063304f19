"""The site's document: what a hospital permits. It never travels.

Paths are taken relative to the folder of the document. Secrets appear only as paths of files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from cardionets_core.config.local_site import LocalSource, check_pattern, shape_of_value
from cardionets_core.config.patterns import SITE_NAME
from cardionets_core.config.read import Document, DocumentT, parse_document, read_mapping


class ConvertedCines(Document):
    """Cines of UK Biobank that were already converted to NIfTI, in the layout of the ukbb_cardiac scripts.

    A folder for each person and instance holds ``la_4ch``, ``la_2ch``, ``la_3ch`` and ``sa`` as ``.nii.gz``
    or ``.nii``; other files in it are passed over.
    """

    folder: Path
    pattern: str = Field(
        default="{eid}_{instance}/*",
        description="{eid}, {instance} and * as in glob, relative to folder",
    )
    instance: int = Field(default=2, ge=0, le=9, description="where the pattern has no {instance}")

    @field_validator("pattern")
    @classmethod
    def _placeholders(cls, value: str) -> str:
        return check_pattern(value, placeholders=("eid", "instance"))


_OneOrMorePaths = Annotated[
    Annotated[Path, Tag("(path)")] | Annotated[tuple[Path, ...], Tag("(list)")],
    Discriminator(
        shape_of_value,
        custom_error_type="wrong_shape",
        custom_error_message="give a path, or a list of paths",
    ),
]


class UkBiobankSource(Document):
    """UK Biobank downloads as they lie on disk (FORMATS sections 1 to 3)."""

    kind: Literal["uk_biobank"]
    ecg: Path | None = Field(default=None, description="folder of {eid}_20205_{instance}_{array}.xml")
    cmr: _OneOrMorePaths | None = Field(
        default=None, description="folder or folders of {eid}_20208_{instance}_{array}.zip and 20209"
    )
    converted: ConvertedCines | None = None
    table: _OneOrMorePaths | None = Field(
        default=None,
        description="CSV, tab or Parquet: fields 24100-24181, 31, 21003, 41270; one file or several",
    )
    diagnoses: Path | None = Field(default=None, description="table: eid, icd10; or eid and field 41270")
    withdrawals: Path | None = Field(default=None, description="folder that holds w*_*.csv, or one such file")

    @property
    def cmr_folders(self) -> tuple[Path, ...]:
        """The folders of zips, however they were written."""
        return _as_tuple(self.cmr)

    @property
    def tables(self) -> tuple[Path, ...]:
        """The tables, however they were written."""
        return _as_tuple(self.table)

    @model_validator(mode="after")
    def _holds_something(self) -> UkBiobankSource:
        if self.ecg is None and not self.cmr_folders and self.converted is None:
            raise ValueError("give ecg, cmr or converted")
        return self


class MimicSource(Document):
    """A MIMIC-IV-ECG tree (FORMATS section 4)."""

    kind: Literal["mimic_iv_ecg"]
    root: Path = Field(description="folder that holds record_list.csv and files/")
    diagnoses: Path | None = Field(
        default=None, description="records_w_diag_icd10.csv of MIMIC-IV-ECG-Ext-ICD"
    )
    withdrawals: Path | None = Field(default=None, description="file: one subject_id a line")


def _as_tuple(paths: Path | tuple[Path, ...] | None) -> tuple[Path, ...]:
    if paths is None:
        return ()
    return paths if isinstance(paths, tuple) else (paths,)


SourceConfig = Annotated[UkBiobankSource | MimicSource | LocalSource, Field(discriminator="kind")]


class Device(Document):
    """Where the site computes."""

    name: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?|auto)$")
    threads: int = Field(
        default=1, ge=1, le=256, description="CPU threads; part of bit-for-bit repeatability"
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="bf16: matrix products under autocast; losses and norms stay in fp32"
    )
    compile: bool = Field(default=False, description="torch.compile of the transformer blocks")
    prefetch: int = Field(
        default=0, ge=0, le=64, description="batches made ahead in a thread, pinned for a GPU; same bytes"
    )


class Split(Document):
    """Shares of patients; the rest is for training. The salt keeps the split the same as data is added."""

    validation: float = Field(default=0.1, ge=0, lt=1)
    test: float = Field(default=0.2, ge=0, le=1)

    @model_validator(mode="after")
    def _at_most_everybody(self) -> Split:
        if self.validation + self.test > 1:
            raise ValueError("validation and test are shares of the patients: together at most 1")
        return self


class Prepare(Document):
    """How records become the cache."""

    split: Split = Split()
    views: tuple[Literal["4ch", "2ch", "3ch", "sax"], ...] = Field(
        default=("4ch",), min_length=1, description="views of cines to keep; of a short axis its middle slice"
    )
    workers: int = Field(default=1, ge=1, le=64)


class Disclosure(Document):
    """How finely metrics are told; docs/threat-model.md says what each still discloses."""

    histograms: Literal["fine", "coarse"] = Field(
        default="fine", description="scores of held-out patients: in 2,048 bins, or in 64"
    )


class PrivacyPolicy(Document):
    """What may be spent of a patient's privacy, over all studies together and for ever."""

    required: bool = Field(
        default=False, description="whether only studies with differential privacy may train here"
    )
    maximum_epsilon: float = Field(default=8.0, gt=0, description="of all private studies together")
    maximum_delta: float = Field(default=1e-5, gt=0, le=1e-3)
    deterministic: bool = Field(
        default=False, description="for made-up patients alone: allow noise that anybody can compute"
    )


class Policy(Document):
    """What the site permits; a study that passes a cap is refused with the cap's name."""

    phases: tuple[str, ...] = Field(description="tasks that may run here")
    role: Literal["member", "external"] = Field(
        default="member", description="external: models are measured here, never trained"
    )
    minimum_patients: int = Field(default=20, ge=5, description="fewest training patients behind any reply")
    minimum_cell: int = Field(default=5, ge=1, description="fewest held-out patients behind any metric sum")
    cohort_sizes: bool = Field(
        default=True, description="whether the coordinator is told how many patients and recordings there are"
    )
    maximum_rounds: int = Field(default=1000, ge=1)
    maximum_reply_bytes: int = Field(default=2_000_000_000, ge=1)
    maximum_text_bytes: int = Field(default=1_000_000, ge=1, description="of all names and texts of a reply")
    count_rounding: int = Field(
        default=1, ge=1, le=1000, description="counts leave as multiples of this; 1 leaves them exact"
    )
    disclosure: Disclosure = Disclosure()
    privacy: PrivacyPolicy = PrivacyPolicy()


class Folders(Document):
    """Where the site keeps what must last."""

    cache: Path = Path("cache")
    state: Path = Path("state")
    secret: Path = Field(
        default=Path("secret/pseudonym.key"), description="key of the keyed HMAC; made if absent"
    )


class SiteConfig(Document):
    """A whole site document; all paths are absolute once it is read."""

    schema_version: Literal[1] = 1
    site: str = Field(pattern=SITE_NAME)
    source: SourceConfig
    device: Device = Device()
    prepare: Prepare = Prepare()
    policy: Policy
    folders: Folders = Folders()

    @field_validator("site")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value == "pooled":
            raise ValueError("'pooled' is the name of a comparison, not of a site")
        return value

    @model_validator(mode="after")
    def _somebody_to_train_on(self) -> SiteConfig:
        split = self.prepare.split
        if self.policy.role == "member" and split.validation + split.test >= 1:
            raise ValueError("prepare.split: validation and test leave nobody to train on")
        return self


def read_site(path: Path) -> SiteConfig:
    """Read ``site.yaml`` and make its paths absolute, relative to the document's folder.

    Raises:
        ConfigError: every fault of the document at once.
    """
    config = parse_document(SiteConfig, read_mapping(path), where=str(path))
    return _absolute(config, path.resolve().parent)


def _absolute(document: DocumentT, base: Path) -> DocumentT:
    changes = {name: _placed(getattr(document, name), base) for name in type(document).model_fields}
    return document.model_copy(update=changes)


def _placed(value: object, base: Path) -> object:
    """The value with every path in it absolute."""
    if isinstance(value, Path):
        return value.expanduser() if value.expanduser().is_absolute() else base / value
    if isinstance(value, Document):
        return _absolute(value, base)
    if isinstance(value, tuple):
        return tuple(_placed(item, base) for item in value)
    return value
