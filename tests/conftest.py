"""What the tests share: a quiet machine without a GPU, and one tiny run of each kind."""

import io
import os
import tarfile

import pytest

from mediswift import runner

# Before torch and transformers are imported. One thread: the same bits here and in a subprocess
os.environ.update(runner.QUIET | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"})
os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Cache folder of this session alone."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["MEDISWIFT_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Folder of the shared runs; to be read only."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def pretrained(runs):
    """Record of a pre-training run on synthetic text, 75 % sparse."""
    from mediswift import pretrain

    return pretrain.pretrain(pretrain.profile("tiny"), runs)


@pytest.fixture(scope="module")
def place(tmp_path_factory, runs, pretrained):
    """Folder of runs that holds the pre-training run alone, to be written into."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / pretrained.id).symlink_to(runs / pretrained.id)
    return folder


@pytest.fixture(scope="session")
def base(pretrained):
    """Configuration of a fine-tuning run that takes seconds."""
    from mediswift import finetune

    return finetune.profile(
        "tiny", parent=pretrained.id, questions="sample:", batch=30, max_length=160
    )


@pytest.fixture(scope="session")
def hoc_corpus(tmp_path_factory):
    """Address of invented abstracts in HoC's form, each with one of ten labels."""
    from mediswift.hallmarks import LABELS

    path = tmp_path_factory.mktemp("hoc") / "hoc.tar"
    with tarfile.open(path, "w") as tar:
        for i in range(120):
            label = LABELS[i % 10]
            for part, text in (("text", f"About {label} .\n"), ("labels", f"<{label}")):
                member = tarfile.TarInfo(f"{part}/{i}.txt")
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
    return f"hoc:{path}"


@pytest.fixture(scope="session")
def tuned(runs, pretrained):
    """Record of a dense fine-tuning run that started from it."""
    from mediswift import finetune

    config = finetune.profile("tiny", parent=pretrained.id, questions="sample:")
    return finetune.finetune(config, runs)


@pytest.fixture
def no_bf16(monkeypatch):
    """A machine like most: its CPU does not multiply bfloat16."""
    monkeypatch.setattr("mediswift.schedule.multiplies_bf16", lambda: False)


@pytest.fixture(scope="session")
def half_kernels(cache):
    """The kernels of bfloat16; on most CPUs their tests are skipped."""
    from mediswift import native

    if native.why_not(native.HALF):
        pytest.skip(native.why_not(native.HALF))
    return native


@pytest.fixture(scope="session")
def kernels(cache):
    """The compiled CPU kernels; without a compiler their tests are skipped."""
    from mediswift import native

    if native.why_not():
        pytest.skip(native.why_not())
    return native
