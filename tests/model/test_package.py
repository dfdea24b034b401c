"""A package opens only when every byte of it is what was sealed."""

import os
import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clewline.errors import Conflict, IntegrityError, NotFound
from clewline.model import package, seal
from clewline.model.package import PackageDraft, PackageMetadata
from clewline.signature.field import Field, Output, Signature
from clewline.store.digest import Digest

SIGNATURE = Signature(
    fields=(Field(name="age", kind="integer", bounds=(17, 90)),),
    output=Output(name="income", task="binary", labels=("<=50K", ">50K")),
)
FILES = {
    "signature.json": msgspec.json.encode(SIGNATURE),
    "model.onnx": bytes(range(256)),
    "equality.json": b'{"rows": 12}',
    "profile.json": b"{}",
    "background.json": b'[{"age": 39}]',
}
METADATA = PackageMetadata(
    name="income",
    number=3,
    runtime="onnx",
    task="binary",
    target="income",
    created=1.5,
    data={"train": {"rows": 12}},
)


def write_package(
    folder: Path, files: dict[str, bytes], metadata: PackageMetadata, key: Path
) -> Digest:
    with PackageDraft(folder.parent, files) as draft:
        return draft.publish(folder, metadata, seal.Sealer.read(key))


class Sealed:
    """A key and a package sealed with it."""

    def __init__(self, root: Path) -> None:
        self.key = root / "keys" / "seal.key"
        self.public = seal.make_keys(self.key)
        self.folder = root / "models" / "income" / "3"
        self.digest = write_package(self.folder, FILES, METADATA, self.key)

    def open(self) -> package.Package:
        return package.open_package(self.folder, self.public, self.digest)

    def replace(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.chmod(0o644)
        path.write_bytes(data)


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    return Sealed(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    return Sealed(tmp_path_factory.mktemp("sealed"))


def every_name(sealed: Sealed) -> list[str]:
    return sorted(path.name for path in sealed.folder.iterdir())


def test_a_package_opens_with_the_bytes_that_were_written(sealed: Sealed) -> None:
    opened = sealed.open()
    assert opened.files == FILES
    assert opened.signature == SIGNATURE
    assert opened.manifest.ref == "income@3"
    assert opened.manifest.data == METADATA.data
    assert opened.digest == sealed.digest
    assert opened.size_bytes == sum(map(len, FILES.values()))


def test_a_flip_at_any_place_of_any_file_is_found(sealed: Sealed) -> None:
    """
    One bit of every byte, and of every seventh where that takes long.

    All bits of seals and bundles are flipped in the tests of those.
    """
    for name in every_name(sealed):
        good = (sealed.folder / name).read_bytes()
        for place in range(0, len(good), 7 if len(good) > 1000 else 1):
            bad = bytearray(good)
            bad[place] ^= 1 << place % 8
            sealed.replace(name, bytes(bad))
            with pytest.raises(IntegrityError):
                sealed.open()
        sealed.replace(name, good)
    sealed.open()


@settings(max_examples=60)
@given(data=st.data())
def test_any_other_content_of_a_file_is_found(shared: Sealed, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(every_name(shared)))
    good = (shared.folder / name).read_bytes()
    bad = data.draw(
        st.one_of(
            st.binary(max_size=40),
            st.integers(0, len(good)).map(lambda end: good[:end]),
            st.binary(min_size=1, max_size=8).map(lambda more: good + more),
        ).filter(lambda value: value != good)
    )
    shared.replace(name, bad)
    try:
        with pytest.raises(IntegrityError):
            shared.open()
    finally:
        shared.replace(name, good)


@pytest.mark.parametrize("name", [".gitignore", ".hidden", "extra.txt", "model.skops", "~", "\n"])
def test_an_added_file_is_refused_and_named(sealed: Sealed, name: str) -> None:
    (sealed.folder / name).write_bytes(b"")
    with pytest.raises(IntegrityError) as caught:
        sealed.open()
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", [".git", "folder"])
def test_an_added_folder_is_refused_though_empty(sealed: Sealed, name: str) -> None:
    (sealed.folder / name).mkdir()
    with pytest.raises(IntegrityError, match=name):
        sealed.open()


def test_a_link_in_place_of_a_file_is_refused_though_the_bytes_agree(sealed: Sealed) -> None:
    for name in every_name(sealed):
        path = sealed.folder / name
        aside = sealed.folder.parent / name
        path.rename(aside)
        path.symlink_to(aside)
        with pytest.raises(IntegrityError, match=name):
            sealed.open()
        path.unlink()
        aside.rename(path)


def test_added_links_and_pipes_are_refused(sealed: Sealed) -> None:
    (sealed.folder / "link").symlink_to("nowhere")
    with pytest.raises(IntegrityError, match="link"):
        sealed.open()
    (sealed.folder / "link").unlink()
    os.mkfifo(sealed.folder / "pipe")
    with pytest.raises(IntegrityError, match="pipe"):
        sealed.open()


def test_a_missing_file_is_named(sealed: Sealed) -> None:
    for name in every_name(sealed):
        path = sealed.folder / name
        good = path.read_bytes()
        path.unlink()
        with pytest.raises(IntegrityError, match=name):
            sealed.open()
        path.write_bytes(good)
    sealed.open()


def test_every_changed_file_is_named_at_once(sealed: Sealed) -> None:
    sealed.replace("model.onnx", b"other")
    sealed.replace("profile.json", b"other")
    (sealed.folder / "more").touch()
    with pytest.raises(IntegrityError) as caught:
        sealed.open()
    for name in ("model.onnx changed", "profile.json changed", "'more' not listed"):
        assert name in str(caught.value)


def test_a_package_sealed_with_another_key_is_refused(sealed: Sealed, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    seal.make_keys(other)
    shutil.rmtree(sealed.folder)
    write_package(sealed.folder, FILES, METADATA, other)
    with pytest.raises(IntegrityError, match=r"not with the project's"):
        sealed.open()


def test_another_sealed_package_in_its_place_is_refused(sealed: Sealed) -> None:
    """The seal holds, and the digest that the catalog recorded does not."""
    shutil.rmtree(sealed.folder)
    other = msgspec.structs.replace(METADATA, number=2)
    write_package(sealed.folder, FILES, other, sealed.key)
    with pytest.raises(IntegrityError, match="not the recorded"):
        sealed.open()
    assert package.open_package(sealed.folder, sealed.public).manifest.ref == "income@2"


def test_a_package_is_never_written_over(sealed: Sealed) -> None:
    with pytest.raises(Conflict):
        write_package(sealed.folder, FILES, METADATA, sealed.key)
    sealed.open()
    assert [path.name for path in sealed.folder.parent.iterdir()] == ["3"]  # no draft is left


def test_a_folder_that_is_not_there_is_said_to_be_so(sealed: Sealed) -> None:
    with pytest.raises(NotFound, match="no package"):
        package.open_package(sealed.folder.parent / "4", sealed.public)


@pytest.mark.parametrize("name", ["../out", "a/b", ".dot", "", "seal.json", "manifest.json"])
def test_a_file_name_that_leaves_the_folder_or_is_ours_is_refused(
    tmp_path: Path, name: str
) -> None:
    seal.make_keys(tmp_path / "key")
    with pytest.raises(ValueError, match="name of a file"):
        write_package(tmp_path / "p", {**FILES, name: b""}, METADATA, tmp_path / "key")
    assert not (tmp_path / "p").exists()


def test_content_is_equal_whenever_model_signature_and_profile_are() -> None:
    same = {**FILES, "equality.json": b"other versions"}
    assert package.content_digest(same) == package.content_digest(FILES)
    for name in set(FILES) - {"equality.json"}:
        assert package.content_digest({**FILES, name: b"x"}) != package.content_digest(FILES)


def test_a_package_is_durable_before_it_has_its_name_and_its_name_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a loss of power leaves a version whose files are empty."""
    events: list[tuple[str, str]] = []
    sync, rename = os.fsync, Path.rename

    def synced(file: int) -> None:
        events.append(("sync", os.readlink(f"/proc/self/fd/{file}")))
        sync(file)

    def renamed(self: Path, target: Path) -> Path:
        events.append(("rename", str(target)))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    made = Sealed(tmp_path)
    at = events.index(("rename", str(made.folder)))
    before = [path for kind, path in events[:at] if kind == "sync"]
    draft = Path(before[-1])
    assert draft.parent == made.folder.parent.parent or draft.parent == made.folder.parent
    for name in every_name(made):
        assert str(draft / name) in before
        assert before.index(str(draft / name)) < len(before) - 1  # the folder comes last
    after = {path for kind, path in events[at:] if kind == "sync"}
    assert {str(made.folder.parent), str(made.folder.parent.parent)} <= after
