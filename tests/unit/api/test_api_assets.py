"""The pages' files: what is referred to exists, names follow contents, nothing comes from elsewhere."""

import gzip
import json
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from streampulse.api import assets, page
from streampulse.core.settings import ApiSettings
from streampulse_ops import paths
from streampulse_ops.quality import vendor

PAGES = sorted(file.name for file in assets.FOLDER.glob("*.html"))
OURS = sorted(file for file in assets.FOLDER.iterdir() if file.suffix in (".html", ".css", ".js"))


@pytest.fixture
def client() -> TestClient:
    app = FastAPI(docs_url=None)
    app.include_router(page.pages(ApiSettings(port=1)))
    return TestClient(app)


@pytest.mark.parametrize("name", PAGES)
def test_every_file_that_a_page_needs_is_there_and_leads_to_more_that_are(client: TestClient, name: str) -> None:
    waiting = re.findall(r'(?:href|src)="(/assets/[^"]+)"', assets.page(name))
    assert waiting
    seen = set()
    while waiting:
        address = waiting.pop()
        if address in seen:
            continue
        seen.add(address)
        answer = client.get(address)
        assert answer.status_code == 200, address
        assert "immutable" in answer.headers["cache-control"]
        if "vendor" not in address and answer.headers["content-type"].startswith("text/"):
            waiting += re.findall(r'["(](/assets/[^")]+)["\')]', answer.text)
    if name == "page.html":
        assert {path.split("/")[2].split(".")[0] for path in seen} >= {"page", "table", "charts", "inter", "uplot"}


def test_a_name_is_that_of_a_content(client: TestClient) -> None:
    address = assets.asset("page.css").address
    assert re.fullmatch(r"/assets/page\.[0-9a-f]{12}\.css", address)
    assert client.get(address.replace("page.", "page.0")).status_code == 404
    # A file's references are part of its content, so any change changes the page's own addresses.
    assert assets.asset("format.js").address.encode() in assets.asset("page.js").content


@pytest.mark.parametrize("name", ["page.css", "uplot.js", "inter.woff2", "icon.svg"])
def test_compression_changes_nothing(client: TestClient, name: str) -> None:
    address = assets.asset(name).address
    plain = client.get(address, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    packed = client.get(address, headers={"Accept-Encoding": "gzip"})
    assert packed.content == plain.content == assets.asset(name).content
    if name != "inter.woff2":
        assert packed.headers["content-encoding"] == "gzip"
        assert (
            int(packed.headers["content-length"]) == len(gzip.compress(plain.content, 9, mtime=0)) < len(plain.content)
        )


@pytest.mark.parametrize("path", ["/assets/", "/assets/vendor.json", "/assets/..%2fapp.py", "/assets/page.css"])
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_ours_have_nothing_inline_and_name_no_other_host(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert "//" not in re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE).replace("<!--", "")
    if file.suffix == ".html":
        assert " style=" not in text
        assert not re.search(r"<script(?![^>]* src=)", text)
        assert not re.search(r"\son\w+=", text)
    if file.suffix == ".js":
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)


def test_policies_allow_nothing_inline(client: TestClient) -> None:
    for path in ("/", "/docs"):
        policy = client.get(path).headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "http" not in policy


def test_docs_can_be_turned_off() -> None:
    app = FastAPI(docs_url=None)
    app.include_router(page.pages(ApiSettings(port=1, docs=False)))
    assert TestClient(app).get("/docs").status_code == 404
    assert "/docs" not in TestClient(app).get("/").text


def test_the_log_in_page_escapes_its_problem() -> None:
    assert "<b>" not in page.login_page("<b>")
    assert "&lt;b&gt;" in page.login_page("<b>")


def test_vendored_files_match_their_pins() -> None:
    assert vendor.check(paths.repository()) == []
    manifest = json.loads((paths.repository() / vendor.MANIFEST).read_text())
    lock = json.loads((paths.repository() / vendor.PINS[1]).read_text())["packages"]
    for name, package in manifest.items():
        pinned = lock[f"node_modules/{name}"]
        assert pinned["integrity"].startswith("sha512-"), name
        # Without an address, npm asks the registry that the machine is configured for.
        assert "resolved" not in pinned
        assert (package["version"], package["licence"]) == (pinned["version"], pinned["license"])
        assert any("LICENSE" in file for file in package["files"]), name
    # And nothing lies there that is not.
    listed = {Path(file).name for package in manifest.values() for file in package["files"]}
    assert {file.name for file in (assets.FOLDER / "vendor").iterdir()} <= listed | {"vendor.json"}


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    for source in (paths.repository() / vendor.MANIFEST).parent.iterdir():
        target = root / vendor.MANIFEST
        target.parent.mkdir(parents=True, exist_ok=True)
        (target.parent / source.name).write_bytes(source.read_bytes() + (b" " if source.name == "uplot.js" else b""))
    wrong = vendor.check(root)
    assert any("uplot.js is not that of uplot" in line for line in wrong)
    assert any("axe.js of axe-core is missing" in line for line in wrong)
