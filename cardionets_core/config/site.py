"""The site's document: what a hospital permits. It never travels.

Paths are taken relative to the folder of the document. Secrets appear only as paths of files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from cardionets_core.config.read import Document, DocumentT, parse_document, read_mapping


class UkBiobankSource(Document):
    """UK Biobank downloads as they lie on disk (FORMATS sections 1 to 3)."""

    kind: Literal["uk_biobank"]
    ecg: Path = Field(description="folder of {eid}_20205_{instance}_{array}.xml")
    cmr: Path | None = Field(default=None, description="folder of {eid}_20208_{instance}_{array}.zip")
    table: Path | None = Field(default=None, description="CSV or tab file with fields 24100-24181")
    diagnoses: Path | None = Field(default=None, description="CSV: eid, icd10")
    withdrawals: Path | None = Field(default=None, description="folder that holds w*_*.csv, or one such file")


class MimicSource(Document):
    """A MIMIC-IV-ECG tree (FORMATS section 4)."""

    kind: Literal["mimic_iv_ecg"]
    root: Path = Field(description="folder that holds record_list.csv and files/")
    diagnoses: Path | None = Field(
        default=None, description="records_w_diag_icd10.csv of MIMIC-IV-ECG-Ext-ICD"
    )


class EcgFiles(Document):
    """A folder of ECG files in one format. CSV files name no rate or unit, so the document must."""

    format: Literal["wfdb", "csv"]
    folder: Path
    rate_hz: float | None = Field(default=None, gt=0)
    unit: Literal["mV", "uV"] | None = None

    @model_validator(mode="after")
    def _csv_is_declared(self) -> EcgFiles:
        if self.format == "csv" and (self.rate_hz is None or self.unit is None):
            raise ValueError("CSV files name no rate and no unit: give rate_hz and unit")
        return self


class CineFiles(Document):
    """A folder of 4-chamber cine files in one format."""

    format: Literal["nifti"]
    folder: Path


class LocalSource(Document):
    """A hospital's own export. Without an index every ECG file counts as a patient of its own."""

    kind: Literal["local_site"]
    ecg: EcgFiles | None = None
    cmr: CineFiles | None = None
    index: Path | None = Field(default=None, description="CSV: patient, visit, ecg, cine (file names)")
    phenotypes: Path | None = Field(default=None, description="CSV: patient, visit, one column a phenotype")
    diagnoses: Path | None = Field(default=None, description="CSV: patient, icd10 (codes split by ;)")

    @model_validator(mode="after")
    def _holds_something(self) -> LocalSource:
        if self.ecg is None and self.cmr is None:
            raise ValueError("give ecg, cmr or both")
        if self.cmr is not None and self.index is None:
            raise ValueError("cmr needs an index that names each cine's patient and visit")
        return self


SourceConfig = Annotated[UkBiobankSource | MimicSource | LocalSource, Field(discriminator="kind")]


class Device(Document):
    """Where the site computes."""

    name: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?|auto)$")
    threads: int = Field(
        default=1, ge=1, le=256, description="CPU threads; part of bit-for-bit repeatability"
    )


class Split(Document):
    """Shares of patients; the rest is for training. The salt keeps the split the same as data is added."""

    validation: float = Field(default=0.1, ge=0, lt=1)
    test: float = Field(default=0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _something_left(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test leave nobody to train on")
        return self


class Prepare(Document):
    """How records become the cache."""

    split: Split = Split()
    views: tuple[Literal["4ch", "2ch", "3ch", "sax"], ...] = Field(
        default=("4ch",), min_length=1, description="views of cines to keep; of a short axis its middle slice"
    )
    workers: int = Field(default=1, ge=1, le=64)


class Policy(Document):
    """What the site permits; a study that passes a cap is refused with the cap's name."""

    phases: tuple[str, ...] = Field(description="tasks that may run here")
    minimum_patients: int = Field(default=20, ge=5, description="fewest training patients behind any reply")
    minimum_cell: int = Field(default=5, ge=1, description="fewest held-out patients behind any metric sum")
    maximum_rounds: int = Field(default=1000, ge=1)
    maximum_reply_bytes: int = Field(default=2_000_000_000, ge=1)


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
    site: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
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


def read_site(path: Path) -> SiteConfig:
    """Read ``site.yaml`` and make its paths absolute, relative to the document's folder.

    Raises:
        ConfigError: every fault of the document at once.
    """
    config = parse_document(SiteConfig, read_mapping(path), where=str(path))
    return _absolute(config, path.resolve().parent)


def _absolute(document: DocumentT, base: Path) -> DocumentT:
    changes: dict[str, object] = {}
    for name in type(document).model_fields:
        value = getattr(document, name)
        if isinstance(value, Path):
            changes[name] = value.expanduser() if value.expanduser().is_absolute() else base / value
        elif isinstance(value, Document):
            changes[name] = _absolute(value, base)
    return document.model_copy(update=changes)
