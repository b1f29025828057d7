"""What a study read, in short: counts and SHA-256 sums, one of which changes with the data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, kw_only=True)
class PartDigest:
    """One part of a data set, as its owner divided it."""

    images: int
    sha256: str
    """Digest of names, labels and contents, in order."""
    sizes: Mapping[str, int]
    """Such as 32x48 (height, width) -> images stored so; the most common ones."""
    modes: Mapping[str, int]
    """Pillow's mode, such as L or RGB -> images stored so."""


@dataclass(frozen=True, kw_only=True)
class Digest:
    """A data set as one study read it."""

    sha256: str
    """Digest of all parts and the names of the classes."""
    parts: Mapping[str, PartDigest]
    """By role, of train, validation and test."""
    splits: Mapping[str, str]
    """By role: SHA-256 of the labelled contents that the study has there, whatever their names and
    their order. Two studies with one value for `test` are tested on the same images."""
    duplicates: Mapping[str, int] = field(default_factory=dict)
    """By role: its images whose pixels also stand in a split that is used before it (training
    before validation before test)."""
    sampled: int | None = None
    """Images whose content is in the sums, where a data set is too large for all of them."""

    @property
    def shared_test(self) -> int:
        """Test images whose pixels also stand in training or validation."""
        return self.duplicates.get("test", 0)

    def differing(self, other: "Digest") -> list[str]:
        """The parts that two readings of a data set do not share, or that differ."""
        roles = [role for role in (*self.parts, *other.parts) if role in ROLES]
        return [
            role for role in dict.fromkeys(roles) if self.parts.get(role) != other.parts.get(role)
        ]


ROLES = ("train", "validation", "test")


def encode_digest(digest: Digest) -> dict[str, object]:
    """A digest as a JSON object, without what is not known."""
    return {name: value for name, value in asdict(digest).items() if value is not None}


def decode_digest(content: object) -> Digest:
    """The digest that a JSON object holds; keys that this version does not know are left out.

    Raises:
        ValueError: it is no digest.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"the digest of a data set must be a JSON object, but is {content!r}")
    try:
        return Digest(
            sha256=str(content["sha256"]),
            parts={role: _part(part) for role, part in content["parts"].items()},
            splits=dict(content["splits"]),
            duplicates=dict(content.get("duplicates", {})),
            sampled=content.get("sampled"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the digest of a data set must be complete, but: {error}") from None


def _part(content: Mapping[str, object]) -> PartDigest:
    names = ("images", "sha256", "sizes", "modes")
    return PartDigest(**{name: content[name] for name in names})  # type: ignore[arg-type]
