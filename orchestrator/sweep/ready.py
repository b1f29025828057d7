"""Whether a study can run here: `run` and `plan` ask the same, before Ray or a file is touched."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from methods.data.survey import Survey, survey
from methods.errors import StorageError
from methods.outside import Source
from methods.outside import recorded as recorded_sources
from orchestrator import store
from orchestrator.record import contents, journal
from orchestrator.record.depot import lent
from orchestrator.record.ledger import recorded
from orchestrator.record.provenance import SOURCE, Foreign, refuse_other_source
from orchestrator.store.place import check_folder, default_uri
from orchestrator.study.check import Prepared, images, prepared, runnable, slots_here
from orchestrator.study.file import Study
from orchestrator.study.params import outside
from orchestrator.study.places import place_of_bucket
from orchestrator.sweep import starts, warm


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a study is to run, and where its results go."""

    out: Path
    """The folder that holds a folder per study."""
    mlflow: str | None = None
    """MLflow's tracking URI; by default an SQLite store in `out`."""
    optuna: str | None = None
    """Optuna's database; by default a journal file in the study's folder."""
    address: str | None = "local"
    """A Ray cluster, or "local": this machine, which then must hold a trial. None is an unknown
    machine elsewhere: enough for a plan, not for a sweep."""
    bucket: str | None = None
    """The bucket in which trials keep their files; by default the study's folder, which all
    machines must see then."""

    @property
    def here(self) -> bool:
        """Whether trials run on this machine."""
        return self.address == "local"

    @property
    def store(self) -> str:
        """The tracking URI that is used."""
        return self.mlflow or default_uri(self.out)

    @property
    def depot(self) -> str | None:
        """The bucket as a study records it.

        Raises:
            StorageError: it is none.
        """
        try:
            return place_of_bucket(self.bucket) if self.bucket is not None else None
        except ValueError as error:
            raise StorageError(f"--bucket {error}") from None


@dataclass(frozen=True)
class Ready:
    """A study that can run at a place."""

    prepared: Prepared
    survey: Survey
    """What the data set holds."""
    folder: Path
    earlier: list[warm.Earlier]
    """What an earlier study teaches the samplers, to be written down with this one."""
    sources: Mapping[str, Source]
    """Sources of the study's methods from other packages."""
    starts: starts.Starts
    """The trained weights that its methods start from."""


def ready(study: Study, place: Place) -> Ready:
    """The study as it can run there; starts nothing, and leaves nothing of what it writes to try.

    Raises:
        IsoflopError: the study, the data, the folder, the stores or the resources cannot be used.
    """
    by_method = runnable(study)  # a mistake in the file is reported before anything else
    if place.here:
        with study.lines():
            slots_here(study.resources)
    folder = place.out.absolute() / study.name
    check_folder(place.out, study.name)
    study = recorded(folder, study)
    journal.check(place.optuna)
    store.check(place.store)
    lent.check(folder, place.depot)
    begun = (folder / "study.json").exists()
    with study.lines():
        sources = outside(study)
        kept = recorded_sources(folder / SOURCE) if sources else {}
        began = {name: Foreign(each.place, each.sha256) for name, each in (kept or sources).items()}
        refuse_other_source(study.name, began, sources, kept)
    checked = prepared(study, images(study), by_method, begun=begun)
    content = survey(checked.data)
    with study.lines("data"):
        contents.refuse_other_data(folder, content)
    with study.lines("search", "from"):
        earlier = warm.taken(study, place.store, folder, content.digest)
    known = replace(checked, warm=warm.within(by_method, earlier))
    weights = starts.taken(study, by_method, checked.data.task, folder)
    return Ready(known, content, folder, earlier, sources, weights)
