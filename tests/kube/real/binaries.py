"""etcd, kube-apiserver and kube-controller-manager: those in a folder that is named; or Debian's
etcd, and the others built from the source package of Debian 12, the last that holds them (1.20)."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ENVTEST = "KUBEBUILDER_ASSETS"
"""The variable that names a folder with all three; controller-runtime's `setup-envtest` makes one
with the first two."""
SERVERS = ("kube-apiserver", "kube-controller-manager")
BUILT = Path(__file__).parents[3] / "build" / "kube"
REFLECT = Path("/usr/share/gocode/src/github.com/modern-go/reflect2")
"""Debian's copy of a package that the source brings too old for Go 1.18 and newer: there the server
ends with a fault of memory at the first RayJob."""
NEEDS = {
    "etcd": "etcd-server",
    "go": "golang",
    "make": "make",
    "rsync": "rsync",
    "dpkg-source": "dpkg-dev",
}
"""Command -> Debian's package of it."""
STAMP = {
    "KUBE_GIT_VERSION": "v1.20.2",
    "KUBE_GIT_MAJOR": "1",
    "KUBE_GIT_MINOR": "20",
    "KUBE_GIT_COMMIT": "debian",
    "KUBE_GIT_TREE_STATE": "clean",
}
"""What the server says of itself; the source package has no repository that would."""


class Missing(Exception):
    """There is no API server to be had; the message says what would help."""


@dataclass(frozen=True)
class Binaries:
    """What an API server is made of."""

    etcd: Path
    apiserver: Path
    controllers: Path


def binaries() -> Binaries:
    """Those of this machine, built at the first call.

    Raises:
        Missing: there are none, and they cannot be built.
    """
    if folder := os.environ.get(ENVTEST):
        found = [Path(folder) / name for name in ("etcd", *SERVERS)]
        if absent := [path.name for path in found if not path.exists()]:
            raise Missing(f"{folder}, which {ENVTEST} names, has no {' and no '.join(absent)}")
        return Binaries(*found)
    etcd = shutil.which("etcd")
    if etcd is None or not all((BUILT / name).exists() for name in SERVERS):
        _build()
    return Binaries(Path(shutil.which("etcd") or "etcd"), *(BUILT / name for name in SERVERS))


def _build() -> None:
    """Build the servers, which takes some 10 minutes of CPU."""
    packages = [package for name, package in NEEDS.items() if shutil.which(name) is None]
    packages += [] if REFLECT.exists() else ["golang-github-modern-go-reflect2-dev"]
    if packages or shutil.which("apt-get") is None:
        raise Missing(
            f"{ENVTEST} names no folder with etcd and {' and '.join(SERVERS)}, and Debian 12 with "
            f"{', '.join(packages) or 'apt-get'} could build them"
        )
    BUILT.mkdir(parents=True, exist_ok=True)
    source = _source(BUILT / "source")
    if not (source / "cmd" / "kube-apiserver").exists():
        raise Missing(
            f"the source package in {source.name} has no API server; that of Debian 12 does"
        )
    vendored = source / "vendor" / "github.com" / "modern-go" / "reflect2"
    for old in (*vendored.glob("*.go"), *vendored.glob("*.s")):
        old.unlink()
    for new in (*REFLECT.glob("*.go"), *REFLECT.glob("*.s")):
        shutil.copy(new, vendored)
    path = source / ".go" / "src" / "k8s.io"
    path.mkdir(parents=True, exist_ok=True)
    if not (path / "kubernetes").is_symlink():
        (path / "kubernetes").symlink_to("../../..")
    place = {"GOPATH": str(source / ".go"), "HOME": str(source), "CGO_ENABLED": "0", **STAMP}
    with (BUILT / "build.log").open("w") as log:
        done = subprocess.run(
            ["make", f"WHAT={' '.join(f'cmd/{name}' for name in SERVERS)}"],
            cwd=source,
            env={**os.environ, **place, "GOFLAGS": "-buildvcs=false"},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        raise Missing(f"the servers could not be built; {log.name} says why")
    for name in SERVERS:
        shutil.move(source / "_output" / "bin" / name, BUILT / name)
    shutil.rmtree(BUILT / "source")


def _source(folder: Path) -> Path:
    """The unpacked source package `kubernetes`; the system's own lists stay as they are."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("lists/partial", "parts"):
        (folder / name).mkdir(parents=True)
    for file in Path("/etc/apt/sources.list.d").glob("*.sources"):
        text = file.read_text().replace("Types: deb\n", "Types: deb-src\n")
        (folder / "parts" / file.name).write_text(text)
    lines = Path("/etc/apt/sources.list")
    text = lines.read_text().replace("deb ", "deb-src ") if lines.exists() else ""
    (folder / "parts" / "main.list").write_text(text)
    options = [
        *("-o", "Dir::Etc::SourceList=/dev/null", "-o", f"Dir::Etc::SourceParts={folder}/parts"),
        *("-o", f"Dir::State::Lists={folder}/lists", "-o", "APT::Sandbox::User=root"),
    ]
    for words in (["update"], ["source", "kubernetes"]):
        done = subprocess.run(
            ["apt-get", "--quiet", *options, *words],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Missing(f"`apt-get {' '.join(words)}` fails: {done.stderr[-500:]}")
    return next(folder.glob("kubernetes-*"))
