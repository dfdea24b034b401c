"""A file of a hub becomes a version by its pinned digest, once, or is refused with the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from clewline.errors import (
    ClewlineError,
    Forbidden,
    IntegrityError,
    InvalidInput,
    NotFound,
    NotSupported,
)
from clewline.flow.replay import replay
from clewline.hub.download import DownloadLimits, HubFault
from clewline.hub.import_model import ModelImport, import_model
from clewline.model.registry import Registry, load_predictor
from clewline.project import Project
from clewline.store.lineage import why
from clewline.store.reader import FILE as CATALOG
from clewline.store.reader import CatalogReader
from clewline.store.ref import resolve as found_on_line
from clewline.store.store import Store

QUICK = DownloadLimits(silence_s=0.3, attempts=2)
FILE = "owner/repo/onnx/model.onnx"


def wanted(digest: str | None, source: str = f"hf:{FILE}", **more: Any) -> ModelImport:
    return ModelImport(source=source, name="detector", digest=digest, **more)


def refusal(
    project: Project, store: Store, asked: ModelImport, bounds: DownloadLimits = QUICK
) -> ClewlineError:
    with pytest.raises(ClewlineError) as told:
        import_model(project, store, asked, bounds)
    assert not list((store.root / "tmp").glob("import-*")), "a partial file stayed"
    return told.value


def test_a_file_of_the_hub_is_sealed_and_answers(
    hub: Any, project: Project, store: Store, onnx_file: bytes
) -> None:
    digest = hub.put(FILE, onnx_file)
    version = import_model(project, store, wanted(digest, f"hf:{FILE}@v1"), QUICK)
    package = Registry(project, store).open("detector@1")
    predictor = load_predictor(package)
    predictor.close()
    origin = package.manifest.origin
    assert origin is not None
    assert (origin.revision, origin.commit, origin.licence) == ("v1", "c0ffee" + "0" * 34, "mit")
    assert package.files["model.onnx"] == onnx_file
    assert f"sha256:{origin.sha256}" == digest
    assert len(msgspec.json.decode(package.files["background.json"])) == 70
    assert version.runtime == "onnx"
    reader = CatalogReader(store.root / CATALOG)
    line = repr(why(reader, found_on_line(reader, "detector@1")))
    assert f"hf:{FILE}@v1" in line
    assert str(origin.commit) in line
    assert version.run is not None
    with pytest.raises(NotSupported, match="No pipeline made it"):
        replay(project, store, version.run, prepare=lambda root: None)


def test_the_same_digest_touches_no_network_again(
    hub: Any, project: Project, store: Store, onnx_file: bytes
) -> None:
    digest = hub.put(FILE, onnx_file)
    first = import_model(project, store, wanted(digest), QUICK)
    hub.asked.clear()
    assert import_model(project, store, wanted(digest), QUICK) == first
    other = msgspec.structs.replace(wanted(digest), name="another")
    assert import_model(project, store, other, QUICK).number == 1
    assert hub.asked == []


def test_a_file_from_a_disk_satisfies_an_address_without_a_network(
    hub: Any, project: Project, store: Store, onnx_file: bytes, tmp_path: Path
) -> None:
    digest = hub.put(FILE, onnx_file)
    path = tmp_path / "brought.onnx"
    path.write_bytes(onnx_file)
    first = import_model(project, store, wanted(digest, str(path)), QUICK)
    assert import_model(project, store, wanted(digest), QUICK) == first
    assert hub.asked == []


@pytest.mark.parametrize("lfs", [True, False])
def test_without_a_digest_the_error_names_the_found_one(
    hub: Any, project: Project, store: Store, onnx_file: bytes, lfs: bool
) -> None:
    hub.lfs = lfs
    digest = hub.put(FILE, onnx_file)
    told = refusal(project, store, wanted(None))
    assert digest in str(told)
    assert f"--digest {digest}" in (told.fix or "")
    assert hub.methods("cdn") == []
    assert ("GET /owner/repo/resolve/main/onnx/model.onnx" in hub.methods()) is not lfs


def test_another_digest_is_refused_before_the_file_is_fetched(
    hub: Any, project: Project, store: Store, onnx_file: bytes
) -> None:
    digest = hub.put(FILE, onnx_file)
    pinned = "sha256:" + "0" * 64
    told = refusal(project, store, wanted(pinned))
    assert isinstance(told, IntegrityError)
    assert digest in told.message
    assert pinned in told.message
    assert hub.methods("cdn") == []


def test_a_cdn_that_gives_other_bytes_is_found_out(
    hub: Any, project: Project, store: Store, onnx_file: bytes
) -> None:
    digest = hub.put(FILE, onnx_file)
    hub.cdn_says = onnx_file[:-1] + b"!"
    assert isinstance(refusal(project, store, wanted(digest)), IntegrityError)


def test_a_body_that_breaks_off_is_begun_again_and_given_up_in_the_end(
    hub: Any, project: Project, store: Store, onnx_file: bytes
) -> None:
    digest = hub.put(FILE, onnx_file)
    hub.cut_times = 5
    told = refusal(project, store, wanted(digest))
    assert isinstance(told, HubFault)
    assert "broke off 2 times" in told.message
    hub.cut_times = 1
    assert import_model(project, store, wanted(digest), QUICK).number == 1


def test_a_body_that_stops_is_given_up(
    hub: Any, project: Project, store: Store, onnx_file: bytes
) -> None:
    digest = hub.put(FILE, onnx_file)
    hub.cut_times, hub.stalls = 5, True
    assert isinstance(refusal(project, store, wanted(digest)), HubFault)


def test_a_body_that_crawls_is_given_up_at_once(
    hub: Any, project: Project, store: Store, onnx_file: bytes
) -> None:
    digest = hub.put(FILE, onnx_file)
    told = refusal(project, store, wanted(digest), DownloadLimits(grace_s=0.0, bytes_per_s=1e15))
    assert "too slow" in told.message
    assert len(hub.methods("cdn")) == 1


def test_a_file_over_the_limit_is_refused_by_its_stated_and_by_its_real_size(
    hub: Any, project: Project, store: Store, onnx_file: bytes
) -> None:
    digest = hub.put(FILE, onnx_file)
    small = DownloadLimits(size_bytes=100)
    assert "more than the limit of 100 B" in refusal(project, store, wanted(digest), small).message
    assert hub.methods("cdn") == []
    hub.plain["/big"] = (200, {"Content-Length": None, "Connection": "close"}, onnx_file)
    there = wanted(digest, f"{hub.url}/big")
    assert "more than the limit of 100 B" in refusal(project, store, there, small).message


def test_a_token_is_shown_to_the_hub_alone(
    hub: Any, project: Project, store: Store, onnx_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hub.put("secret/gated/m.onnx", onnx_file)
    gated = wanted(digest, "hf:secret/gated/m.onnx")
    told = refusal(project, store, gated)
    assert isinstance(told, Forbidden)
    assert "GatedRepo" in told.message
    assert "HF_TOKEN" in (told.fix or "")
    monkeypatch.setenv("HF_TOKEN", "right")
    assert import_model(project, store, gated, QUICK).number == 1
    shown = {(role, headers.get("Authorization")) for role, *_, headers in hub.asked[2:]}
    assert ("hub", "Bearer right") in shown
    assert ("cdn", None) in shown
    assert ("cdn", "Bearer right") not in shown


def test_a_token_is_not_shown_to_other_servers(
    hub: Any, project: Project, store: Store, onnx_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "right")
    digest = hub.put(FILE, onnx_file)
    hub.plain["/m.onnx"] = (200, {}, onnx_file)
    import_model(project, store, wanted(digest, f"{hub.cdn}/m.onnx"), QUICK)
    assert [headers.get("Authorization") for *_, headers in hub.asked] == [None]


def test_a_missing_file_names_those_that_are_there(
    hub: Any, project: Project, store: Store, onnx_file: bytes
) -> None:
    digest = hub.put(FILE, onnx_file)
    told = refusal(project, store, wanted(digest, "hf:owner/repo/model.onnx"))
    assert isinstance(told, NotFound)
    assert "onnx/model.onnx" in (told.fix or "")
    told = refusal(project, store, wanted(digest, f"hf:{FILE}@v9"))
    assert "no revision v9" in told.message


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("http://example.com/m.onnx", "plain HTTP"),
        ("file:///etc/passwd", "not an address"),
        ("/owner/repo/resolve/main/onnx/model.onnx", "more than 5 times"),
    ],
)
def test_redirects_out_of_https_or_in_circles_are_refused(
    hub: Any, project: Project, store: Store, onnx_file: bytes, to: str, reason: str
) -> None:
    digest = hub.put(FILE, onnx_file)
    hub.to = to
    told = refusal(project, store, wanted(digest))
    assert isinstance(told, InvalidInput)
    assert reason in told.message


def test_an_error_without_a_network_names_the_way_without_one(
    hub: Any, project: Project, store: Store, onnx_file: bytes
) -> None:
    digest = hub.put(FILE, onnx_file)
    hub.close()
    told = refusal(project, store, wanted(digest))
    assert isinstance(told, HubFault)
    assert "models import FILE --digest" in (told.fix or "")


def test_a_pickle_that_calls_itself_onnx_is_refused_and_never_loaded(
    hub: Any, project: Project, store: Store
) -> None:
    digest = hub.put(FILE, b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x05touch\x85R.")
    told = refusal(project, store, wanted(digest))
    assert "a pickle" in str(told)
    assert Registry(project, store).list() == []
