"""Whether the data on this machine are those that a published study read."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from methods import outside
from methods.api import Task
from methods.data.digest import Digest
from methods.data.load import Data
from methods.data.sources import at_hand
from methods.data.survey import survey
from methods.errors import DataError, StorageError
from orchestrator.record import contents
from orchestrator.record.depot import Folder
from orchestrator.record.provenance import Provenance
from orchestrator.results.findings import Findings
from orchestrator.study.check import reading
from orchestrator.study.file import Study
from orchestrator.trial.start import file_of, kept

logger = logging.getLogger(__name__)

Reader = Callable[[Study], Digest | None]
"""The digest of a study's data on this machine; None if they are not here."""


def digest_here(study: Study) -> Digest | None:
    """The digest of a study's data on this machine; None if they are not here.

    Raises:
        DataError: they are here, but cannot be read.
    """
    if not at_hand(study.data):
        return None
    return survey(reading(study).load(seed=study.seed)).digest


def check_data(study: Study, recorded: Digest | None, reader: Reader, findings: Findings) -> None:
    """Compare the data on this machine with those that a study read, or note why not."""
    if recorded is None:
        findings.notes.append("The study recorded no digest of its data: they were not checked.")
        return
    try:
        digest = reader(study)
    except DataError as error:
        findings.same("data", study.data, "digest", recorded.sha256, f"cannot be read: {error}")
        return
    if digest is None:
        findings.notes.append(
            f"The data ({study.data}) are not on this machine: they were not compared with the "
            "digest "
            "that the study recorded."
        )
        return
    for role in dict.fromkeys((*recorded.parts, *digest.parts)):
        sums = [
            parts[role].sha256 if role in parts else "no such part"
            for parts in (recorded.parts, digest.parts)
        ]
        findings.same("data", study.data, f"digest of {role}", sums[0], sums[1])
    findings.same("data", study.data, "digest", recorded.sha256, digest.sha256)


def check_sources(provenance: Provenance, folder: Path, findings: Findings) -> None:
    """Compares the source of methods of other packages with what a study began with: as its folder
    keeps it, and as it lies here."""
    if not provenance.methods:
        return
    kept: Mapping[str, outside.Source] = {}
    try:
        kept = outside.recorded(folder)
    except StorageError as error:
        findings.same("methods: source", str(folder), "record", "whole", str(error))
    for name, began in provenance.methods.items():
        record = kept.get(name)
        if record is not None:
            findings.same(
                "methods: source", f"{folder}", f"SHA-256 of {name}", began.sha256, record.sha256
            )
        package = began.place.partition(":")[0].partition(".")[0]
        here = outside.here(began.place, record.packages if record else [package])
        if here is not None:
            findings.same("methods: source", name, "SHA-256 here", began.sha256, here.sha256)
        elif record is None:
            findings.notes.append(
                f"The source of {name} ({began.place}) is missing here: it was not compared "
                "with the digest that the study recorded."
            )


def check_starts(provenance: Provenance, folder: Path, findings: Findings) -> None:
    """Compares the trained weights that a study's folder keeps with those that it began with."""
    task = Task("", *provenance.image, provenance.classes)
    for name, origin in provenance.starts.items():
        if not origin.sha256:  # a base is a trial
            continue
        if not (folder / file_of(origin)).exists():
            findings.notes.append(
                f"The weights that {name} started from ({origin.name}) are missing here: they were "
                "not compared with the digest that the study recorded."
            )
            continue
        try:
            present = kept(Folder(folder), file_of(origin), task).sha256
        except StorageError as error:
            present = str(error)
        findings.same("methods: trained weights", name, "SHA-256", origin.sha256, present)


def refuse_other_data(folder: Path, provenance: Provenance, data: Data) -> Digest | None:
    """The digest that a study recorded of `data`, which is refused if it differs.

    None where the study recorded none, which is logged.

    Raises:
        StudyError: says what changed, as far as the study's folder tells.
    """
    recorded, now = provenance.data, survey(data)
    if recorded is None:
        logger.warning(
            "study %r recorded no digest of its data: whether they are those that it was trained "
            "on was not checked",
            folder.name,
        )
        return None
    if recorded.sha256 != now.digest.sha256:
        contents.refuse_other_data(folder, now)
    contents.refuse_other_digest(folder.name, recorded, now.digest)
    return recorded
